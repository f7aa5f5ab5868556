"""A Gaussian mixture over weighted points, many sets at once (explicit localization, Section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unscene.errors import check_shape


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
    variance: float,
    iterations: int,
    variance_floor: float = 1e-4,
    learn_shares: bool = False,
) -> PixelMixture:
    """Fit diagonal Gaussians to weighted points: Algorithm 1, lines 6 to 11, for a batch. No gradient flows through it.

    Algorithm 1 starts with z = .5 for both components; their first means would then be the same for ever. So the
    responsibilities are first taken from the initial means, all components having one variance. Each iteration is
    line 7 (means), 8 (variances) and 9 (responsibilities).

    Args:
        points: [B, P, D].
        weights: [B, P], 0 or more; a point of weight 0 is given its responsibilities but has no say.
        means: [B, C, D] initial ones.
        variance: initial one, of every component and coordinate.
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
    check_shape(means, f"{size['B']} C {size['D']}", "means")
    points, weights, means = points.float(), weights.float(), means.float()
    variances = torch.full_like(means, variance)
    log_shares = torch.zeros_like(means[..., :1])  # [B, C, 1]
    responsibilities = _responsibilities(points, means, variances, log_shares)
    for _ in range(iterations):
        counted = responsibilities * weights.unsqueeze(1)  # [B, C, P]
        total = counted.sum(dim=2, keepdim=True)  # [B, C, 1]
        belongs = total > torch.finfo(total.dtype).tiny
        divisor = total.clamp_min(torch.finfo(total.dtype).tiny)
        new_means = torch.bmm(counted, points) / divisor
        # about the new mean: a difference of large squares would lose a small variance
        distances = (points.unsqueeze(1) - new_means.unsqueeze(2)).square_()  # [B, C, P, D]
        new_variances = (counted.unsqueeze(2) @ distances).squeeze(2) / divisor + variance_floor
        means = torch.where(belongs, new_means, means)
        variances = torch.where(belongs, new_variances, variances)
        if learn_shares:
            log_shares = (total / total.sum(dim=1, keepdim=True).clamp_min(1e-30)).clamp_min(1e-30).log()
        responsibilities = _responsibilities(points, means, variances, log_shares)
    return PixelMixture(responsibilities, means, variances)


def _responsibilities(points: Tensor, means: Tensor, variances: Tensor, log_shares: Tensor) -> Tensor:
    """[B, C, P]: exp of the log density and share, normalised over C."""
    distances = (points.unsqueeze(1) - means.unsqueeze(2)).square_()  # [B, C, P, D]
    log_density = -0.5 * ((distances / variances.unsqueeze(2)).sum(-1) + variances.log().sum(-1, keepdim=True))
    return torch.softmax(log_density + log_shares, dim=1)
