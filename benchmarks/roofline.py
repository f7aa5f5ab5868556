"""How near a training step is to what the machine allows: operations and bytes counted, rates and times measured.

    python -m benchmarks.roofline --recipe rmonet_unet/multi_dsprites_cpu --batch 64 --figure roofline.png

Three bounds on the step's time, from the counted work and the measured rates:

- overlapped: FLOPs at the matrix rate or bytes at the copy rate, whichever takes longer;
- op by op: the same of each operation, summed, since one runs after the other: what "share" is of;
- in turn: all FLOPs, then all bytes.

The rates are measured before the step and after it, and the better ones count; still, a machine that others use, too,
may have been quicker for the one than for the other.

The bytes are those of the operations as they are; whoever fuses operations moves fewer. An operation moves its bytes at
best as quickly as a copy of as many bytes. One that mostly reads can be quicker than a copy: its share may exceed 1.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import finish, option_parser, run, started
from benchmarks.machine_rates import dtype_name, measured_rates
from benchmarks.model_parts import REST, ModelParts
from benchmarks.operation_counter import Operation, OperationCounter
from benchmarks.part_work import PartWork, work_of_parts
from benchmarks.recipe_step import RecipeStep, add_set_option, recipe_to_measure
from benchmarks.timing import Comparison, measure

OPTIMISER = "optimiser"
UNSEEN = "outside of operations"  # Python, autograd, and what NumPy and SciPy do; below 0 where a GPU overlaps it


def counted_steps(step: RecipeStep, steps: int) -> tuple[list[str], list[list[Operation]]]:
    """Take steps and count: return the names of the parts, in order, and each step's operations."""
    parts = ModelParts(step.model)
    counted = []
    for _ in range(steps):
        counter = OperationCounter(parts, step.device)
        with counter:
            with parts.followed():
                step.gradients()
            with parts.at_work(OPTIMISER):
                step.update()
        counted.append(counter.operations())
    return [*parts.parts, OPTIMISER, REST], counted


def table(work: dict[str, PartWork], total: PartWork) -> str:
    """The parts as aligned text, a line each, and the step as measured undisturbed below them."""
    heads = ("", "GFLOP", "MB matrix", "MB other", "operations", "ms FLOPs", "ms bytes", "ms at least", "ms", "share")
    lines = ["".join([f"{heads[0]:22}", *(f"{head:>12}" for head in heads[1:])])]
    unseen = total.seconds - sum(part.seconds for part in work.values())
    for name, part in {**work, "step": total}.items():
        counts = f"{part.flops / 1e9:12,.2f}{part.matrix_bytes / 1e6:12,.1f}{part.other_bytes / 1e6:12,.1f}"
        counts += f"{part.operations:12,}"
        times = (part.flops_seconds, part.bytes_seconds, part.bound, part.seconds)
        shown = "".join(f"{1000 * seconds:12,.2f}" for seconds in times)
        if name == "step":
            lines.append(f"{UNSEEN:22}{1000 * unseen:108,.2f}")
        lines.append(f"{name:22}{counts}{shown}{part.share:12.2f}")
    overlapped, in_turn = max(total.flops_seconds, total.bytes_seconds), total.flops_seconds + total.bytes_seconds
    bounds = {"overlapped": overlapped, "op by op": total.bound, "in turn": in_turn}
    lines += [
        f"bound, {name:15}{1000 * bound:12,.2f} ms  share reached {bound / total.seconds:.2f}"
        for name, bound in bounds.items()
    ]
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("roofline", __doc__)
    parser.add_argument("--recipe", default="rmonet_unet/multi_dsprites_cpu", help="whose step")
    parser.add_argument("--batch", type=int, default=0, help="images a step; 0: the recipe's")
    parser.add_argument("--figure", type=Path, metavar="FILE.png", help="draw it, too")
    add_set_option(parser)
    options = started(parser, words)
    step = RecipeStep(recipe_to_measure(options.recipe, options.set), options.batch, options.device)
    title = f"training step of {options.recipe}, batch {step.batch_size}"
    rates = measured_rates(options.device, step.bfloat16)
    seconds = measure({"step": step}, options.rounds, options.seconds, options.device)
    comparison = Comparison(title, seconds, items=step.batch_size)
    names, counted = counted_steps(step, options.rounds)
    rates = rates.best(measured_rates(options.device, step.bfloat16))
    work = work_of_parts(names, counted, rates)
    total = PartWork.of(counted[-1], rates, statistics.median(seconds["step"]))
    print(comparison.table(), rates.table(), table(work, total), sep="\n\n")
    if options.figure:
        from benchmarks.roofline_figure import write_roofline  # Matplotlib, for those who draw

        write_roofline(options.figure, title, work, total, rates, step.dtype)
        print(f"drawn: {options.figure}")
    parts: dict[str, Any] = {name: part.as_json() for name, part in work.items()}
    finish(
        options,
        [comparison],
        recipe=options.recipe,
        settings=options.set,
        precision=dtype_name(step.dtype),
        rates=rates.as_json(),
        step=total.as_json(),
        parts=parts,
    )


if __name__ == "__main__":
    run(main)
