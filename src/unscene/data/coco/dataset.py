"""Images in COCO's layout (Lin et al., Microsoft COCO, 2014). Below `folder`:

    train2017/000000000009.jpg ...   val2017/...   annotations/instances_train2017.json   .../instances_val2017.json

Instances may overlap and COCO does not state which is in front. Here it is the smaller one, as a cup is on its table:
so a pixel has one label, and a box is that of an instance's visible part. `left_out` removes pixels of several
instances from the label map, so that a score of the foreground does not count them (as public programs that evaluate
object-centric models on COCO do). Crowd regions (`iscrowd`) are background, without a box.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pydantic import PositiveInt

from unscene.data.coco.instances import ImageInstances, missing, pack_instances, read_coco
from unscene.data.image_file import AS_STORED, ContrastSettings, is_turned, read_image
from unscene.data.image_resize import FitKind, fit_image
from unscene.data.samples import checked_indices, resolve_range
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import NonEmptyText, settings_dataclass


@settings_dataclass
class CocoSettings:
    """Which images, and how they become the model's square."""

    folder: NonEmptyText = "data/coco"  # contains the other two
    images: NonEmptyText = "train2017"  # folder of the images, below `folder`
    # the file that lists them and their instances, below `folder`
    annotations: NonEmptyText = "annotations/instances_train2017.json"
    first: int = 0  # index of the first image, in the order of their ids; below 0 it counts from the end
    count: int = 0  # number of images; 0 takes all from `first` on, below 0 all but so many at the end
    size: PositiveInt = 128  # side of the square in pixels
    fit: FitKind = "crop"  # as in `fit_image`; label maps take the nearest pixel, boxes are those of the label map
    labels: bool = True  # read the instances; a training needs none
    # pixels of several instances are `left_out` of the label map, or have the smallest one's label
    # (`smaller_in_front`); the boxes are always those of the latter
    overlaps: Literal["left_out", "smaller_in_front"] = "left_out"
    skip_damaged: bool = False  # leave out the instances whose polygons or run lengths cannot be read
    # read images of the file's absolute names and of names with `..` too, outside of the folder of images
    outside: bool = False


class Coco:
    """COCO's images, read when they are needed. Memory holds a few arrays, which forked workers share.

    With `own_size` images stay as they are, whatever `size` and `fit` say, and a batch has images of one size.
    `contrast` is as in `read_image`.

    Attributes:
        paths: paths of the images, [N] of str; image `i` of a batch is `paths[i]`.
        ids, names: for each image the file's `id`, and its `file_name` without suffix.
        instances: instances of these images; None without `labels`.

    Raises:
        DataError: the folder, the file or an image is missing, the file is not in COCO's layout or too short, an
            instance is damaged, or the file has no annotation and `labels` is true.
    """

    Settings = CocoSettings

    def __init__(self, settings: CocoSettings, own_size: bool = False, contrast: ContrastSettings = AS_STORED) -> None:
        self.settings, self.own_size, self.contrast = settings, own_size, contrast
        root = Path(settings.folder).expanduser()
        folder, file = root / settings.images, root / settings.annotations
        if not folder.is_dir():
            raise DataError(missing(folder))
        images, annotations = read_coco(file)
        if settings.labels and not annotations:
            raise DataError(
                f"{file} lists images but not one annotation, as COCO's lists of test images do, so nothing can be "
                "scored with it. Name an instances_*.json, or read the images alone with --data.labels false."
            )
        chosen = resolve_range(settings.first, settings.count, len(images), f"{file} lists {len(images):,} images")
        images = [images[index] for index in chosen]
        base = os.path.abspath(folder)  # noqa: PTH100 - links stay
        paths = [os.path.normpath(os.path.join(base, image["file_name"])) for image in images]  # noqa: PTH118
        outside = [path for path in paths if not path.startswith(base + os.sep)]
        if outside and not settings.outside:
            message = f"{file} names files outside of {folder}, for instance {outside[0][:300]!r}"
            raise DataError(f"{message}. If you trust it, pass --data.outside true; else correct the names.")
        absent = [path for path in paths if not os.path.exists(path)]  # noqa: PTH110 - of any length
        if absent:
            raise DataError(
                f"{len(absent):,} of {len(images):,} images that {file} names do not exist, for instance "
                f"{absent[0][:300]!r}. Unpack the images there, or name their folder with --data.images."
            )
        self.paths = np.array(paths)
        self.ids = [image["id"] for image in images]
        self.names = [str(Path(image["file_name"]).with_suffix("")) for image in images]
        self.instances = pack_instances(images, annotations, file, settings.skip_damaged) if settings.labels else None

    def __len__(self) -> int:
        return len(self.paths)

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """Read images and, with `labels`, their instances, in the file's order; M is the most instances of an image.

        Returns:
            `image` uint8 [B, H, W, 3]; with `labels` also `labels` [B, H, W] (uint8; int32 if an image has over 255
            instances), `boxes` float32 [B, M, 4] and `category` int64 [B, M], COCO's id, 0 where there is no instance.
            H and W are `size`, or the images' own.

        Raises:
            DataError: an image cannot be read, or has another size than the file states.
        """
        indices, size = checked_indices(indices, len(self)), self.settings.size
        shape = len(indices), size, size
        if self.own_size and self.instances is not None and len(indices):
            shape = len(indices), *self.instances[indices[0]][:2]
        image = np.empty((*shape, 3), np.uint8)
        if self.instances is None:
            for row, index in enumerate(indices.tolist()):
                pixels = read_image(self.paths[index], contrast=self.contrast)
                image[row], _ = fit_image(pixels, size, self.settings.fit)
            return {"image": image}
        labels, in_front = np.empty((2, *shape), _label_type(self.instances.most))
        category = np.zeros((len(indices), self.instances.most), np.int64)
        for row, index in enumerate(indices.tolist()):
            instances = self.instances[index]
            category[row, : len(instances.categories)] = instances.categories
            image[row], labels[row], in_front[row] = self._labelled(self.paths[index], instances)
        boxes = boxes_of_labels(in_front, self.instances.most)
        return {"image": image, "labels": labels, "boxes": boxes, "category": category}

    def _labelled(self, path: str, instances: ImageInstances) -> tuple[NDArray[Any], ...]:
        """An image, its label map, and the one in which the smaller instance is in front; all fitted."""
        pixels = read_image(path, contrast=self.contrast)
        height, width = pixels.shape[:2]
        if (height, width) != (instances.height, instances.width):
            message = f"{path} has {width} x {height} pixels"
            expected = f"its annotations are for {instances.width} x {instances.height}"
            if (width, height) == (instances.height, instances.width) and is_turned(path):
                hint = "Annotate the upright image, or remove the orientation from its file."
                raise DataError(f"{message}, turned by its EXIF orientation, but {expected}, as it is stored. {hint}")
            raise DataError(f"{message}, but {expected}. Unpack images and annotations of one release.")
        in_front, covered = label_map(instances)
        labels = in_front if self.settings.overlaps == "smaller_in_front" else np.where(covered > 1, 0, in_front)
        if self.own_size:
            return pixels, labels, in_front
        image, geometry = fit_image(pixels, self.settings.size, self.settings.fit)
        return image, geometry.resize_labels(labels), geometry.resize_labels(in_front)


def _label_type(count: int) -> type[np.integer]:
    return np.uint8 if count <= 255 else np.int32


def label_map(instances: ImageInstances) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Paint instances, the smaller one in front; of equally large ones the later.

    Returns [H, W] labels, n + 1 where instance n is in front, 0 where there is none; and how many are at a pixel.
    """
    height, width, runs, _ = instances
    labels, covered = np.zeros((2, height, width), _label_type(len(runs)))
    packed = [{"size": [height, width], "counts": counts} for counts in runs]
    areas = np.array([coco_mask.area(mask) for mask in packed], np.int64)  # pycocotools fails on a list of over 255
    for instance in np.argsort(-areas, kind="stable"):
        mask = coco_mask.decode(packed[instance])
        labels[mask > 0] = instance + 1
        covered += mask
    return labels, covered
