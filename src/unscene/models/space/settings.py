"""Settings of SPACE, of its foreground and of its background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed
from unscene.models.common.component_vae import ComponentVAESettings
from unscene.models.common.mixture import MaskOutput, MixtureOver
from unscene.settings import settings_dataclass

Channels = Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
Strides = tuple[Annotated[int, Field(ge=1, le=2)], ...]
MIN_PRESENCE = 0.001  # the smallest initial presence: the tanh that bounds the logits still has a gradient there


@settings_dataclass
class ForegroundSettings:
    """Settings of the foreground; the defaults are the authors' for images of 128 pixels, and R-MONet's schedules."""

    grid: PositiveInt = 8  # cells on a side, G
    sigma: PositiveFloat = 0.11  # standard deviation of the foreground's Gaussian
    channels: Channels = (16, 32, 64, 128, 256)  # channels of the image encoder's convolutions
    # strides of the same convolutions, 1 or 2; their product is the image's side divided by the grid
    strides: Strides = (2, 2, 2, 1, 2)
    features: PositiveInt = 128  # channels of a cell
    glimpse_size: PositiveInt = 32  # height and width of the glimpses
    glimpse_channels: Channels = (16, 32, 32, 64, 128)  # channels of the glimpse encoder's convolutions
    glimpse_strides: Strides = (1, 2, 1, 2, 2)  # strides of the same convolutions, 1 or 2
    glimpse_hidden: PositiveInt = 256  # units between its last map and z_what, and channels of the decoder's first map
    # channels of the glimpse decoder's levels, from one pixel to `glimpse_size`
    decoder_channels: Channels = (128, 128, 64, 32, 16)
    # The glimpse networks have group normalisation, as in the authors' program. False (ours): they do not; group
    # normalisation removes the brightness of a map of one colour.
    glimpse_norm: bool = True
    what_dim: PositiveInt = 32  # D, of z_what
    # prior probability of an object in a cell
    presence: Annealed = field(default_factory=lambda: Annealed(4000, 10_000, 0.1, 0.01))
    # of the glimpse networks' weights: PyTorch's own (`default`, as in the authors' program) or `kaiming` (ours), which
    # keeps the variance of the activations, so that z_what learns colours sooner
    init: Literal["default", "kaiming"] = "default"
    # Probability of an object in a new model's cells (ours), set by a bias. Below 1/2 the objects cover less of the
    # image at first, and the background learns its part. None: PyTorch's bias, nearly 1/2.
    initial_presence: Annotated[float, Field(ge=MIN_PRESENCE, le=1 - MIN_PRESENCE)] | None = None
    # prior mean of a box's scale, before the sigmoid: the side of the box divided by the image's
    scale_mean: Annealed = field(default_factory=lambda: Annealed(0, 20_000, -1.0, -2.0))
    scale_std: PositiveFloat = 0.1  # prior standard deviation of the same
    # temperature of the relaxed presence
    temperature: Annealed = field(default_factory=lambda: Annealed(0, 20_000, 2.5, 0.5))
    # The KL terms of scale, shift, depth and z_what are multiplied by z_pres: in the paper's prior an object exists
    # only where z_pres is 1. False: they are not, as in the authors' program.
    weigh_by_presence: bool = False
    # Factor of z_what's KL term. Ours where it is not 1: from 0 on, objects first learn their colours.
    what_weight: Annealed = field(default_factory=lambda: Annealed(0, 0, 1.0, 1.0))
    # An object's colour is multiplied by its alpha (the authors' program), so that a pixel of alpha 1/2 is half as
    # bright and uncertain outlines grow. False (ours): alpha is a weight of the mixture only.
    darkened: bool = True
    boundary_width: NonNegativeInt = 2  # width of a glimpse's border, in its cells; 0: no boundary loss
    boundary_end_step: NonNegativeInt | None = None  # the first step without the boundary loss; None: every step has it
    # the likelihood has a constant foreground alpha for this number of steps, so that both parts learn to reconstruct
    fixed_alpha_steps: NonNegativeInt = 0

    def __post_init__(self) -> None:
        lowest, highest = self.presence.values
        if lowest <= 0 or highest >= 1:
            raise RecipeError(f"presence must stay above 0 and below 1, but it goes from {lowest} to {highest}.")
        if self.temperature.values[0] <= 0 or self.what_weight.values[0] < 0:
            raise RecipeError(
                "temperature must stay above 0 and what_weight must not fall below 0, but their lowest values are "
                f"{self.temperature.values[0]} and {self.what_weight.values[0]}."
            )
        if 2 * self.boundary_width > self.glimpse_size:
            raise RecipeError(
                f"boundary_width must be at most half of glimpse_size {self.glimpse_size}, not {self.boundary_width}."
            )
        _check_strides("", self.channels, self.strides)
        _check_strides("glimpse_", self.glimpse_channels, self.glimpse_strides)
        _check_encoder("glimpse_strides", self.glimpse_strides, self.glimpse_size)
        _check_decoder("decoder_channels", self.decoder_channels, self.glimpse_size)


@settings_dataclass
class BackgroundSettings:
    """Settings of the background; the defaults are the authors', and R-MONet's number of components."""

    components: Annotated[int, Field(ge=2)] = 3  # K, at least 2: with one there is no mask to learn
    sigma: PositiveFloat = 0.09  # standard deviation of every component's Gaussian
    channels: Channels = (64, 64, 64, 64)  # channels of the image encoder's convolutions, all of stride 2
    features: PositiveInt = 64  # length of the image's vector, and units of the encoder's hidden layer
    hidden: PositiveInt = 64  # units of the recurrent networks and of the components' prior
    mask_dim: PositiveInt = 32  # length of each mask's latent
    mask_hidden: PositiveInt = 256  # channels of the mask decoder's first map
    mask_channels: Channels = (256, 128, 64, 16)  # channels of its levels, from one pixel to the image
    # Of the components: encodes the image and a mask, decodes a colour image. Its decoder has ReLU and no batch
    # normalisation, where the authors' has ELU and batch normalisation; its mask output is not used.
    vae: ComponentVAESettings = field(default_factory=lambda: ComponentVAESettings(latent_dim=32))

    def __post_init__(self) -> None:
        if "roi" in (self.vae.encoder_region, self.vae.decoder_region):
            raise RecipeError("vae.encoder_region and decoder_region must be image: the background has no boxes.")


@settings_dataclass
class SPACESettings:
    """Every setting of SPACE; the defaults are R-MONet's appendix table for Multi-dSprites."""

    size: PositiveInt = 64  # height and width of the images
    # Factor by which the images are enlarged first. Masks, components and boxes are returned at `size`; the losses
    # count the enlarged image's pixels.
    scale: PositiveInt = 2
    num_slots: int = 6  # K of the decomposition: the K-1 cells with the highest presence, and the background
    # the likelihood mixes each `pixel` (the paper), or each `channel` by itself (the authors' program)
    mixture_over: MixtureOver = "pixel"
    # masks of the output: `inferred` are the paper's, the objects' alpha; `posterior` (ours) weighs them by how well
    # each slot's component fits the pixel, see `posterior_log_masks`. The loss is the same
    # with both; a validation, and so the choice of the best weights, sees the shown masks.
    masks: MaskOutput = "inferred"
    # Factor of every KL term. Ours where it is not 1: the likelihood is a sum over the pixels and the KL terms are not,
    # so at 64 pixels, where the paper has 128, a KL term counts four times as much; 0.25 corrects this.
    kl_weight: NonNegativeFloat = 1.0
    foreground: ForegroundSettings = field(default_factory=ForegroundSettings)
    background: BackgroundSettings = field(default_factory=BackgroundSettings)

    def __post_init__(self) -> None:
        grid, size, stride = self.foreground.grid, self.size * self.scale, math.prod(self.foreground.strides)
        if not 2 <= self.num_slots <= grid**2 + 1:
            raise RecipeError(
                f"num_slots must be from 2 (one is the background) to {grid**2 + 1}, one more than the grid's cells, "
                f"not {self.num_slots}."
            )
        if size != grid * stride:
            raise RecipeError(
                f"foreground.strides {list(self.foreground.strides)} divide images of {size} pixels to a grid of "
                f"{size / stride:g}, but foreground.grid is {grid}: change one of them (scale enlarges the images)."
            )
        _check_encoder("background.channels", [2] * len(self.background.channels), size)
        _check_decoder("background.mask_channels", self.background.mask_channels, size)


def _check_strides(prefix: str, channels: Sequence[int], strides: Sequence[int]) -> None:
    if len(channels) != len(strides):
        raise RecipeError(
            f"{prefix}channels and {prefix}strides must have one value for each layer, not {list(channels)} and "
            f"{list(strides)}."
        )


def _check_encoder(name: str, strides: Sequence[int], size: int) -> None:
    if size % math.prod(strides):
        raise RecipeError(
            f"{name} cannot divide {size} pixels by strides {list(strides)}: take fewer layers of stride 2, or a size "
            f"that is a multiple of {math.prod(strides)}."
        )


def _check_decoder(name: str, channels: Sequence[int], size: int) -> None:
    doublings = size.bit_length() - 1
    if 2**doublings != size or doublings < len(channels):
        raise RecipeError(
            f"{name} cannot reach {size} pixels in {len(channels)} levels: the size must be a power of 2, and the "
            f"levels from 1 to {max(1, doublings)}."
        )
