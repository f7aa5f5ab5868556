"""Boxes from a label map: the tightest box around the pixels of every label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unscene.errors import ShapeError, check_shape

_LABELS_A_PASS = 8  # one bit of a byte a label


def boxes_of_labels(labels: NDArray[np.uint8], num_objects: int) -> NDArray[np.float32]:
    """Return the boxes around the labels' pixels, for a batch of label maps.

    A label becomes one bit of a byte: one OR along the columns and one along the rows find the rows and columns of
    eight labels at once.

    Args:
        labels: [B, H, W] uint8, 0 is the background.
        num_objects: M; label `m + 1` goes to row `m`, labels above M are left out.

    Returns:
        [B, M, 4] float32 `x1 y1 x2 y2` in pixels, end exclusive; a zero row for a label without a pixel.

    Raises:
        ShapeError: `labels` has not three axes, or is not uint8.
    """
    batch = check_shape(labels, "B H W", "labels")["B"]
    if labels.dtype != np.uint8:
        raise ShapeError(f"labels must be uint8, but are {labels.dtype}. Convert them with labels.astype(np.uint8).")
    boxes = np.zeros((batch, num_objects, 4), np.float32)
    for first in range(0, num_objects, _LABELS_A_PASS):
        rows = boxes[:, first : first + _LABELS_A_PASS]
        bits = _bit_of_label(first)[labels]  # [B, H, W]
        x1, x2, seen = _extent(np.bitwise_or.reduce(bits, axis=1), rows.shape[1])
        y1, y2, _ = _extent(np.bitwise_or.reduce(bits, axis=2), rows.shape[1])
        rows[seen] = np.stack([x1, y1, x2, y2], axis=-1)[seen]
    return boxes


def _bit_of_label(first: int) -> NDArray[np.uint8]:
    """[256] the bit of every label: labels `first + 1 .. first + 8` have one, all others none."""
    bits = np.zeros(256, np.uint8)
    chosen = range(first + 1, min(first + 1 + _LABELS_A_PASS, 256))
    bits[chosen] = [1 << position for position in range(len(chosen))]
    return bits


def _extent(bits: NDArray[np.uint8], labels: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """[B, L] first position, one past the last position, and whether there is any, from bits along one axis [B, P]."""
    occurs = ((bits[:, None, :] >> np.arange(labels, dtype=np.uint8)[:, None]) & 1).astype(np.bool_)  # [B, L, P]
    start = occurs.argmax(axis=2)
    end = occurs.shape[2] - occurs[:, :, ::-1].argmax(axis=2)
    return start, end, np.asarray(occurs.any(axis=2))
