"""Unsupervised object segmentation with an explicit localization module (Liu, Wei, Sharpnack & Owens, 2019).

There is no attention network. An auto-encoder draws, step by step, what is left of the image; where it draws well is
where it looks: a window is laid around the place that is drawn best, and the pixels in it are parted by a Gaussian
mixture over colour and place into what was explained before and the object. Only the auto-encoder has weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from unscene.distributed.noise import shared_noise
from unscene.errors import RecipeError, check_shape
from unscene.models.common.gaussian import unit_gaussian_kl
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings, ConvolutionalAutoencoder
from unscene.models.explicit_localization.location_mask import LocationSettings, location_mask
from unscene.models.explicit_localization.reconstruction_quality import best_region, reconstruction_quality
from unscene.scene import Decomposition, Losses

_SMALL_ERROR = 0.01  # below it the norm of an error is smoothed to a square, so that it has a gradient at 0


@dataclass(frozen=True)
class ExplicitLocalizationSettings:
    """Every setting of the model. The paper gives K and the kinds of network, and none of the other numbers.

    Attributes:
        size: height and width of the images.
        num_slots: K, the background included; it is the first slot.
        quality_variance: sigma_1 of the reconstruction quality, for images in 0..1.
        object_quality_variance: sigma_1 of the objects' steps; None: the same, as in the paper. A larger one (ours)
            lets them look where most is left, though nothing is drawn well there yet.
        prior_weight: beta of Eq. 1.
        latent_weight: gamma of Eq. 1; 0 makes an auto-encoder of the variational one, which then draws no noise.
        masked_colour: zeta of Eq. 1, what the network is to draw where a step's mask is not.
        masked_reconstruction: Eq. 1 compares m x_re with m x ("redefining x_re := m x_re helps"), so that a pixel
            counts m^3 (x_re - x)^2; False: m (x_re - x)^2, as the equation is printed.
        residual: how a pixel's error counts in Eq. 1. `squared` is the paper's, its squared distance in colour; `norm`
            (ours) the distance itself, whose best background is the colour that most of it has, not a mean that every
            object tinges. Training then leaves objects out of the background for longer.
        explained: what an object's step explains. `quality` is the paper's Q L: what is drawn badly stays with the
            background, which then learns it, and with the steps after it. `location` (ours): L, all of what was
            looked at; the quality then finds the background and the objects' centres, and no object's border.
        background_steps: for so many steps of a training only the background is learnt: the others' masks are 0. Ours;
            without it objects settle on the smooth background that is drawn well first.
        stop_below: a step whose window would hold less than so many pixels that remain is left empty ("as an
            alternative, we can use stick-breaking process to find just the right number of K"). 0: every step is taken.
        network: of g.
        location: of L.

    Raises:
        RecipeError: a value that cannot be.
    """

    size: int = 64
    num_slots: int = 6
    quality_variance: float = 0.05
    object_quality_variance: float | None = None
    prior_weight: float = 0.01
    latent_weight: float = 1e-3
    masked_colour: float = 0.5
    masked_reconstruction: bool = True
    residual: Literal["squared", "norm"] = "squared"
    explained: Literal["quality", "location"] = "quality"
    background_steps: int = 0
    stop_below: float = 0.0
    network: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    location: LocationSettings = field(default_factory=LocationSettings)

    @property
    def busiest_step(self) -> int:
        """The first step of a training in which every slot is computed: what a benchmark is to measure."""
        return self.background_steps

    def __post_init__(self) -> None:
        if self.num_slots < 2:
            raise RecipeError(f"model.num_slots must be 2 or more (one is the background), not {self.num_slots}.")
        of_objects = self.quality_variance if self.object_quality_variance is None else self.object_quality_variance
        if min(self.quality_variance, of_objects) <= 0:
            raise RecipeError(
                "model.quality_variance and object_quality_variance must be above 0, not "
                f"{self.quality_variance} and {self.object_quality_variance}."
            )
        if min(self.prior_weight, self.latent_weight, self.background_steps, self.stop_below) < 0:
            raise RecipeError(
                "model.prior_weight, latent_weight, background_steps and stop_below must be 0 or more, not "
                f"{self.prior_weight}, {self.latent_weight}, {self.background_steps} and {self.stop_below}."
            )


@dataclass(frozen=True)
class Step:
    """What one of the K steps gives.

    Attributes:
        reconstruction: [B, 3, H, W], x_re.
        error: [B, 1, H, W], the squared distance in colour of x_re and x.
        mask: [B, 1, H, W], m; that of the first step is what the others leave.
        place: [B, 2], y and x in 0..1.
        latents: [B, D], of the code's mean.
        divergence: [B] of the code from the prior.
        taken: [B] bool, whether the step found anything to look at.
    """

    reconstruction: Tensor
    error: Tensor
    mask: Tensor
    place: Tensor
    latents: Tensor
    divergence: Tensor
    taken: Tensor


class ExplicitLocalization(nn.Module):
    """The model of Algorithm 2. The background is the first slot.

    Args:
        settings: see `ExplicitLocalizationSettings`.
    """

    Settings = ExplicitLocalizationSettings
    background = 0

    def __init__(self, settings: ExplicitLocalizationSettings) -> None:
        super().__init__()
        self.settings = settings
        self.network = ConvolutionalAutoencoder(settings.network, 4, 3, settings.size)  # reads x and s

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1: codes at their means, mixtures started at one half."""
        return self._decomposition(self.steps(images, sample=False))

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """Eq. 1 for images [B, 3, size, size]: its three terms, each [B], and the decomposition they are of."""
        settings = self.settings
        objects = settings.num_slots - 1 if step >= settings.background_steps else 0
        steps = self.steps(images, sample=True, objects=objects)
        terms = {
            "reconstruction": torch.stack([self._reconstruction(each) for each in steps]).sum(dim=0),
            "masked_prior": torch.stack([self._masked_prior(each) for each in steps]).sum(dim=0),
            "latent_kl": torch.stack([each.divergence for each in steps]).sum(dim=0),
        }
        weights = {
            "reconstruction": 1.0,
            "masked_prior": settings.prior_weight,
            "latent_kl": settings.latent_weight,
        }
        return Losses(terms, weights), self._decomposition(steps)

    def _reconstruction(self, step: Step) -> Tensor:
        """[B] the first term of Eq. 1 for one step. That of m x_re and m x is m^2 times the error of x_re and x."""
        error = step.error * step.mask.square() if self.settings.masked_reconstruction else step.error
        if self.settings.residual == "norm":
            error = (error + _SMALL_ERROR**2).sqrt()
        return (step.mask * error).sum(dim=(1, 2, 3))

    def _masked_prior(self, step: Step) -> Tensor:
        """[B] the second term for one step; without a gradient where it has no weight."""
        settings = self.settings
        drawn = step.reconstruction if settings.prior_weight > 0 else step.reconstruction.detach()
        mask = step.mask if settings.prior_weight > 0 else step.mask.detach()
        if settings.masked_reconstruction:
            drawn = mask * drawn
        distance = (drawn - settings.masked_colour).square().sum(dim=1, keepdim=True)
        return ((1 - mask) * distance).sum(dim=(1, 2, 3))

    def steps(self, images: Tensor, sample: bool, objects: int | None = None) -> list[Step]:
        """Algorithm 2: the background, then the objects one by one.

        Args:
            images: [B, 3, size, size].
            sample: draw codes and the mixtures' first means at random, as a training does.
            objects: how many objects are looked for; None: K-1.

        Returns:
            The background's step and the objects'.

        Raises:
            ShapeError: images of another size than the model's.
        """
        settings = self.settings
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        objects = settings.num_slots - 1 if objects is None else objects
        everything = torch.ones_like(images[:, :1])
        background = self._drawn(images, everything, sample)
        quality = reconstruction_quality(background.error, everything, settings.quality_variance)
        remaining = 1 - quality  # s^(1); L is 1 for the background
        found = []
        for _ in range(objects):
            step, remaining = self._object(images, remaining, sample)
            found.append(step)
        mask = everything
        for step in found:  # Section 2.5
            mask = mask - step.mask
        return [replace(background, mask=mask), *found]

    def _object(self, images: Tensor, remaining: Tensor, sample: bool) -> tuple[Step, Tensor]:
        """Lines 3 to 10 of Algorithm 2 for what remains, s; and the s that is left then."""
        settings = self.settings
        step = self._drawn(images, remaining, sample)
        variance = settings.object_quality_variance or settings.quality_variance
        quality = reconstruction_quality(step.error, remaining, variance)
        centres = best_region((remaining * quality).detach(), settings.location.region)
        shape = (len(images), settings.location.components - 1, 5)
        seeds = shared_noise(torch.rand, shape, device=images.device) if sample else images.new_full(shape, 0.5)
        mask, place = location_mask(images, remaining.detach(), centres, seeds, settings.location)
        taken = (mask * remaining.detach()).sum(dim=(1, 2, 3)) >= settings.stop_below
        explained = mask * taken.view(-1, 1, 1, 1)
        if settings.explained == "quality":
            explained = quality * explained
        step = replace(step, mask=remaining * explained, place=place, taken=taken)
        return step, remaining * (1 - explained)

    def _drawn(self, images: Tensor, remaining: Tensor, sample: bool) -> Step:
        """g(x, s), with neither mask nor place yet."""
        code = self.network.encode(torch.cat([images, remaining], dim=1))
        noisy = sample and self.settings.latent_weight > 0
        reconstruction = self.network.decode(code.sample() if noisy else code.mean, code.maps)
        divergence = unit_gaussian_kl(code.mean, code.log_variance)
        nowhere = code.mean.new_full((len(images), 2), 0.5)
        taken = torch.ones(len(images), dtype=torch.bool, device=images.device)
        error = (reconstruction - images).square().sum(dim=1, keepdim=True)
        return Step(reconstruction, error, remaining, nowhere, code.mean, divergence, taken)

    def _decomposition(self, steps: list[Step]) -> Decomposition:
        """The K slots; those of steps that were not taken are empty."""
        missing = self.settings.num_slots - len(steps)

        def slots(tensors: list[Tensor], fill: float = 0.0) -> Tensor:
            stacked = torch.stack(tensors, dim=1)
            if not missing:
                return stacked
            empty = stacked[:, :1].detach().new_full((1,), fill).expand(len(stacked), missing, *stacked.shape[2:])
            return torch.cat([stacked, empty], dim=1)

        masks = slots([each.mask for each in steps])
        return Decomposition(
            log_masks=masks.clamp_min(math.exp(LOG_ZERO)).log(),
            components=slots([each.reconstruction for each in steps]),
            background=self.background,
            latents=slots([each.latents for each in steps]),
            locations=slots([each.place * each.taken.unsqueeze(1) for each in steps])[:, 1:],
        )
