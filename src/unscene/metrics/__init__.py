"""What a metric is, and the list of all there are.

A metric sees batch after batch (`update`), then says its numbers (`compute`). It is its own state: plain lists that
pickle, so several processes send their metrics to one another (`torch.distributed.all_gather_object`) and `merge` them
in the order of the ranks. Where the scene or the decomposition lacks a field that a metric needs, the metric is not
applicable and answers None: never NaN, never -1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import fsum
from typing import Protocol, Self

from unscene.scene import Decomposition, Scene


class Metric(Protocol):
    """One metric."""

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        """Take in a batch.

        Raises:
            ShapeError: the scene and the decomposition are not of the same images.
            TrainingError: the model's answer holds NaN.
        """

    def compute(self) -> dict[str, float | int | None]:
        """The numbers by name, over all that was taken in; None where nothing was applicable."""

    def per_image(self) -> list[float | None]:
        """One value for every image taken in, in order; higher is better, None where it is not counted."""

    def merge(self, other: Self) -> None:
        """Take in all that another one, of the same settings, has taken in."""


def mean_of_counted(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None without any; exact, so the order of merging is of no matter."""
    counted = [value for value in values if value is not None]
    return fsum(counted) / len(counted) if counted else None


# The modules are imported when a metric is made: pycocotools and SciPy are not for those who only list the names.


def _foreground_ari() -> Metric:
    from unscene.metrics.ari import AdjustedRandIndex

    return AdjustedRandIndex("ari_fg")


def _foreground_ari_of_objects() -> Metric:
    from unscene.metrics.ari import AdjustedRandIndex

    return AdjustedRandIndex("ari_fg_objects")


def _ari() -> Metric:
    from unscene.metrics.ari import AdjustedRandIndex

    return AdjustedRandIndex("ari")


def _foreground_ami() -> Metric:
    from unscene.metrics.ami import AdjustedMutualInformation

    return AdjustedMutualInformation()


def _box_ap() -> Metric:
    from unscene.metrics.box_ap import BoxAveragePrecision

    return BoxAveragePrecision()


def _mask_iou() -> Metric:
    from unscene.metrics.region_iou import MaskIoU

    return MaskIoU()


def _polarity_iou() -> Metric:
    from unscene.metrics.region_iou import PolarityIoU

    return PolarityIoU()


def _reconstruction() -> Metric:
    from unscene.metrics.reconstruction import ReconstructionError

    return ReconstructionError()


def _object_locations() -> Metric:
    from unscene.metrics.object_locations import ObjectLocations

    return ObjectLocations()


METRICS: dict[str, Callable[[], Metric]] = {
    "ari_fg": _foreground_ari,
    "ari_fg_objects": _foreground_ari_of_objects,
    "ari": _ari,
    "ami_fg": _foreground_ami,
    "box_ap": _box_ap,
    "mask_iou": _mask_iou,
    "iou_polarity": _polarity_iou,
    "object_locations": _object_locations,
    "reconstruction": _reconstruction,
}


def default_metrics() -> list[Metric]:
    """New metrics for an evaluation: one of each in `METRICS`, in its order."""
    return [make() for make in METRICS.values()]
