"""A model's locations of objects against the middles of the true objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unscene.errors import check_shape
from unscene.metrics import ItemPerImage, mean_of_counted
from unscene.scene import Prediction, Scene, Segmentation, boxes_of_labels

TOLERANCE = 0.05  # of the frame


def label_centres(labels: Tensor) -> dict[int, tuple[float, float]]:
    """The middle of the box around each object of a label map [H, W], y and x in 0..1, by label."""
    height, width = labels.shape
    boxes = boxes_of_labels(labels.clamp_min(0).numpy()[None], int(labels.max()))[0].tolist()
    return {
        label: ((y1 + y2) / 2 / height, (x1 + x2) / 2 / width)
        for label, (x1, y1, x2, y2) in enumerate(boxes, start=1)
        if x2
    }


def match_locations(
    centres: NDArray[np.float64], locations: NDArray[np.float64], tolerance: float = TOLERANCE
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Match objects [M, 2] with locations [N, 2] one to one: as many pairs as possible within the tolerance, then the
    nearest. A row of zeros is a slot that is not used.

    Returns [M] the index of each object's location, -1 for none, and [M] its distance, infinite for none.
    """
    distances = np.linalg.norm(centres[:, None] - locations[None], axis=2)
    distances[:, ~locations.any(axis=1)] = np.inf
    near = distances <= tolerance
    cost = np.where(near, distances, 10.0 * tolerance * (1 + len(centres)))  # one match more outweighs all distances
    rows, columns = linear_sum_assignment(cost)
    matched, found = np.full(len(centres), -1), np.full(len(centres), np.inf)
    kept = near[rows, columns]
    matched[rows[kept]], found[rows[kept]] = columns[kept], distances[rows, columns][kept]
    return matched, found


@dataclass(frozen=True)
class LocatedObject:
    label: int  # of the object, from 1
    images: int  # how many show it
    located: int  # how many of these have a location within the tolerance
    distance: float | None  # median of the located ones, in shares of the frame; None without any


class ObjectLocations(ItemPerImage[dict[int, float]]):
    """Share of the true objects that have a location within 5 % of the frame from the middle of their box.

    Objects and slots are matched one to one, image by image. An object without a pixel does not count. An image's item
    is the distance of each label.
    """

    def measure(self, scene: Scene, prediction: Prediction) -> Iterable[dict[int, float]] | None:
        if scene.labels is None or isinstance(prediction, Segmentation) or prediction.locations is None:
            return None
        batch, _, _, height, width = prediction.log_masks.shape
        check_shape(scene.labels, f"{batch} {height} {width}", "labels")
        measured = []
        for labels, locations in zip(scene.labels.cpu(), prediction.locations.double().cpu().numpy(), strict=True):
            centres = label_centres(labels)
            _, distances = match_locations(np.array([*centres.values()]).reshape(-1, 2), locations)
            measured.append(dict(zip(centres, distances.tolist(), strict=True)))
        return measured

    def compute(self) -> dict[str, float | int | None]:
        distances = [distance for image in self.images for distance in (image or {}).values() if np.isfinite(distance)]
        return {"located": mean_of_counted(self.per_image()), "location_error": mean_of_counted(distances)}

    def by_label(self) -> list[LocatedObject]:
        """The objects of each label, for data whose labels mean the same in every image."""
        rows, images = [], [image for image in self.images if image]
        for label in sorted({label for image in images for label in image}):
            distances = [image[label] for image in images if label in image]
            near = [distance for distance in distances if np.isfinite(distance)]
            rows.append(LocatedObject(label, len(distances), len(near), median(near) if near else None))
        return rows

    def per_image(self) -> list[float | None]:
        return [mean_of_counted(map(float, np.isfinite([*(image or {}).values()]))) for image in self.images]
