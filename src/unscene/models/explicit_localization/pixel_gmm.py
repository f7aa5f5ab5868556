"""A Gaussian mixture over weighted points, for a batch of sets (Liu et al., 2019, Section 2.4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from unscene.ops.dispatch import at_least_float32

_TINY = torch.finfo(torch.float32).tiny


class PixelMixture(NamedTuple):
    """The mixture after expectation maximisation."""

    responsibilities: Tensor  # z, [B, C, P]: the share of each component in each point, sums to 1 over C
    means: Tensor  # [B, C, D]
    variances: Tensor  # [B, C, D], of each coordinate


@torch.no_grad()
def pixel_mixture(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    variances: Tensor,
    iterations: int,
    variance_floor: float = 1e-4,
    learn_shares: bool = False,
) -> PixelMixture:
    """Fit diagonal Gaussians to weighted points: Algorithm 1, lines 6 to 11, for a batch. No gradient flows through it.

    Each iteration is line 7 (means), 8 (variances) and 9 (z). Algorithm 1 starts with z = .5 for both components, and
    line 7 would then keep their means equal. So the first z is computed from the initial means. A component without any
    weighted point keeps its mean and variance.

    The inputs are points [B, P, D], weights [B, P] of 0 or more (a point of weight 0 has responsibilities but no
    influence), and initial means and variances [B, C, D]. `iterations` is L. `variance_floor` is added to every
    variance, so that a component of equal points keeps a density. `learn_shares`: see `LocationSettings`.
    """
    points = at_least_float32(points)
    weights, means, variances = (tensor.to(points.dtype) for tensor in (weights, means, variances))
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 cannot tell a small variance from 0
        # around the points' mean: the squares of small numbers keep more digits of a small variance
        total = weights.sum(dim=1).clamp_min(_TINY).view(-1, 1, 1)
        origin = (weights.unsqueeze(2) * points).sum(dim=1, keepdim=True) / total
        points, means = points - origin, means - origin
        powers = torch.cat([points, points.square()], dim=2)  # [B, P, 2D]; all sums over points are products with these
        log_shares = torch.zeros_like(means[..., :1])  # [B, C, 1]
        z = _responsibilities(powers, means, variances, log_shares)
        for _ in range(iterations):
            zw = z * weights.unsqueeze(1)  # [B, C, P]
            counts = zw.sum(dim=2, keepdim=True)  # [B, C, 1]
            new_means, mean_squares = (torch.bmm(zw, powers) / counts.clamp_min(_TINY)).chunk(2, dim=2)
            new_variances = (mean_squares - new_means.square()).clamp_min(0) + variance_floor
            has_points = counts > _TINY
            means = torch.where(has_points, new_means, means)
            variances = torch.where(has_points, new_variances, variances)
            if learn_shares:
                log_shares = (counts / counts.sum(dim=1, keepdim=True).clamp_min(1e-30)).clamp_min(1e-30).log()
            z = _responsibilities(powers, means, variances, log_shares)
        return PixelMixture(z, means + origin, variances)


def _responsibilities(powers: Tensor, means: Tensor, variances: Tensor, log_shares: Tensor) -> Tensor:
    """[B, C, P]: exp of the log density and share, normalised over C.

    -(x - m)^2 / 2v is x m / v - x^2 / 2v, a product with the powers of x, and a constant.
    """
    factors = torch.cat([means / variances, -0.5 / variances], dim=2)  # [B, C, 2D]
    constant = -0.5 * (means.square() / variances + variances.log()).sum(dim=2, keepdim=True) + log_shares
    return torch.softmax(torch.baddbmm(constant, factors, powers.transpose(1, 2)), dim=1)
