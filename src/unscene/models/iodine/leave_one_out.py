"""How well a mixture explains a pixel without one of its slots (IODINE's leave-one-out likelihood)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unscene.errors import ShapeError, check_shape


def leave_one_out_log_likelihood(log_densities: Tensor, log_masks: Tensor) -> Tensor:
    """Return log p(x | z_j, j != k) for every slot k: the mixture of the others, whose masks sum to 1 again.

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
    of_others = logsumexp_of_others(log_densities + log_masks)
    return (of_others - logsumexp_of_others(log_masks)).sum(dim=2, keepdim=True)


def logsumexp_of_others(values: Tensor) -> Tensor:
    """Return log sum_{j != k} exp(v_j) for every k, with work that grows as K.

    Taking exp(v_k) off the whole sum loses all digits where v_k makes up the sum, which only the greatest of the K can.
    That one's answer is summed anew without it; any other's v_k is at most half of the sum.

    Args:
        values: [B, K, ...], K >= 2.

    Returns:
        [B, K, ...].

    Raises:
        ShapeError: fewer than two slots.
    """
    if values.ndim < 2 or values.shape[1] < 2:
        raise ShapeError(f"values must be [B, K, ...] of two slots or more, but are {list(values.shape)}.")
    greatest = values.max(dim=1, keepdim=True).indices  # several times as fast as argmax along this axis
    whole = values.logsumexp(dim=1, keepdim=True)
    share = (values - whole).exp().scatter(1, greatest, 0.0)  # at most 1/2
    without_greatest = values.scatter(1, greatest, -math.inf).logsumexp(dim=1, keepdim=True)
    return torch.scatter(whole + torch.log1p(-share), 1, greatest, without_greatest)
