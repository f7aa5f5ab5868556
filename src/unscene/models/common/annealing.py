"""A number that moves on a line during training: a pure function of the step, so that a resumed run needs no state."""

from __future__ import annotations

from pydantic import NonNegativeInt

from unscene.errors import RecipeError
from unscene.settings import settings_dataclass


@settings_dataclass
class Annealed:
    """A value that changes linearly from `start` to `end`, then stays at `end`.

    Attributes:
        start_step: last step with the value `start`.
        end_step: first step with the value `end`.
        start: the first value.
        end: the last value.
    """

    start_step: NonNegativeInt = 0
    end_step: NonNegativeInt = 0
    start: float = 0.0
    end: float = 0.0

    def __post_init__(self) -> None:
        if self.start_step > self.end_step:
            raise RecipeError(f"start_step must be at most end_step, {self.end_step}, not {self.start_step}.")

    def at(self, step: int) -> float:
        """The value at a step."""
        if step >= self.end_step:
            return self.end
        if step <= self.start_step:
            return self.start
        share = (step - self.start_step) / (self.end_step - self.start_step)
        return self.start + share * (self.end - self.start)

    @property
    def values(self) -> tuple[float, float]:
        """The smallest and the largest value."""
        return min(self.start, self.end), max(self.start, self.end)
