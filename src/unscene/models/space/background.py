"""SPACE's background (Lin et al., ICLR 2020): K components, whose masks are inferred one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.component_vae import ComponentVAE, ComponentVAESettings
from unscene.models.common.gaussian import gaussian_kl, sample_gaussian, softplus_gaussian
from unscene.models.common.stick_breaking import stick_breaking
from unscene.models.space.networks import StridedEncoder, SubpixelDecoder
from unscene.ops.celu import CELU
from unscene.settings import settings_dataclass

Gaussian = tuple[Tensor, Tensor]  # mean and log variance


@settings_dataclass
class BackgroundSettings:
    """Settings of the background; the defaults are the authors', and R-MONet's number of components.

    Attributes:
        components: K, at least 2: one has no mask to learn.
        sigma: standard deviation of every component's Gaussian.
        channels: of the image's encoder, one convolution of stride 2 each.
        features: length of the vector that it gives, and of its hidden layer.
        hidden: units of the recurrent networks and of the components' prior.
        mask_dim: of each mask's latent.
        mask_hidden: channels of the mask decoder's first map.
        mask_channels: of its levels, from one pixel to the image.
        mask_stride: 1 (the paper's); more (ours): masks are drawn at this fraction of the resolution and enlarged.
        vae: of the components: reads the image and a mask, draws a colour. Its decoder has ReLU and no normalisation
            over the batch, where the authors' has ELU and one; the mask that it also draws is not used.

    Raises:
        RecipeError: a value that cannot be.
    """

    components: Annotated[int, Field(ge=2)] = 3
    sigma: PositiveFloat = 0.09
    channels: tuple[int, ...] = (64, 64, 64, 64)
    features: PositiveInt = 64
    hidden: PositiveInt = 64
    mask_dim: PositiveInt = 32
    mask_hidden: PositiveInt = 256
    mask_channels: tuple[int, ...] = (256, 128, 64, 16)
    mask_stride: PositiveInt = 1
    vae: ComponentVAESettings = field(default_factory=lambda: ComponentVAESettings(latent_dim=32))

    def __post_init__(self) -> None:
        if "roi" in (self.vae.encoder_region, self.vae.decoder_region):
            raise RecipeError("vae.encoder_region and decoder_region must be image: the background has no boxes.")


@dataclass(frozen=True)
class Backdrop:
    """The background of a batch of images.

    Attributes:
        log_masks: [B, K, 1, H, W]; exp sums to 1 over K.
        components: [B, K, 3, H, W].
        mask_kl: [B] of the masks' latents from their prior.
        component_kl: [B] of the components' latents from theirs.
    """

    log_masks: Tensor
    components: Tensor
    mask_kl: Tensor
    component_kl: Tensor

    def image(self) -> Tensor:
        """[B, 3, H, W] the components, mixed by their masks."""
        return (self.log_masks.exp() * self.components).sum(dim=1)


class SpaceBackground(nn.Module):
    """Masks by a recurrent posterior and prior and stick-breaking, then each component's colours.

    q(z_bg | x) = prod_k q(z_m,k | z_m,<k, x) q(z_c,k | m_k, x),  p(z_bg) = prod_k p(z_m,k | z_m,<k) p(z_c,k | z_m,k)

    Args:
        settings: see `BackgroundSettings`.
        size: height and width of the images.

    Raises:
        RecipeError: a size that the networks cannot read or draw.
    """

    def __init__(self, settings: BackgroundSettings, size: int) -> None:
        super().__init__()
        self.settings = settings
        hidden, mask = settings.hidden, settings.mask_dim
        self.encoder = StridedEncoder(
            3,
            settings.channels,
            [2] * len(settings.channels),
            size,
            settings.features,
            settings.features,
            settings="model.background.channels",
            size_setting="data.size times model.scale",
        )
        self.posterior = nn.LSTMCell(mask + settings.features, hidden)
        self.prior = nn.LSTMCell(mask, hidden)
        self.to_posterior = nn.Linear(hidden, 2 * mask)
        self.to_prior = nn.Linear(hidden, 2 * mask)
        self.first_mask = nn.Parameter(torch.zeros(mask))
        self.posterior_state = nn.Parameter(torch.zeros(2, hidden))
        self.prior_state = nn.Parameter(torch.zeros(2, hidden))
        self.mask_decoder = SubpixelDecoder(
            mask,
            settings.mask_hidden,
            settings.mask_channels,
            1,
            size // settings.mask_stride,
            settings="model.background.mask_channels",
            size_setting="data.size times model.scale",
        )
        self.component_prior = nn.Sequential(
            nn.Linear(mask, hidden),
            CELU(),
            nn.Linear(hidden, hidden),
            CELU(),
            nn.Linear(hidden, 2 * settings.vae.latent_dim),
        )
        self.vae = ComponentVAE(settings.vae, size)

    def forward(self, images: Tensor, sample: bool) -> Backdrop:
        """Images [B, 3, size, size] -> Backdrop; latents are drawn, or are their means."""
        check_shape(images, "B 3 H W", "images")
        latents, posteriors = self.infer_masks(images, sample)  # z_m: [B, K, D], q(z_m,k | z_m,<k, x)
        log_masks = self.masks(latents)  # pi
        mean, log_variance = self.vae.encode(images, log_masks)  # q(z_c | x, m)
        codes = sample_gaussian(mean, log_variance) if sample else mean
        components, _ = self.vae.decode(codes)
        priors = self.mask_priors(latents)
        mask_kl = [gaussian_kl(*posterior, *prior) for posterior, prior in zip(posteriors, priors, strict=True)]
        component_prior = softplus_gaussian(self.component_prior(latents))  # p(z_c,k | z_m,k)
        component_kl = gaussian_kl(mean, log_variance, *component_prior)
        return Backdrop(log_masks, components, torch.stack(mask_kl).sum(dim=0), component_kl.sum(dim=1))

    def infer_masks(self, images: Tensor, sample: bool) -> tuple[Tensor, list[Gaussian]]:
        """[B, K, D] the masks' latents, and q(z_m,k | z_m,<k, x) of each."""
        features = self.encoder(images).to(images.dtype)
        state = _initial_state(self.posterior_state, len(images))
        latent = self.first_mask.expand(len(images), -1)
        latents, posteriors = [], []
        for _ in range(self.settings.components):
            state = self.posterior(torch.cat([latent, features], dim=1), state)
            posteriors.append(softplus_gaussian(self.to_posterior(state[0])))
            latent = sample_gaussian(*posteriors[-1]) if sample else posteriors[-1][0]
            latents.append(latent)
        return torch.stack(latents, dim=1), posteriors

    def mask_priors(self, latents: Tensor) -> list[Gaussian]:
        """p(z_m,k | z_m,<k) for each of the latents [B, K, D]."""
        state = _initial_state(self.prior_state, len(latents))
        priors = [softplus_gaussian(self.to_prior(state[0]))]
        for latent in latents.unbind(1)[:-1]:
            state = self.prior(latent, state)
            priors.append(softplus_gaussian(self.to_prior(state[0])))
        return priors

    def masks(self, latents: Tensor) -> Tensor:
        """[B, K, 1, H, W] log masks of latents [B, K, D]; the last takes what is left, whatever its latent."""
        first = latents[:, :-1]
        logits = self.mask_decoder(first.flatten(0, 1)).to(latents.dtype)
        if self.settings.mask_stride > 1:
            logits = F.interpolate(logits, scale_factor=self.settings.mask_stride, mode="bilinear", align_corners=False)
        return stick_breaking(logits.unflatten(0, first.shape[:2]))


def _initial_state(state: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """h and c of an LSTM before its first step, [B, hidden] each."""
    return state[0].expand(batch, -1), state[1].expand(batch, -1)
