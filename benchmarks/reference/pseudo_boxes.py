"""Pseudo boxes (R-MONet, Section 3.4) mask by mask: scikit-image's Multi-Otsu and labelling, torchvision's NMS."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import label, regionprops
from torch import Tensor
from torchvision.ops import nms

from unscene.models.rmonet.settings import PseudoBoxSettings


def plain_pseudo_boxes(masks: Tensor, settings: PseudoBoxSettings) -> list[tuple[Tensor, Tensor]]:
    """Return boxes [n, 4] and scores [n] of each image, the best first.

    Args:
        masks: [B, K-1, H, W] foreground masks in 0..1.
        settings: see `PseudoBoxSettings`.
    """
    found = []
    for image in masks.detach().cpu().numpy():
        boxes: list[tuple[int, int, int, int]] = []
        scores: list[float] = []
        for slot in image:
            mask = np.where(slot < settings.floor, np.float32(0), slot)
            for box in mask_boxes(mask, settings):
                x1, y1, x2, y2 = box
                score = float(mask[y1:y2, x1:x2].mean(dtype=np.float64))
                if score >= settings.min_score:
                    boxes.append(box)
                    scores.append(score)
        found.append(_suppressed(torch.tensor(boxes).reshape(-1, 4).float(), torch.tensor(scores), settings))
    return found


def mask_boxes(mask: NDArray[np.float32], settings: PseudoBoxSettings) -> list[tuple[int, int, int, int]]:
    """The boxes x1 y1 x2 y2 of the connected parts of one mask [H, W] above each of its thresholds."""
    boxes = []
    for threshold in thresholds(mask.astype(np.float64), settings):
        for region in regionprops(label(mask > threshold, connectivity=2)):
            y1, x1, y2, x2 = region.bbox
            shorter, longer = sorted((x2 - x1, y2 - y1))
            if shorter >= settings.min_side and longer <= settings.max_ratio * shorter:
                boxes.append((x1, y1, x2, y2))
    return boxes


def thresholds(mask: NDArray[np.float64], settings: PseudoBoxSettings) -> list[float]:
    """The Multi-Otsu thresholds of one mask; none where it cannot be split."""
    return [] if mask.min() == mask.max() else multi_otsu_016(mask, settings.classes, settings.bins)


def multi_otsu_016(mask: NDArray[np.float64], classes: int, bins: int) -> list[float]:
    """Multi-Otsu as scikit-image 0.16.2 has it: bin 0 counts nothing, and the highest bound is not tried."""
    counts, edges = np.histogram(mask, bins)
    counts = counts.astype(np.float64)
    counts[0] = 0
    best, chosen = -1.0, None
    for bounds in combinations(range(bins - 2), classes - 1):
        ends = [bound + 1 for bound in bounds]
        variance = 0.0
        for first, end in zip([0, *ends], [*ends, bins], strict=True):
            mass = counts[first:end].sum()
            moment = (np.arange(first, end) * counts[first:end]).sum()
            variance += moment**2 / mass if mass else 0
        if variance > best:
            best, chosen = variance, bounds
    assert chosen is not None
    return [float((edges[bound] + edges[bound + 1]) / 2) for bound in chosen]


def _suppressed(boxes: Tensor, scores: Tensor, settings: PseudoBoxSettings) -> tuple[Tensor, Tensor]:
    """The best candidates of one image, without those that overlap a better one."""
    candidates = scores.argsort(descending=True, stable=True)[: settings.max_candidates]
    boxes, scores = boxes[candidates], scores[candidates]
    keep = nms(boxes, scores, settings.nms_threshold)[: settings.max_boxes]
    return boxes[keep], scores[keep]
