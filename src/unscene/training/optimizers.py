"""Several optimisers as one: what a training loop that knows one optimiser steps, saves and resumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim import Optimizer


class CombinedOptimizer(Optimizer):
    """Steps optimisers of different kinds together, each with its own parameters.

    Its `param_groups` are theirs, one after the other, and its `state` is theirs: a rate that is set here is set there,
    gradients that are clipped over its groups are clipped by one norm, and its `state_dict` holds everything.

    Args:
        optimizers: which share no parameter, and have not stepped yet.

    Raises:
        ValueError: two have a parameter in common.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([group for each in self.optimizers for group in each.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Step every optimiser, after `closure`, which computes the gradients, has been called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for each in self.optimizers:
            each.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """For a copy."""
        return super().__getstate__() | {"optimizers": self.optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over groups and state, which `load_state_dict` makes anew."""
        super().__setstate__(state)
        self._share()

    def _share(self) -> None:
        """Let each optimiser work on its groups and on the common state."""
        begin = 0
        for each in self.optimizers:
            end = begin + len(each.param_groups)
            each.param_groups, each.state = self.param_groups[begin:end], self.state
            begin = end
