"""Share compiled loops among a CPU's threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import TypeVar

import torch

Answer = TypeVar("Answer")


def on_all_threads(function: Callable[[int, int], Answer], count: int, least: int = 1) -> list[Answer]:
    """Call function(start, stop) for equal parts of range(count), each on a thread of its own.

    The function must let go of Python's lock to gain by it, as a compiled one does (`compilation`).

    Args:
        function: what to call; its parts must not get in each other's way.
        count: of things.
        least: things that are worth a thread.

    Returns:
        The answers in the order of the parts: as many as PyTorch has threads, fewer of few things, one of nothing.
    """
    parts = max(1, min(torch.get_num_threads(), count // least))
    edges = [count * part // parts for part in range(parts + 1)]
    others = [_pool(os.getpid(), parts - 1).submit(function, *part) for part in pairwise(edges[1:])]
    return [function(0, edges[1]), *(other.result() for other in others)]


@lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """The threads besides the calling one; those of another process are not here after a fork."""
    return ThreadPoolExecutor(threads, thread_name_prefix="unscene")
