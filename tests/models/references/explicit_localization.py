"""Explicit localization's loss for one image, from Algorithms 1 and 2 and Eq. 1 of Liu et al. (2019) alone.

Plain, slow, float64. It imports nothing of `unscene`; weights have the names of the model's state_dict.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.models.references.layers import Weights, convolve, dense, layers_of


@dataclass(frozen=True)
class Numbers:
    """The paper's symbols, and the choice among its readings."""

    slots: int  # K
    sigma_1: float
    side: int  # of the convolution with weights 1
    order: float  # n
    cutoff: float  # f
    iterations: int  # L
    sigma_2: float
    floor: float  # added to a variance
    scale: float  # of i and j
    zeta: float
    shares: bool = False  # line 9 of Algorithm 1 with the components' shares
    remaining_colours: bool = True  # y has s x in place of x
    masked: bool = True  # "redefining x_re := m x_re"
    constant_masks: bool = False  # lines 9 and 10 of Algorithm 2 within the no-gradient block
    masked_background: bool = False  # the background's reconstruction is that of m x
    located: bool = True  # False: L is 1


def explicit_localization_terms(
    image: Tensor, codes: Tensor | None, starts: Tensor, weights: Weights, numbers: Numbers
) -> dict[str, Tensor]:
    """The three terms of Eq. 1, unweighted.

    Args:
        image: [3, H, W].
        codes: [K, D], or [K + 1, D] where the background is reconstructed twice: standard normal noise of each code,
            in the order of the reconstructions; None for an auto-encoder, which has none.
        starts: [K - 1, 5], samples of mu_2.
        weights: of the model.
        numbers: see `Numbers`.
    """

    def network(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        return autoencoder(x, s, None if codes is None else codes[len(reconstructions)], weights)

    reconstructions: list[tuple[Tensor, Tensor]] = []  # reconstruction and divergence
    masks: list[Tensor] = []
    s = torch.ones_like(image[0])
    for k in range(numbers.slots):
        reconstructions.append(network(image, s))
        q = torch.exp(-s * ((reconstructions[-1][0] - image) ** 2).sum(dim=0) / (2 * numbers.sigma_1))
        if numbers.constant_masks:
            q = q.detach()
        location = torch.ones_like(s)
        if k > 0 and numbers.located:
            location = l_gmm(image, s.detach(), best_centre((s * q).detach(), numbers.side), starts[k - 1], numbers)
        s, m = s * (1 - q * location), s * q * location
        masks.append(m)
    masks[0] = 1 - torch.stack(masks[1:]).sum(dim=0)  # Section 2.5
    if numbers.masked_background:
        reconstructions[0] = network(masks[0] * image, torch.ones_like(s))
    zero = torch.zeros((), dtype=image.dtype)
    terms = {"reconstruction": zero, "masked_prior": zero, "latent_kl": zero}
    for m, (x_re, divergence) in zip(masks, reconstructions, strict=True):
        truth = image
        if numbers.masked:
            x_re, truth = m * x_re, m * image
        terms["reconstruction"] = terms["reconstruction"] + (m * (x_re - truth) ** 2).sum()
        terms["masked_prior"] = terms["masked_prior"] + ((1 - m) * (x_re - numbers.zeta) ** 2).sum()
        terms["latent_kl"] = terms["latent_kl"] + divergence
    return terms


def best_centre(quality: Tensor, side: int) -> tuple[int, int]:
    """Section 2.3: row and column of the largest sum over a square, zeros beyond the border."""
    height, width = quality.shape
    reach, best, centre = side // 2, -1.0, (0, 0)
    for i in range(height):
        for j in range(width):
            total = float(quality[max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1].sum())
            if total > best:
                best, centre = total, (i, j)
    return centre


@torch.no_grad()
def l_gmm(image: Tensor, s: Tensor, centre: tuple[int, int], start: Tensor, numbers: Numbers) -> Tensor:
    """Algorithm 1. [3, H, W], [H, W] -> [H, W]."""
    height, width = s.shape

    def g(r: int) -> float:
        return 1 / (1 + (r / numbers.cutoff) ** (2 * numbers.order)) ** 0.5

    window = [
        (i, j) for i in range(height) for j in range(width) if g(abs(i - centre[0])) * g(abs(j - centre[1])) > 0.5
    ]
    points = torch.stack(
        [
            torch.cat(
                [
                    image[:, i, j] * (s[i, j] if numbers.remaining_colours else 1),
                    numbers.scale * image.new_tensor([(i + 0.5) / height, (j + 0.5) / width]),
                ]
            )
            for i, j in window
        ]
    )  # y, [P, 5]
    mu = [torch.zeros_like(start), start * start.new_tensor([1, 1, 1, numbers.scale, numbers.scale])]
    variance = [torch.full_like(start, numbers.sigma_2)] * 2
    share = [0.5, 0.5]
    z = points.new_full((len(points), 2), 0.5)  # line 1
    for iteration in range(numbers.iterations + 1):
        if iteration > 0:  # before the first one z comes from mu: with z = .5 the two means would stay equal
            mu = [(z[:, k, None] * points).sum(dim=0) / z[:, k].sum() for k in (0, 1)]
            variance = [
                (z[:, k, None] * (points - mu[k]) ** 2).sum(dim=0) / z[:, k].sum() + numbers.floor for k in (0, 1)
            ]
            if numbers.shares:
                share = [float(z[:, k].mean()) for k in (0, 1)]
        density = [share[k] * Normal(mu[k], variance[k].sqrt()).log_prob(points).sum(dim=1).exp() for k in (0, 1)]
        z = torch.stack(density, dim=1) / (density[0] + density[1])[:, None]
    location = torch.zeros_like(s)
    for (i, j), shares in zip(window, z, strict=True):
        location[i, j] = shares[1]
    return location


def autoencoder(x: Tensor, s: Tensor, noise: Tensor | None, weights: Weights) -> tuple[Tensor, Tensor]:
    """The reconstruction [3, H, W], and the divergence of its code's distribution from the prior."""
    features, maps = torch.cat([x, s[None]]), []
    for name in layers_of("network.down", weights):
        features = F.relu(convolve(features, name, weights, stride=2, padding=1))
        maps.append(features)
    hidden = F.relu(dense(features.flatten(), "network.to_code.1", weights))
    mean, log_variance = dense(hidden, "network.to_code.3", weights).chunk(2)
    code = Normal(mean, log_variance.exp().sqrt())
    z = mean if noise is None else mean + code.stddev * noise
    hidden = F.relu(dense(z, "network.from_code.0", weights))
    features = F.relu(dense(hidden, "network.from_code.2", weights)).reshape(features.shape)
    for name in layers_of("network.up", weights):
        skip = maps.pop()
        if weights[f"{name}.weight"].shape[1] > len(features):
            features = torch.cat([features, skip])
        features = features.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        features = F.relu(convolve(features, name, weights, padding=1))
    image = torch.sigmoid(convolve(features, "network.to_image", weights, padding=1))
    return image, kl_divergence(code, Normal(0.0, 1.0)).sum()
