"""The Butterworth window: about 1 around a centre, then falling off (explicit localization, Section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from unscene.errors import check_shape


def butterworth(distance: Tensor, order: float, cutoff: float) -> Tensor:
    """Return G(r, n, f) = 1 / sqrt(1 + (r / f)^(2 n)).

    Args:
        distance: r >= 0 in pixels, of any shape.
        order: n, how steeply it falls.
        cutoff: f in pixels, where it is 1 / sqrt(2).

    Returns:
        Values in (0, 1] of the shape of `distance`.
    """
    return (1 + (distance / cutoff).pow(2 * order)).rsqrt()


def butterworth_window(centres: Tensor, size: tuple[int, int], order: float, cutoff: float) -> Tensor:
    """Return G(|i - i_c|) G(|j - j_c|), the window around each centre, rows and columns by themselves.

    Args:
        centres: [B, 2] row and column.
        size: height and width of the image.
        order: n.
        cutoff: f in pixels.

    Returns:
        [B, 1, *size] in (0, 1].

    Raises:
        ShapeError: other axes.
    """
    check_shape(centres, "B 2", "centres")
    along = []
    for axis, length in enumerate(size):
        places = torch.arange(length, device=centres.device)
        along.append(butterworth((places - centres[:, axis, None]).abs().float(), order, cutoff))
    rows, columns = along
    return (rows[:, :, None] * columns[:, None, :]).unsqueeze(1)


def window_reach(order: float, cutoff: float, threshold: float = 0.5) -> int:
    """Return the greatest distance in whole pixels, along a row or column, at which the window is above a threshold.

    G(r) > t if and only if r < f (1 / t^2 - 1)^(1 / (2 n)).

    Args:
        order: n.
        cutoff: f in pixels.
        threshold: t in (0, 1).
    """
    distance = int(cutoff * (threshold**-2 - 1) ** (0.5 / order)) + 1
    while distance > 0 and not float(butterworth(torch.tensor(float(distance)), order, cutoff)) > threshold:
        distance -= 1
    return distance
