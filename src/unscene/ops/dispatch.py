"""How an operation is computed: by its plain body or a fast one, with or without reads by the host, in which precision.

Every operation has a plain body, its definition, and may have fast ones.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from types import ModuleType

import torch
from torch import Tensor


def use_plain() -> bool:
    """Return whether every operation must take its plain body: `UNSCENE_PLAIN` is set to anything but 0, or the
    model is exported.

    An operation asks at every call, so a test can set the variable for one call. Plain bodies are for reading, for
    debugging and as the tests' oracle; they give the fast bodies' results, up to the rounding of float32.
    """
    return os.environ.get("UNSCENE_PLAIN", "0") not in ("", "0") or torch.compiler.is_exporting()


def host_may_read(values: Tensor) -> bool:
    """Return whether reading a value costs nothing: on a CPU, but not in an export. The host would wait for a GPU."""
    return values.device.type == "cpu" and not torch.compiler.is_exporting()


@cache
def compiled_module(name: str) -> ModuleType | None:
    """A module of compiled functions, imported when the first tensor needs them; None without numba."""
    try:
        return import_module(name)
    except ImportError:
        return None


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or float64 if it is: the precision of likelihoods, divergences and codes."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
