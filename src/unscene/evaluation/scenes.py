"""The scenes that a model is scored on, and the best, the median and the worst of them, each as a figure."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unscene.data import Source, source_class
from unscene.data.coco.dataset import Coco
from unscene.data.hdf5.reader import SceneFile
from unscene.data.image_file import AS_STORED, ContrastSettings
from unscene.data.labelled_folder import LabelledFolder
from unscene.errors import DataError, RecipeError
from unscene.evaluation.masks import segmentation
from unscene.inference.decompose import decompose_image
from unscene.metrics import Metric
from unscene.metrics.object_locations import label_centres, match_locations
from unscene.report.figures import comparison_rows, image_bytes, rows_png, scene_rows
from unscene.report.page import Picture, SlotLocation
from unscene.report.results import ExampleScene, Rank
from unscene.runs.loading import LoadedModel
from unscene.scene import Prediction, Scene, Segmentation
from unscene.settings import plain, typed_settings

PER_RANK = 3  # scenes shown of the best, the median and the worst


def test_source(
    loaded: LoadedModel,
    file: Path | None,
    changes: dict[str, Any],
    trusted: bool = False,  # noqa: PT028 (no test)
) -> tuple[Source, dict[str, Any]]:
    """The source of a model's test scenes, and its description for JSON.

    The scenes are those of the recipe, or of a file or folder as in `source_of`, with changes of the source's settings
    by name. Unless the model is `trusted`, its recipe cannot choose a file or folder to read, nor start a download.
    """
    if file:
        return source_of(file, changes, loaded.size, loaded.contrast)
    settings = loaded.recipe.data_settings("test", **changes)
    if not trusted:
        for name, value in loaded.recipe.locations("test").items():
            if name not in changes:
                raise RecipeError(
                    f"the test data of '{loaded.name}' is in {value}, as its own recipe says. Add --data.{name} "
                    f"{shlex.quote(value)} to read it there, or name a file of scenes with --data FILE.h5."
                )
        if getattr(settings, "download", False) and "download" not in changes:
            settings = dataclasses.replace(settings, download=False)
    source = source_class(loaded.recipe.data_name)(settings)
    described = plain(settings) | {"source": loaded.recipe.data_name}
    return source, described | {"count": len(source)}


def source_of(
    path: Path, changes: dict[str, Any], size: int = 0, contrast: ContrastSettings = AS_STORED
) -> tuple[Source, dict[str, Any]]:
    """The labelled scenes at a path, and their description for JSON.

    An HDF5 file of scenes of `size` pixels (0: of any size); or images at their own sizes: a folder with label images,
    or a .json file in COCO's layout, whose images are in its folder unless the setting `images` names another.
    Images at their own sizes are read with the model's `contrast`.
    """
    name, kind, options, described = "hdf5", SceneFile, {}, {}  # type: str, Any, dict[str, Any], dict[str, Any]
    values: dict[str, Any] = {"path": str(path), "size": size}
    if path.is_dir():
        name, kind, values = "labelled_folder", LabelledFolder, {"folder": str(path), "contrast": plain(contrast)}
    elif path.suffix == ".json":
        name, kind, options = "coco", Coco, {"own_size": True, "contrast": contrast}
        described = {"contrast": plain(contrast)}
        values = {"folder": str(path.parent), "annotations": path.name, "images": "."}
    for setting, value in changes.items():
        group, _, member = setting.partition(".")  # contrast.gamma
        others = values.get(group)
        values[group] = {**(others if isinstance(others, dict) else {}), member: value} if member else value
    settings = typed_settings(kind.Settings, values, "data", f"--data {path}")
    source: Source = kind(settings, **options)
    return source, {"source": name} | plain(settings) | described | {"count": len(source)}


def read_scenes(source: Source, indices: Sequence[int], size: int) -> Scene:
    """Read scenes of a source; DataError unless they are `size` pixels square."""
    return checked_scene(source.batch(list(indices)), size)


def checked_scene(sample: Mapping[str, Any], size: int) -> Scene:
    """The scenes of a source's batch; DataError unless they are `size` pixels square."""
    height, width = sample["image"].shape[1:3]
    if (height, width) != (size, size):
        raise DataError(
            f"the scenes are {width} x {height} pixels, but the model takes {size} x {size}. "
            f"Set --data.size {size}, or convert the data to that size."
        )
    return Scene.from_batch(sample)


def segment_image(loaded: LoadedModel, scene: Scene, **options: Any) -> Segmentation:
    """The label map of the one image of a scene, of any size, with the options of `decompose_image`."""
    found = decompose_image(loaded, image_bytes(scene.images[0]), **options)
    scores = np.zeros(int(found.slots.max(initial=0)))
    scores[found.slots - 1] = found.scores
    return segmentation([found.labels], [scores])


def draw_scenes(models: Mapping[str, LoadedModel], source: Source, count: int) -> Picture:
    """The first scenes of a source, segmented and reconstructed by every model."""
    scene = read_scenes(source, range(count), next(iter(models.values())).size)
    found = {name: model.decompose(scene.images) for name, model in models.items()}
    rows = "images, " + ("their true segmentation, " if scene.labels is not None else "")
    alt = f"{count} scenes, a column each. Rows: {rows}then segmentation and reconstruction by {', '.join(models)}."
    columns = "Scene 0" if count == 1 else f"Scenes 0 to {count - 1}"
    return Picture(rows_png(comparison_rows(scene, found)), alt, f"{columns} of the data named under Provenance.")


def scores_to_rank_by(metrics: dict[str, Metric]) -> tuple[str, list[float | None]]:
    """The name and the scores by which scenes are ranked: foreground ARI, or the reconstruction without any truth.

    Label maps without a true object are ranked by what is found all the same.
    """
    scores = metrics["ari_fg"].per_image()
    if any(score is not None for score in scores):
        return "ari_fg", scores
    if "reconstruction" not in metrics:
        return "instance_ap_50", metrics["instance_matching"].per_image()
    return "reconstruction_psnr", metrics["reconstruction"].per_image()


def chosen_scenes(scores: list[float | None], number: int = PER_RANK) -> list[tuple[Rank, int]]:
    """Rank and index of the best, median and worst scenes, the best first; of equal scores the lower index first.

    No scene is repeated; scenes without a score are left out.
    """
    order = sorted((-score, index) for index, score in enumerate(scores) if score is not None)
    best = [index for _, index in order[:number]]
    worst = [index for _, index in order[max(len(order) - number, len(best)) :]]
    first = max((len(order) - number) // 2, len(best))
    middle = [index for _, index in order[first : min(first + number, len(order) - len(worst))]]
    return [*(("best", i) for i in best), *(("median", i) for i in middle), *(("worst", i) for i in worst)]


def example_scenes(
    read: Callable[[Sequence[int]], Scene],
    predict: Callable[[Scene, Sequence[int]], Prediction],
    names: Sequence[str],
    scores: list[float | None],
) -> list[ExampleScene]:
    """Draw the best, median and worst scenes, which are read and predicted again; `names` are those of the labels.

    They are predicted in the order of the source: for a frame of a clip, those before it may be needed.
    """
    chosen, drawn = chosen_scenes(scores), dict[int, ExampleScene]()
    for rank, index in sorted(chosen, key=lambda rank_and_index: rank_and_index[1]):
        scene = read([index])
        prediction = predict(scene, [index])
        locations = slot_locations(scene, prediction, 0, names)
        figure = rows_png(scene_rows(scene, prediction))
        picture = Picture(figure, f"Scene {index}: {_described(scene, prediction, 0)}", locations=locations)
        drawn[index] = ExampleScene(index, rank, scores[index], picture)
    return [drawn[index] for _, index in chosen]


def slot_locations(scene: Scene, decomposition: Prediction, row: int, names: Sequence[str]) -> tuple[SlotLocation, ...]:
    """The model's locations in one scene, of the slots that win a pixel (the paper's Table 2)."""
    if isinstance(decomposition, Segmentation) or decomposition.locations is None:
        return ()
    locations = decomposition.locations[row].double().numpy()
    labels = decomposition.labels()[row]
    named: dict[int, str] = {}
    if names and scene.labels is not None:
        centres = label_centres(scene.labels[row])
        matched, _ = match_locations(np.array([*centres.values()]).reshape(-1, 2), locations)
        by_label = dict(enumerate(names, start=1))  # a file may hold more objects than names
        found = zip(centres, matched, strict=True)
        named = {int(slot): by_label.get(label, f"object {label}") for label, slot in found if slot >= 0}
    return tuple(
        SlotLocation(slot + 1, float(y), float(x), named.get(slot, ""))
        for slot, (y, x) in enumerate(locations)
        if (labels == slot + 1).any() or slot in named
    )


def _described(scene: Scene, prediction: Prediction, row: int) -> str:
    labels = prediction.labels()[row].unique()
    slots = len(labels) if prediction.background is None else int((labels > 0).sum())
    true = "" if scene.labels is None else f" of {int((scene.labels[row].unique() > 0).sum())} true objects"
    if isinstance(prediction, Segmentation):
        return f"image, segmentation into {slots} objects{true}."
    boxes = "" if prediction.box_valid is None else f", {int(prediction.box_valid[row].sum())} boxes"
    slots_shown = f"segmentation into {slots} object slots{true}, and each slot's mask and component"
    return f"image{boxes}, reconstruction, {slots_shown}."
