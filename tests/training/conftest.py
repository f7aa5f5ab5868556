"""What a checkpoint holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def state() -> Callable[[Path], dict[str, torch.Tensor]]:
    """The model's tensors of a checkpoint."""
    return lambda path: torch.load(path, weights_only=True)["state_dict"]
