"""Greedy non-maximum suppression of many independent groups of boxes at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.boxes import pairwise_iou
from unscene.ops.host_reads import host_may_read


@torch.no_grad()
def batched_nms(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Keep the boxes that no better box of their group, itself kept, overlaps by more than the threshold.

    The answer of `torchvision.ops.nms`, group by group. All groups share each step. The host reads no value of a
    GPU's, so it does not wait for one.

    Args:
        boxes: [G, N, 4] pixels.
        scores: [G, N] higher is better; equal scores keep their order.
        valid: [G, N] bool; an invalid box is not kept and suppresses nothing, whatever its numbers are.
        iou_threshold: in [0, 1]; an overlap of exactly this much is allowed.

    Returns:
        keep: [G, N] bool, in the order of the input.

    Raises:
        ShapeError: the axes differ from the above.
    """
    size = check_shape(boxes, "G N 4", "boxes")
    check_shape(scores, f"{size['G']} {size['N']}", "scores")
    check_shape(valid, f"{size['G']} {size['N']}", "valid")
    if boxes.numel() == 0:
        return valid.clone()
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    order = scores.masked_fill(~valid, -torch.inf).argsort(dim=1, descending=True, stable=True)
    if host_may_read(valid):  # elsewhere the host would wait for the number
        order = order[:, : int(valid.sum(dim=1).max())]
    best_first = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    suppresses = pairwise_iou(best_first, best_first).gt_(_largest_not_above(iou_threshold, boxes.dtype))
    keep = valid.gather(1, order).to(boxes.dtype)  # 1 and 0: a CPU multiplies many times faster than it ands bools
    for n in range(order.shape[1] - 1):  # keep_j = valid_j and there is no i before j with keep_i and iou_ij > t
        keep[:, n + 1 :].addcmul_(keep[:, n : n + 1], suppresses[:, n, n + 1 :], value=-1).clamp_(min=0)
    return torch.zeros_like(valid).scatter(1, order, keep > 0)


@lru_cache
def _largest_not_above(threshold: float, dtype: torch.dtype) -> float:
    """The threshold in the boxes' precision, rounded down: `iou > t` then answers as it would in float64."""
    if dtype == torch.float64:
        return threshold
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))
