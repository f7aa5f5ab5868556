"""Train a recipe into a run folder, or resume a run."""

from __future__ import annotations

import logging
import os
import random
import shlex
import signal
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from unscene.data import Source
from unscene.data.batches import ordered_batches
from unscene.distributed.processes import SIGNALS, is_first_process
from unscene.errors import CheckpointError, RecipeError, TrainingError
from unscene.files import write_text
from unscene.ops.cpu_tuning import tune_cpu
from unscene.runs.recipe import Recipe, as_words
from unscene.runs.run_folder import RunFolder, describe_machine
from unscene.runs.weights import check_weights, export_weights, read_checkpoint
from unscene.scene import Scene
from unscene.training.devices import build_fabric, launch
from unscene.training.loop import TrainingLoop

SAMPLES = 8  # images in a sample figure


def train(recipe: Recipe, out: Path, resume: bool = False) -> RunFolder:
    """Train until `trainer.max_steps` or `trainer.max_minutes`; return the run, with the weights of best.ckpt.

    The run's folder `out` is new or empty. With `resume` it is that of a run, which continues from its last checkpoint,
    or from the first step if it ended before there was one. RunError: the folder is in use, or cannot be written.
    TrainingError: the loss is not finite; the message names the term. CheckpointError: the checkpoint or the ImageNet
    weights to begin with are missing, damaged or of another model. DataError: the data cannot be used. RecipeError: a
    setting does not fit the machine, the model or the data. KeyboardInterrupt: Ctrl-C, SIGTERM or SIGUSR1, after the
    current step; the run can be resumed.
    """
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)  # environment.json holds what its notices tell
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    source, validation = recipe.source(), recipe.source("validation")
    run = RunFolder.open(out) if resume else RunFolder(out)
    if not is_first_process():  # the first process writes the folder
        _fit(recipe, run, source, validation)
        return run
    with run.lock():
        if resume:
            run.make_folders()  # they may be lost
        else:
            RunFolder.create(out, recipe.text())
        interrupted = _fit(recipe, run, source, validation)
        export_weights(run)
    if interrupted:
        raise KeyboardInterrupt(f"Stopped with a checkpoint. {resume_hint(run, recipe)}")
    return run


def _fit(recipe: Recipe, run: RunFolder, source: Source, validation: Source) -> bool:
    """Train; return whether a signal ended it."""
    settings = recipe.trainer
    if settings.threads:
        torch.set_num_threads(settings.threads)
    tune_cpu()
    for seed in (random.seed, np.random.seed, torch.manual_seed):  # all that a model or a library may use
        seed(recipe.seed)
    fabric = build_fabric(settings)
    # Before the model: the loader takes a random number as well.
    samples = Scene.from_batch(next(iter(ordered_batches(validation, min(SAMPLES, len(validation)), SAMPLES))))
    checkpoint = read_checkpoint(run.last) if run.last.is_file() else None
    _check_complete(run, checkpoint)
    model = recipe.build_model(pretrained=checkpoint is None, training=True).to(memory_format=torch.channels_last)
    start, validation_due = 0, False
    if checkpoint is not None:
        check_weights(checkpoint["model"], model, run.last, recipe.name)
        model.load_state_dict(checkpoint["model"])
        start, validation_due = checkpoint["step"], bool(checkpoint.get("validation_due"))
    earlier = run.recipe.read_text(encoding="utf-8") if checkpoint else None
    if is_first_process():
        write_text(run.recipe, recipe.text())  # with the changes of a resumed run, which the next resume keeps
        run.add_environment(describe_machine() | {"seed": recipe.seed, "first_step": start})
    if start >= settings.max_steps and not validation_due:
        if is_first_process():
            tqdm.write(f"{run.path} has had its {start:,} steps. To train longer, raise --trainer.max_steps.")
        return False
    interruption = Interruption()
    try:
        with interruption:
            launch(fabric)
            loop = TrainingLoop(
                fabric, recipe, run, model, source, validation, samples.images, lambda: interruption.asked, checkpoint
            )
            loop.run_to_end()
    except KeyboardInterrupt:  # a second signal
        raise KeyboardInterrupt(f"Stopped at once. {resume_hint(run, recipe)}".rstrip()) from None
    except TrainingError as error:
        raise TrainingError(f"{error} {resume_hint(run, recipe)}".rstrip()) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        if earlier and is_first_process():
            write_text(run.recipe, earlier)
        raise RecipeError(
            f"batch normalisation needs more than one value a channel, and trainer.batch_size {settings.batch_size} at "
            "this image size gives one. Raise --trainer.batch_size to 2 or more, or else --data.size."
        ) from error
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise TrainingError(f"the device's memory is full. Lower trainer.batch_size. ({error})") from error
        is_peer_failure = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if fabric.world_size == 1 or not is_peer_failure:
            raise
        hint = f"its own message says why. {resume_hint(run, recipe)}".rstrip()
        raise TrainingError(f"another process of this training ended; {hint}") from error
    return interruption.asked


def _check_complete(run: RunFolder, checkpoint: dict[str, Any] | None) -> None:
    """Raise a CheckpointError if one of a run's two checkpoints is lost: the best weights, or the last steps."""
    if checkpoint is None and run.best.is_file():
        hint = f"copy {run.best} to {run.last}: then the run resumes at its best validation"
        raise CheckpointError(f"{run.last} is missing, and {run.best} is there. Restore it, or {hint}.")
    if checkpoint is not None and checkpoint.get("best_score") is not None and not run.best.is_file():
        hint = f"copy {run.last} to {run.best}: then its weights count as the best so far"
        raise CheckpointError(f"{run.best} is missing, which held the best weights so far. Restore it, or {hint}.")


class Interruption:
    """A context in which the first Ctrl-C, SIGTERM or SIGUSR1 (a batch system's warning of its limit) sets `asked`,
    to end after the current step. The second one raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Interruption:
        in_main_thread = threading.current_thread() is threading.main_thread()  # only it may handle signals
        self.previous = {number: signal.signal(number, self._ask) for number in SIGNALS} if in_main_thread else {}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        if is_first_process():  # os.write, because the signal may have interrupted a print
            os.write(2, b"\nStopping after this step, with a checkpoint; once more stops at once.\n")


def resume_hint(run: RunFolder, recipe: Recipe) -> str:
    """The command that resumes a run; empty before its first checkpoint."""
    words = shlex.quote(str(run.path)) + as_words(recipe.training_locations())
    return f"Resume it with:  unscene train --resume {words}" if run.last.is_file() else ""
