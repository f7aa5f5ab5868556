"""Every setting of R-MONet; the defaults are the paper's UNet variant on Multi-dSprites."""

from __future__ import annotations

import math
from dataclasses import field, replace
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import Tensor
from torchvision.transforms.functional import normalize

from unscene.errors import RecipeError
from unscene.models.common.component_vae import ComponentVAESettings
from unscene.models.common.mixture import MixtureOver
from unscene.models.common.precision import at_least_float32
from unscene.models.common.resnet_fpn import IMAGENET_MEAN, IMAGENET_STD, BackboneSettings
from unscene.models.rmonet.proposals import ProposalSettings
from unscene.models.rmonet.pseudo_boxes import PseudoBoxSettings
from unscene.models.rmonet.segmentation_heads import HeadSettings
from unscene.settings import settings_dataclass


@settings_dataclass
class LossWeights:
    """Factors of the loss terms (Eq. 3): beta, gamma, delta and lambda of the appendix tables.

    Attributes:
        latent: beta, of the latents' divergence from the prior.
        mask: gamma, of the masks' divergence from the decoded masks.
        objectness: delta, of the anchors' classification.
        regression: lambda, of the anchors' regression.
    """

    latent: NonNegativeFloat = 0.5
    mask: NonNegativeFloat = 0.5
    objectness: NonNegativeFloat = 1.0
    regression: NonNegativeFloat = 1.0


@settings_dataclass
class WarmupSettings:
    """Values at the first step, from which the model moves to its settings' values in `steps`. Ours, not the paper's.

    Before the VAE knows colours, no component fits an object better than the background does: masks fade, pseudo boxes
    vanish with them, and a slot without a box never learns again. A wide foreground Gaussian takes what the background
    does not explain, and narrows while the VAE learns colours.

    Attributes:
        steps: length; 0: no warm-up.
        sigma_foreground: at step 0, from there on geometrically.
        latent_weight: beta at step 0, from there on linearly.
        mask_weight: gamma at step 0, from there on linearly.
        score_threshold: of the boxes at step 0, from there on linearly.
    """

    steps: NonNegativeInt = 0
    sigma_foreground: PositiveFloat = 0.3
    latent_weight: NonNegativeFloat = 0.0
    mask_weight: NonNegativeFloat = 0.0
    score_threshold: NonNegativeFloat = 0.0


@settings_dataclass
class RMONetSettings:
    """Settings of the model and its parts.

    Attributes:
        size: height and width of the images, a multiple of 32, so that each map of the backbone covers the whole image.
        num_slots: K, the background included.
        sigma_background: standard deviation of the background's Gaussian, for images in 0..1.
        sigma_foreground: of the foreground's.
        skip_empty_slots: False (the paper's): a slot without a box is encoded and decoded like any other, from an empty
            mask; its latent and the mask it decodes to count in the loss. True (ours): it is not computed at all, its
            latent costs nothing and its decoded mask is 0.
        detection: False is the paper's ablation (Fig. 20): no boxes and no pseudo-box loss, K-1 masks in parallel.
        mixture_over: the likelihood mixes each `pixel`, or each `channel` by itself.
        normalise: images enter the backbone as they are; with true as (x - .5) / .5 (the Lite variant's table); with
            `imagenet` by ImageNet's mean and standard deviation, which a pretrained backbone needs.
        weights: of the loss terms.
        warmup: see `WarmupSettings`.
        backbone, proposals, head, vae, pseudo_boxes: of the parts.

    Raises:
        RecipeError: a value that cannot be, or values that cannot be together.
    """

    size: int = 64
    num_slots: Annotated[int, Field(ge=2)] = 6
    sigma_background: PositiveFloat = 0.09
    sigma_foreground: PositiveFloat = 0.11
    skip_empty_slots: bool = False
    detection: bool = True
    mixture_over: MixtureOver = "pixel"
    normalise: bool | Literal["imagenet"] = False
    weights: LossWeights = field(default_factory=LossWeights)
    warmup: WarmupSettings = field(default_factory=WarmupSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    vae: ComponentVAESettings = field(default_factory=ComponentVAESettings)
    pseudo_boxes: PseudoBoxSettings = field(default_factory=PseudoBoxSettings)

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise RecipeError(
                f"size must be a multiple of 32, not {self.size}: set data.size to "
                f"{max(32, round(self.size / 32) * 32)}."
            )
        if self.detection and self.num_slots - 1 > self.proposals.top_n_after:
            raise RecipeError(
                f"num_slots {self.num_slots} needs {self.num_slots - 1} boxes, but "
                f"proposals.top_n_after lets {self.proposals.top_n_after} through: raise it, or take fewer slots."
            )
        if self.backbone.pretrained and self.normalise != "imagenet":
            raise RecipeError(
                "backbone.pretrained needs normalise imagenet: its weights were trained on images of that "
                "mean and standard deviation."
            )
        if "roi" in (self.vae.encoder_region, self.vae.decoder_region) and not self.detection:
            raise RecipeError(
                "vae.encoder_region and vae.decoder_region can be roi only where slots have boxes: set "
                "detection to true, or both regions to image."
            )

    def at(self, step: int) -> RMONetSettings:
        """Return the settings at a step of a training: these, or during the warm-up values on the way to them."""
        warmup = self.warmup
        if step >= warmup.steps:
            return self
        share = step / warmup.steps

        def between(start: float, end: float) -> float:
            return start + (end - start) * share

        return replace(
            self,
            sigma_foreground=math.exp(between(math.log(warmup.sigma_foreground), math.log(self.sigma_foreground))),
            weights=replace(
                self.weights,
                latent=between(warmup.latent_weight, self.weights.latent),
                mask=between(warmup.mask_weight, self.weights.mask),
            ),
            proposals=replace(
                self.proposals, score_threshold=between(warmup.score_threshold, self.proposals.score_threshold)
            ),
        )

    def normalised(self, images: Tensor) -> Tensor:
        """Return images [B, 3, size, size] in 0..1 as the backbone reads them."""
        if self.normalise == "imagenet":
            normalised: Tensor = normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
            return normalised
        return (images - 0.5) / 0.5 if self.normalise else images

    def sigmas(self, like: Tensor) -> Tensor:
        """Return the [K] standard deviations of the slots' Gaussians, the background's last, on a tensor's device."""
        foreground = at_least_float32(like).new_full((self.num_slots - 1,), self.sigma_foreground)
        return F.pad(foreground, (0, 1), value=self.sigma_background)  # no copy from the host, which would wait
