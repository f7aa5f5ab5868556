"""Greedy suppression of many groups of boxes on a CPU, compiled by numba: the same answer as `nms`, far quicker.

Without numba this module cannot be imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unscene.ops.numba_jit import compiled


def greedy(boxes: Tensor, candidates: Tensor, threshold: float) -> Tensor:
    """Return which candidates no kept box before them overlaps by more than the threshold.

    Args:
        boxes: [G, N, 4] float32 or float64, the best first.
        candidates: [G, N] bool; the others are neither kept nor do they suppress.
        threshold: in the boxes' precision.

    Returns:
        [G, N] bool.
    """
    coordinates = boxes.contiguous().numpy()
    return torch.from_numpy(_greedy(coordinates, candidates.contiguous().numpy(), coordinates.dtype.type(threshold)))


@compiled
def _greedy(boxes: Any, candidates: Any, threshold: Any) -> Any:
    keep = np.zeros(candidates.shape, np.bool_)
    kept = np.empty((candidates.shape[1], 4), boxes.dtype)
    areas = np.empty(candidates.shape[1], boxes.dtype)
    zero = threshold - threshold  # in the boxes' precision, as is everything below: `boxes.pairwise_iou`, step by step
    for g in range(len(boxes)):
        count = 0
        for n in range(boxes.shape[1]):
            if not candidates[g, n]:
                continue
            x1, y1, x2, y2 = boxes[g, n, 0], boxes[g, n, 1], boxes[g, n, 2], boxes[g, n, 3]
            area = max(x2 - x1, zero) * max(y2 - y1, zero)
            suppressed = False
            for k in range(count):
                width = max(min(kept[k, 2], x2) - max(kept[k, 0], x1), zero)
                height = max(min(kept[k, 3], y2) - max(kept[k, 1], y1), zero)
                intersection = width * height
                union = areas[k] + area - intersection
                if intersection > zero and intersection / union > threshold:
                    suppressed = True
                    break
            if not suppressed:
                keep[g, n] = True
                kept[count, 0], kept[count, 1], kept[count, 2], kept[count, 3] = x1, y1, x2, y2
                areas[count] = area
                count += 1
    return keep
