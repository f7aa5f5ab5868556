"""Values that change during training: pure functions of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat

from unscene.errors import RecipeError
from unscene.settings import settings_dataclass


@settings_dataclass
class Annealed:
    """A value that changes linearly from `start` to `end`, then stays at `end`."""

    start_step: NonNegativeInt = 0  # last step with the value `start`
    end_step: NonNegativeInt = 0  # first step with the value `end`
    start: float = 0.0  # the first value
    end: float = 0.0  # the last value

    def __post_init__(self) -> None:
        if self.start_step > self.end_step:
            raise RecipeError(f"start_step must be at most end_step, {self.end_step}, not {self.start_step}.")

    def at(self, step: int) -> float:
        if step >= self.end_step:
            return self.end
        if step <= self.start_step:
            return self.start
        share = (step - self.start_step) / (self.end_step - self.start_step)
        return self.start + share * (self.end - self.start)

    @property
    def values(self) -> tuple[float, float]:
        return min(self.start, self.end), max(self.start, self.end)


@settings_dataclass
class WarmupSettings:
    """Values at the first step, from which the model moves to its settings' values in `steps`. Ours, not the papers'.

    Before the VAE has learnt colours, no component fits an object better than the background, so masks fade and boxes
    vanish. A wide foreground Gaussian explains the pixels that the background does not explain. It narrows while the
    VAE learns colours.
    """

    steps: NonNegativeInt = 0  # length; 0: no warm-up
    sigma_foreground: PositiveFloat = 0.3  # value at step 0; it changes geometrically
    latent_weight: NonNegativeFloat = 0.0  # beta at step 0; it changes linearly
    mask_weight: NonNegativeFloat = 0.0  # gamma at step 0; it changes linearly
    # Threshold of R-MONet's boxes at step 0; it changes linearly. MONet has no boxes.
    score_threshold: NonNegativeFloat = 0.0
    # True: `background_cells`, `foreground_colours` and R-MONet's `pseudo_boxes.by_quality` hold only after the
    # warm-up, which they slow down in R-MONet.
    free_colours: bool = False

    def linear(self, step: int, start: float, end: float) -> float:
        """Return a value at a step: linear from `start` to `end` over the warm-up, then `end`."""
        return end if step >= self.steps else start + (end - start) * (step / self.steps)

    def sigma(self, step: int, end: float) -> float:
        """Return the foreground's standard deviation at a step of the warm-up, `end` after it."""
        if step >= self.steps:
            return end
        return math.exp(self.linear(step, math.log(self.sigma_foreground), math.log(end)))
