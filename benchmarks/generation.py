"""How many times faster scenes are generated than the training of a recipe consumes them, on this machine.

    python -m benchmarks.generation --recipe rmonet_unet/multi_dsprites_cpu

Three subjects, in images a second: the training step (without the loop around it, so rather too fast), the generation
in this process, and the generation through the training's loader with its default number of workers. The ratios are
against the training step. Generation must be three times faster: a GPU waits for what it lacks, and where the training
draws its scenes itself (a CPU, no workers) a ratio of r takes 1 / (r + 1) of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch

from benchmarks.command import finish, option_parser, run, started
from benchmarks.recipe_step import RecipeStep, add_set_option, recipe_to_measure
from benchmarks.timing import Comparison, measure
from unscene.data.batches import BatchDataset, StepSampler, training_batches
from unscene.runs.recipe import Recipe
from unscene.runs.trainer_settings import TrainerSettings
from unscene.training.devices import loader_workers

STEP, ONE_PROCESS, LOADER = "training step", "generation, one process", "generation, loader"
REQUIRED = 3.0  # times what the training consumes


class LoadedScenes:
    """A call draws batches from the training's loader, more than were ready.

    Those that were ready were drawn outside of the measurement: `batches` counts the others only, rather too few.

    Args:
        recipe: of the data.
        batch_size: scenes a batch.
        workers: processes that draw.
        on_gpu: pin the batches, as for a training on a GPU.
    """

    def __init__(self, recipe: Recipe, batch_size: int, workers: int, on_gpu: bool) -> None:
        source, prefetch = recipe.source(), recipe.trainer.prefetch
        sampler = StepSampler(len(source), batch_size, recipe.seed)
        self.ready = workers * prefetch
        self.batches = max(1, 4 * self.ready)
        self.stream = iter(training_batches(source, sampler, workers, prefetch, pin_memory=on_gpu))

    def __call__(self) -> None:
        """Draw."""
        for _ in range(self.ready + self.batches):
            next(self.stream)


def compare(
    recipe: Recipe, batch_size: int, workers: int, device: torch.device | str, rounds: int, seconds: float
) -> Comparison:
    """Measure the three subjects side by side.

    Args:
        recipe: with generated data.
        batch_size: images a step; 0: the recipe's.
        workers: of the loader; -1: as many as a training on this device chooses.
        device: where it trains.
        rounds: turns of all subjects.
        seconds: least time of a turn.
    """
    on_gpu = torch.device(device).type == "cuda"
    accelerator: Literal["cpu", "gpu"] = "gpu" if on_gpu else "cpu"
    workers = loader_workers(TrainerSettings(workers=workers, devices=1, accelerator=accelerator))
    step = RecipeStep(recipe, batch_size, device)
    loader = LoadedScenes(recipe, step.batch_size, workers, on_gpu)
    dataset, order = BatchDataset(recipe.source()), iter(StepSampler(recipe.data.count, step.batch_size, recipe.seed))
    subjects: dict[str, Callable[[], object]] = {STEP: step, ONE_PROCESS: lambda: dataset[next(order)], LOADER: loader}
    measured = measure(subjects, rounds, seconds, device)
    measured[LOADER] = [seconds / loader.batches for seconds in measured[LOADER]]
    notes: dict[str, dict[str, Any]] = {LOADER: {"workers": workers, "prefetch": recipe.trainer.prefetch}}
    title = f"{recipe.name}, batches of {step.batch_size}, {workers} workers"
    return Comparison(title, measured, reference=STEP, items=step.batch_size, notes=notes)


def verdict(comparison: Comparison) -> str:
    """Whether generation keeps ahead of the training, in words."""
    ratio = comparison.ratio(LOADER)
    assert ratio is not None
    enough = "enough" if ratio.median >= REQUIRED else "too little"
    return (
        f"the loader draws {ratio.median:.3g} times what the training consumes: {enough} (required: {REQUIRED:g} times)"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the JSON."""
    parser = option_parser("generation", __doc__)
    parser.add_argument("--recipe", default="rmonet_unet/multi_dsprites_cpu", help="a recipe's name or file")
    parser.add_argument("--batch", type=int, default=0, help="images a step; 0: the recipe's")
    parser.add_argument("--workers", type=int, default=-1, help="of the loader; -1: as a training chooses")
    add_set_option(parser)
    options = started(parser, words)
    recipe = recipe_to_measure(options.recipe, options.set)
    comparison = compare(recipe, options.batch, options.workers, options.device, options.rounds, options.seconds)
    print(comparison.table())
    print(verdict(comparison))
    finish(options, [comparison], recipe=recipe.name, verdict=verdict(comparison))


if __name__ == "__main__":
    run(main)
