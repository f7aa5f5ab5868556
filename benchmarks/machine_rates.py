"""What the machine can do at best: its rate of multiply-adds, and of moving bytes, measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from benchmarks.timing import measure

_ROUNDS, _SECONDS = 5, 0.05
_SIZES = tuple(2**power for power in range(18, 31, 2))  # bytes moved: from what a core's cache holds to 1 GiB


@dataclass(frozen=True)
class MachineRates:
    """The best that was seen of each kind.

    Attributes:
        matmul: FLOP/s of a product of two large matrices, by dtype.
        convolution: FLOP/s of a 3x3 convolution with many channels, channels last, by dtype.
        copy: bytes read and written a second, by the bytes of one copy.
    """

    matmul: dict[torch.dtype, float]
    convolution: dict[torch.dtype, float]
    copy: dict[int, float] = field(default_factory=dict)

    def flops(self, dtype: torch.dtype | None) -> float:
        """The roof for a dtype; of one that was not measured, the highest of all, so that a bound stays a bound."""
        rates = [rates_by_dtype[dtype] for rates_by_dtype in (self.matmul, self.convolution) if dtype in rates_by_dtype]
        return max(rates or [*self.matmul.values(), *self.convolution.values()])

    def bandwidth(self, moved: int) -> float:
        """Bytes a second at which so many bytes can be moved: the best of the sizes from the next smaller one on."""
        smaller = max((size for size in self.copy if size <= moved), default=0)
        return max(rate for size, rate in self.copy.items() if size >= smaller)

    def best(self, other: MachineRates) -> MachineRates:
        """The better of two measurements of one machine, each by each: on a shared one either may have been held up."""
        return MachineRates(
            matmul={dtype: max(rate, other.matmul[dtype]) for dtype, rate in self.matmul.items()},
            convolution={dtype: max(rate, other.convolution[dtype]) for dtype, rate in self.convolution.items()},
            copy={size: max(rate, other.copy[size]) for size, rate in self.copy.items()},
        )

    def table(self) -> str:
        """The rates as text."""
        rows = [("matrix product", self.matmul), ("3x3 convolution", self.convolution)]
        lines = [
            f"{name:16} {dtype_name(dtype):10}{rate / 1e9:12,.0f} GFLOP/s"
            for name, rates in rows
            for dtype, rate in rates.items()
        ]
        lines += [f"copy, {size / 2**20:12,.2f} MiB moved {rate / 1e9:12,.1f} GB/s" for size, rate in self.copy.items()]
        return "\n".join(lines)

    def as_json(self) -> dict[str, dict[str, float]]:
        """Ready for JSON; dtypes as `bfloat16`."""
        return {
            "matmul_flops": {dtype_name(dtype): rate for dtype, rate in self.matmul.items()},
            "convolution_flops": {dtype_name(dtype): rate for dtype, rate in self.convolution.items()},
            "copy_bytes_per_second": {str(size): rate for size, rate in self.copy.items()},
        }


def measured_rates(device: torch.device | str, bfloat16: bool, smaller: int = 1) -> MachineRates:
    """Measure a device's rates, with the threads that PyTorch has.

    Args:
        device: of which.
        bfloat16: whether the training multiplies in bfloat16; some of its products stay in float32 then.
        smaller: everything is as many times smaller; above 1 for a test only, the rates are too low then.
    """
    dtypes = [torch.bfloat16, torch.float32] if bfloat16 else [torch.float32]
    return MachineRates(
        matmul={dtype: _rate(*_matmul(device, dtype, smaller), device) for dtype in dtypes},
        convolution={dtype: _rate(*_convolution(device, dtype, smaller), device) for dtype in dtypes},
        copy={size: _rate(*_copy(device, size), device) for size in (size // smaller for size in _SIZES)},
    )


def dtype_name(dtype: torch.dtype) -> str:
    """`bfloat16` of `torch.bfloat16`."""
    return str(dtype).removeprefix("torch.")


def _rate(work: float, subject: Callable[[], object], device: torch.device | str) -> float:
    """Work a second, the best of a few rounds."""
    return work / min(measure({"": subject}, _ROUNDS, _SECONDS, device)[""])


def _matmul(device: torch.device | str, dtype: torch.dtype, smaller: int) -> tuple[float, Callable[[], object]]:
    """FLOPs of a product of square matrices, and the product."""
    side = (8192 if torch.device(device).type == "cuda" else 2048) // smaller
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2.0 * side**3, lambda: first @ second


def _convolution(device: torch.device | str, dtype: torch.dtype, smaller: int) -> tuple[float, Callable[[], object]]:
    """FLOPs of a padded 3x3 convolution from 128 to 128 channels, 256 on a GPU, at 32 x 32 pixels; and the same."""
    images, channels = (512, 256) if torch.device(device).type == "cuda" else (32, 128)
    images, channels = max(1, images // smaller), max(8, channels // smaller)
    maps = torch.randn(images, channels, 32, 32, device=device).to(dtype, memory_format=torch.channels_last)
    kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=torch.channels_last)

    @torch.no_grad()
    def convolve() -> object:
        return F.conv2d(maps, kernel, padding=1)

    return 2.0 * images * 32**2 * channels**2 * 9, convolve


def _copy(device: torch.device | str, moved: int) -> tuple[float, Callable[[], object]]:
    """The bytes that a copy moves, half read and half written; and the copy."""
    source = torch.ones(moved // 2, dtype=torch.uint8, device=device)  # zeros would be one page of memory, many times
    target = torch.empty_like(source)
    return float(moved), lambda: target.copy_(source)
