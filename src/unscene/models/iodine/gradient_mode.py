"""Gradients within a model that must be had in use too, whatever mode its caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode`, in which nothing can be differentiated; gradients are on only if they were before.

    Within, `torch.enable_grad` gives gradients as under `torch.no_grad`. Tensors made before the block may still be
    inference tensors: see `ordinary`.
    """
    wanted = torch.is_grad_enabled()  # False in inference mode, which turns them on where it is left
    with torch.inference_mode(False), torch.set_grad_enabled(wanted):
        yield


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one made in inference mode, which autograd would refuse to keep."""
    return tensor.clone() if tensor.is_inference() else tensor
