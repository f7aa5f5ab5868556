"""Composite glimpses on a CPU, each on its own box only, compiled by numba, with the gradients by hand.

Without numba this module cannot be imported.

A map's cell c lies at t = c of the line t = (x + 1/2 - x1) w / (x2 - x1) - 1/2, and so for the rows. A pixel blends the
two rows about it, then the two columns. Beyond its outer cells a map fades to 0, so a blended row has a cell of 0 at
both ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscene.ops.numba_jit import compiled

CHANNELS = 4  # red, green, blue and alpha
SHIFT = np.float32(50.0)  # exp(x - 50) for x in 0..100 stays within float32's normal numbers


@compiled
def _line(low: float, high: float, smallest: float, cells: int, pixels: int, first: Any, share: Any) -> Any:
    """Write for each pixel the cell before it, from -1, and how far it is from there to the next one.

    Returns the first pixel that the map reaches, the one after the last, and the scale in cells a pixel.
    """
    scale = cells / max(high - low, smallest)
    start = int(max(0.0, min(float(pixels), np.ceil(low - 0.5 / scale - 0.5))))
    stop = int(max(0.0, min(float(pixels), np.floor(low + (cells + 0.5) / scale - 0.5) + 1)))
    for pixel in range(start, stop):
        t = (pixel + 0.5 - low) * scale - 0.5
        cell = min(max(int(np.floor(t)), -1), cells - 1)
        first[pixel] = cell
        share[pixel] = min(max(t - cell, 0.0), 1.0)
    return start, stop, scale


@compiled
def _blend_rows(glimpse: Any, cell: int, share: float, row: Any) -> None:
    """Write the row between two rows of a glimpse [h, w, 4], with a cell of 0 at both ends: [w + 2, 4]."""
    height, width = glimpse.shape[:2]
    upper = (np.float32(1) - share) if cell >= 0 else np.float32(0)
    lower = share if cell + 1 < height else np.float32(0)
    above, below = max(cell, 0), min(cell + 1, height - 1)
    for x in range(width):
        for c in range(CHANNELS):
            row[x + 1, c] = upper * glimpse[above, x, c] + lower * glimpse[below, x, c]


@compiled
def forward(
    maps: Any, boxes: Any, nearness: Any, smallest: float, chosen: Any, image: Any, total: Any, masks: Any, objects: Any
) -> None:
    """Write the composite and the layers of the chosen maps.

    Args:
        maps: [B, N, h, w, 4], colour times alpha, and alpha.
        boxes: [B, N, 4].
        nearness: [B, N].
        smallest: side of a box.
        chosen: [B, N], the index of a map's layer, or -1.
        image: [B, H, W, 4], written: colour times alpha, and alpha.
        total: [B, H, W], written: the softmax's denominator times exp(-50).
        masks: [B, M, H, W] zeros, written.
        objects: [B, M, 4, H, W] zeros, written.
    """
    size, count, rows, columns, _ = maps.shape
    height, width = total.shape[1:]
    first_y, first_x = np.empty(height, np.int64), np.empty(width, np.int64)
    share_y, share_x = np.empty(height, np.float32), np.empty(width, np.float32)
    row = np.zeros((columns + 2, CHANNELS), np.float32)
    nothing = np.exp(-SHIFT)
    for b in range(size):
        image[b] = 0
        total[b] = np.float32(count) * nothing
        for n in range(count):
            x1, y1, x2, y2 = boxes[b, n]
            if np.isnan(x1 + y1 + x2 + y2):  # the loss must show it
                image[b] = np.nan
                continue
            start_y, stop_y, _ = _line(y1, y2, smallest, rows, height, first_y, share_y)
            start_x, stop_x, _ = _line(x1, x2, smallest, columns, width, first_x, share_x)
            near, layer = nearness[b, n], chosen[b, n]
            for y in range(start_y, stop_y):
                _blend_rows(maps[b, n], first_y[y], share_y[y], row)
                for x in range(start_x, stop_x):
                    left, right, f = row[first_x[x] + 1], row[first_x[x] + 2], share_x[x]
                    alpha = left[3] + f * (right[3] - left[3])
                    weight = np.exp(near * alpha - SHIFT)
                    total[b, y, x] += weight - nothing
                    for c in range(CHANNELS):
                        image[b, y, x, c] += weight * (left[c] + f * (right[c] - left[c]))
                    if layer >= 0:
                        masks[b, layer, y, x] = weight * alpha
                        for c in range(CHANNELS):
                            objects[b, layer, c, y, x] = left[c] + f * (right[c] - left[c])
        for y in range(height):
            for x in range(width):
                share = np.float32(1) / total[b, y, x]
                for c in range(CHANNELS):
                    image[b, y, x, c] *= share
                for layer in range(masks.shape[1]):
                    masks[b, layer, y, x] *= share


@compiled
def backward(
    grad_image: Any,
    maps: Any,
    boxes: Any,
    nearness: Any,
    smallest: float,
    image: Any,
    total: Any,
    grad_maps: Any,
    grad_boxes: Any,
    grad_nearness: Any,
) -> None:
    """Write the gradients of `forward`'s image.

    With the weights w_n of the softmax, whose logits are i_n = near_n a_n, and the image F = sum_n w_n v_n:
    grad_v_n = w_n grad_F, grad_i_n = w_n grad_F . (v_n - F), and a_n gets near_n grad_i_n besides.

    Args:
        grad_image: [B, H, W, 4].
        maps: as in `forward`.
        boxes: as in `forward`.
        nearness: as in `forward`.
        smallest: as in `forward`.
        image: as in `forward`.
        total: as in `forward`.
        grad_maps: [B, N, h, w, 4] zeros, written.
        grad_boxes: [B, N, 4], written.
        grad_nearness: [B, N], written.
    """
    size, count, rows, columns, _ = maps.shape
    height, width = total.shape[1:]
    first_y, first_x = np.empty(height, np.int64), np.empty(width, np.int64)
    share_y, share_x = np.empty(height, np.float32), np.empty(width, np.float32)
    row, grad_row = np.zeros((2, columns + 2, CHANNELS), np.float32)
    grad_v = np.empty(CHANNELS, np.float32)
    for b in range(size):
        for n in range(count):
            x1, y1, x2, y2 = boxes[b, n]
            if np.isnan(x1 + y1 + x2 + y2):
                grad_boxes[b, n] = np.nan
                continue
            start_y, stop_y, scale_y = _line(y1, y2, smallest, rows, height, first_y, share_y)
            start_x, stop_x, scale_x = _line(x1, x2, smallest, columns, width, first_x, share_x)
            glimpse, grad_glimpse, near = maps[b, n], grad_maps[b, n], nearness[b, n]
            grad_near = np.float32(0)
            # sums over the pixels of grad_t and of grad_t (pixel - low), of which the box's gradient is made
            slope_x, moment_x, slope_y, moment_y = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for y in range(start_y, stop_y):
                _blend_rows(glimpse, first_y[y], share_y[y], row)
                grad_row[:] = 0
                for x in range(start_x, stop_x):
                    cell, f = first_x[x] + 1, share_x[x]
                    left, right = row[cell], row[cell + 1]
                    alpha = left[3] + f * (right[3] - left[3])
                    weight = np.exp(near * alpha - SHIFT) / total[b, y, x]
                    grad_logit = np.float32(0)
                    for c in range(CHANNELS):
                        grad_v[c] = weight * grad_image[b, y, x, c]
                        grad_logit += grad_v[c] * (left[c] + f * (right[c] - left[c]) - image[b, y, x, c])
                    grad_near += alpha * grad_logit
                    grad_v[3] += near * grad_logit
                    grad_t = np.float32(0)
                    for c in range(CHANNELS):
                        grad_t += grad_v[c] * (right[c] - left[c])
                        grad_row[cell, c] += (np.float32(1) - f) * grad_v[c]
                        grad_row[cell + 1, c] += f * grad_v[c]
                    slope_x += grad_t
                    moment_x += grad_t * (x + np.float32(0.5) - x1)
                cell, f = first_y[y], share_y[y]
                grad_t = np.float32(0)
                if cell >= 0:
                    for x in range(columns):
                        for c in range(CHANNELS):
                            grad_glimpse[cell, x, c] += (np.float32(1) - f) * grad_row[x + 1, c]
                            grad_t -= grad_row[x + 1, c] * glimpse[cell, x, c]
                if cell + 1 < rows:
                    for x in range(columns):
                        for c in range(CHANNELS):
                            grad_glimpse[cell + 1, x, c] += f * grad_row[x + 1, c]
                            grad_t += grad_row[x + 1, c] * glimpse[cell + 1, x, c]
                slope_y += grad_t
                moment_y += grad_t * (y + np.float32(0.5) - y1)
            grad_nearness[b, n] = grad_near
            # t = (pixel - low) cells / side - 1/2; a side at its smallest does not move
            stretch_x = moment_x * scale_x / (x2 - x1) if x2 - x1 > smallest else 0.0
            stretch_y = moment_y * scale_y / (y2 - y1) if y2 - y1 > smallest else 0.0
            grad_boxes[b, n, 0] = stretch_x - slope_x * scale_x
            grad_boxes[b, n, 1] = stretch_y - slope_y * scale_y
            grad_boxes[b, n, 2] = -stretch_x
            grad_boxes[b, n, 3] = -stretch_y
