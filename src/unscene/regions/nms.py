"""Greedy non-maximum suppression of many independent groups of boxes at once."""

from __future__ import annotations

import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.regions.boxes import pairwise_iou


@torch.no_grad()
def batched_nms(boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float) -> Tensor:
    """Keep the boxes that no better box of their group, itself kept, overlaps by more than the threshold.

    With the boxes in order of score, greedy suppression is the only solution of

        keep_j = valid_j and there is no i before j with keep_i and iou_ij > t.

    Iterating this from keep = valid settles the boxes from the best on and stops at the solution, for all groups
    together, in as many rounds as the longest chain of suppressions (a handful). Same answer as `torchvision.ops.nms`.

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
    order = scores.argsort(dim=1, descending=True, stable=True)
    best_first = boxes.gather(1, order.unsqueeze(-1).expand_as(boxes))
    candidates = valid.gather(1, order)
    threshold = _largest_not_above(iou_threshold, boxes.dtype)
    groups = _groups_at_once(boxes)
    parts = zip(best_first.split(groups), candidates.split(groups), strict=True)
    kept = torch.cat([_settle(part, candidate, threshold) for part, candidate in parts])
    return torch.zeros_like(valid).scatter(1, order, kept)


def _settle(boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """Iterate keep [G, N] = candidate and not suppressed by what is kept, until nothing changes."""
    num_boxes = boxes.shape[1]
    comes_before = torch.ones(num_boxes, num_boxes, dtype=boxes.dtype, device=boxes.device).triu_(diagonal=1)
    # floats, because a batched product is many times quicker than any() over bools
    suppresses = pairwise_iou(boxes, boxes).gt_(threshold).mul_(comes_before)  # [G, i, j]: i suppresses j
    keep = candidates
    for _ in range(num_boxes):  # round r settles box r at the latest
        suppressed = torch.bmm(keep.to(boxes.dtype).unsqueeze(1), suppresses).squeeze(1) > 0
        settled = candidates & ~suppressed
        if torch.equal(settled, keep):
            break
        keep = settled
    return keep


def _groups_at_once(boxes: Tensor) -> int:
    """How many groups' overlaps [N, N] are held at once: on a CPU what stays in its cache, elsewhere what fits."""
    pairs = 2**17 if boxes.device.type == "cpu" else 2**27
    return max(1, pairs // boxes.shape[1] ** 2)


def _largest_not_above(threshold: float, dtype: torch.dtype) -> float:
    """The threshold in the boxes' precision, rounded down: `iou > t` then answers as it would in float64."""
    rounded = torch.tensor(threshold, dtype=dtype)
    if rounded.item() > threshold:
        rounded = torch.nextafter(rounded, torch.tensor(-torch.inf, dtype=dtype))
    return float(rounded)
