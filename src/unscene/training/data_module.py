"""The Lightning data module: each process's share of every batch, once it is known which process it is."""

from __future__ import annotations

import os

import lightning

from unscene.data import Source
from unscene.data.batches import Batches, StepSampler, ordered_batches, training_batches
from unscene.distributed.processes import started_by_srun
from unscene.runs.recipe import Recipe

VALIDATION_BATCH = 32  # images at most, on every machine, so that a validation needs no more memory than a step


class SceneData(lightning.LightningDataModule):
    """The training's batches from a step on, and the validation's.

    Args:
        recipe: the batch size, the seed and the number of workers.
        source: of the training.
        validation: of the validation.
        first_step: where to begin.
    """

    def __init__(self, recipe: Recipe, source: Source, validation: Source, first_step: int) -> None:
        super().__init__()
        self.recipe, self.source, self.validation, self.first_step = recipe, source, validation, first_step

    def train_dataloader(self) -> Batches:
        """One batch a step, without end.

        Raises:
            RecipeError: the batch is larger than the data, or cannot be shared evenly.
        """
        settings = self.recipe.trainer
        rank, world = self._place()
        sampler = StepSampler(len(self.source), settings.batch_size, self.recipe.seed, self.first_step, rank, world)
        assert self.trainer is not None
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        workers = (
            settings.workers if settings.workers >= 0 else default_workers(on_gpu, _sharing(self.trainer.num_devices))
        )
        return training_batches(self.source, sampler, workers, settings.prefetch, pin_memory=on_gpu)

    def val_dataloader(self) -> Batches:
        """The scenes of the validation, each once; each process has its share of them."""
        settings = self.recipe.trainer
        count, size = min(len(self.validation), settings.validate_images), min(settings.batch_size, VALIDATION_BATCH)
        return ordered_batches(self.validation, count, size, *self._place())

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size


def default_workers(on_gpu: bool, processes: int = 1) -> int:
    """Processes that load data, for each process that trains.

    Beside a GPU every core but the training's own, at most eight. None where a CPU trains: a step takes so much longer
    than the drawing of its scenes that a core does more for it by computing.

    Args:
        on_gpu: whether a GPU trains.
        processes: that train on this machine and share its cores.
    """
    return min(8, max(0, _cores() // processes - 1)) if on_gpu else 0


def _sharing(processes: int) -> int:
    """How many of the processes that train here share the cores that one of them may use: srun may part them."""
    return 1 if started_by_srun() and "SLURM_CPUS_PER_TASK" in os.environ else processes


def _cores() -> int:
    """Cores that this process may use: a batch system grants it some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
