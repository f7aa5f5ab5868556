"""Whether an operation may look at values on its way."""

from __future__ import annotations

from torch import Tensor


def host_may_read(values: Tensor) -> bool:
    """Return whether reading a value costs nothing: on a CPU. The host that reads a GPU's value waits for the GPU."""
    return values.device.type == "cpu"
