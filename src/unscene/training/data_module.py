"""The Lightning data module: each process's share of every batch, once it is known which process it is."""

from __future__ import annotations

import os

import lightning
import torch

from unscene.data import Source
from unscene.training.batches import Batches, StepSampler, ordered_batches, training_batches
from unscene.training.recipe import Recipe

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
        workers = settings.workers if settings.workers >= 0 else default_workers()
        return training_batches(self.source, sampler, workers)

    def val_dataloader(self) -> Batches:
        """The scenes of the validation, each once; each process has its share of them."""
        settings = self.recipe.trainer
        count, size = min(len(self.validation), settings.validate_images), min(settings.batch_size, VALIDATION_BATCH)
        return ordered_batches(self.validation, count, size, *self._place())

    def _place(self) -> tuple[int, int]:
        assert self.trainer is not None
        return self.trainer.global_rank, self.trainer.world_size


def default_workers() -> int:
    """Processes that load data: none on a small CPU, where they would take the training's cores."""
    return min(8, max(0, (os.cpu_count() or 1) - 2)) if torch.cuda.is_available() else 0
