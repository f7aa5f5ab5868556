"""Train a recipe into a run folder, or resume one."""

from __future__ import annotations

import logging
import random
import warnings
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from unscene.data import Source
from unscene.data.batches import ordered_batches
from unscene.distributed.processes import is_first_process
from unscene.errors import TrainingError
from unscene.files import write_text, writing
from unscene.ops.cpu_tuning import tune_cpu
from unscene.runs.hardware import describe_machine
from unscene.runs.recipe import Recipe
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import check_weights, export_weights, read_checkpoint
from unscene.training.devices import build_fabric, launch
from unscene.training.loop import TrainingLoop
from unscene.training.samples import SAMPLES, Samples
from unscene.training.signals import Interruption


def train(recipe: Recipe, out: Path, resume: bool = False) -> RunFolder:
    """Train until `trainer.max_steps` or `trainer.max_minutes`.

    Args:
        recipe: the settings.
        out: the run's folder, new or empty; with `resume` that of the run.
        resume: continue from its last checkpoint, or from the first step if it ended before there was one.

    Returns:
        The run's folder, with `weights.safetensors` of the best validation.

    Raises:
        RunError: the folder is in use, or cannot be written.
        TrainingError: the loss is not finite; the message names the term.
        CheckpointError: nothing to resume, its checkpoint is damaged or of another model, or the ImageNet weights that
            a new training begins with cannot be had.
        DataError: the data cannot be used.
        RecipeError: a setting does not fit the machine, the model or the data.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGUSR1, after the current step; the run can be resumed.
    """
    quieten_lightning()
    source, validation = recipe.source(), recipe.source("validation")
    run = RunFolder.open(out) if resume else RunFolder(out)
    if not is_first_process():  # of a distributed training: the first one writes
        _fit(recipe, run, source, validation)
        return run
    with run.lock():
        if not resume:
            RunFolder.create(out, recipe.text())
        with writing(out):
            for folder in (run.checkpoints, run.samples):  # a resumed run may have lost them
                folder.mkdir(exist_ok=True)
        interrupted = _fit(recipe, run, source, validation)
        export_weights(run)
    if interrupted:
        raise KeyboardInterrupt(f"Stopped with a checkpoint. {resume_hint(run)}")
    return run


def _fit(recipe: Recipe, run: RunFolder, source: Source, validation: Source) -> bool:
    """Train; whether a signal ended it."""
    settings = recipe.trainer
    if settings.threads:
        torch.set_num_threads(settings.threads)
    tune_cpu()
    seed_everything(recipe.seed)
    fabric = build_fabric(settings)
    # before the weights are drawn: the loader draws a number as well
    samples = Samples(run, next(iter(ordered_batches(validation, min(SAMPLES, len(validation)), SAMPLES))))
    checkpoint = read_checkpoint(run.last) if run.last.is_file() else None
    model = recipe.build_model(pretrained=checkpoint is None).to(memory_format=torch.channels_last)
    start, validation_due = 0, False
    if checkpoint is not None:
        check_weights(checkpoint["model"], model, run.last, recipe.name)
        model.load_state_dict(checkpoint["model"])
        start, validation_due = checkpoint["step"], checkpoint["validation_due"]
    if is_first_process():
        write_text(run.recipe, recipe.text())  # with the changes of a resumed run, which the next resume keeps
        run.add_environment(describe_machine() | {"seed": recipe.seed, "first_step": start})
    if start >= settings.max_steps and not validation_due:
        if is_first_process():
            tqdm.write(f"{run.path} has had its {start:,} steps; raise --trainer.max_steps to go on.")
        return False
    interruption = Interruption()
    try:
        with interruption:
            launch(fabric)
            TrainingLoop(fabric, recipe, run, model, source, validation, samples, interruption, checkpoint).run_to_end()
    except KeyboardInterrupt:  # a second signal
        raise KeyboardInterrupt(f"Stopped at once. {resume_hint(run)}") from None
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"the device's memory is full. Lower trainer.batch_size. ({error})") from error
    except RuntimeError as error:
        if fabric.world_size == 1 or not is_peer_failure(error):
            raise
        raise TrainingError(
            f"another process of this training ended; its own message says why. {resume_hint(run)}"
        ) from error
    return interruption.asked


def is_peer_failure(error: RuntimeError) -> bool:
    """Whether PyTorch lost the connection to the other processes."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def resume_hint(run: RunFolder) -> str:
    """The command that goes on with a run."""
    return f"Go on with:  unscene train --resume {run.path}"


def seed_everything(seed: int) -> None:
    """Seed every generator that a model or a library may draw from; all processes have the same seed."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def quieten_lightning() -> None:
    """Leave the terminal to the progress bar: environment.json holds what Lightning's notices say."""
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
