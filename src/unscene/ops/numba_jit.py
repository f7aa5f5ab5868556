"""Compiling with numba, an optional extra (`pip install unscene[fast]`, or `[render]`)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function at its first call, which takes seconds, and keep the result on disk for the next process.

    It may call compiled functions of its own file. Of other files it calls `compiled_part`s, and closes over
    `code_of` those files: what is kept is known by its own file and by the values that it closes over.

    Raises:
        ImportError: numba is not installed.
    """
    import numba

    try:
        kept: Callable[..., Any] = numba.njit(function, cache=True, nogil=True)
    except RuntimeError:  # nowhere to keep it: every process compiles
        kept = numba.njit(function, nogil=True)
    return kept


def compiled_part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function as a part of others, which are kept on disk with it; a division by 0 is as IEEE has it.

    Raises:
        ImportError: numba is not installed.
    """
    import numba

    part: Callable[..., Any] = numba.njit(function, nogil=True, error_model="numpy")
    return part


def code_of(*modules: ModuleType) -> str:
    """A digest of the modules' files, which differs as soon as one of them does."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
