"""The adjusted Rand index: how well the pixels of an object stay together in one slot, corrected for chance.

Hubert and Arabie, Comparing partitions, 1985. The foreground variant of the field (MONet, IODINE, R-MONet) looks at the
pixels of true objects alone, so what a model does to the background's pixels is of no matter to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from unscene.errors import RecipeError, check_shape
from unscene.metrics import mean_of_counted
from unscene.metrics.contingency import check_masks, contingency_table, decomposition_table
from unscene.scene import Decomposition, Scene


def adjusted_rand_index(table: Tensor) -> Tensor:
    """The adjusted Rand index of each contingency table, with scikit-learn's conventions.

    ARI = 2 (tp tn - fn fp) / ((tp + fn)(fn + tn) + (tp + fp)(fp + tn)),  over ordered pairs of pixels: tp are together
    in both, fn together in the truth alone, fp in the prediction alone, tn in neither.

    Two partitions that agree wholly are 1: one object in one slot, each pixel by itself in both, no pixel at all. One
    object, split, is 0. Below 0 is worse than chance.

    Args:
        table: [B, R, C] pixel counts n_ij.

    Returns:
        [B] float64, at most 1, never NaN.

    Raises:
        ShapeError: not three axes.
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
    """Whether (index - expected) / (maximum - expected), the field's formula for the same index, is 0 / 0.

    It is for one object in one slot, for objects of one pixel each in slots of their own, and with no or one pixel.
    DeepMind's `segmentation_metrics.py` mends the first, but only if one slot also wins the whole background.

    Args:
        table: [B, R, C] pixel counts.

    Returns:
        [B] bool.
    """
    check_shape(table, "B R C", "table")
    true, predicted, pixels = table.sum(dim=2), table.sum(dim=1), table.sum(dim=(1, 2))
    true_pairs = (true * (true - 1)).sum(dim=1)
    predicted_pairs = (predicted * (predicted - 1)).sum(dim=1)
    all_or_none = (true_pairs == 0) | (true_pairs == pixels * (pixels - 1))
    return (true_pairs == predicted_pairs) & all_or_none


Variant = Literal["ari_fg", "ari_fg_objects", "ari"]


@dataclass
class AdjustedRandIndex:
    """Mean adjusted Rand index over images.

    The variant is also the name of the mean in `compute`:
        ari_fg: the pixels of true objects; the predicted label is the argmax over all K slots, background included.
            `ari_fg_images` is the number of counted images (an image without an object is not counted), and
            `ari_fg_deepmind_nan` the number of all images for which DeepMind's formula is NaN. `ari_fg_several` is the
            mean over the images of two objects or more: a lone object that is left to the background has an index of 1.
        ari_fg_objects: the same pixels, but only the objects' slots compete (ties to the first slot). Far above
            `ari_fg`, the masks are soft: objects are found, but lose their pixels to the background.
        ari: all pixels, the background being one object, and all K slots.
    """

    variant: Variant = "ari_fg"
    scores: list[float | None] = field(default_factory=list, init=False)
    several: list[float | None] = field(default_factory=list, init=False)  # the scores of images of several objects
    labelled_images: int = field(default=0, init=False)
    deepmind_nan: int = field(default=0, init=False)

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        if scene.labels is None or (self.variant == "ari_fg_objects" and not decomposition.foreground):
            self.scores += [None] * len(scene)
            return
        if self.variant == "ari_fg_objects":
            table = _table_of_objects(scene.labels, decomposition)
        else:
            table = decomposition_table(scene.labels, decomposition)
        if self.variant != "ari":
            table = table[:, 1:]  # the pixels of true objects
            self.deepmind_nan += int(deepmind_formula_is_nan(table).sum())
        self.labelled_images += len(table)
        scores = _scores(table)
        self.scores += scores
        objects: list[int] = (table.sum(dim=2) > 0).sum(dim=1).tolist()
        self.several += [score if number > 1 else None for score, number in zip(scores, objects, strict=True)]

    def compute(self) -> dict[str, float | int | None]:
        values: dict[str, float | int | None] = {self.variant: mean_of_counted(self.scores)}
        if self.variant == "ari_fg":
            labelled = self.labelled_images > 0
            values["ari_fg_images"] = sum(score is not None for score in self.scores) if labelled else None
            values["ari_fg_several"] = mean_of_counted(self.several)
            values["ari_fg_deepmind_nan"] = self.deepmind_nan if labelled else None
        return values

    def per_image(self) -> list[float | None]:
        return list(self.scores)

    def merge(self, other: AdjustedRandIndex) -> None:
        if other.variant != self.variant:
            raise RecipeError(
                f"{other.variant} cannot be merged with {self.variant}. Merge a metric with its own kind."
            )
        self.scores += other.scores
        self.several += other.several
        self.labelled_images += other.labelled_images
        self.deepmind_nan += other.deepmind_nan


ari_fg = partial(AdjustedRandIndex, "ari_fg")
ari_fg_objects = partial(AdjustedRandIndex, "ari_fg_objects")
ari = partial(AdjustedRandIndex, "ari")


def _scores(table: Tensor) -> list[float | None]:
    """The index of each image, None for an image without a pixel in the table."""
    counted: list[bool] = (table.sum(dim=(1, 2)) > 0).tolist()
    index: list[float] = adjusted_rand_index(table).tolist()
    return [score if count else None for score, count in zip(index, counted, strict=True)]


def _table_of_objects(labels: Tensor, decomposition: Decomposition) -> Tensor:
    """[B, M+1, K-1] the contingency table where only the objects' slots compete."""
    check_masks(decomposition)
    slots = torch.tensor(decomposition.foreground, device=decomposition.log_masks.device)
    winner = decomposition.log_masks.index_select(1, slots).squeeze(2).max(dim=1).indices  # argmax, 7 times faster
    return contingency_table(labels, winner, num_predicted=len(slots)).cpu()
