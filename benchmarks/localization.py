"""The share of explicit localization's time that its location masks take, in training and in inference.

    python -m benchmarks.localization --recipe explicit_localization/montezuma_cpu --batch 32

The location masks of a batch (best regions, windows, mixtures: all parts without weights) are computed again alone, on
the inputs that the model gave them. Their share is relative to the complete computation in the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.command import finish, option_parser, run, started
from benchmarks.inference import Inference, model_to_measure
from benchmarks.recipe_step import RecipeStep, add_set_option, recipe_to_measure, scenes_of
from benchmarks.timing import Comparison, Spread, Subject, measure
from unscene.errors import RecipeError
from unscene.models.explicit_localization import model as explicit_localization
from unscene.models.explicit_localization.model import ExplicitLocalization
from unscene.runs.recipe import Recipe
from unscene.runs.trainer_settings import use_bfloat16

MASKS = "its location masks"


def replayed(computed: Callable[[], object]) -> Subject:
    """A function that repeats the location masks of a computation, with the same inputs."""
    calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
    functions = {name: getattr(explicit_localization, name) for name in ("best_region", "location_mask")}

    def recorded(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: Any) -> object:
            calls.append((function, arguments))
            return function(*arguments)

        return call

    try:
        for name, function in functions.items():
            setattr(explicit_localization, name, recorded(function))
        computed()
    finally:
        for name, function in functions.items():
            setattr(explicit_localization, name, function)
    detached = [
        (function, [value.detach() if isinstance(value, torch.Tensor) else value for value in arguments])
        for function, arguments in calls
    ]

    def replay() -> None:
        for function, arguments in detached:
            function(*arguments)

    return replay


def compared(recipe: Recipe, batch: int, rounds: int, seconds: float, device: str) -> list[Comparison]:
    """Time a training step and an inference beside their location masks. A recipe of another model is a RecipeError."""
    step = RecipeStep(recipe, batch, device)
    if not isinstance(step.model, ExplicitLocalization):
        raise RecipeError(f"recipe '{recipe.name}' has another model: name one of explicit_localization/*.")
    images = scenes_of(recipe, batch).to(device)
    model: nn.Module = model_to_measure(recipe, device)
    inference = Inference(model, images, use_bfloat16(recipe.trainer.precision, device))
    comparisons = []
    for title, subject in (("training step", step), ("inference", inference)):
        timed: dict[str, Subject] = {title: subject, MASKS: replayed(subject)}
        comparisons.append(
            Comparison(
                f"{title} of {recipe.name}, batch {batch}", measure(timed, rounds, seconds, device), title, batch
            )
        )
        print(comparisons[-1].table(), end="\n\n", flush=True)
    return comparisons


def shares(comparisons: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    """Title -> least, median and greatest share of the location masks over the rounds."""
    result = {}
    for comparison in comparisons:
        assert comparison.reference is not None
        pairs = zip(comparison.seconds[MASKS], comparison.seconds[comparison.reference], strict=True)
        spread = Spread.of([masks / total for masks, total in pairs])
        result[comparison.title] = {"min": spread.least, "median": spread.median, "max": spread.greatest}
        print(
            f"{comparison.title}: location masks take {spread.median:.1%} ({spread.least:.1%} - {spread.greatest:.1%})"
        )
    return result


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("localization", __doc__)
    parser.add_argument("--recipe", action="append", metavar="NAME", help="repeat it for more recipes")
    parser.add_argument("--batch", type=int, default=32, help="images at once")
    add_set_option(parser)
    options = started(parser, words)
    recipes = options.recipe or ["explicit_localization/multi_dsprites_cpu", "explicit_localization/montezuma_cpu"]
    comparisons = []
    for name in recipes:
        recipe = recipe_to_measure(name, options.set)
        comparisons += compared(recipe, options.batch, options.rounds, options.seconds, options.device)
    finish(options, comparisons, batch=options.batch, settings=options.set, shares=shares(comparisons))


if __name__ == "__main__":
    run(main)
