"""Images a second in training: every recipe's step as `unscene train` takes it, against the plain reference's.

    python -m benchmarks.training_step --recipe rmonet_unet/multi_dsprites_cpu --batch 64

A step is loss, gradients and Adam's update. Ours runs as the training runs it (bfloat16 and channels-last where the
machine is fast at it) and in float32; the reference is float32, NCHW, with loops (`benchmarks/reference`), on a CPU in
a process of its own, which is not tuned as a training's is (`plain_process`). Where a
recipe leaves work out that the paper does (empty slots, what lies outside of a box), "paper's letter" does it all.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks.command import finish, option_parser, run, started
from benchmarks.plain_process import PlainProcess
from benchmarks.plain_step import PlainStep, papers_letter, plain_model
from benchmarks.recipe_step import RecipeStep, add_set_option, recipe_to_measure
from benchmarks.timing import Comparison, Subject, measure
from unscene.recipes import recipe_names
from unscene.runs.recipe import Recipe

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
    reference = FLOAT32 if FLOAT32 in subjects else None
    with contextlib.ExitStack() as stack:
        if not options.no_reference and plain_model(recipe) is not None:
            subjects[PLAIN] = stack.enter_context(plain_subject(name, recipe, options))
            reference = PLAIN
        seconds = measure(subjects, options.rounds, options.seconds, options.device)
    return Comparison(f"training step of {name}, batch {options.batch}", seconds, reference, options.batch)


@contextlib.contextmanager
def plain_subject(name: str, recipe: Recipe, options: argparse.Namespace) -> Iterator[Subject]:
    """The plain reference's step: on a CPU in a process of its own."""
    if options.device == "cpu":
        with PlainProcess(name, options.set, options.batch, torch.get_num_threads()) as process:
            yield process
    else:
        plain = plain_model(recipe, options.device)
        assert plain is not None
        yield PlainStep(plain, recipe, options.batch, options.device)


def compare_recipes(
    benchmark: str,
    description: str | None,
    compared: Callable[[str, argparse.Namespace], Comparison],
    words: Sequence[str] | None,
) -> None:
    """Measure one recipe after another, print each, and write all."""
    parser = option_parser(benchmark, description)
    add_recipe_options(parser)
    options = started(parser, words)
    comparisons = []
    for name in options.recipe or default_recipes():
        comparisons.append(compared(name, options))
        print(comparisons[-1].table(), end="\n\n", flush=True)
    finish(options, comparisons, batch=options.batch, settings=options.set)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    compare_recipes("training_step", __doc__, compared_steps, words)


if __name__ == "__main__":
    run(main)
