"""Settings of the process that make PyTorch faster on a CPU."""

from __future__ import annotations

import ctypes
import sys

import torch

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
AT_LEAST = 2**28  # bytes that the heap grows by


def tune_cpu() -> None:
    """Flush denormal numbers to zero, and let glibc, where there is one, keep freed memory for the next tensor.

    Responsibilities far from a slot underflow to denormal numbers, which are slow on a CPU. Every step frees and
    allocates the same hundreds of megabytes, and new pages from the system take a quarter of the time of R-MONet's
    step. With kept blocks the process keeps its peak memory.
    """
    torch.set_flush_denormal(True)
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(M_TOP_PAD, AT_LEAST)
