"""From the attention's raw answers to masks that share every pixel: stick-breaking, and softmax as the alternative."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape

# The log of no share at all. Not -inf, since 0 * -inf is NaN; and not so low that exp, or its product with a small
# gradient, leaves float32's normal numbers, where a CPU is many times slower. exp(-40) is 4e-18.
LOG_ZERO = -40.0


def stick_breaking(alpha_logits: Tensor, gate: Tensor | None = None) -> Tensor:
    """Share every pixel among K slots, each taking from what is left.

    m_k = s_{k-1} a_k,  s_k = s_{k-1} (1 - a_k),  m_K = s_{K-1}   (R-MONet, Eq. 4-7)

    Args:
        alpha_logits: [B, K-1, 1, H, W], before the sigmoid.
        gate: [B, K-1, 1, H, W] bool, where a slot may take anything at all: a_k = 0 elsewhere. None: everywhere.

    Returns:
        log_masks: [B, K, 1, H, W]; exp sums to 1 over K. The last slot gets what nobody took.

    Raises:
        ShapeError: not five axes, axis 2 is not 1, or the gate's axes differ.
    """
    size = check_shape(alpha_logits, "B K 1 H W", "alpha_logits")
    taken = F.logsigmoid(alpha_logits)  # [B, K-1, 1, H, W]
    left = F.logsigmoid(-alpha_logits)
    if gate is not None:
        check_shape(gate, " ".join(map(str, alpha_logits.shape)), "gate")
        taken = taken.masked_fill(~gate, LOG_ZERO)
        left = left.masked_fill(~gate, 0.0)
    left = left.cumsum(dim=1)  # log s_1 .. log s_{K-1}
    everything = left.new_zeros(size["B"], 1, 1, size["H"], size["W"])  # log s_0
    return torch.cat([everything, left], 1) + torch.cat([taken, everything], 1)


def softmax_masks(alpha_logits: Tensor, gate: Tensor | None = None) -> Tensor:
    """Share every pixel among K slots by a softmax; the last slot's logit is 0 ("can also be used", Section 3.1).

    Args:
        alpha_logits: [B, K-1, 1, H, W].
        gate: [B, K-1, 1, H, W] bool, where a slot may take anything at all. None: everywhere.

    Returns:
        log_masks: [B, K, 1, H, W]; exp sums to 1 over K.

    Raises:
        ShapeError: as `stick_breaking`.
    """
    size = check_shape(alpha_logits, "B K 1 H W", "alpha_logits")
    if gate is not None:
        check_shape(gate, " ".join(map(str, alpha_logits.shape)), "gate")
        alpha_logits = alpha_logits.masked_fill(~gate, LOG_ZERO)
    of_last = alpha_logits.new_zeros(size["B"], 1, 1, size["H"], size["W"])
    return F.log_softmax(torch.cat([alpha_logits, of_last], 1), dim=1)
