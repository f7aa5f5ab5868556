"""Train a recipe into a run folder, or go on with one."""

from __future__ import annotations

import logging
import os
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from unscene.data import Source
from unscene.errors import CheckpointError
from unscene.training.batches import StepSampler, ordered_batches, training_batches
from unscene.training.callbacks import (
    MetricsLog,
    OrderlyStop,
    Progress,
    RandomState,
    Samples,
    checkpoint_callbacks,
)
from unscene.training.hardware import describe_machine, use_bfloat16
from unscene.training.module import SceneModule
from unscene.training.recipe import Recipe
from unscene.training.run_folder import RunFolder
from unscene.training.weights import export_weights, read_checkpoint


def train(recipe: Recipe, out: Path, resume: bool = False) -> RunFolder:
    """Train until `trainer.max_steps` or `trainer.max_minutes`, or until Ctrl-C; all of these leave a run to go on with.

    Args:
        recipe: the settings.
        out: the run's folder, new or empty; with `resume` the folder of the run to go on with.
        resume: go on from its last checkpoint.

    Returns:
        The run's folder, with `weights.safetensors` of the best validation.

    Raises:
        RunError: the folder is in use, or cannot be written.
        TrainingError: the loss is not finite; the message names the term.
        CheckpointError: nothing to resume.
        DataError: the data cannot be used.
    """
    quieten_lightning()
    settings = recipe.trainer
    source, validation = recipe.source(), recipe.source("validation")
    start = 0
    if resume:
        run = RunFolder.open(out)
        if not run.last.is_file():
            raise CheckpointError(f"{run.last} does not exist: this run ended before its first checkpoint. Start it anew.")
        start = int(read_checkpoint(run.last)["global_step"])
    else:
        run = RunFolder.create(out, recipe.text())
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.set_flush_denormal(True)  # responsibilities far from a slot underflow; a CPU takes its time over such numbers
    lightning.seed_everything(recipe.seed, verbose=False)
    trainer = _trainer(recipe, run, validation)
    if trainer.is_global_zero:
        run.add_environment(describe_machine() | {"seed": recipe.seed, "first_step": start})
    module = SceneModule(recipe, steps_per_epoch=max(1, len(source) // settings.batch_size))
    sampler = StepSampler(
        len(source), settings.batch_size, recipe.seed, start, trainer.global_rank, trainer.world_size
    )
    loader = training_batches(source, sampler, settings.workers if settings.workers >= 0 else default_workers())
    trainer.fit(
        module,
        loader,
        ordered_batches(validation, min(settings.batch_size, 32)),
        ckpt_path=str(run.last) if resume else None,
        weights_only=True,
    )
    if trainer.is_global_zero:
        export_weights(run)
    return run


def default_workers() -> int:
    """Processes that load data: none on a small CPU, where they would take the training's cores."""
    return min(8, max(0, (os.cpu_count() or 1) - 2)) if torch.cuda.is_available() else 0


def _trainer(recipe: Recipe, run: RunFolder, validation: Source) -> lightning.Trainer:
    settings = recipe.trainer
    device = "cuda" if torch.cuda.is_available() and settings.accelerator in ("auto", "gpu", "cuda") else "cpu"
    log = MetricsLog(run, settings.log_every)
    callbacks: list[Callback] = [
        log,
        Progress(log),
        RandomState(),
        Samples(run, next(iter(ordered_batches(validation, 8)))),
        OrderlyStop(run),
        *checkpoint_callbacks(run, settings.checkpoint_minutes),
    ]
    devices: Any = settings.devices
    if isinstance(devices, str) and devices.isdigit():
        devices = int(devices)
    elif devices == "auto" and device == "cpu":
        devices = 1
    return lightning.Trainer(
        accelerator="cpu" if device == "cpu" else settings.accelerator,
        devices=devices,
        num_nodes=settings.num_nodes,
        strategy=settings.strategy,
        precision="bf16-mixed" if use_bfloat16(settings.precision, device) else "32-true",
        max_epochs=-1,
        max_steps=settings.max_steps,
        max_time=timedelta(minutes=settings.max_minutes) if settings.max_minutes else None,
        val_check_interval=timedelta(minutes=settings.validate_minutes),
        check_val_every_n_epoch=None,
        gradient_clip_val=recipe.optimizer.clip_norm or None,
        callbacks=callbacks,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )


def quieten_lightning() -> None:
    """Leave the terminal to the progress bar: Lightning's notices of what it found are in environment.json."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
