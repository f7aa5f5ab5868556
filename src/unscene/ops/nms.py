"""Greedy non-maximum suppression of many independent groups of boxes at once."""

from __future__ import annotations

from functools import cache, lru_cache
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.boxes import pairwise_iou

BLOCK = 8  # boxes that are decided together where the host may not read: 2^8 subsets of them are tried at once


@torch.no_grad()
def batched_nms(
    boxes: Tensor, scores: Tensor, valid: Tensor, iou_threshold: float, host_reads: bool | None = None
) -> Tensor:
    """Keep the boxes that no better box of their group, itself kept, overlaps by more than the threshold.

    With the boxes in order of score, greedy suppression is the only solution of

        keep_j = valid_j and there is no i before j with keep_i and iou_ij > t.

    On a CPU with numba a compiled loop does as it says. Without, the equation is iterated from keep = valid, which
    settles the boxes from the best on and stops at the solution, for all groups together, in as many rounds as the
    longest chain of suppressions (a handful). To ask whether it has settled makes the host wait for a GPU; there
    ceil(N / 8) blocks of boxes are decided one after another, each by trying all subsets of the block against the
    equation. All give the answer of `torchvision.ops.nms`.

    Args:
        boxes: [G, N, 4] pixels.
        scores: [G, N] higher is better; equal scores keep their order.
        valid: [G, N] bool; an invalid box is not kept and suppresses nothing, whatever its numbers are.
        iou_threshold: in [0, 1]; an overlap of exactly this much is allowed.
        host_reads: whether the host may read values on the way; None: on a CPU only.

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
    if host_reads is None:
        host_reads = boxes.device.type == "cpu"
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    order = scores.argsort(dim=1, descending=True, stable=True)
    best_first = boxes.gather(1, order.unsqueeze(-1).expand_as(boxes))
    candidates = valid.gather(1, order)
    threshold = _largest_not_above(iou_threshold, boxes.dtype)
    compiled = compiled_nms() if host_reads and boxes.device.type == "cpu" else None
    if compiled:
        kept = compiled.greedy(best_first, candidates, threshold)
    else:
        settle = _settle if host_reads else _settle_by_blocks
        groups = _groups_at_once(boxes)
        parts = zip(best_first.split(groups), candidates.split(groups), strict=True)
        kept = torch.cat([settle(_suppressions(part, threshold), candidate) for part, candidate in parts])
    return torch.zeros_like(valid).scatter(1, order, kept)


@cache
def compiled_nms() -> ModuleType | None:
    """The compiled loop, if numba is installed."""
    try:
        from unscene.ops import nms_numba as compiled
    except ImportError:
        return None
    return compiled


def _suppressions(boxes: Tensor, threshold: float) -> Tensor:
    """[G, i, j] 1 where box i comes before box j and overlaps it by more than the threshold, else 0.

    Floats, because a batched product is many times quicker than any() over bools.
    """
    return pairwise_iou(boxes, boxes).gt_(threshold).triu_(diagonal=1)


def _settle(suppresses: Tensor, candidates: Tensor) -> Tensor:
    """Iterate keep [G, N] = candidate and not suppressed by what is kept, until nothing changes."""
    keep = candidates
    for _ in range(candidates.shape[1]):  # round r settles box r at the latest
        suppressed = torch.bmm(keep.to(suppresses.dtype).unsqueeze(1), suppresses).squeeze(1) > 0
        settled = candidates & ~suppressed
        if torch.equal(settled, keep):
            break
        keep = settled
    return keep


def _settle_by_blocks(suppresses: Tensor, candidates: Tensor) -> Tensor:
    """Decide BLOCK boxes after BLOCK boxes; five launches a block, no value read.

    For a subset u of a block and the candidates v that its predecessors left, let h(u) be what u does not suppress.
    The solution is the one u that has no mismatch: u_j = v_j h_j(u) for all j. With u <= h(u), which the solution
    fulfils, the mismatches are |u| + sum_j v_j ((1 - u_j) h_j - u_j), linear in v: one product for all subsets. A
    subset that suppresses its own gets 2 BLOCK more, so that none of these is ever the least.
    """
    num_boxes = candidates.shape[1]
    missing = -num_boxes % BLOCK
    suppresses = F.pad(suppresses, (0, missing, 0, missing))
    left = F.pad(candidates.to(suppresses.dtype), (0, missing)).unsqueeze(1)  # [G, 1, N], below 1: suppressed
    subsets = _subsets(suppresses.dtype, suppresses.device)
    within = suppresses.unflatten(1, (-1, BLOCK)).unflatten(3, (-1, BLOCK)).diagonal(dim1=1, dim2=3)  # [G, i, j, m]
    unharmed = 1 - torch.matmul(subsets, within.permute(0, 3, 1, 2)).clamp_(max=1)  # h: [G, m, 2^BLOCK, BLOCK]
    own_harm = (subsets * (1 - unharmed)).amax(dim=3)
    at_rest = subsets.sum(dim=1) + 2 * BLOCK * own_harm  # [G, m, 2^BLOCK]
    slopes = (1 - subsets) * unharmed - subsets
    kept = []
    for block in range(within.shape[3]):
        here = slice(block * BLOCK, (block + 1) * BLOCK)
        v = left[:, :, here].relu()  # [G, 1, BLOCK]
        mismatches = torch.baddbmm(at_rest[:, block].unsqueeze(1), v, slopes[:, block].transpose(1, 2))
        kept.append(subsets.index_select(0, mismatches.argmin(dim=2).flatten()))
        left[:, :, here.stop :].baddbmm_(kept[-1].unsqueeze(1), suppresses[:, here, here.stop :], alpha=-1)
    return torch.cat(kept, dim=1)[:, :num_boxes] > 0


def _subsets(dtype: torch.dtype, device: torch.device) -> Tensor:
    """[2^BLOCK, BLOCK] the subsets of a block, as ones and zeros."""
    number = torch.arange(2**BLOCK, device=device).unsqueeze(1)
    return (number >> torch.arange(BLOCK, device=device)).bitwise_and_(1).to(dtype)


def _groups_at_once(boxes: Tensor) -> int:
    """How many groups' overlaps [N, N] are held at once: on a CPU what stays in its cache, elsewhere what fits."""
    num_boxes = int(boxes.shape[1])
    if boxes.device.type == "cpu":
        return max(1, 2**17 // (num_boxes * num_boxes))
    return max(1, 2**27 // (num_boxes * max(num_boxes, 1 << BLOCK)))  # the subsets of N / 8 blocks have N 2^8 numbers


@lru_cache
def _largest_not_above(threshold: float, dtype: torch.dtype) -> float:
    """The threshold in the boxes' precision, rounded down: `iou > t` then answers as it would in float64."""
    if dtype == torch.float64:
        return threshold
    rounded = np.float32(threshold)
    return float(rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf)))
