"""MONet: unsupervised scene decomposition by recurrent attention (Burgess et al., 2019), and the R-MONet paper's two
variants of it with R-MONet's backbones: MONet (ResNet18+FPN) and MONet (ResNet18+FPN+UNet).

An attention network reads the image and the scope, the share of every pixel that is not explained yet, and gives one
slot a part of it. This repeats until the last slot gets the rest. A VAE encodes each mask's part of the image into a
latent and decodes a component and a mask. There are no boxes.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.annealing import WarmupSettings
from unscene.models.common.component_vae import LOWEST_LOG_MASK, ColourLimits, ComponentVAE, ComponentVAESettings
from unscene.models.common.gaussian import gaussian_kl, sample_gaussian
from unscene.models.common.mixture import MaskOutput, MixtureOver, mask_kl, mixture_log_likelihood, posterior_log_masks
from unscene.models.monet.attention_unet import AttentionUNet, AttentionUNetSettings
from unscene.models.rmonet.settings import BackboneSettings, HeadSettings
from unscene.ops.dispatch import at_least_float32
from unscene.scene import Decomposition, Losses
from unscene.settings import registered_class, settings_dataclass

VARIANTS = {"resnet_fpn": "unscene.models.monet.resnet_attention:ResNetAttention"}  # imported when a recipe asks for it


@settings_dataclass
class MONetSettings:
    """Every setting of MONet; the defaults are those of the R-MONet paper on Multi-dSprites."""

    size: PositiveInt = 64  # height and width of the images
    num_slots: Annotated[int, Field(ge=2)] = 6  # K, the background included; it is the first slot
    sigma_background: PositiveFloat = 0.09  # standard deviation of the first slot's Gaussian, for images in 0..1
    sigma_foreground: PositiveFloat = 0.11  # standard deviation of the other Gaussians
    latent_weight: NonNegativeFloat = 0.5  # beta, of the latents' divergence from the prior
    mask_weight: NonNegativeFloat = 0.5  # gamma, of the masks' divergence from the decoded masks
    # the likelihood mixes each `pixel`, or each `channel` by itself (as public code does)
    mixture_over: MixtureOver = "pixel"
    # masks of the output: `inferred` are the papers', q(m | x); `posterior` (ours) weighs them by how well each slot's
    # component fits the pixel, see `posterior_log_masks`. The loss is the same with both;
    # a validation, and so the choice of the best weights, sees the shown masks.
    masks: MaskOutput = "inferred"
    warmup: WarmupSettings = field(default_factory=WarmupSettings)  # see `WarmupSettings`; off in the papers
    # 0 (the paper's): the background's component is free; otherwise it is a map of so many cells in either direction,
    # see `coarse`, and cannot draw objects. 1 is one colour. Ours.
    background_cells: NonNegativeInt = 0
    # 0 (the papers'): an object's component is free. With 1 an object has one colour; with 2 or more it has so many,
    # and each pixel takes the nearest, see `nearest_colours`. Ours.
    foreground_colours: NonNegativeInt = 0
    # Factor of the attention's initial weights that read the log scope: 1 is PyTorch's. Ours are smaller, since a scope
    # of -16 drowns the image.
    initial_scope_weight: float = 1.0
    # `unet` is MONet's; `resnet_fpn` R-MONet's backbone and head, on the whole image
    attention: Literal["unet", "resnet_fpn"] = "unet"
    unet: AttentionUNetSettings = field(default_factory=AttentionUNetSettings)  # settings of MONet's attention
    # settings of the attention `resnet_fpn`; never `pretrained`, which is for three channels
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    # head of the attention `resnet_fpn`: `lite` for MONet (ResNet18+FPN), `unet` for MONet (ResNet18+FPN+UNet)
    head: HeadSettings = field(default_factory=HeadSettings)
    vae: ComponentVAESettings = field(default_factory=ComponentVAESettings)  # settings of the components

    def __post_init__(self) -> None:
        if "roi" in (self.vae.encoder_region, self.vae.decoder_region):
            raise RecipeError("vae.encoder_region and vae.decoder_region must be image: MONet's slots have no boxes.")
        if self.backbone.pretrained:
            raise RecipeError(
                "backbone.pretrained is for images of 3 channels; MONet reads a fourth, the log scope: set it to false."
            )

    def at(self, step: int) -> MONetSettings:
        """Return the settings at a step of a training: these, or during the warm-up values on the way to them."""
        warmup = self.warmup
        if step >= warmup.steps:
            return self
        return replace(
            self,
            background_cells=0 if warmup.free_colours else self.background_cells,
            foreground_colours=0 if warmup.free_colours else self.foreground_colours,
            sigma_foreground=warmup.sigma(step, self.sigma_foreground),
            latent_weight=warmup.linear(step, warmup.latent_weight, self.latent_weight),
            mask_weight=warmup.linear(step, warmup.mask_weight, self.mask_weight),
        )

    @property
    def limits(self) -> ColourLimits:
        """What the slots' components may show."""
        return ColourLimits(0, self.background_cells, self.foreground_colours)

    def sigmas(self, like: Tensor) -> Tensor:
        """[K] standard deviations of the slots' Gaussians, the background's first, on the device of a tensor."""
        foreground = at_least_float32(like).new_full((self.num_slots - 1,), self.sigma_foreground)
        return F.pad(foreground, (1, 0), value=self.sigma_background)


class MONet(nn.Module):
    """MONet. The background is the first slot."""

    Settings = MONetSettings
    background = 0

    def __init__(self, settings: MONetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.attention: nn.Module
        if settings.attention == "unet":
            self.attention = AttentionUNet(settings.unet, settings.size)
        else:
            variant = registered_class(VARIANTS, settings.attention, "attention")
            self.attention = variant(settings.backbone, settings.head, settings.size, settings.num_slots - 1)
        first = next(layer for layer in self.attention.modules() if isinstance(layer, nn.Conv2d))
        with torch.no_grad():
            first.weight[:, -first.in_channels // 4 :] *= settings.initial_scope_weight
        self.vae = ComponentVAE(settings.vae, settings.size)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1, with each latent at its posterior's mean."""
        log_masks = self.infer_masks(images)
        mean, _ = self.vae.encode(images, log_masks)
        components, _ = self.vae.decode(mean, limits=self.settings.limits, images=images)
        if self.settings.masks == "posterior":
            log_masks = posterior_log_masks(images, components, log_masks, self.settings.sigmas(images))
        return Decomposition(log_masks, components, self.background, mean)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """MONet's Eq. 3 for images [B, 3, size, size]: its three terms, each [B], and the decomposition."""
        settings = self.settings.at(step)
        log_masks = self.infer_masks(images)  # q(c | x)
        mean, log_variance = self.vae.encode(images, log_masks)  # q(z_k | x, m_k)
        latents = sample_gaussian(mean, log_variance)
        # p(x | z_k), p(c | z_k)
        components, mask_logits = self.vae.decode(latents, limits=settings.limits, images=images)
        terms = {
            "reconstruction": -mixture_log_likelihood(
                images, components, log_masks, settings.sigmas(images), settings.mixture_over
            ),
            "latent_kl": gaussian_kl(mean, log_variance).sum(dim=1),
            "mask_kl": mask_kl(log_masks, mask_logits),
        }
        weights = {"reconstruction": 1.0, "latent_kl": settings.latent_weight, "mask_kl": settings.mask_weight}
        return Losses(terms, weights), Decomposition(log_masks, components, self.background, mean)

    def redraw(self, images: Tensor, latents: Tensor) -> Decomposition:
        """Decode latents [B, K, D]; the masks are the decoded ones, p(c | z_k)."""
        components, mask_logits = self.vae.decode(latents, limits=self.settings.limits, images=images)
        return Decomposition(mask_logits.log_softmax(dim=1), components, self.background, latents)

    def infer_masks(self, images: Tensor) -> Tensor:
        """The log masks [B, K, 1, size, size] of images [B, 3, size, size], by the recurrent attention.

        log m_k = log s_{k-1} + log a_k,  log s_k = log s_{k-1} + log(1 - a_k),  m_K = s_{K-1}
        """
        check_shape(images, f"B 3 {self.settings.size} {self.settings.size}", "images")
        log_scope = torch.zeros_like(images[:, :1])
        log_masks = []
        for index in range(self.settings.num_slots - 1):
            seen = torch.cat([images, log_scope.clamp_min(LOWEST_LOG_MASK)], dim=1)
            logits = at_least_float32(self.attention(seen, index))
            log_masks.append(log_scope + F.logsigmoid(logits))
            log_scope = log_scope + F.logsigmoid(-logits)
        return torch.stack([*log_masks, log_scope], dim=1)
