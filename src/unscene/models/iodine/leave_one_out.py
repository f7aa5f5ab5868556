"""The likelihood of a pixel under the mixture without one of its slots (IODINE, leave-one-out likelihood)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unscene.errors import ShapeError, check_shape


def leave_one_out_log_likelihood(log_densities: Tensor, log_masks: Tensor) -> Tensor:
    """Return log p(x | z_j, j != k) for every slot k: the mixture of the other slots, their masks scaled to sum to 1.

    log sum_{j != k} m_j N_j - log sum_{j != k} m_j   (IODINE, appendix, inputs of the refinement network)

    Args:
        log_densities: [B, K, C, H, W], log N_k; C is 1 where a slot explains a pixel's channels together.
        log_masks: [B, K, 1, H, W]; exp sums to 1 over K.

    Returns:
        [B, K, 1, H, W] in nats, summed over C.

    Raises:
        ShapeError: axes that do not fit together, or fewer than two slots.
    """
    size = check_shape(log_densities, "B K C H W", "log_densities")
    check_shape(log_masks, f"{size['B']} {size['K']} 1 {size['H']} {size['W']}", "log_masks")
    likelihood = logsumexp_without_each(log_densities + log_masks)
    return (likelihood - logsumexp_without_each(log_masks)).sum(dim=2, keepdim=True)


def logsumexp_without_each(values: Tensor) -> Tensor:
    """Return log sum_{j != k} exp(v_j) for every k, in O(K).

    Subtracting exp(v_k) from the total sum loses all digits if v_k dominates the sum. Only the largest value can: its
    result is a second sum without it. Every other value is at most half of the sum.

    Args:
        values: [B, K, ...], K >= 2.

    Returns:
        [B, K, ...].

    Raises:
        ShapeError: fewer than two slots.
    """
    if values.ndim < 2 or values.shape[1] < 2:
        raise ShapeError(f"values must be [B, K, ...] of two slots or more, but are {list(values.shape)}.")
    largest = values.max(dim=1, keepdim=True).indices  # several times as fast as argmax along this axis
    total = values.logsumexp(dim=1, keepdim=True)
    share = (values - total).exp().scatter(1, largest, 0.0)  # at most 1/2
    without_largest = values.scatter(1, largest, -math.inf).logsumexp(dim=1, keepdim=True)
    return torch.scatter(total + torch.log1p(-share), 1, largest, without_largest)
