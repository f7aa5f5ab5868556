"""A Gaussian mixture over weighted points, many sets at once (explicit localization, Section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unscene.errors import check_shape

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class PixelMixture:
    """What expectation maximisation ends with.

    Attributes:
        responsibilities: [B, C, P] share of each component in each point; they sum to 1 over C.
        means: [B, C, D].
        variances: [B, C, D], of each coordinate.
    """

    responsibilities: Tensor
    means: Tensor
    variances: Tensor


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

    Algorithm 1 starts with z = .5 for both components; their first means would then be the same for ever. So the
    responsibilities are first taken from the initial means. Each iteration is
    line 7 (means), 8 (variances) and 9 (responsibilities).

    Args:
        points: [B, P, D].
        weights: [B, P], 0 or more; a point of weight 0 is given its responsibilities but has no say.
        means: [B, C, D] initial ones.
        variances: [B, C, D] initial ones.
        iterations: L; 0 leaves what the initial means say.
        variance_floor: added to every variance, so that a component of equal points keeps a density.
        learn_shares: components have shares of the points as factors in line 9, as mixtures usually do; the paper's
            line has none.

    Returns:
        The mixture. A component that no weighted point belongs to keeps its mean and variance.

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(points, "B P D", "points")
    check_shape(weights, f"{size['B']} {size['P']}", "weights")
    components = check_shape(means, f"{size['B']} C {size['D']}", "means")["C"]
    check_shape(variances, f"{size['B']} {components} {size['D']}", "variances")
    points, weights, means, variances = points.float(), weights.float(), means.float(), variances.float()
    with torch.autocast(points.device.type, enabled=False):  # eight bits would not tell a small variance from none
        return _expectation_maximisation(points, weights, means, variances, iterations, variance_floor, learn_shares)


def _expectation_maximisation(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    variances: Tensor,
    iterations: int,
    variance_floor: float,
    learn_shares: bool,
) -> PixelMixture:
    """`pixel_mixture` in float32."""
    # about the points' middle: squares of small numbers lose less of a small variance
    middle = (weights.unsqueeze(2) * points).sum(dim=1, keepdim=True) / weights.sum(dim=1).clamp_min(_TINY).view(
        -1, 1, 1
    )
    points, means = points - middle, means - middle
    powers = torch.cat([points, points.square()], dim=2)  # [B, P, 2D]; all sums over points are products with these
    log_shares = torch.zeros_like(means[..., :1])  # [B, C, 1]
    responsibilities = _responsibilities(powers, means, variances, log_shares)
    for _ in range(iterations):
        counted = responsibilities * weights.unsqueeze(1)  # [B, C, P]
        total = counted.sum(dim=2, keepdim=True)  # [B, C, 1]
        moments = torch.bmm(counted, powers) / total.clamp_min(_TINY)
        new_means, mean_squares = moments.chunk(2, dim=2)
        new_variances = (mean_squares - new_means.square()).clamp_min(0) + variance_floor
        belongs = total > _TINY
        means = torch.where(belongs, new_means, means)
        variances = torch.where(belongs, new_variances, variances)
        if learn_shares:
            log_shares = (total / total.sum(dim=1, keepdim=True).clamp_min(1e-30)).clamp_min(1e-30).log()
        responsibilities = _responsibilities(powers, means, variances, log_shares)
    return PixelMixture(responsibilities, means + middle, variances)


def _responsibilities(powers: Tensor, means: Tensor, variances: Tensor, log_shares: Tensor) -> Tensor:
    """[B, C, P]: exp of the log density and share, normalised over C.

    -(x - m)^2 / 2v is x m / v - x^2 / 2v, a product with the powers of x, and a constant.
    """
    factors = torch.cat([means / variances, -0.5 / variances], dim=2)  # [B, C, 2D]
    constant = -0.5 * (means.square() / variances + variances.log()).sum(dim=2, keepdim=True) + log_shares
    return torch.softmax(torch.baddbmm(constant, factors, powers.transpose(1, 2)), dim=1)
