"""Gradients inside a model that inference needs too, whatever gradient mode the caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def outside_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode`, which forbids all differentiation. Gradients stay on or off as they were.

    Inside, `torch.enable_grad` works as it does under `torch.no_grad`. Tensors created before may still be inference
    tensors: see `without_inference_mode`.
    """
    enabled = torch.is_grad_enabled()  # False in inference mode; leaving that mode would turn gradients on
    with torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield


def without_inference_mode(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it was created in inference mode: autograd cannot save such a tensor."""
    return tensor.clone() if tensor.is_inference() else tensor
