"""Where the time of an R-MONet step goes: each stage by itself, ours against the plain reference's, and its share.

    python -m benchmarks.stages --recipe rmonet_unet/multi_dsprites_cpu --batch 64

Every stage is timed forwards, and forwards and backwards. Its share is of the whole loss forwards and backwards,
measured in the same run; shares need not sum to 1, since a stage alone finds its data in other caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.command import finish, option_parser, run, started
from benchmarks.model_stages import WHOLE, OurStages, Stage, backwards
from benchmarks.plain_stages import PlainStages
from benchmarks.plain_step import plain_model
from benchmarks.recipe_step import add_set_option, recipe_to_measure, scenes_of
from benchmarks.reference.rmonet import PlainRMONet
from benchmarks.timing import Comparison, Spread, Subject, aligned, measure
from benchmarks.training_step import PLAIN, precision_name
from unscene.errors import RecipeError
from unscene.models.rmonet.model import RMONet
from unscene.runs.recipe import Recipe
from unscene.runs.trainer_settings import use_bfloat16

BOTH = "forwards and backwards"


def stages_of(recipe: Recipe, batch: int, device: str) -> dict[str, dict[str, Stage]]:
    """The stages of ours, and of the plain reference where the recipe has one, by subject.

    Raises:
        RecipeError: a model that is no R-MONet with boxes.
    """
    torch.manual_seed(recipe.seed)
    model = recipe.build_model().to(device)
    if not isinstance(model, RMONet) or model.proposals is None:
        raise RecipeError(
            f"the stages are those of R-MONet with boxes, and recipe '{recipe.name}' has another model: "
            "name one of rmonet_*."
        )
    images = scenes_of(recipe, batch).to(device)
    plain = plain_model(recipe, device)
    if isinstance(plain, PlainRMONet):
        plain.model.load_state_dict(model.state_dict())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    bfloat16 = use_bfloat16(recipe.trainer.precision, device)
    subjects = {precision_name(bfloat16): OurStages(model, images, bfloat16).by_name()}
    if isinstance(plain, PlainRMONet):
        subjects[PLAIN] = PlainStages(plain, images).by_name()
    return subjects


def compared_stages(
    subjects: dict[str, dict[str, Stage]], rounds: int, seconds: float, device: str
) -> list[Comparison]:
    """Measure every stage forwards, and forwards and backwards."""
    comparisons = []
    reference = PLAIN if PLAIN in subjects else None
    for stage in next(iter(subjects.values())):
        for way in ("forwards", BOTH):
            timed: dict[str, Subject] = {
                name: stages[stage] if way == "forwards" else backwards(stages[stage])
                for name, stages in subjects.items()
            }
            comparisons.append(Comparison(f"{stage}, {way}", measure(timed, rounds, seconds, device), reference))
            print(comparisons[-1].table(), end="\n\n", flush=True)
    return comparisons


def shares(comparisons: Sequence[Comparison]) -> dict[str, dict[str, float]]:
    """Subject -> stage -> its share of the whole loss, forwards and backwards, by the medians."""
    both = {
        comparison.title.removesuffix(f", {BOTH}"): comparison
        for comparison in comparisons
        if comparison.title.endswith(BOTH)
    }
    medians = {
        stage: {name: Spread.of(rounds).median for name, rounds in comparison.seconds.items()}
        for stage, comparison in both.items()
    }
    return {
        name: {stage: median[name] / medians[WHOLE][name] for stage, median in medians.items() if stage != WHOLE}
        for name in medians[WHOLE]
    }


def share_table(found: dict[str, dict[str, float]]) -> str:
    """The shares as aligned text, a line a stage."""
    stages = list(next(iter(found.values())))
    rows = [["share of the whole", *found]]
    rows += [[stage, *(f"{100 * stage_seconds[stage]:.1f} %" for stage_seconds in found.values())] for stage in stages]
    rows.append(["sum", *(f"{100 * sum(stage_seconds.values()):.1f} %" for stage_seconds in found.values())])
    return "\n".join(aligned(rows))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("stages", __doc__)
    parser.add_argument("--recipe", default="rmonet_unet/multi_dsprites_cpu", metavar="NAME", help="whose stages")
    parser.add_argument("--batch", type=int, default=64, help="images at once; 8 is a quick try")
    parser.add_argument("--no-reference", action="store_true", help="leave the slow plain reference out")
    add_set_option(parser)
    options = started(parser, words)
    subjects = stages_of(recipe_to_measure(options.recipe, options.set), options.batch, options.device)
    if options.no_reference:
        subjects.pop(PLAIN, None)
    comparisons = compared_stages(subjects, options.rounds, options.seconds, options.device)
    found: dict[str, Any] = shares(comparisons)
    print(share_table(found))
    finish(options, comparisons, recipe=options.recipe, batch=options.batch, settings=options.set, shares=found)


if __name__ == "__main__":
    run(main)
