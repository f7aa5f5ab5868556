"""Compiling with numba, an optional extra (`pip install unscene[fast]`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, which takes seconds, and keep the result on disk for the next process.

    Raises:
        ImportError: numba is not installed.
    """
    import numba

    try:
        kept: Callable[..., Any] = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # nowhere to keep it: every process compiles
        kept = numba.njit(function, nogil=True)
    return kept
