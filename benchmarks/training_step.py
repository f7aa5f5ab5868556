"""Images a second in training: every recipe's step as `unscene train` takes it, against the plain reference's.

    python -m benchmarks.training_step --recipe rmonet_unet/multi_dsprites_cpu --batch 64

A step is loss, gradients and Adam's update. Ours runs as the training runs it (bfloat16 and channels-last where the
machine is fast at it) and in float32; the reference is float32, NCHW, with loops (`benchmarks/reference`). Where a
recipe leaves work out that the paper does (empty slots, what lies outside of a box), "paper's letter" does it all.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.command import finish, option_parser, run, started
from benchmarks.plain_step import PlainStep, papers_letter, plain_model
from benchmarks.recipe_step import RecipeStep, add_set_option, recipe_to_measure
from benchmarks.timing import Comparison, Subject, measure
from unscene.recipes import recipe_names

FLOAT32, PLAIN, LETTER = "float32", "plain reference", ", paper's letter"


def default_recipes() -> list[str]:
    """The recipes whose scenes are drawn here: `*/multi_dsprites*`."""
    return [name for name in recipe_names() if name.partition("/")[2].startswith("multi_dsprites")]


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """--recipe, --batch, --no-reference and --set."""
    parser.add_argument("--recipe", action="append", default=[], metavar="NAME", help="default: */multi_dsprites*")
    parser.add_argument("--batch", type=int, default=64, help="images at once; 8 is a quick try")
    parser.add_argument("--no-reference", action="store_true", help="leave the slow plain reference out")
    add_set_option(parser)


def precision_name(bfloat16: bool) -> str:
    """What a subject of ours is called."""
    return "bfloat16, channels-last" if bfloat16 else FLOAT32


def compared_steps(name: str, options: argparse.Namespace) -> Comparison:
    """Measure the training step of a recipe."""
    recipe = recipe_to_measure(name, options.set)
    step = RecipeStep(recipe, options.batch, options.device)
    subjects: dict[str, Subject] = {precision_name(step.bfloat16): step}
    letter = papers_letter(recipe)
    if letter.model != recipe.model:  # the like for like of the reference, which takes no shortcut
        subjects[f"{precision_name(step.bfloat16)}{LETTER}"] = RecipeStep(letter, options.batch, options.device)
    if step.bfloat16:
        exact = recipe_to_measure(name, [*options.set, "trainer.precision=float32"])
        subjects[FLOAT32] = RecipeStep(exact, options.batch, options.device)
    plain = None if options.no_reference else plain_model(recipe, options.device)
    if plain is not None:
        subjects[PLAIN] = PlainStep(plain, recipe, options.batch, options.device)
    seconds = measure(subjects, options.rounds, options.seconds, options.device)
    reference = PLAIN if plain is not None else FLOAT32 if FLOAT32 in subjects else None
    return Comparison(f"training step of {name}, batch {options.batch}", seconds, reference, options.batch)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("training_step", __doc__)
    add_recipe_options(parser)
    options = started(parser, words)
    comparisons = []
    for name in options.recipe or default_recipes():
        comparisons.append(compared_steps(name, options))
        print(comparisons[-1].table(), end="\n\n", flush=True)
    finish(options, comparisons, batch=options.batch, settings=options.set)


if __name__ == "__main__":
    run(main)
