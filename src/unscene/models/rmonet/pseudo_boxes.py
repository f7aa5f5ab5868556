"""Pseudo boxes: where the foreground masks say that the objects are (R-MONet, Section 3.4).

Multi-Otsu computes thresholds for every mask. The connected components above each threshold become boxes, which
supervise the region proposal network. So a mask that covers two objects proposes both, without labels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import check_shape
from unscene.models.rmonet.multi_otsu import multi_otsu
from unscene.models.rmonet.settings import PseudoBoxSettings
from unscene.ops.boxes import batched_nms
from unscene.ops.components import component_boxes

EXACT_FROM = 2**-10  # float32 values from here up are multiples of 2^-33: float64 sums of 2^20 of them are exact


@torch.no_grad()
def pseudo_boxes(masks: Tensor, settings: PseudoBoxSettings | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes of the connected components of all foreground masks [B, K-1, H, W] in [0, 1]; without gradients.

    A component is 8-connected in mask > threshold, for each threshold of each mask. Its score is the mean of the mask
    inside its box (Appendix B), near 1 for a box that a confident mask fills. A constant mask, such as an empty slot,
    has no component. Every device gives the same bits for images of up to 2^20 pixels.

    Returns boxes [B, N, 4] float32, their scores [B, N] in [0, 1], and which rows are used, [B, N] bool; N is
    `max_boxes`. The best come first, equal ones by slot, then by threshold, then by the component's first pixel; unused
    rows are 0 and come last.
    """
    settings = settings or PseudoBoxSettings()
    size = check_shape(masks, "B S H W", "masks")
    if masks.numel() == 0:
        nothing = torch.zeros(size["B"], settings.max_boxes, 5, device=masks.device)
        return nothing[..., :4], nothing[..., 4], nothing[..., 4] > 0
    masks = masks.float().flatten(0, 1)  # [G, H, W]
    below_floor = float(np.nextafter(np.float32(settings.floor), np.float32(-np.inf)))
    masks = F.threshold(masks, below_floor, 0)
    thresholds = multi_otsu(masks.flatten(1), settings.classes, settings.bins)  # [G, T]
    planes = masks.unsqueeze(1) > thresholds.float()[:, :, None, None]
    components = component_boxes(planes.flatten(0, 1))
    boxes = components.boxes.unflatten(0, planes.shape[:2])  # [G, T, M, 4]
    scores = _means_inside(exact_addends(masks, settings), boxes).flatten(0, 1)
    sides = (components.boxes[..., 2:] - components.boxes[..., :2]).double()
    shorter, longer = sides.amin(dim=-1), sides.amax(dim=-1)
    fits = components.found & (shorter >= settings.min_side) & (longer <= settings.max_ratio * shorter)
    fits &= scores >= settings.min_score
    plane = torch.arange(len(fits), device=masks.device).unsqueeze(1) % (size["S"] * planes.shape[1])
    position = plane * (size["H"] * size["W"]) + components.first
    # one number to sort by: the bits of the score, which rise with it, then the position
    rank = ((scores.view(torch.int32).long() << 32) - position).masked_fill(~fits, torch.iinfo(torch.int64).min)
    rank = rank.view(size["B"], -1)
    rank, order = rank.topk(min(settings.max_candidates, rank.shape[1]), dim=1)
    boxes = boxes.reshape(size["B"], -1, 4).gather(1, order.unsqueeze(-1).expand(-1, -1, 4)).float()
    scores = scores.view(size["B"], -1).gather(1, order)
    valid = rank > torch.iinfo(torch.int64).min
    return _first_kept(boxes, scores, batched_nms(boxes, scores, valid, settings.nms_threshold), settings.max_boxes)


def maps_by_quality(images: Tensor, components: Tensor, masks: Tensor, sigma: float) -> Tensor:
    """Split each slot's mask into what its component explains and what it does not: [B, 2 K - 1, H, W] in [0, 1].

    Of images [B, 3, H, W], components [B, K, 3, H, W] and masks [B, K, 1, H, W], the background last. The quality of a
    pixel is exp(-|x - X_k|^2 / (2 sigma^2)). A mask that holds two objects of different colours, of which its component
    shows one, becomes two maps, so that each object has a box. Ours.
    """
    error = (images.unsqueeze(1) - components).square().sum(dim=2, keepdim=True)
    quality = (error * (-0.5 / sigma**2)).exp()
    return torch.cat([(masks * quality)[:, :-1], masks * (1 - quality)], dim=1).squeeze(2)


def exact_addends(masks: Tensor, settings: PseudoBoxSettings) -> Tensor:
    """Return masks [G, H, W] as numbers whose float64 sums are exact: every order of adding gives the same bits."""
    if settings.floor >= EXACT_FROM:
        return masks
    return (masks.double() * 2**33).round() / 2**33


def _means_inside(masks: Tensor, boxes: Tensor) -> Tensor:
    """[G, T, M] mean of each mask [G, H, W] inside its boxes [G, T, M, 4], from a summed-area table; 0 if empty."""
    # float64: a difference of large sums in float32 would lose the small ones
    table = F.pad(masks.cumsum(dim=1, dtype=torch.float64).cumsum(dim=2), (1, 0, 1, 0))
    stride = table.shape[2]
    table = table.flatten(1).unsqueeze(1).expand(-1, boxes.shape[1], -1)
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.cat([y2 * stride + x2, y1 * stride + x2, y2 * stride + x1, y1 * stride + x1], dim=2)
    below_right, above_right, below_left, above_left = table.gather(2, corners).chunk(4, dim=2)
    total = below_right - above_right - below_left + above_left
    return (total / ((x2 - x1) * (y2 - y1)).clamp_(min=1)).clamp_(0, 1).float()


def _first_kept(boxes: Tensor, scores: Tensor, keep: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Move the kept boxes of [B, M, 4], already sorted, to the front and cut or pad them to `count` rows."""
    keep = F.pad(keep, (0, count))  # enough rows, whatever M is
    order = keep.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
    valid = keep.gather(1, order)
    boxes = F.pad(boxes, (0, 0, 0, count)).gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
    scores = F.pad(scores, (0, count)).gather(1, order)
    return boxes * valid.unsqueeze(-1), scores * valid, valid
