"""Stick-breaking: from the attention's logits to masks that share every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape

# The log of a share of 0. Not -inf, since 0 * -inf is NaN, and a CPU is many times slower where exp leaves float32's
# normal numbers. So a share of 0 is exp(-40) = 4e-18: in a mixture a slot explains a pixel outside its box at a cost of
# 40 nats. This lowers the loss of a pixel only where all slots with a share explain it more than 40 nats worse than
# that slot does: 1.3 % of R-MONet's likelihood term with random weights, nothing with trained ones.
LOG_ZERO = -40.0


def stick_breaking(alpha_logits: Tensor, gate: Tensor | None = None) -> Tensor:
    """Share every pixel among K slots, each taking from the remainder.

    m_k = s_{k-1} a_k,  s_k = s_{k-1} (1 - a_k),  m_K = s_{K-1}   (R-MONet, Eq. 4-7)

    Args:
        alpha_logits: [B, K-1, 1, H, W], before the sigmoid.
        gate: [B, K-1, 1, H, W] bool, where a slot may take anything at all: a_k = 0 elsewhere. None: everywhere.

    Returns:
        log_masks: [B, K, 1, H, W]; exp sums to 1 over K. The last slot gets the remainder.
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
