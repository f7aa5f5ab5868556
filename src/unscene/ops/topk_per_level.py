"""The anchors of each pyramid level that the head is surest of: those that enter the suppression."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def top_of_each_level(objectness: Tensor, levels: tuple[int, ...], count: int) -> list[tuple[Tensor, Tensor]]:
    """Return the surest anchors, level after level, as many as each has: for a CPU, which pays for what it fills up.

    Args:
        objectness: [B, A] logits.
        levels: anchors a level, A in sum.
        count: anchors to take from a level, or all where it has fewer.

    Returns:
        For each level logits [B, 1, n], falling, and the index of their anchors [B, 1, n].
    """
    tops = []
    start = 0
    for level in objectness.split(levels, dim=1):
        logits, order = level.topk(min(count, level.shape[1]), dim=1)
        tops.append((logits.unsqueeze(1), (order + start).unsqueeze(1)))
        start += level.shape[1]
    return tops


def top_of_all_levels(objectness: Tensor, levels: tuple[int, ...], count: int) -> list[tuple[Tensor, Tensor]]:
    """Return the same of all L levels as one pair [B, L, n]: for a GPU, which pays for each call.

    What a level lacks has the logit -inf, and the index of some anchor.
    """
    most = max(levels)
    padded = [F.pad(level, (0, most - level.shape[1]), value=-torch.inf) for level in objectness.split(levels, dim=1)]
    logits, order = torch.stack(padded, dim=1).topk(min(count, most), dim=2)
    return [(logits, (order + _first_anchors(levels, logits.device)).clamp_(max=objectness.shape[1] - 1))]


@lru_cache
def _first_anchors(levels: tuple[int, ...], device: torch.device) -> Tensor:
    """[L, 1] the first anchor of each level; kept on the device, since the host waits for a copy to a GPU."""
    return torch.tensor([sum(levels[:index]) for index in range(len(levels))], device=device).unsqueeze(1)
