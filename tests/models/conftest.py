"""Small scenes for the tests of models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor


@pytest.fixture(scope="session")
def scenes() -> Callable[..., Tensor]:
    """A function: a number of images [B, 3, size, size] with three coloured rectangles each, on grey."""

    def make(count: int, size: int = 64, seed: int = 0) -> Tensor:
        chance = torch.Generator().manual_seed(seed)
        images = torch.full((count, 3, size, size), 0.4)
        for image in images:
            for _ in range(3):
                top, left = torch.randint(0, size - 16, (2,), generator=chance).tolist()
                height, width = torch.randint(8, 16, (2,), generator=chance).tolist()
                colour = torch.rand(3, 1, 1, generator=chance)
                image[:, top : top + height, left : left + width] = colour
        return images

    return make
