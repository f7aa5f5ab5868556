"""What a training step asks of the machine, operation by operation: FLOPs, bytes, and the time that each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.model_parts import ModelParts

# Operations that do not read their first tensor: they only write it, or ask for its shape.
_FIRST_IS_NOT_READ = {
    *("copy_", "fill_", "zero_", "normal_", "uniform_", "random_", "bernoulli_"),
    *("zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "new_zeros", "new_ones", "new_full"),
}


@dataclass(frozen=True)
class Operation:
    """One call of a kernel.

    Attributes:
        part: of the model, or `rest`.
        name: PyTorch's, for instance `convolution_backward`.
        flops: of products of matrices and convolutions, two a multiply-add; 0 of all other operations.
        bytes: every tensor that it reads and every tensor that it writes, once.
        dtype: of its first floating-point tensor, None without one.
        seconds: its own time.
    """

    part: str
    name: str
    flops: int
    bytes: int
    dtype: torch.dtype | None
    seconds: float


class OperationCounter(TorchDispatchMode):
    """Within it, every operation that reaches a kernel is counted, forwards and backwards.

    FLOPs are those of `torch.utils.flop_counter`. Bytes are the model of a machine without memory of its own: inputs
    are read and outputs written once an operation, however often a cache would have held them; a broadcast axis is not
    read again, and a view costs nothing.

    Args:
        parts: says to which part an operation belongs.
        device: of the tensors; on a GPU the times are those between two of its events.
    """

    def __init__(self, parts: ModelParts, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self._parts = parts
        self._clock = _gpu_clock if torch.device(device).type == "cuda" else _cpu_clock
        self._found: list[tuple[Operation, Callable[[], float]]] = []

    def operations(self) -> list[Operation]:
        """The counted operations in order; on a GPU this waits for them."""
        if self._clock is _gpu_clock:
            torch.cuda.synchronize()
        return [Operation(**{**operation.__dict__, "seconds": seconds()}) for operation, seconds in self._found]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        stop = self._clock()
        out = func(*args, **kwargs)
        seconds = stop()
        name = func._schema.name.partition("::")[2]
        operation = Operation(
            part=self._parts.current(),
            name=name,
            flops=_flops(func, name, args, kwargs, out),
            bytes=moved_bytes(func, args, kwargs, out),
            dtype=next((tensor.dtype for tensor in _tensors((args, kwargs)) if tensor.is_floating_point()), None),
            seconds=0.0,
        )
        self._found.append((operation, seconds))
        return out


def _flops(func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    formula = flop_registry.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=out)) if formula else 0


def moved_bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Bytes that an operation reads and writes: each input and each output once; none for a view or an empty tensor.

    Args:
        func: the overload that was called, for instance `torch.ops.aten.add.Tensor`.
        args: what it was called with, by place,
        kwargs: and by name.
        out: what it answered.
    """
    name = func._schema.name.partition("::")[2]
    if func.is_view or name.startswith(("empty", "new_empty")):
        return 0
    inputs = list(_tensors((args, kwargs)))
    known = {tensor.untyped_storage().data_ptr() for tensor in inputs}
    written = list(_written(func, args, kwargs))
    fresh = [tensor for tensor in _tensors(out) if tensor.untyped_storage().data_ptr() not in known]
    if not written and not fresh and list(_tensors(out)):
        return 0  # its input under another shape, though not declared a view
    read = inputs[1:] if name in _FIRST_IS_NOT_READ else inputs
    return sum(stored_bytes(tensor) for tensor in (*read, *written, *fresh))


def stored_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor's own elements; those of an expanded axis are stored once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """The arguments that the operation's schema says it writes: `self` of add_, the lists of a fused optimiser."""
    for position, argument in enumerate(func._schema.arguments):
        # a fused optimiser's gradients are declared as written, which they are for a loss scaler only
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name != "grads":
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            yield from _tensors(given)


def _tensors(values: Any) -> Iterator[Tensor]:
    return (tensor for tensor in tree_leaves(values) if isinstance(tensor, Tensor))


def _cpu_clock() -> Callable[[], Callable[[], float]]:
    """Start; the answer stops, and its answer says the seconds."""
    start = time.perf_counter()

    def stop() -> Callable[[], float]:
        seconds = time.perf_counter() - start
        return lambda: seconds

    return stop


def _gpu_clock() -> Callable[[], Callable[[], float]]:
    """As `_cpu_clock`; the seconds are known when the GPU reaches the last event."""
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()

    def stop() -> Callable[[], float]:
        last.record()
        return lambda: first.elapsed_time(last) / 1000

    return stop
