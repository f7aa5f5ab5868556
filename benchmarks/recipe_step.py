"""One training step of a recipe, taken as `unscene train` takes it, but for what loads the data and writes the run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.recipes import load_recipe, recipe_values
from unscene.runs.recipe import Recipe
from unscene.runs.trainer_settings import use_bfloat16
from unscene.scene import Scene
from unscene.settings import Word
from unscene.training.step import BatchLoss, build_optimizers, check_finite, clip_gradients


def add_set_option(parser: argparse.ArgumentParser) -> None:
    """Let the settings of a recipe be changed by `--set NAME=VALUE`, more than once if need be."""
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a recipe's setting")


def changed_settings(changes: Sequence[str]) -> dict[str, Any]:
    """The words of `--set` as settings by dotted name; a RecipeError for a change that is no NAME=VALUE."""
    changed: dict[str, Any] = {}
    for change in changes:
        setting, equals, value = change.partition("=")
        if not equals:
            raise RecipeError(f"--set needs NAME=VALUE, for instance model.num_slots=7, not '{change}'.")
        changed[setting] = Word(value)
    return changed


def recipe_to_measure(name: str, changes: Sequence[str] = ()) -> Recipe:
    """Return a recipe with data that every machine has: its own where that is drawn, else sprites of its size.

    What a step costs hangs on the number and size of the images and little on what they show.

    Args:
        name: of the recipe, or the path of a YAML file.
        changes: settings as `model.num_slots=7`.

    Raises:
        RecipeError: no such recipe or setting, a value that cannot be, or a change that is no NAME=VALUE.
    """
    changed = changed_settings(changes)
    data = recipe_values(name).get("data")
    if isinstance(data, dict) and data.get("name") != "multi_dsprites":
        changed = {"data.name": "multi_dsprites", **changed}
    return load_recipe(name, changed)


class RecipeStep:
    """A model, its optimiser and a batch; each call is one training step: loss, gradients, update.

    Precision, memory layout, optimiser and the order of operations are the training's. The step is the slowest one: the
    first, whose warm-up lets every slot have a box, or the first one that computes every slot. The learning
    rate is the peak.

    Args:
        recipe: see `recipe_to_measure`.
        batch_size: images a step; 0: the recipe's.
        device: where.
    """

    def __init__(self, recipe: Recipe, batch_size: int = 0, device: torch.device | str = "cpu") -> None:
        self.recipe, self.device = recipe, torch.device(device)
        self.batch_size = batch_size or recipe.trainer.batch_size
        self.bfloat16 = use_bfloat16(recipe.trainer.precision, device)
        torch.manual_seed(recipe.seed)
        self.model: nn.Module = recipe.build_model().to(self.device, memory_format=torch.channels_last)
        self.loss = BatchLoss(self.model, self.bfloat16)
        self.busiest_step = getattr(recipe.model, "background_steps", 0)
        self.optimizers = build_optimizers(self.model, recipe.optimizer)
        batch = recipe.source(count=self.batch_size).batch(range(self.batch_size))
        self.images = Scene.from_batch(batch).images.to(self.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of its convolutions."""
        return torch.bfloat16 if self.bfloat16 else torch.float32

    def __call__(self) -> Tensor:
        """Take one step and return the mean loss before it."""
        loss = self.gradients()
        self.update()
        return loss

    def gradients(self) -> Tensor:
        """The step's first part, forwards and backwards: return the mean loss."""
        losses, _ = self.loss(self.images, self.busiest_step)
        loss: Tensor = losses["loss"].mean()
        check_finite(loss, losses, self.busiest_step)
        self.model.zero_grad()
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """The step's second part: the optimiser's."""
        if self.recipe.optimizer.clip_norm:
            clip_gradients(self.optimizers, self.recipe.optimizer.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()


def scenes_of(recipe: Recipe, count: int) -> Tensor:
    """The first scenes of a recipe's data: [count, 3, H, W] float32 in 0..1, contiguous."""
    return Scene.from_batch(recipe.source(count=count).batch(range(count))).images.contiguous()
