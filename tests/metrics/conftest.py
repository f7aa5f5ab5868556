"""Decompositions made from label maps, for the tests of metrics."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from unscene.scene import Decomposition


@pytest.fixture(scope="session")
def hard_decomposition() -> Callable[..., Decomposition]:
    """A function: slot maps [B, H, W] to a decomposition in which that slot has the whole pixel, the others log 0."""

    def make(slots: Tensor, num_slots: int, background: int | None = None, **boxes: Tensor) -> Decomposition:
        one_hot = torch.nn.functional.one_hot(slots.long(), num_slots).movedim(-1, 1).unsqueeze(2)
        components = torch.zeros(len(slots), num_slots, 3, *slots.shape[1:])
        return Decomposition(one_hot.float().log(), components, background, **boxes)

    return make
