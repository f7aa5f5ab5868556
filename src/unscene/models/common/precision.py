"""Where half precision ends."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64: likelihoods, divergences and codes are computed so."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
