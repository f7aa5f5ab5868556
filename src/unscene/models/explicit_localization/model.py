"""Unsupervised object segmentation with an explicit localization module (Liu, Wei, Sharpnack & Owens, 2019).

There is no attention network. In each step an auto-encoder g(x, s) reconstructs the part of the image that is not yet
explained. The region with the best reconstruction quality Q becomes the centre of a window G. A Gaussian mixture over
colour and position splits the pixels of the window into an object (the location mask L) and the rest. The object's mask
is m = s Q L. Only the auto-encoder has weights.

Symbols of the paper: x image, x_re reconstruction, s remaining mask, Q quality, L location mask, m mask of a step,
sigma_1 `quality_variance`, beta `prior_weight`, gamma `latent_weight`, zeta `masked_colour`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from unscene.distributed.processes import rows_of_all_processes, shared_noise
from unscene.errors import RecipeError, check_shape
from unscene.models.common.gaussian import gaussian_kl
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings, ConvolutionalAutoencoder
from unscene.models.explicit_localization.location_mask import LocationSettings, location_mask
from unscene.models.explicit_localization.sequence import SequenceState, decompose_next
from unscene.models.explicit_localization.window import best_region
from unscene.ops.dispatch import host_may_read
from unscene.scene import Decomposition, Losses
from unscene.settings import settings_dataclass

_SMOOTHING = 0.01  # of the norm of an error, which then has a gradient at 0


@settings_dataclass
class ExplicitLocalizationSettings:
    """Settings of the model. The paper states K and the kinds of network, and none of the other numbers."""

    size: PositiveInt = 64  # height and width of the images
    num_slots: Annotated[int, Field(ge=2)] = 6  # K, the background included; the background is the first slot
    quality_variance: PositiveFloat = 0.05  # sigma_1 of the reconstruction quality, for images in 0..1
    # Sigma_1 in the objects' steps; None: the same, as in the paper. A larger value (ours) finds objects that are not
    # yet reconstructed well.
    object_quality_variance: PositiveFloat | None = None
    prior_weight: NonNegativeFloat = 0.01  # beta of Eq. 1.
    # Gamma of Eq. 1. With 0 the network is an auto-encoder: it samples no noise.
    latent_weight: NonNegativeFloat = 1e-3
    masked_colour: float = 0.5  # zeta of Eq. 1, the target colour where a step's mask is 0.
    # Eq. 1 compares m x_re with m x ("redefining x_re := m x_re helps"), so a pixel counts m^3 (x_re - x)^2. False: m
    # (x_re - x)^2, as the equation is printed.
    masked_reconstruction: bool = True
    # `squared` is the squared distance in colour of Eq. 1. `norm` (ours) is the distance itself: the best background is
    # then close to the median colour, which the objects change less than the mean.
    residual: Literal["squared", "norm"] = "squared"
    # What an object's step explains. `quality` is the paper's Q L: badly reconstructed pixels of an object stay with
    # the background or a later step. `location` (ours): L, all pixels of the object.
    explained: Literal["quality", "location"] = "quality"
    # The loss has a gradient by m and s, through Q (Section 2.6: "this allows mask Q to contribute to the loss").
    # False: m and s are constants, as lines 9 and 10 stand in Algorithm 2's no-gradient block.
    mask_gradient: bool = True
    # `image`: the background's step sees the whole image, as line 3 of Algorithm 2. `masked`: after the objects' steps
    # the background is reconstructed again from m^(1) x, one reading of Section 2.5 ("derived from the input image
    # masked by this background mask"); Q^(1) still comes from the whole image.
    background_input: Literal["image", "masked"] = "image"
    # Training steps in which only the background is learnt and the objects' masks are 0. Ours; without it objects first
    # settle on the smooth background.
    background_steps: NonNegativeInt = 0
    # An object's step is left empty if its location mask holds fewer unexplained pixels (Section 2.6: "find just the
    # right number of K"). 0: no step is left empty.
    stop_below: NonNegativeFloat = 0.0
    # Ours, for the frames of a sequence (`decompose --track`; training is as ever): the background is a running
    # estimate, and a slot looks for its object where that was in the last frame (`sequence.py`).
    over_frames: bool = False
    # most that a colour of the estimate changes in a frame, of 0..1
    background_rate: PositiveFloat = 0.02
    # Ours, for a fixed camera: the training also keeps the median image of its batches. A trained model shows it as
    # the background of the images that it explains better than the network's reconstruction does.
    median_background: bool = False
    network: AutoencoderSettings = field(default_factory=AutoencoderSettings)  # settings of g
    location: LocationSettings = field(default_factory=LocationSettings)  # settings of L

    def __post_init__(self) -> None:
        if self.median_background and self.background_input == "masked":
            raise RecipeError("median_background needs background_input: image, not masked.")


@dataclass(frozen=True)
class Step:
    """Result of one of the K steps of Algorithm 2."""

    reconstruction: Tensor  # x_re, [B, 3, H, W]
    error: Tensor  # sum_c (x_re - x)^2, [B, 1, H, W]
    mask: Tensor  # m, [B, 1, H, W]
    location: Tensor  # y and x of the object in 0..1, zeros where `stop_below` left the step empty, [B, 2]
    latents: Tensor  # the mean of the code, [B, D]
    latent_kl: Tensor  # KL of the code from the unit Gaussian in nats, [B]


class ExplicitLocalization(nn.Module):
    """Algorithm 2 of the paper. Slot 0 is the background."""

    Settings = ExplicitLocalizationSettings
    background = 0

    def __init__(self, settings: ExplicitLocalizationSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = ConvolutionalAutoencoder(settings.network, settings.size)  # g
        if settings.median_background:
            self.median: Tensor
            self.register_buffer("median", torch.zeros(3, settings.size, settings.size))

    @property
    def constant_masks(self) -> str | None:
        """Which setting gives the masks of `loss` no gradient in any step; None where they have one."""
        return None if self.settings.mask_gradient else "model.mask_gradient is false"

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1, with the codes' means and initial means mu_2 of 0.5."""
        return self.decomposition(self.steps(images, sample=False))

    def decompose_next(self, images: Tensor, state: SequenceState | None) -> tuple[Decomposition, SequenceState]:
        """Decompose the next frame [B, 3, size, size] of B sequences; the state of the first frames is None."""
        return decompose_next(self, images, state)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """Eq. 1 for images [B, 3, size, size]: its three terms, each [B], and the decomposition."""
        settings = self.settings
        if settings.median_background and self.training:  # the first batch's, then by steps of at most the rate
            rate = settings.background_rate if step else 1.0
            median = median_image(rows_of_all_processes(images.detach()))
            self.median += (median - self.median).clamp(-rate, rate)
        num_objects = settings.num_slots - 1 if step >= settings.background_steps else 0
        steps = self.steps(images, sample=True, num_objects=num_objects)
        terms = {
            "reconstruction": torch.stack([self._reconstruction_error(result) for result in steps]).sum(dim=0),
            "masked_prior": torch.stack([self._masked_prior(result) for result in steps]).sum(dim=0),
            "latent_kl": torch.stack([result.latent_kl for result in steps]).sum(dim=0),
        }
        weights = {"reconstruction": 1.0, "masked_prior": settings.prior_weight, "latent_kl": settings.latent_weight}
        return Losses(terms, weights), self.decomposition(steps)

    def _reconstruction_error(self, step: Step) -> Tensor:
        """[B] sum of m (x_re - x)^2; with m x_re and m x in place of x_re and x, of m^3 (x_re - x)^2."""
        error = step.error * step.mask.square() if self.settings.masked_reconstruction else step.error
        if self.settings.residual == "norm":
            error = (error + _SMOOTHING**2).sqrt()
        return (step.mask * error).sum(dim=(1, 2, 3))

    def _masked_prior(self, step: Step) -> Tensor:
        """[B] sum of (1 - m) (x_re - zeta)^2. Without a gradient where beta is 0."""
        x_re, m = step.reconstruction, step.mask
        if self.settings.prior_weight == 0:
            x_re, m = x_re.detach(), m.detach()
        if self.settings.masked_reconstruction:
            x_re = m * x_re
        distance = (x_re - self.settings.masked_colour).square().sum(dim=1, keepdim=True)
        return ((1 - m) * distance).sum(dim=(1, 2, 3))

    def steps(self, images: Tensor, sample: bool, num_objects: int | None = None) -> list[Step]:
        """Algorithm 2 for images [B, 3, size, size]: the background's step, then K-1 or `num_objects` objects' steps.

        `sample`: sample the codes and the mixtures' initial means, as training does.
        """
        settings = self.settings
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        ones = torch.ones_like(images[:, :1])  # s^(0)
        background = self.background_step(images, sample)
        s = 1 - self.quality(background.error, ones, settings.quality_variance)  # line 9, with L^(1) = 1
        objects: list[Step] = []
        count = settings.num_slots - 1 if num_objects is None else num_objects
        while len(objects) < count:
            step, s = self.object_step(images, s, sample)
            objects.append(step)
            if not sample and host_may_read(step.mask) and not step.mask.any():
                objects += [step] * (count - len(objects))  # s is as before, so that each further step is the same
        m = ones
        for step in objects:
            m = m - step.mask  # Section 2.5
        if settings.background_input == "masked":
            background = self.reconstruct(m * images, ones, images, sample)
        return [replace(background, mask=m), *objects]

    def background_step(self, images: Tensor, sample: bool) -> Step:
        """The background's step of whole images, with a mask of 1. Without `sample` it may show the median image."""
        ones = torch.ones_like(images[:, :1])
        step = self.reconstruct(images, ones, images, sample)
        if sample or not self.settings.median_background:
            return step
        error = (self.median - images).square().sum(dim=1, keepdim=True)
        by_median, by_network = (
            self.quality(e, ones, self.settings.quality_variance).sum(dim=(1, 2, 3)) for e in (error, step.error)
        )
        chosen = (by_median > by_network).view(-1, 1, 1, 1)
        reconstruction = torch.where(chosen, self.median, step.reconstruction)
        return replace(step, reconstruction=reconstruction, error=torch.where(chosen, error, step.error))

    def object_step(
        self, images: Tensor, s: Tensor, sample: bool, allowed: Tensor | None = None
    ) -> tuple[Step, Tensor]:
        """Lines 3 to 10 of Algorithm 2: s^(k-1) -> the step and s^(k). `allowed`: of `best_region`."""
        settings = self.settings
        step = self.reconstruct(images, s, images, sample)  # line 3
        q = self.quality(step.error, s, settings.object_quality_variance or settings.quality_variance)  # line 4
        centres = best_region((s * q).detach(), settings.location.region, allowed)  # lines 6 and 7
        shape = (len(images), settings.location.components - 1, 5)
        mu = images.new_full(shape, 0.5)
        if sample:
            mu = shared_noise(torch.rand, shape, dtype=images.dtype, device=images.device)
        mask, location = location_mask(images, s.detach(), centres, mu, settings.location)  # line 8
        found = (mask * s.detach()).sum(dim=(1, 2, 3)) >= settings.stop_below
        explained = mask * found.view(-1, 1, 1, 1)
        if settings.explained == "quality":
            explained = q * explained
        step = replace(step, mask=s * explained, location=location * found.unsqueeze(1))  # line 10
        return step, s * (1 - explained)  # line 9

    def quality(self, error: Tensor, s: Tensor, variance: float) -> Tensor:
        """`reconstruction_quality`, a constant of the loss without `mask_gradient`."""
        q = reconstruction_quality(error, s, variance)
        return q if self.settings.mask_gradient else q.detach()

    def reconstruct(self, x: Tensor, s: Tensor, images: Tensor, sample: bool) -> Step:
        """g(x, s), and its error against the images. Mask and location are not known yet."""
        code = self.network.encode(torch.cat([x, s], dim=1))
        noisy = sample and self.settings.latent_weight > 0
        reconstruction = self.network.decode(code.sample() if noisy else code.mean, code.maps)
        return Step(
            reconstruction=reconstruction,
            error=(reconstruction - images).square().sum(dim=1, keepdim=True),
            mask=s,
            location=code.mean.new_full((len(x), 2), 0.5),
            latents=code.mean,
            latent_kl=gaussian_kl(code.mean, code.log_variance),
        )

    def decomposition(self, steps: list[Step]) -> Decomposition:
        """Stack the steps into K slots; slots without a step are empty."""
        if missing := self.settings.num_slots - len(steps):
            empty = Step(**{name: torch.zeros_like(value) for name, value in vars(steps[0]).items()})
            steps = steps + [empty] * missing
        masks = torch.stack([step.mask for step in steps], dim=1)
        return Decomposition(
            log_masks=masks.clamp_min(math.exp(LOG_ZERO)).log(),
            components=torch.stack([step.reconstruction for step in steps], dim=1),
            background=self.background,
            latents=torch.stack([step.latents for step in steps], dim=1),
            locations=torch.stack([step.location for step in steps[1:]], dim=1),
        )


def median_image(images: Tensor) -> Tensor:
    """[3, H, W] the median of each value of images [B, 3, H, W]; of an even B, the mean of the two in the middle."""
    upper_half = images.topk(len(images) // 2 + 1, dim=0).values  # sorted, the largest first; as quick as a median
    return upper_half[-1] if len(images) % 2 else (upper_half[-1] + upper_half[-2]) / 2


def reconstruction_quality(error: Tensor, s: Tensor, variance: float) -> Tensor:
    """Q = exp(-s sum_c (x_re - x)^2 / (2 sigma_1)) of every pixel, [B, 1, H, W] (Algorithm 2, line 4).

    Section 2.3 writes sigma^2 for Algorithm 2's sigma_1, which the text calls a variance.
    """
    return (error * s).mul(-0.5 / variance).exp()
