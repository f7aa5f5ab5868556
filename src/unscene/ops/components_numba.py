"""The parts of many masks on a CPU, compiled by numba: the same bits as the NumPy way (`pseudo_boxes`), far quicker.

Without numba this module cannot be imported.

Masks are not negative, so their float32 bits are in the order of their values: everything here compares whole numbers,
which a CPU does sixteen at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.ops.numba_jit import compiled
from unscene.ops.threads import on_all_threads

EXACT = 2.0**33  # see `pseudo_boxes.exact_addends`
PIXELS_WORTH_A_THREAD = 2**17  # some tenths of a millisecond


def histograms(
    masks: NDArray[np.float32], floor: float, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int32]]:
    """Return the histogram of each mask, from its least to its greatest value; values under the floor are 0.

    Args:
        masks: [G, H, W], contiguous, in [0, 1].
        floor: above 0.
        bins: how many, equally wide; a value on an edge belongs to the higher one.

    Returns:
        counts [G, bins], all zero for a mask of one value; least [G]; greatest [G]; and the bits of the greatest value
        of each row [G, H], for `parts_above` to skip rows by.
    """
    bits, floor_bits = masks.view(np.int32), np.float32(floor).view(np.int32)
    parts = on_all_threads(
        lambda start, stop: _histograms(bits[start:stop], floor_bits, bins), len(masks), _masks_worth_a_thread(masks)
    )
    counts, least, greatest, row_greatest = (np.concatenate(each) for each in zip(*parts, strict=True))
    return counts, least, greatest, row_greatest


def parts_above(
    masks: NDArray[np.float32],
    thresholds: NDArray[np.float32],
    row_greatest: NDArray[np.int32],
    floor: float,
    sides: tuple[float, float],
    round_addends: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the 8-connected parts of mask > threshold whose sides fit.

    Args:
        masks: [G, H, W], contiguous, in [0, 1].
        thresholds: [G, T] of each mask; at +inf there is no part.
        row_greatest: [G, H] of `histograms`.
        floor: above 0; values under it are 0.
        sides: the least side of a box, and how many times the shorter one the longer one may be.
        round_addends: whether values must be rounded for their sums to be exact.

    Returns:
        mask [n] of each part, rising, the lower threshold first, then by the first pixel as one reads; boxes [n, 4]
        pixels, end exclusive; scores [n], the mean of the mask inside the box.
    """
    bits, floor_bits = masks.view(np.int32), np.float32(floor).view(np.int32)

    def some(start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        here = slice(start, stop)
        of_these = (bits[here], masks[here], thresholds[here], row_greatest[here])
        room = 64 * max(1, stop - start)
        while True:
            parts, scores = np.empty((room, 5), np.int64), np.empty(room, np.float32)
            found = _parts(*of_these, floor_bits, *sides, round_addends, parts, scores)
            if found <= room:
                parts[:, 0] += start
                return parts[:found], scores[:found]
            room = found

    by_thread = on_all_threads(some, len(masks), _masks_worth_a_thread(masks))
    parts, scores = (np.concatenate(each) for each in zip(*by_thread, strict=True))
    return parts[:, 0], parts[:, 1:], scores


def _masks_worth_a_thread(masks: NDArray[np.float32]) -> int:
    return 1 + PIXELS_WORTH_A_THREAD // max(1, masks[0].size if len(masks) else 1)


@compiled
def _as_float(bits: Any) -> Any:
    return np.array([bits], np.int32).view(np.float32)[0]


@compiled
def _as_bits(value: Any) -> Any:
    return np.array([value], np.float32).view(np.int32)[0]


@compiled
def _histograms(bits: Any, floor: Any, bins: int) -> Any:
    size, height, width = bits.shape
    counts, row_greatest = np.zeros((size, bins)), np.empty((size, height), np.int32)
    least, greatest = np.zeros(size), np.zeros(size)
    for g in range(size):
        lowest, highest = _range_of_rows(bits[g], row_greatest[g])
        if highest < floor:
            continue  # nothing but 0
        least[g], greatest[g] = _as_float(lowest) if lowest >= floor else 0.0, _as_float(highest)
        if least[g] == greatest[g]:
            continue
        step = (greatest[g] - least[g]) / bins
        before = height * width  # values in this bin or a higher one
        for edge in range(1, bins + 1):
            after = 0
            if edge < bins:
                after = _count_from(bits[g], row_greatest[g], max(floor, _least_bits_from(edge * step + least[g])))
            counts[g, edge - 1] = before - after
            before = after
    return counts, least, greatest, row_greatest


@compiled
def _range_of_rows(bits: Any, row_greatest: Any) -> Any:
    lowest, highest = np.int32(2147483647), np.int32(-2147483648)
    for y in range(bits.shape[0]):
        low, high = np.int32(2147483647), np.int32(-2147483648)
        for value in bits[y]:
            low, high = min(low, value), max(high, value)
        row_greatest[y] = high
        lowest, highest = min(low, lowest), max(high, highest)
    return lowest, highest


@compiled
def _count_from(bits: Any, row_greatest: Any, bound: Any) -> int:
    total = 0
    for y in range(bits.shape[0]):
        if row_greatest[y] >= bound:
            count: Any = np.int32(0)
            for value in bits[y]:
                count += np.int32(value >= bound)
            total += count
    return total


@compiled
def _least_bits_from(bound: float) -> Any:
    """The bits of the least float32 that is at or above a float64."""
    rounded = np.float32(bound)
    if rounded < bound:
        rounded = np.nextafter(rounded, np.float32(np.inf))
    return _as_bits(rounded)


@compiled
def _parts(
    bits: Any,
    masks: Any,
    thresholds: Any,
    row_greatest: Any,
    floor: Any,
    min_side: float,
    max_ratio: float,
    rounding: bool,
    parts: Any,
    scores: Any,
) -> int:
    height, width = bits.shape[1:]
    runs = np.empty((height * (width // 2 + 1), 5), np.int64)  # start, end, row, parent, part
    boxes, edges = np.empty((len(runs), 4), np.int64), np.empty(width + 1, np.int64)
    found = 0
    for g in range(len(bits)):
        for t in range(thresholds.shape[1]):
            if not thresholds[g, t] < np.inf:
                continue
            least = max(floor, _as_bits(thresholds[g, t]) + 1)  # v > threshold
            count = _runs(bits[g], row_greatest[g], least, edges, runs)
            for x1, y1, x2, y2 in boxes[: _boxes(runs, count, boxes)]:
                shorter, longer = min(x2 - x1, y2 - y1), max(x2 - x1, y2 - y1)
                if shorter < min_side or longer > max_ratio * shorter:
                    continue
                if found < len(parts):
                    parts[found] = g, x1, y1, x2, y2
                    scores[found] = _mean(bits[g, y1:y2, x1:x2], masks[g, y1:y2, x1:x2], floor, rounding)
                found += 1
    return found


@compiled
def _runs(bits: Any, row_greatest: Any, least: Any, edges: Any, runs: Any) -> int:
    """Write the runs of bits >= least, row by row, each joined to those of the row above that it touches."""
    count, above, above_end = 0, 0, 0  # the runs of the row above are those from `above` to `above_end`
    for y in range(bits.shape[0]):
        above, above_end = above_end, count
        if row_greatest[y] < least:
            continue
        for edge in range(0, _edges(bits[y], least, edges), 2):
            start, end = edges[edge], edges[edge + 1]
            runs[count, 0], runs[count, 1], runs[count, 2], runs[count, 3] = start, end, y, count
            while above < above_end and runs[above, 1] < start:
                above += 1
            touching = above
            while touching < above_end and runs[touching, 0] <= end:
                one, other = _root(runs, touching), _root(runs, count)
                runs[max(one, other), 3] = min(one, other)
                touching += 1
            count += 1
    return count


@compiled
def _edges(row: Any, least: Any, edges: Any) -> int:
    """Write where the runs of a row start and end, without a branch that a CPU would have to guess."""
    count, before = 0, 0
    for x in range(len(row)):
        inside = 1 if row[x] >= least else 0
        edges[count] = x
        count += inside ^ before
        before = inside
    edges[count] = len(row)
    return count + before


@compiled
def _root(runs: Any, run: int) -> int:
    while runs[run, 3] != run:
        runs[run, 3] = runs[runs[run, 3], 3]
        run = runs[run, 3]
    return run


@compiled
def _boxes(runs: Any, count: int, boxes: Any) -> int:
    """Write the boxes of the parts that the runs make, by each part's first run, which is its root."""
    found = 0
    for run in range(count):
        start, end, row = runs[run, 0], runs[run, 1], runs[run, 2]
        root = _root(runs, run)
        if root == run:
            runs[run, 4] = found
            boxes[found] = start, row, end, row + 1
            found += 1
        else:
            box = boxes[runs[root, 4]]
            box[0], box[2], box[3] = min(box[0], start), max(box[2], end), row + 1
    return found


@compiled
def _mean(bits: Any, mask: Any, floor: Any, rounding: bool) -> Any:
    total = 0.0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            if bits[y, x] >= floor:
                value = np.float64(mask[y, x])
                total += np.rint(value * EXACT) / EXACT if rounding else value
    return np.float32(min(max(total / mask.size, 0.0), 1.0))
