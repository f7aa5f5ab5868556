"""A background that cannot draw objects, since it has few colours. Ours; the papers' backgrounds are free."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def coarse_background(components: Tensor, background: int, cells: int) -> Tensor:
    """Average the background's component over cells x cells rectangles, and enlarge these bilinearly.

    Args:
        components: [B, K, C, H, W].
        background: index of the background's slot, negative ones from the last.
        cells: 1: the background has one colour; 0: it stays as it is.

    Returns:
        [B, K, C, H, W]; the other slots are unchanged.
    """
    if cells == 0:
        return components
    slots = list(components.unbind(dim=1))
    averages = F.adaptive_avg_pool2d(slots[background], cells)
    slots[background] = F.interpolate(averages, size=components.shape[-2:], mode="bilinear", align_corners=False)
    return torch.stack(slots, dim=1)
