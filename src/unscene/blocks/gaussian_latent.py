"""A diagonal Gaussian posterior with a unit prior: its sample and its divergence."""

from __future__ import annotations

from torch import Tensor

from unscene.blocks.shared_noise import normal_like
from unscene.errors import check_shape


def sample_gaussian(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return mean + exp(log_variance / 2) * noise, differentiable in both (Kingma & Welling, 2013).

    Args:
        mean: [..., D].
        log_variance: [..., D].

    Returns:
        [..., D].

    Raises:
        ShapeError: the two have other axes.
    """
    check_shape(log_variance, " ".join(map(str, mean.shape)), "log_variance")
    return mean + (0.5 * log_variance).exp() * normal_like(mean)


def unit_gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)), summed over the last axis (R-MONet, Eq. 3, second term).

    Args:
        mean: [..., D].
        log_variance: [..., D].

    Returns:
        [...] in nats.

    Raises:
        ShapeError: the two have other axes.
    """
    check_shape(log_variance, " ".join(map(str, mean.shape)), "log_variance")
    return 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=-1)
