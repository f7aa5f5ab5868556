"""Loops compiled with numba, an optional extra (`pip install unscene[fast]`, or `[render]`), shared among threads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, which takes seconds, and keep the result on disk for the next process.

    It may call compiled functions of its own file. Of other files it calls `compiled_part`s, and closes over
    `code_of` those files: the cache on disk knows a function by its own file and by the values that it closes over.
    """
    import numba

    try:
        cached: Callable[..., Any] = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # no writable folder for the cache: every process compiles
        cached = numba.njit(function, nogil=True)
    return cached


def compiled_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that others call, and that is kept on disk with them; a division by 0 follows IEEE 754."""
    import numba

    return numba.njit(function, nogil=True, error_model="numpy")


def code_of(*modules: ModuleType) -> str:
    """A digest of the modules' files; it differs as soon as one of them does."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()


def on_all_threads(function: Callable[[int, int], Result], count: int) -> list[Result]:
    """Call function(start, stop) for equal parts of range(count), one a thread; the results are in the parts' order.

    There are as many parts as PyTorch has threads, but no empty one unless all are. The function gains only where it
    releases Python's lock, as a compiled one does.
    """
    parts = max(1, min(torch.get_num_threads(), count))
    edges = [count * part // parts for part in range(parts + 1)]
    others = [_pool(os.getpid(), parts - 1).submit(function, *part) for part in pairwise(edges[1:])]
    return [function(0, edges[1]), *(other.result() for other in others)]


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The threads besides the calling one; a forked process starts its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="unscene")
