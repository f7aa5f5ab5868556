"""What each part of a training step asks of the machine, and the time it takes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.machine_rates import MachineRates
from benchmarks.operation_counter import Operation


@dataclass(frozen=True)
class PartWork:
    """What a part of a step asks of the machine, and the time it takes.

    Attributes:
        flops: of matrix products and convolutions.
        matrix_bytes: that they read and write.
        other_bytes: that everything else does: activations, copies, reductions.
        operations: their number.
        flops_seconds: the FLOPs at the measured rate of their dtype.
        bytes_seconds: all bytes at the rate of copies as large.
        bound: seconds at least, operation by operation.
        seconds: measured, the operations' own times; median over the counted steps.
    """

    flops: int
    matrix_bytes: int
    other_bytes: int
    operations: int
    flops_seconds: float
    bytes_seconds: float
    bound: float
    seconds: float

    @property
    def bytes(self) -> int:
        """Of all operations."""
        return self.matrix_bytes + self.other_bytes

    @property
    def share(self) -> float:
        """Of what the machine allows, op by op: 1 is the bound; 0 where nothing was done."""
        return self.bound / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, float]:
        """Everything, ready for JSON."""
        return {**asdict(self), "share": self.share}

    @classmethod
    def of(cls, operations: Sequence[Operation], rates: MachineRates, seconds: float) -> PartWork:
        """The sum over the operations of one step."""
        compute_seconds = [operation.flops / rates.flops(operation.dtype) for operation in operations]
        memory_seconds = [operation.bytes / rates.bandwidth(operation.bytes) for operation in operations]
        return cls(
            flops=sum(operation.flops for operation in operations),
            matrix_bytes=sum(operation.bytes for operation in operations if operation.flops),
            other_bytes=sum(operation.bytes for operation in operations if not operation.flops),
            operations=len(operations),
            flops_seconds=sum(compute_seconds),
            bytes_seconds=sum(memory_seconds),
            bound=sum(map(max, compute_seconds, memory_seconds)),
            seconds=seconds,
        )


def work_of_parts(
    names: Sequence[str], steps: Sequence[Sequence[Operation]], rates: MachineRates
) -> dict[str, PartWork]:
    """The work of each part in the last of the steps, with the median of its time in all of them."""
    work = {}
    for name in names:
        seconds = statistics.median(
            sum(operation.seconds for operation in step if operation.part == name) for step in steps
        )
        work[name] = PartWork.of([operation for operation in steps[-1] if operation.part == name], rates, seconds)
    return work
