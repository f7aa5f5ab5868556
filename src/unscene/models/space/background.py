"""SPACE's background (Lin et al., ICLR 2020): K components, whose masks are inferred one after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unscene.models.common.component_vae import ComponentVAE
from unscene.models.common.gaussian import Gaussian, gaussian_kl, sample_gaussian, softplus_gaussian
from unscene.models.common.stick_breaking import stick_breaking
from unscene.models.space.networks import StridedEncoder, SubpixelDecoder
from unscene.models.space.settings import BackgroundSettings


class Background(NamedTuple):
    log_masks: Tensor  # pi, [B, K, 1, H, W]; exp sums to 1 over K
    components: Tensor  # x_k, [B, K, 3, H, W]
    mask_kl: Tensor  # of the masks' latents from their prior, [B]
    component_kl: Tensor  # of the components' latents from theirs, [B]

    def image(self) -> Tensor:
        """[B, 3, H, W] the sum of the components times their masks."""
        return (self.log_masks.exp() * self.components).sum(dim=1)


class SpaceBackground(nn.Module):
    """Masks by a recurrent posterior and prior and stick-breaking, then each component's colours.

    q(z_bg | x) = prod_k q(z_m,k | z_m,<k, x) q(z_c,k | m_k, x),  p(z_bg) = prod_k p(z_m,k | z_m,<k) p(z_c,k | z_m,k)
    """

    def __init__(self, settings: BackgroundSettings, size: int) -> None:
        super().__init__()
        self.settings = settings
        hidden, mask, features = settings.hidden, settings.mask_dim, settings.features
        self.encoder = StridedEncoder(settings.channels, [2] * len(settings.channels), size, features, features)
        self.posterior = nn.LSTMCell(mask + features, hidden)
        self.prior = nn.LSTMCell(mask, hidden)
        self.to_posterior = nn.Linear(hidden, 2 * mask)
        self.to_prior = nn.Linear(hidden, 2 * mask)
        self.first_mask = nn.Parameter(torch.zeros(mask))
        self.posterior_state = nn.Parameter(torch.zeros(2, hidden))
        self.prior_state = nn.Parameter(torch.zeros(2, hidden))
        self.mask_decoder = SubpixelDecoder(mask, settings.mask_hidden, settings.mask_channels, 1, size)
        self.component_prior = nn.Sequential(
            nn.Linear(mask, hidden),
            nn.CELU(),
            nn.Linear(hidden, hidden),
            nn.CELU(),
            nn.Linear(hidden, 2 * settings.vae.latent_dim),
        )
        self.vae = ComponentVAE(settings.vae, size)

    def forward(self, images: Tensor, sample: bool) -> Background:
        """Images [B, 3, size, size] -> Background; latents are sampled, or are their means."""
        latents, posteriors = self.infer_masks(images, sample)  # z_m: [B, K, D], q(z_m,k | z_m,<k, x)
        log_masks = self.masks(latents)  # pi
        mean, log_variance = self.vae.encode(images, log_masks)  # q(z_c | x, m)
        codes = sample_gaussian(mean, log_variance) if sample else mean
        components, _ = self.vae.decode(codes)
        priors = self.mask_priors(latents)
        mask_kl = [gaussian_kl(*posterior, *prior) for posterior, prior in zip(posteriors, priors, strict=True)]
        component_prior = softplus_gaussian(self.component_prior(latents))  # p(z_c,k | z_m,k)
        component_kl = gaussian_kl(mean, log_variance, *component_prior)
        return Background(log_masks, components, torch.stack(mask_kl).sum(dim=0), component_kl.sum(dim=1))

    def infer_masks(self, images: Tensor, sample: bool) -> tuple[Tensor, list[Gaussian]]:
        """The masks' latents [B, K, D], and the K posteriors q(z_m,k | z_m,<k, x)."""
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
        """The K priors p(z_m,k | z_m,<k) of latents [B, K, D]."""
        state = _initial_state(self.prior_state, len(latents))
        priors = [softplus_gaussian(self.to_prior(state[0]))]
        for latent in latents.unbind(1)[:-1]:
            state = self.prior(latent, state)
            priors.append(softplus_gaussian(self.to_prior(state[0])))
        return priors

    def masks(self, latents: Tensor) -> Tensor:
        """[B, K, 1, H, W] log masks of latents [B, K, D]; the last mask is the remainder and ignores its latent."""
        first = latents[:, :-1]
        logits = self.mask_decoder(first.flatten(0, 1)).to(latents.dtype)
        return stick_breaking(logits.unflatten(0, first.shape[:2]))


def _initial_state(state: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """h and c [B, hidden] of an LSTM before its first step."""
    return state[0].expand(batch, -1), state[1].expand(batch, -1)
