"""The plain reference of a recipe's model, and its training step: float32, NCHW, PyTorch's Adam as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.recipe_step import scenes_of
from benchmarks.reference.monet import PlainMONet
from benchmarks.reference.rmonet import PlainRMONet
from unscene.errors import RecipeError
from unscene.models.monet.model import MONet, MONetSettings
from unscene.models.rmonet.model import RMONet
from unscene.models.rmonet.settings import RMONetSettings
from unscene.runs.recipe import Recipe, read_recipe

# settings that undo what is this library's own: the reference computes everything, as the papers do
SHARED_LETTER = {"model.background_cells": 0, "model.foreground_colours": 0, "model.masks": "inferred"}
PAPERS_LETTER = {
    **SHARED_LETTER,
    "model.pseudo_boxes.by_quality": False,
    "model.skip_empty_slots": False,
    "model.vae.encoder_region": "image",
    "model.vae.decoder_region": "image",
}


def papers_letter(recipe: Recipe) -> Recipe:
    """The recipe with free colours and inferred masks, and of R-MONet every slot on the whole image.

    One of neither model as it is.
    """
    if isinstance(recipe.model, RMONetSettings):
        return read_recipe(recipe.values, recipe.name, dict(PAPERS_LETTER))
    if isinstance(recipe.model, MONetSettings):
        return read_recipe(recipe.values, recipe.name, dict(SHARED_LETTER))
    return recipe


PlainModel = PlainRMONet | PlainMONet


def plain_model(recipe: Recipe, device: torch.device | str = "cpu") -> PlainModel | None:
    """Return the plain reference of a recipe's model, with fresh weights; None where there is none.

    A recipe that leaves out slots, works on regions or limits colours has the reference of the paper's letter.

    Args:
        recipe: of any model.
        device: where to.
    """
    torch.manual_seed(recipe.seed)
    model = papers_letter(recipe).build_model()
    try:
        if isinstance(model, RMONet):
            return PlainRMONet(model).to(device)
        return PlainMONet(model).to(device) if isinstance(model, MONet) else None
    except RecipeError:
        return None


class PlainStep:
    """The reference's training step: loss, gradients, update; each call is one.

    Args:
        plain: the model.
        recipe: whose scenes and learning rate.
        batch_size: images a step.
        device: where.
    """

    def __init__(self, plain: PlainModel, recipe: Recipe, batch_size: int, device: torch.device | str) -> None:
        self.plain = plain.train()
        self.optimizer = torch.optim.Adam(plain.parameters(), lr=recipe.optimizer.learning_rate)
        self.images = scenes_of(recipe, batch_size).to(device)

    def __call__(self) -> Tensor:
        """Take one step and return the mean loss before it."""
        self.optimizer.zero_grad()
        _, total = self.plain.loss(self.images, step=0)
        loss = total.mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()
