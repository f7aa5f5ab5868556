"""Masks that any program predicted, in files, as label maps to score.

    masks.npz or masks.npy    label maps [N, H, W], or soft or binary masks [N, K, H, W] or [N, K, 1, H, W], scene by
                              scene; in an .npz as `masks` or the only array, and `scores` [N, L] of labels 1..L or of
                              all slots
    a folder                  a label image for each scene, as `label_images` finds them, or results of `decompose`
    coco.json                 COCO's annotations with images, matched by `file_name`; or a detector's list of results,
                              matched by `image_id`

Arrays become label maps as in `label_maps`. Of COCO's masks that overlap, the one of the higher score has the pixel.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from unscene.data import Source
from unscene.data.coco.instances import pack_instances, read_coco
from unscene.data.image_file import read_label_image
from unscene.data.labelled_folder import label_images
from unscene.errors import DataError, refusal
from unscene.evaluation.masks import SLOTS_FIRST, check_rows, label_maps, segmentation
from unscene.scene import Scene, Segmentation

# [H, W], None if there is no object at all; and the scores [L] of labels 1..L, None if none are stated
_LabelMap: TypeAlias = "tuple[NDArray[np.integer] | None, NDArray[np.floating] | None]"
_log = logging.getLogger(__name__)


class PredictedMasks:
    """The predictions in a file or folder for the scenes of a source.

    Attributes:
        name: of the file.
        provenance: the file, its kind and its checksum, ready for JSON.

    Raises:
        DataError: the file is missing, damaged, holds no masks, or lacks a scene or has others.
    """

    def __init__(self, path: Path, source: Source, background: int | None = None) -> None:
        self.path, self.name, self._count = path, path.name or str(path), len(source)
        kind: str
        if path.is_dir():
            kind, self._read = "folder of label images", self._of_folder(source)
        elif path.suffix == ".json":
            kind, self._read = "COCO", self._of_coco(source)
        elif path.suffix in (".npz", ".npy"):
            kind, self._read = "array", self._of_array(background)
        else:
            raise DataError(
                f"{path} {'holds no predictions' if path.exists() else 'does not exist'}. Name an .npz or .npy file of "
                "masks, a folder of label images, or a .json file in COCO's layout."
            )
        if background is not None and kind != "array":
            raise DataError(f"the background is label 0 in a {kind}: leave out --background.")
        self.provenance = {"file": str(path), "kind": kind, "sha256": _checksum(path), "background": background}

    def predict(self, scene: Scene, indices: Sequence[int]) -> Segmentation:
        """The label maps of scenes; DataError if they have another size than the scenes."""
        height, width = scene.images.shape[2:]
        maps, all_scores = [], []
        for index in indices:
            labels, scores = self._read(index)
            labels = np.zeros((height, width), np.int32) if labels is None else labels
            if labels.shape != (height, width):
                raise DataError(
                    f"{self.path}: the masks of scene {index} have {labels.shape[1]} x {labels.shape[0]} pixels, but "
                    f"its image has {width} x {height}. Predict at the size of the data. {SLOTS_FIRST}"
                )
            maps.append(labels)
            all_scores.append(scores)
        return segmentation(maps, all_scores)

    def _of_array(self, background: int | None) -> Callable[[int], _LabelMap]:
        try:
            loaded = np.load(self.path, allow_pickle=False)
            arrays = dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else {"masks": loaded}
        except (OSError, ValueError, EOFError, BadZipFile, MemoryError) as error:
            reason = refusal(error) if isinstance(error, OSError) else None
            raise DataError(f"{self.path} {reason or f'cannot be read ({error}). Write it with np.savez.'}") from error
        scores = arrays.pop("scores", None)
        if "masks" not in arrays and len(arrays) != 1:
            names = ", ".join(arrays) or "none"
            raise DataError(f"{self.path} must hold one array, or one called 'masks', but holds {names}.")
        masks = arrays.get("masks", next(iter(arrays.values())))
        if masks.ndim and len(masks) != self._count:
            raise DataError(f"{self.path} has masks of {len(masks):,} scenes, but the data {self._count:,}.")
        maps = label_maps(masks, f"{self.path}: masks", background)
        if scores is not None:
            check_rows(scores, f"{self.path}: scores", maps)
        return lambda index: (maps[index], None if scores is None else scores[index])

    def _of_folder(self, source: Source) -> Callable[[int], _LabelMap]:
        found = label_images(self.path)
        if not hasattr(source, "names"):  # scenes of a file have numbers, which may be padded
            numbered = {str(int(name)) if name.isdecimal() else name: path for name, path in found.items()}
            if len(numbered) < len(found):
                twice = min(set(found.values()) - set(numbered.values()))
                raise DataError(f"{self.path} has two label images of one scene, one is {twice.name}. Remove one.")
            found = numbered
        names = self._check_names(source, found, "NAME.png or NAME_label.tif")
        return lambda index: (read_label_image(found[names[index]]), None)

    def _of_coco(self, source: Source) -> Callable[[int], _LabelMap]:
        try:
            results = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            results = None  # `read_coco` says what is wrong
        if isinstance(results, list):
            return self._of_results(source, results)
        images, annotations = read_coco(self.path)
        by_name = {str(Path(image["file_name"]).with_suffix("")): image for image in images}
        if len(by_name) < len(images):
            raise DataError(f"{self.path} has images of one name without its suffix. Give each image its own name.")
        names = self._check_names(source, by_name, "its file_name")
        return self._painted([by_name[name] for name in names], annotations)

    def _of_results(self, source: Source, results: list[Any]) -> Callable[[int], _LabelMap]:
        ids = list(getattr(source, "ids", range(1, len(source) + 1)))
        images, annotations = {}, defaultdict(list)
        for row in results:
            runs = row.get("segmentation") if isinstance(row, dict) else None
            size = runs.get("size") if isinstance(runs, dict) else None
            if not isinstance(size, list) or len(size) != 2 or not isinstance(row.get("image_id"), int | str):
                raise DataError(f"{self.path} must list results with 'image_id' and 'segmentation' as run lengths.")
            images[row["image_id"]] = {"id": row["image_id"], "height": size[0], "width": size[1]}
            annotations[row["image_id"]].append({"category_id": 1} | row)
        others = images.keys() - set(ids)
        if others:
            raise DataError(
                f"{self.path} has results of {len(others):,} images that the data does not have, for instance image_id "
                f"{next(iter(others))!r}. The ids of the data are {ids[0]!r} to {ids[-1]!r}."
            )
        empty = sum(image not in images for image in ids)
        if empty:
            _log.warning("%s has no result for %d of %d images: nothing is found there.", self.path, empty, len(ids))
        return self._painted([images.get(image) for image in ids], annotations)

    def _painted(
        self, images: Sequence[dict[str, Any] | None], annotations: dict[Any, list[dict[str, Any]]]
    ) -> Callable[[int], _LabelMap]:
        """Masks of the higher score are painted over others; None for an image without any."""
        for row in (row for rows in annotations.values() for row in rows):
            if not isinstance(row.get("score", 1), int | float):
                raise DataError(f"{self.path} has the score {row['score']!r}. Expected a number, the higher the surer.")
        there = [image for image in images if image]
        packed = pack_instances(there, annotations, self.path, skip_damaged=False)
        positions = {image["id"]: position for position, image in enumerate(there)}

        def read(index: int) -> _LabelMap:
            image = images[index]
            if image is None:
                return None, None
            height, width, runs, _ = packed[positions[image["id"]]]
            rows = [row for row in annotations[image["id"]] if not row.get("iscrowd")]
            scores = np.array([row.get("score", 1) for row in rows], np.float64)
            labels = np.zeros((height, width), np.int32)
            for row in np.argsort(scores, kind="stable").tolist():
                labels[coco_mask.decode({"size": [height, width], "counts": runs[row]}) > 0] = row + 1
            return labels, scores

        return read

    def _check_names(self, source: Source, found: dict[str, Any], what: str) -> list[str]:
        """The scenes' names; DataError unless there is a prediction for each of them, and no other."""
        names = list(getattr(source, "names", map(str, range(len(source)))))
        for expected, there, words in ((names, found, "no masks of"), (found, set(names), "masks of others than")):
            lacking = [name for name in expected if name not in there]
            if lacking:
                raise DataError(
                    f"{self.path} has {words} the {len(names):,} scenes of the data: {len(lacking):,}, for instance "
                    f"'{lacking[0]}'. A scene's masks are found by {what}; the data has '{names[0]}' to '{names[-1]}'."
                )
        return names


def _checksum(path: Path) -> str:
    """SHA-256 of a file, or of a folder's label images in the order of their names."""
    digest = hashlib.sha256()
    for file in label_images(path).values() if path.is_dir() else (path,):
        digest.update(file.read_bytes())
    return digest.hexdigest()
