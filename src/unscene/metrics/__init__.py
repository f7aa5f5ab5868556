"""What a metric is, and the list of all metrics.

A metric's state is lists that pickle, so several processes send their metrics to one another and `merge` them in the
order of the ranks. Where the scene or the prediction lacks a field that a metric needs, the metric is not applicable
and returns None: never NaN, never -1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import fsum
from typing import Generic, Protocol, Self, TypeAlias, TypeVar

from unscene.scene import Prediction, Scene
from unscene.settings import registered_class

ImageValues: TypeAlias = "dict[str, list[float | None]]"  # by the number's name, one value an image
Item = TypeVar("Item")


class Metric(Protocol):
    """One metric."""

    def update(self, scene: Scene, prediction: Prediction) -> None:
        """Add a batch.

        Raises:
            ShapeError: the scene and the prediction are not of the same images.
            TrainingError: the model's answer holds NaN.
        """

    def compute(self) -> dict[str, float | int | None]:
        """The numbers by name, over all batches; None where nothing was applicable."""

    def per_image(self) -> list[float | None]:
        """One value for every image, in order; higher is better, None where the image is not counted."""

    def merge(self, other: Self) -> None:
        """Add all batches of another metric of the same kind."""


@dataclass
class MeanOverImages:
    """A metric whose numbers are means over images; those of `totals` are sums instead."""

    # the values of a batch, None for an image that is not counted; or None if it is not applicable
    measure: Callable[[Scene, Prediction], ImageValues | None]
    names: tuple[str, ...]  # names of the numbers; `per_image` returns the first one
    totals: tuple[str, ...] = ()
    values: ImageValues = field(init=False)

    def __post_init__(self) -> None:
        self.values = {name: [] for name in self.names}

    def update(self, scene: Scene, prediction: Prediction) -> None:
        measured = self.measure(scene, prediction)
        for name, values in self.values.items():
            values += [None] * len(scene) if measured is None else measured[name]

    def compute(self) -> dict[str, float | int | None]:
        means = {name: mean_of_counted(values) for name, values in self.values.items()}
        counted = [name for name in self.totals if means[name] is not None]
        return means | {name: sum(value or 0 for value in self.values[name]) for name in counted}

    def per_image(self) -> list[float | None]:
        return list(self.values[self.names[0]])

    def merge(self, other: MeanOverImages) -> None:
        for name, values in self.values.items():
            values += other.values[name]


class ItemPerImage(Generic[Item]):
    """The state of a metric that keeps an item of each image, None where it is not applicable."""

    def __init__(self) -> None:
        self.images: list[Item | None] = []

    def measure(self, scene: Scene, prediction: Prediction) -> Iterable[Item] | None:
        """The items of a batch; None if the metric is not applicable."""
        raise NotImplementedError

    def update(self, scene: Scene, prediction: Prediction) -> None:
        measured = self.measure(scene, prediction)
        self.images += [None] * len(scene) if measured is None else measured

    def merge(self, other: Self) -> None:
        self.images += other.images


def mean_of_counted(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None without any; exact, so the order of merging does not matter."""
    counted = [value for value in values if value is not None]
    return fsum(counted) / len(counted) if counted else None


METRICS = {  # a module is imported when its metric is asked for: pycocotools and SciPy load slowly
    "ari_fg": "unscene.metrics.ari:ari_fg",
    "ari_fg_objects": "unscene.metrics.ari:ari_fg_objects",
    "ari": "unscene.metrics.ari:ari",
    "ami_fg": "unscene.metrics.ami:ami_fg",
    "box_ap": "unscene.metrics.average_precision:box_average_precision",
    "mask_ap": "unscene.metrics.average_precision:mask_average_precision",
    "instance_matching": "unscene.metrics.instance_matching:InstanceMatching",
    "mean_best_overlap": "unscene.metrics.region_iou:mean_best_overlap",
    "corloc": "unscene.metrics.corloc:corloc",
    "mask_iou": "unscene.metrics.region_iou:MaskIoU",
    "iou_polarity": "unscene.metrics.region_iou:iou_polarity",
    "object_locations": "unscene.metrics.object_locations:ObjectLocations",
    "reconstruction": "unscene.metrics.reconstruction:reconstruction",
}


NEED_A_DECOMPOSITION = ("ari_fg_objects", "object_locations", "reconstruction")  # label maps are not enough


def new_metric(name: str) -> Metric:
    """Return a registered metric without any batch; RecipeError for an unknown name."""
    return registered_class(METRICS, name, "metric")()


def default_metrics(of_label_maps: bool = False) -> dict[str, Metric]:
    """New metrics for an evaluation by name: all of `METRICS`, in its order, or those that label maps suffice for."""
    return {name: new_metric(name) for name in METRICS if not (of_label_maps and name in NEED_A_DECOMPOSITION)}
