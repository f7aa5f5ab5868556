"""How much memory a training step takes, recipe by recipe, and the largest batch that fits into a limit.

    python -m benchmarks.memory --recipe rmonet_unet/multi_dsprites --limit-gib 8

Every measurement is a process of its own that takes a few steps. On a CPU, "peak" is the whole process and "step" is
that less what Python and its libraries hold before the model is built; the limit is for the whole. On a GPU both are
what PyTorch's tensors take.

Memory grows linearly with the batch, so a line through two measurements says where to look. What it says is measured,
too: the batch in the table fits, and the next larger one of 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20 ... (4 to 7
times a power of two) was seen not to fit.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.command import finish, option_parser, run, started
from benchmarks.recipe_step import add_set_option, recipe_to_measure
from benchmarks.step_memory import StepMemory, step_memory
from unscene.errors import RecipeError
from unscene.recipes import recipe_names

GIB = 2**30
LARGEST = 2**20  # images; more are not tried


@dataclass(frozen=True)
class LargestBatch:
    """The answer of a search.

    Attributes:
        fitting: of the largest batch that fits; None where not even one image does.
        beyond: of the next larger one, which does not.
        predicted: what the line says of `fitting`, in bytes; None without either.
    """

    fitting: StepMemory | None
    beyond: StepMemory
    predicted: float | None


def batch_sizes(largest: int = LARGEST) -> list[int]:
    """1, 2, 3, and 4 to 7 times every power of two, up to a largest: each at most a quarter more than the one before,
    but for the first."""
    sizes = [factor * 2**power for power in range(largest.bit_length()) for factor in (4, 5, 6, 7)]
    return [size for size in (1, 2, 3, *sizes) if size <= largest]


def largest_batch(measured: Callable[[int], StepMemory], limit: float, first: int) -> LargestBatch:
    """Search for the largest of the `batch_sizes` whose step stays within a limit.

    Args:
        measured: batch size -> its memory, measured; called once a size.
        limit: in bytes.
        first: the batch size to begin with, for instance the recipe's.

    Raises:
        RecipeError: all of them fit.
    """
    memory = functools.cache(measured)
    sizes = batch_sizes()
    half = max(1, first // 2)
    line = _line(memory(half), memory(2 * half))
    index = 0
    if line is not None:
        index = sum(line(size) <= limit for size in sizes[1:])
    low, high, stride = -1, len(sizes), 1  # of the sizes: at low and before it they fit, from high on they do not
    while high - low > 1:
        if memory(sizes[index]).fits(limit):
            low = index
        else:
            high = index
        if low >= 0 and high < len(sizes):
            index = (low + high) // 2
        else:  # one side is not known yet: look further and further
            index = min(low + stride, len(sizes) - 1) if low >= 0 else max(high - stride, 0)
            stride *= 2
    if high == len(sizes):
        raise RecipeError(f"even a batch of {sizes[-1]:,} images fits: give a lower --limit-gib.")
    fitting = memory(sizes[low]) if low >= 0 else None
    return LargestBatch(fitting, memory(sizes[high]), line(sizes[low]) if line and fitting else None)


def _line(first: StepMemory, second: StepMemory) -> Callable[[int], float] | None:
    """Bytes against the batch size, through two measurements; None where they say nothing of its slope."""
    if first.peak is None or second.peak is None or second.peak <= first.peak:
        return None
    start, images = first.peak, first.batch_size
    slope = (second.peak - first.peak) / (second.batch_size - first.batch_size)
    return lambda size: start + slope * (size - images)


def table(found: dict[str, tuple[StepMemory, LargestBatch]], limit_gib: float) -> str:
    """A line a recipe."""
    widest = max(map(len, found))
    heads = (
        "batch",
        "peak GiB",
        "step GiB",
        "MiB an image",
        f"in {limit_gib:g} GiB",
        "its GiB",
        "line says",
        "too many",
    )
    lines = [" " * widest + "".join(f"{head:>13}" for head in heads)]
    for name, (own, largest) in found.items():
        fitting, beyond = largest.fitting, largest.beyond
        cells = [str(own.batch_size), _gib(own.peak), _gib(own.step), _per_image(fitting, own)]
        cells += [str(fitting.batch_size) if fitting else "none", _gib(fitting.peak if fitting else None)]
        cells += [_gib(largest.predicted), f"{beyond.batch_size}: {_gib(beyond.peak)}"]
        lines.append(name.ljust(widest) + "".join(f"{cell:>13}" for cell in cells))
    return "\n".join(lines)


def _gib(size: float | None) -> str:
    return "-" if size is None else f"{size / GIB:.2f}"


def _per_image(one: StepMemory | None, other: StepMemory) -> str:
    """MiB that each further image takes, from two batches."""
    if one is None or one.peak is None or other.peak is None or one.batch_size == other.batch_size:
        return "-"
    return f"{(one.peak - other.peak) / (one.batch_size - other.batch_size) / 2**20:.1f}"


def memory_of(name: str, options: argparse.Namespace) -> tuple[StepMemory, LargestBatch]:
    """Measure a recipe: its own batch, and the largest that fits."""

    @functools.cache
    def measured(size: int) -> StepMemory:
        memory = step_memory(name, size, options.set, options.device, options.threads, options.steps)
        print(f"{name}, batch {size}: {_gib(memory.peak)} GiB", flush=True)
        return memory

    batch_size = recipe_to_measure(name, options.set).trainer.batch_size
    return measured(batch_size), largest_batch(measured, options.limit_gib * GIB, batch_size)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("memory", __doc__, rounds=1)
    parser.add_argument(
        "--recipe", nargs="+", action="extend", default=[], metavar="NAME", help="default: all that the package has"
    )
    parser.add_argument("--limit-gib", type=float, default=8.0, help="memory that the largest batch is to fit into")
    parser.add_argument("--steps", type=int, default=3, help="in each process, at least 2")
    add_set_option(parser)
    options = started(parser, words)
    found = {name: memory_of(name, options) for name in options.recipe or recipe_names()}
    print("", table(found, options.limit_gib), sep="\n")
    recipes: dict[str, Any] = {
        name: {"own_batch": asdict(own) | {"step": own.step}, **asdict(largest)}
        for name, (own, largest) in found.items()
    }
    finish(options, [], limit_bytes=int(options.limit_gib * GIB), settings=options.set, recipes=recipes)


if __name__ == "__main__":
    run(main)
