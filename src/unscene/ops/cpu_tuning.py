"""What makes PyTorch quicker on a CPU without changing a number, for the whole process."""

from __future__ import annotations

import ctypes
import sys

import torch

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
AT_LEAST = 2**28  # bytes that the heap grows by


def tune_cpu() -> None:
    """Flush denormal numbers to zero, and keep freed memory for the next tensor.

    Responsibilities far from a slot underflow, and a CPU takes its time over such numbers.

    A step frees and asks for the same hundreds of megabytes again and again. glibc gives blocks so large back to the
    system at once, which then hands out empty pages one by one: in R-MONet's step a quarter of the time. So it is told
    to keep them. The process holds on to its peak. Elsewhere than on glibc this part does nothing.
    """
    torch.set_flush_denormal(True)
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, AT_LEAST)
