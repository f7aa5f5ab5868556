"""What a metric is, and the list of all there are.

A metric sees batch after batch (`update`), then says its numbers (`compute`). It is its own state: plain lists that
pickle, so several processes send their metrics to one another (`torch.distributed.all_gather_object`) and `merge` them
in the order of the ranks. Where the scene or the decomposition lacks a field that a metric needs, the metric is not
applicable and answers None: never NaN, never -1.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import fsum
from typing import Protocol, Self

from unscene.registry import registered_class
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


METRICS = {  # their modules are imported when a metric is asked for: pycocotools and SciPy take long
    "ari_fg": "unscene.metrics.ari:ari_fg",
    "ari_fg_objects": "unscene.metrics.ari:ari_fg_objects",
    "ari": "unscene.metrics.ari:ari",
    "ami_fg": "unscene.metrics.ami:AdjustedMutualInformation",
    "box_ap": "unscene.metrics.box_ap:BoxAveragePrecision",
    "mask_iou": "unscene.metrics.region_iou:MaskIoU",
    "iou_polarity": "unscene.metrics.region_iou:PolarityIoU",
    "object_locations": "unscene.metrics.object_locations:ObjectLocations",
    "reconstruction": "unscene.metrics.reconstruction:ReconstructionError",
}


def new_metric(name: str) -> Metric:
    """Return a registered metric that has seen nothing.

    Raises:
        RecipeError: no metric of this name.
    """
    metric: Metric = registered_class(METRICS, name, "metric")()
    return metric


def default_metrics() -> list[Metric]:
    """New metrics for an evaluation: one of each in `METRICS`, in its order."""
    return [new_metric(name) for name in METRICS]
