"""Diagonal Gaussian posteriors: from a network's output, their sample, their divergence from a prior."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from unscene.distributed.processes import normal_like
from unscene.errors import check_shape
from unscene.ops.dispatch import at_least_float32

Gaussian = tuple[Tensor, Tensor]  # mean and log variance, [..., D] each


def sample_gaussian(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return mean + exp(log_variance / 2) * noise, differentiable in both (Kingma & Welling, 2013).

    All are [..., D]; a ShapeError where the two differ.
    """
    check_shape(log_variance, " ".join(map(str, mean.shape)), "log_variance")
    return mean + (0.5 * log_variance).exp() * normal_like(mean)


def softplus_gaussian(output: Tensor, smallest: float = 1e-4) -> Gaussian:
    """Return the Gaussian of a network's output [..., 2 D]: the mean, and the standard deviation before a softplus.

    `smallest` is added to the standard deviation, so that its log is bounded.
    """
    mean, raw = at_least_float32(output).chunk(2, dim=-1)
    return mean, 2 * (F.softplus(raw) + smallest).log()


def gaussian_kl(
    mean: Tensor, log_variance: Tensor, prior_mean: Tensor | float = 0.0, prior_log_variance: Tensor | float = 0.0
) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(prior_mean, exp(prior_log_variance))), summed over the last axis.

    Mean and log variance are [..., D], a ShapeError where they differ; a prior's may be one number. The result is [...]
    in nats. The default prior is the unit Gaussian (R-MONet, Eq. 3, second term).
    """
    check_shape(log_variance, " ".join(map(str, mean.shape)), "log_variance")
    difference = log_variance - prior_log_variance
    precision = math.exp(-prior_log_variance) if isinstance(prior_log_variance, float) else (-prior_log_variance).exp()
    return 0.5 * (difference.exp() + (mean - prior_mean) ** 2 * precision - 1 - difference).sum(dim=-1)
