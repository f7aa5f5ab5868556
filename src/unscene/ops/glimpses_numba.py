"""`composite_glimpses` of one image on a CPU, compiled by numba: every map on its own box only, gradients by hand.

Maps are padded by one cell of 0. The centre of a padded map's cell c lies at t = c on the line
t = (x + 1/2 - x1) w / (x2 - x1) + 1/2, and so for the rows. A pixel blends the two rows about it, then two columns.
Without numba this module cannot be imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscene.ops.numba_jit import compiled

CHANNELS = 4  # red, green, blue and alpha
SHIFT = np.float32(50.0)  # exp(x - 50) for x in 0..100 stays within float32's normal numbers
ONE = np.float32(1)


@compiled
def _line(low: float, high: float, min_side: float, cells: int, pixels: int) -> Any:
    """First covered pixel, cells a pixel, and for covered pixels the cell before them and the distance from it."""
    scale = cells / max(high - low, min_side)
    start = int(max(0.0, min(float(pixels), np.ceil(low - 0.5 / scale - 0.5))))
    stop = int(max(0.0, min(float(pixels), np.floor(low + (cells + 0.5) / scale - 0.5) + 1)))
    first, share = np.empty(max(stop - start, 0), np.int64), np.empty(max(stop - start, 0), np.float32)
    for i in range(len(first)):
        t = (start + i + 0.5 - low) * scale + 0.5
        first[i] = min(max(int(np.floor(t)), 0), cells)
        share[i] = min(max(t - first[i], 0.0), 1.0)
    return start, scale, first, share


@compiled
def forward(min_side: float, maps: Any, boxes: Any, nearness: Any, image: Any, log_total: Any) -> None:
    """Write the image [H, W, 4] and the log of the softmax's denominator [H, W].

    Maps are [N, h + 2, w + 2, 4], boxes [N, 4], nearness [N].
    """
    count, rows, columns, _ = maps.shape
    height, width = log_total.shape
    nothing = np.exp(-SHIFT)
    image[:] = 0
    total = np.full((height, width), np.float32(count) * nothing)
    for n in range(count):
        x1, y1, x2, y2 = boxes[n]
        if np.isnan(x1 + y1 + x2 + y2):  # the loss must show it
            image[:] = np.nan
            continue
        start_y, _, first_y, share_y = _line(y1, y2, min_side, rows - 2, height)
        start_x, _, first_x, share_x = _line(x1, x2, min_side, columns - 2, width)
        for j in range(len(first_y)):
            y, cell, f = start_y + j, first_y[j], share_y[j]
            row = (ONE - f) * maps[n, cell] + f * maps[n, cell + 1]
            for i in range(len(first_x)):
                x, left, right, f = start_x + i, row[first_x[i]], row[first_x[i] + 1], share_x[i]
                alpha = left[3] + f * (right[3] - left[3])
                weight = np.exp(nearness[n] * alpha - SHIFT)
                total[y, x] += weight - nothing
                for c in range(CHANNELS):
                    image[y, x, c] += weight * (left[c] + f * (right[c] - left[c]))
    image /= np.expand_dims(total, 2)
    log_total[:] = np.log(total) + SHIFT


@compiled
def backward(
    min_side: float,
    grad_image: Any,
    maps: Any,
    boxes: Any,
    nearness: Any,
    image: Any,
    log_total: Any,
    grad_maps: Any,
    grad_boxes: Any,
    grad_nearness: Any,
) -> None:
    """Write the gradients of `forward`'s image, which are zeros before.

    With the weights w_n of the softmax, whose logits are i_n = near_n a_n, and the image F = sum_n w_n v_n:
    grad_v_n = w_n grad_F, grad_i_n = w_n grad_F . (v_n - F), and a_n has near_n grad_i_n besides.
    """
    count, rows, columns, _ = maps.shape
    height, width = log_total.shape
    grad_row = np.empty((columns, CHANNELS), np.float32)
    grad_v = np.empty(CHANNELS, np.float32)
    for n in range(count):
        x1, y1, x2, y2 = boxes[n]
        if np.isnan(x1 + y1 + x2 + y2):
            grad_boxes[n] = np.nan
            continue
        start_y, scale_y, first_y, share_y = _line(y1, y2, min_side, rows - 2, height)
        start_x, scale_x, first_x, share_x = _line(x1, x2, min_side, columns - 2, width)
        # sums over the pixels of grad_t and of grad_t (pixel - low), for the gradients of the box
        sum_x, moment_x, sum_y, moment_y = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for j in range(len(first_y)):
            y, cell, f_y = start_y + j, first_y[j], share_y[j]
            row = (ONE - f_y) * maps[n, cell] + f_y * maps[n, cell + 1]
            grad_row[:] = 0
            for i in range(len(first_x)):
                x, k, f = start_x + i, first_x[i], share_x[i]
                left, right = row[k], row[k + 1]
                alpha = left[3] + f * (right[3] - left[3])
                weight = np.exp(nearness[n] * alpha - log_total[y, x])
                grad_logit = np.float32(0)
                for c in range(CHANNELS):
                    grad_v[c] = weight * grad_image[y, x, c]
                    grad_logit += grad_v[c] * (left[c] + f * (right[c] - left[c]) - image[y, x, c])
                grad_nearness[n] += alpha * grad_logit
                grad_v[3] += nearness[n] * grad_logit
                grad_t = np.float32(0)
                for c in range(CHANNELS):
                    grad_t += grad_v[c] * (right[c] - left[c])
                    grad_row[k, c] += (ONE - f) * grad_v[c]
                    grad_row[k + 1, c] += f * grad_v[c]
                sum_x += grad_t
                moment_x += grad_t * (x + np.float32(0.5) - x1)
            grad_t = np.float32(0)
            for k in range(columns):
                for c in range(CHANNELS):
                    grad_maps[n, cell, k, c] += (ONE - f_y) * grad_row[k, c]
                    grad_maps[n, cell + 1, k, c] += f_y * grad_row[k, c]
                    grad_t += grad_row[k, c] * (maps[n, cell + 1, k, c] - maps[n, cell, k, c])
            sum_y += grad_t
            moment_y += grad_t * (y + np.float32(0.5) - y1)
        # t = (pixel - low) cells / side + 1/2; a side at its smallest has no gradient
        slope_x = moment_x * scale_x / (x2 - x1) if x2 - x1 > min_side else 0.0
        slope_y = moment_y * scale_y / (y2 - y1) if y2 - y1 > min_side else 0.0
        grad_boxes[n] = slope_x - sum_x * scale_x, slope_y - sum_y * scale_y, -slope_x, -slope_y
