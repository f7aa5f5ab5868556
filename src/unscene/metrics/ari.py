"""The adjusted Rand index: how well the pixels of an object stay together in one slot, corrected for chance.

Hubert and Arabie, Comparing partitions, 1985. The foreground variant of the field (MONet, IODINE, R-MONet) counts the
pixels of true objects alone.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.metrics import ImageValues, MeanOverImages
from unscene.metrics.contingency import check_masks, contingency_table, decomposition_table
from unscene.scene import Prediction, Scene, Segmentation


def adjusted_rand_index(table: Tensor) -> Tensor:
    """The adjusted Rand index of each contingency table, with scikit-learn's conventions.

    ARI = 2 (tp tn - fn fp) / ((tp + fn)(fn + tn) + (tp + fp)(fp + tn)),  over ordered pairs of pixels: tp are together
    in both, fn together in the truth alone, fp in the prediction alone, tn in neither.

    Two partitions that agree wholly have 1: one object in one slot, each pixel by itself in both, no pixel at all. One
    object that is split has 0. Below 0 is worse than chance.

    Args:
        table: [B, R, C] pixel counts n_ij.

    Returns:
        [B] float64, at most 1, never NaN.
    """
    check_shape(table, "B R C", "table")
    cells = table.double()  # exact up to 2^53 pairs, where int64 would overflow in tp * tn from 240 x 320 pixels on
    together = cells.square().sum(dim=(1, 2))
    pixels = cells.sum(dim=(1, 2))
    tp = together - pixels
    fn = cells.sum(dim=2).square().sum(dim=1) - together
    fp = cells.sum(dim=1).square().sum(dim=1) - together
    tn = pixels.square() - together - fn - fp
    agree = (fn == 0) & (fp == 0)
    scale = (tp + fn) * (fn + tn) + (tp + fp) * (fp + tn)  # over 0 unless they agree
    index = 2 * (tp * tn - fn * fp) / scale.masked_fill(agree, 1)
    return index.masked_fill(agree, 1)


def deepmind_formula_is_nan(table: Tensor) -> Tensor:
    """[B] whether (index - expected) / (maximum - expected), the field's formula for the same index, is 0 / 0.

    The table has [B, R, C] pixel counts. It is 0 / 0 for one object in one slot, for objects of one pixel in slots of
    their own, and with no or one pixel. DeepMind's `segmentation_metrics.py` handles a part of the first case.
    """
    true, predicted, pixels = table.sum(dim=2), table.sum(dim=1), table.sum(dim=(1, 2))
    true_pairs = (true * (true - 1)).sum(dim=1)
    predicted_pairs = (predicted * (predicted - 1)).sum(dim=1)
    all_or_none = (true_pairs == 0) | (true_pairs == pixels * (pixels - 1))
    return (true_pairs == predicted_pairs) & all_or_none


def _ari_of_objects(scene: Scene, prediction: Prediction) -> ImageValues | None:
    if scene.labels is None:
        return None
    table = decomposition_table(scene.labels, prediction)[:, 1:]  # the pixels of true objects
    scores = _scores(table)
    objects: list[int] = (table.sum(dim=2) > 0).sum(dim=1).tolist()
    return {
        "ari_fg": scores,
        "ari_fg_images": [int(score is not None) for score in scores],
        "ari_fg_several": [score if number > 1 else None for score, number in zip(scores, objects, strict=True)],
        "ari_fg_deepmind_nan": deepmind_formula_is_nan(table).int().tolist(),
    }


def _ari_of_object_slots(scene: Scene, prediction: Prediction) -> ImageValues | None:
    if scene.labels is None or isinstance(prediction, Segmentation) or not prediction.foreground:
        return None
    check_masks(prediction)
    slots = torch.tensor(prediction.foreground, device=prediction.log_masks.device)
    winner = prediction.log_masks.index_select(1, slots).squeeze(2).max(dim=1).indices  # argmax, 7 times faster
    table = contingency_table(scene.labels, winner, num_predicted=len(slots)).cpu()
    return {"ari_fg_objects": _scores(table[:, 1:])}


def _ari_of_all_pixels(scene: Scene, prediction: Prediction) -> ImageValues | None:
    return None if scene.labels is None else {"ari": _scores(decomposition_table(scene.labels, prediction))}


def _scores(table: Tensor) -> list[float | None]:
    """The index of each image, None for an image without a pixel in the table."""
    counted: list[bool] = (table.sum(dim=(1, 2)) > 0).tolist()
    index: list[float] = adjusted_rand_index(table).tolist()
    return [score if count else None for score, count in zip(index, counted, strict=True)]


_NAMES = ("ari_fg", "ari_fg_images", "ari_fg_several", "ari_fg_deepmind_nan")

ari_fg = partial(MeanOverImages, _ari_of_objects, _NAMES, totals=("ari_fg_images", "ari_fg_deepmind_nan"))
"""Mean adjusted Rand index over images, of the pixels of true objects alone.

The predicted label is the argmax over all K slots, background included; an image without an object is not counted.
`report/metric_descriptions.yaml` explains its four numbers.
"""

ari_fg_objects = partial(MeanOverImages, _ari_of_object_slots, ("ari_fg_objects",))
"""The same pixels, but only the objects' slots compete (ties to the first slot)."""

ari = partial(MeanOverImages, _ari_of_all_pixels, ("ari",))
"""All pixels, the background being one object, and all K slots."""
