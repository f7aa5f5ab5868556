"""Train a recipe into a run folder, or go on with one."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from unscene.data import Source
from unscene.data.batches import ordered_batches
from unscene.distributed.processes import is_first_process
from unscene.errors import RecipeError, TrainingError
from unscene.files import write_text
from unscene.ops.cpu_tuning import tune_cpu
from unscene.runs.hardware import describe_machine, use_bfloat16
from unscene.runs.recipe import Recipe
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import check_weights, export_weights, model_weights, read_checkpoint
from unscene.training.callbacks.checkpoints import BestCheckpoint, WholeFiles
from unscene.training.callbacks.metrics_log import MetricsLog
from unscene.training.callbacks.progress import Progress
from unscene.training.callbacks.random_state import RandomState
from unscene.training.callbacks.restart import Restart
from unscene.training.callbacks.samples import SAMPLES, Samples
from unscene.training.callbacks.schedule import NEVER, Clock
from unscene.training.data_module import SceneData
from unscene.training.devices import Placement
from unscene.training.module import SceneModule
from unscene.training.signals import Interruption


def train(recipe: Recipe, out: Path, resume: bool = False) -> RunFolder:
    """Train until `trainer.max_steps` or `trainer.max_minutes`.

    Args:
        recipe: the settings.
        out: the run's folder, new or empty; with `resume` the folder of the run to go on with.
        resume: go on from its last checkpoint, or from the first step where it ended before there was one.

    Returns:
        The run's folder, with `weights.safetensors` of the best validation.

    Raises:
        RunError: the folder is in use, or cannot be written.
        TrainingError: the loss is not finite; the message names the term.
        CheckpointError: nothing to resume, its checkpoint is damaged or of another model, or the ImageNet weights that
            a new training is to begin with cannot be had.
        DataError: the data cannot be used.
        RecipeError: a setting does not fit the machine, the model or the data.
        KeyboardInterrupt: Ctrl-C or SIGTERM, after the step that ran; the run is whole and can be resumed.
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
        interrupted = _fit(recipe, run, source, validation)
        export_weights(run)
    if interrupted:
        raise KeyboardInterrupt(f"Stopped with a checkpoint. {_go_on(run)}")
    return run


def _fit(recipe: Recipe, run: RunFolder, source: Source, validation: Source) -> bool:
    """Train; whether Ctrl-C ended it."""
    if recipe.trainer.threads:
        torch.set_num_threads(recipe.trainer.threads)
    tune_cpu()
    lightning.seed_everything(recipe.seed, verbose=False)
    os.environ.pop("PL_GLOBAL_SEED", None)  # by it Lightning would seed again where several processes train, but later
    interruption = Interruption()
    trainer = _trainer(recipe, run, validation, interruption)
    steps_per_epoch = max(1, len(source) // recipe.trainer.batch_size)
    going_on = run.last.is_file()
    module = SceneModule(recipe, steps_per_epoch, pretrained=not going_on)
    start = 0
    if going_on:
        checkpoint = read_checkpoint(run.last)
        check_weights(model_weights(checkpoint), module.model, run.last, recipe.name)
        start = int(checkpoint["global_step"])
    if is_first_process():
        write_text(run.recipe, recipe.text())  # a resumed run's changes too, which the next resume is to know
        run.add_environment(describe_machine() | {"seed": recipe.seed, "first_step": start})
    if 0 < recipe.trainer.max_steps <= start:
        if is_first_process():
            tqdm.write(f"{run.path} has had its {start:,} steps; raise --trainer.max_steps to go on.")
        return False
    data = SceneData(recipe, source, validation, start)
    try:
        with interruption:
            trainer.fit(module, datamodule=data, ckpt_path=str(run.last) if start else None, weights_only=True)
    except SystemExit:  # what Lightning makes of a second Ctrl-C
        raise KeyboardInterrupt(f"Stopped at once. {_go_on(run)}") from None
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"the device's memory is full. Lower trainer.batch_size. ({error})") from error
    except RuntimeError as error:
        if trainer.world_size == 1 or not _left_alone(error):
            raise
        raise TrainingError(f"another process of this training ended; what it said tells why. {_go_on(run)}") from error
    return interruption.asked


def _left_alone(error: RuntimeError) -> bool:
    """Whether PyTorch lost the other processes."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _go_on(run: RunFolder) -> str:
    return f"Go on with:  unscene train --resume {run.path}"


def _trainer(recipe: Recipe, run: RunFolder, validation: Source, interruption: Interruption) -> lightning.Trainer:
    settings = recipe.trainer
    place = Placement.of(settings)
    options = place.options(settings)
    options["plugins"].append(WholeFiles())
    log = MetricsLog(run, settings.log_every)
    callbacks: list[Callback] = [
        Samples(run, next(iter(ordered_batches(validation, min(SAMPLES, len(validation)), SAMPLES)))),
        log,  # after the figure, whose time is not the training's
        Progress(log, settings.max_minutes),
        RandomState(),
        BestCheckpoint(run, log),
        Restart(run, recipe),
        Clock(run, settings, interruption),
    ]
    try:
        return lightning.Trainer(
            **options,
            precision="bf16-mixed" if use_bfloat16(settings.precision, place.device) else "32-true",
            max_epochs=-1,
            max_steps=settings.max_steps,
            val_check_interval=NEVER,  # `Clock` says when
            check_val_every_n_epoch=None,
            gradient_clip_val=recipe.optimizer.clip_norm or None,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run.path,
        )
    except (MisconfigurationException, ValueError) as error:
        raise RecipeError(f"the machine cannot do what the trainer's settings ask for: {error}") from error


def quieten_lightning() -> None:
    """Leave the terminal to the progress bar: Lightning's notices of what it found are in environment.json."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
