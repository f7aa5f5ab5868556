"""Squares, ellipses, hearts and triangles: which pixels a sprite of Multi-dSprites covers. (No data set has triangles.)

The geometry is fitted to the published images (intersection over union .97 to 1 with true renders). Lengths are in
units of the image's side, for scale 1. A pixel belongs to a sprite that contains its centre; no pixel is mixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

SHAPES = ("square", "ellipse", "heart")  # the factor `shape` counts them from 1, as dSprites does; 0 is no sprite
ALL_SHAPES = (*SHAPES, "triangle")  # the triangle is unseen in a training on the published shapes
SQUARE_HALF_SIDE = 9.6 / 64
ELLIPSE_SEMI_AXES = (12.8 / 64, 7.2 / 64)
HEART_HALF_WIDTH = 9.6 / 64
HEART_STRETCH = 1.075  # of its height
TRIANGLE_CIRCUMRADIUS = 13.5 / 64  # of an equilateral one; its area is .82 of the ellipse's
NEAREST_CENTRE = 1 / 4  # of any sprite to the image's border

_REACH = SQUARE_HALF_SIDE * math.sqrt(2)  # no point of a sprite is further from its centre
_HEART_COLUMNS = 2048

Array32 = NDArray[np.float32]


def covered_windows(
    sprites: Mapping[str, NDArray], size: int, crop: float = 1.0
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the pixels that sprites cover, in windows around their centres that are large enough for any sprite.

    Args:
        sprites: the factors `shape`, `scale`, `orientation`, `x`, `y`, each [S].
        size: side of the image in pixels, at least 16: then every window lies in the image, unless it is cropped.
        crop: share of the side, about the middle, that the image shows; sprites and distances are 1 / crop as large.

    Returns:
        covered: [S, w, w], rows first.
        corner: [S, 2] x and y of the window's first pixel in the image.
    """
    reach = math.floor(_REACH * size / crop + 0.5)
    whole = NEAREST_CENTRE + (1 - 2 * NEAREST_CENTRE) * np.stack([sprites["x"], sprites["y"]], axis=1)
    centre = size * ((whole - (1 - crop) / 2) / crop)
    corner = np.floor(centre).astype(np.int64) - reach
    middle = np.arange(2 * reach + 1) + 0.5
    away = middle + (corner - centre)[..., None]  # [S, 2, w] from the sprite's centre, in pixels
    angle = sprites["orientation"].astype(np.float64)
    length = sprites["scale"].astype(np.float64) * size / crop
    cosine = (away * (np.cos(angle) / length)[:, None, None]).astype(np.float32)
    sine = (away * (np.sin(angle) / length)[:, None, None]).astype(np.float32)

    covered = np.empty((len(angle), len(middle), len(middle)), np.bool_)
    for kind, contains in enumerate(_CONTAINS, start=1):
        of_kind = sprites["shape"] == kind
        right = cosine[of_kind, 0, None, :] + sine[of_kind, 1, :, None]  # [S', w, w] in the sprite's own frame
        down = cosine[of_kind, 1, :, None] - sine[of_kind, 0, None, :]
        covered[of_kind] = contains(right, down)
    return covered, corner


def _in_square(right: Array32, down: Array32) -> NDArray[np.bool_]:
    return np.maximum(np.abs(right), np.abs(down)) <= np.float32(SQUARE_HALF_SIDE)


def _in_ellipse(right: Array32, down: Array32) -> NDArray[np.bool_]:
    a, b = ELLIPSE_SEMI_AXES
    return (right * np.float32(1 / a)) ** 2 + (down * np.float32(1 / b)) ** 2 <= 1


def _in_heart(right: Array32, down: Array32) -> NDArray[np.bool_]:
    column = (np.abs(right) * np.float32(_HEART_COLUMNS / HEART_HALF_WIDTH)).astype(np.int32)
    column = np.minimum(column, _HEART_COLUMNS)
    return (down >= _HEART_TOP.take(column)) & (down <= _HEART_BOTTOM.take(column))


def _in_triangle(right: Array32, down: Array32) -> NDArray[np.bool_]:
    """Within the three sides, each half a circumradius from the centre: one below, two that meet at the top."""
    above = np.float32(math.sqrt(3) / 2) * np.abs(right) - np.float32(0.5) * down
    return np.maximum(down, above) <= np.float32(TRIANGLE_CIRCUMRADIUS / 2)


def _heart_columns(columns: int) -> tuple[Array32, Array32]:
    """Where the heart begins and ends, downwards, in each column of its right half: [columns + 1], the last one empty.

    x = 16 sin^3 t,  y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t   (upwards)

    A column x meets the curve twice, at t and pi - t, so these two numbers a column are the whole shape.
    """
    x = (np.arange(columns) + 0.5) / columns
    t = np.arcsin(np.cbrt(x))
    middle = (_heart_height(np.linspace(0, np.pi / 2, 10001)).max() + _heart_height(np.pi)) / 2  # of its bounding box
    unit = HEART_STRETCH * HEART_HALF_WIDTH / 16
    top, bottom = (middle - _heart_height(t)) * unit, (middle - _heart_height(np.pi - t)) * unit
    return np.append(top, 1).astype(np.float32), np.append(bottom, -1).astype(np.float32)


def _heart_height(t: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))


_HEART_TOP, _HEART_BOTTOM = _heart_columns(_HEART_COLUMNS)
_CONTAINS: tuple[Callable[[Array32, Array32], NDArray[np.bool_]], ...] = (
    _in_square,
    _in_ellipse,
    _in_heart,
    _in_triangle,
)
