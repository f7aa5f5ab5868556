"""What is chosen for SPACE's foreground."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed
from unscene.settings import settings_dataclass

FEWEST = 0.001  # the smallest first presence: tanh, which bounds the logits, still learns there


@settings_dataclass
class ForegroundSettings:
    """Settings of the foreground; the defaults are the authors' for images of 128 pixels, and R-MONet's schedules.

    Attributes:
        grid: cells on a side, G.
        sigma: standard deviation of the foreground's Gaussian.
        channels: of the image's encoder.
        strides: of its convolutions; together they take the image down to the grid.
        features: channels of a cell.
        glimpse_size: height and width of the glimpses.
        glimpse_channels: of the glimpses' encoder.
        glimpse_strides: of its convolutions.
        glimpse_hidden: units between its smallest map and z_what, and of the decoder's first map.
        decoder_channels: of the glimpses' decoder, from one pixel to `glimpse_size`.
        glimpse_norm: the glimpses' networks normalise their maps by groups, as in the authors' program, which takes out
            how bright a map of one colour is. False (ours): they do not.
        what_dim: D, of z_what.
        presence: prior probability of an object in a cell.
        first_weights: of the glimpses' networks: PyTorch's own (`default`), as in the authors' program, or those that
            `keep_variance` (ours), by which z_what carries colours sooner.
        first_presence: probability of an object that the bias of a new model's presences stands for (ours); the first
            weights scatter the cells about it. Below 1/2 the objects cover less of the image at first, and the
            background learns what they need not draw. None: PyTorch's own bias, nearly 1/2.
        scale_mean: prior mean of a box's scale, before the sigmoid: the share of the image's side that the box has.
        scale_std: its standard deviation.
        temperature: of the relaxed presence.
        weigh_by_presence: the divergences of scale, shift, depth and z_what count as much as the presence: by the
            paper's prior an object exists only where z_pres is 1. False: wholly, as in the authors' program.
        what_weight: factor of z_what's divergence, ours where it is not 1: from 0 on, objects learn their colours
            before these cost anything.
        darkened: an object's colour counts times its alpha (as in the authors' program): where alpha is a half, a pixel
            is half as bright, so outlines that are not sure of a pixel claim it whole. False (ours): alpha is a weight
            of the mixture, as a mask is in MONet, and faint objects learn their colours like others.
        boundary_width: of a glimpse's border, in its cells; 0: no boundary loss.
        boundary_end_step: the boundary loss ends there; None: it stays to the end of the training.
        fixed_alpha_steps: for so many steps of a training the foreground's share is the same everywhere, so that both
            parts learn to draw. Unless `darkened`, presence and alpha of a lone object do not matter to the likelihood
            meanwhile.
        fixed_alpha: that share.

    Raises:
        RecipeError: a value that cannot be.
    """

    grid: PositiveInt = 8
    sigma: PositiveFloat = 0.11
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2)
    features: PositiveInt = 128
    glimpse_size: PositiveInt = 32
    glimpse_channels: tuple[int, ...] = (16, 32, 32, 64, 128)
    glimpse_strides: tuple[int, ...] = (1, 2, 1, 2, 2)
    glimpse_hidden: PositiveInt = 256
    decoder_channels: tuple[int, ...] = (128, 128, 64, 32, 16)
    glimpse_norm: bool = True
    what_dim: PositiveInt = 32
    presence: Annealed = field(default_factory=lambda: Annealed(4000, 10_000, 0.1, 0.01))
    first_weights: Literal["default", "keep_variance"] = "default"
    first_presence: Annotated[float, Field(ge=FEWEST, le=1 - FEWEST)] | None = None
    scale_mean: Annealed = field(default_factory=lambda: Annealed(0, 20_000, -1.0, -2.0))
    scale_std: PositiveFloat = 0.1
    temperature: Annealed = field(default_factory=lambda: Annealed(0, 20_000, 2.5, 0.5))
    weigh_by_presence: bool = False
    what_weight: Annealed = field(default_factory=lambda: Annealed(0, 0, 1.0, 1.0))
    darkened: bool = True
    boundary_width: NonNegativeInt = 2
    boundary_end_step: NonNegativeInt | None = None
    fixed_alpha_steps: NonNegativeInt = 0
    fixed_alpha: Annotated[float, Field(gt=0, lt=1)] = 0.1

    def __post_init__(self) -> None:
        lowest, highest = self.presence.values
        if lowest <= 0 or highest >= 1:
            raise RecipeError(f"presence must stay above 0 and below 1, but it goes from {lowest} to {highest}.")
        if self.temperature.values[0] <= 0 or self.what_weight.values[0] < 0:
            raise RecipeError(
                "temperature must stay above 0 and what_weight must not fall below 0, but they go down to "
                f"{self.temperature.values[0]} and {self.what_weight.values[0]}."
            )
        if 2 * self.boundary_width > self.glimpse_size:
            raise RecipeError(
                f"boundary_width must be at most half of glimpse_size {self.glimpse_size}, not {self.boundary_width}."
            )
