"""Images a second in inference: `model(images)` of every recipe, against the plain reference's.

    python -m benchmarks.inference --recipe rmonet_unet/multi_dsprites_cpu --batch 64

Weights that come with the package are used where there are any, since what a trained model leaves out (slots without a
box) a fresh one may not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks.command import run
from benchmarks.plain_step import papers_letter, plain_model
from benchmarks.recipe_step import recipe_to_measure, scenes_of
from benchmarks.timing import Comparison, Subject, measure
from benchmarks.training_step import FLOAT32, LETTER, PLAIN, compare_recipes, precision_name
from unscene.runs.loading import load, shipped_weights
from unscene.runs.recipe import Recipe
from unscene.runs.trainer_settings import use_bfloat16


def model_to_measure(recipe: Recipe, device: torch.device | str) -> nn.Module:
    """A recipe's model as `unscene.load` returns it, with the weights that come along if they fit its settings."""
    torch.manual_seed(recipe.seed)
    model: nn.Module = recipe.build_model()
    if recipe.name in shipped_weights():
        loaded = load(recipe.name)
        if loaded.recipe.model == recipe.model:
            model = loaded.model
    model.eval().to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


class Inference:
    """A model and a batch; each call decomposes it.

    Args:
        model: takes images.
        images: [B, 3, H, W] in 0..1.
        bfloat16: by autocast.
    """

    def __init__(self, model: nn.Module, images: Tensor, bfloat16: bool) -> None:
        self.model, self.images, self.bfloat16 = model, images, bfloat16

    def __call__(self) -> object:
        """Decompose the batch."""
        with torch.no_grad(), torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.model(self.images)


def compared_inference(name: str, options: argparse.Namespace) -> Comparison:
    """Measure the inference of a recipe's model."""
    recipe = recipe_to_measure(name, options.set)
    images = scenes_of(recipe, options.batch).to(options.device)
    model = model_to_measure(recipe, options.device)
    bfloat16 = use_bfloat16(recipe.trainer.precision, options.device)
    subjects: dict[str, Subject] = {precision_name(bfloat16): Inference(model, images, bfloat16)}
    letter = papers_letter(recipe)
    if letter.model != recipe.model:
        whole = letter.build_model()
        whole.load_state_dict(model.state_dict())
        whole = whole.eval().to(options.device).to(memory_format=torch.channels_last)
        subjects[f"{precision_name(bfloat16)}{LETTER}"] = Inference(whole, images, bfloat16)
    if bfloat16:
        subjects[FLOAT32] = Inference(model, images, False)
    plain = None if options.no_reference else plain_model(recipe, options.device)
    if plain is not None:
        plain.model.load_state_dict(model.state_dict())
        subjects[PLAIN] = Inference(plain.eval(), images, False)
    seconds = measure(subjects, options.rounds, options.seconds, options.device)
    reference = PLAIN if plain is not None else FLOAT32 if FLOAT32 in subjects else None
    return Comparison(f"inference of {name}, batch {options.batch}", seconds, reference, options.batch)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    compare_recipes("inference", __doc__, compared_inference, words)


if __name__ == "__main__":
    run(main)
