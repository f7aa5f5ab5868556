"""Evaluate a model or predicted masks: every metric over a test set, health, time, and the provenance of it all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

from torch import Tensor
from tqdm import tqdm

from unscene.data import Source, clip_length, object_names
from unscene.errors import DataError, RecipeError
from unscene.evaluation.clips import ClipTracking
from unscene.evaluation.predictions import PredictedMasks
from unscene.evaluation.scenes import example_scenes, read_scenes, scores_to_rank_by, segment_image
from unscene.files import output_folder, write_text
from unscene.inference.decompose import tile_side
from unscene.inference.found_objects import LIMITS, MIN_CONTRAST
from unscene.metrics import default_metrics
from unscene.metrics.health import Health
from unscene.metrics.object_locations import ObjectLocations
from unscene.report.curves import training_curves
from unscene.report.page import write_page
from unscene.report.results import ModelResult, page_values
from unscene.report.table import Table
from unscene.runs.loading import LoadedModel
from unscene.runs.run_folder import describe_machine
from unscene.runs.trainer_settings import use_bfloat16
from unscene.scene import Decomposition, Prediction, Scene

SCHEMA = 2  # of compare.json and shifts.json; raised whenever a name in them changes its meaning

_Read: TypeAlias = Callable[[Sequence[int]], Scene]
_Predict: TypeAlias = Callable[[Scene, Sequence[int]], Prediction]


def evaluate(
    scored: LoadedModel | PredictedMasks,
    source: Source,
    out: Path,
    *,
    count: int,
    description_of_data: dict[str, Any],
    overwrite: bool = False,
    **how: Any,
) -> ModelResult:
    """Evaluate a model, or masks that another program predicted, and write `metrics.json` and `index.html`.

    The first `count` scenes of the source are scored. The same evaluation (weights or masks, data, count, options of
    the objects) may be written again; another one in `out` is replaced with `overwrite` only. The other arguments are
    those of `measure`. RunError: `out` holds another evaluation, or cannot be written.
    """
    identity = {
        _origin(scored): dict(scored.provenance),
        "data": {**description_of_data, "scenes": count},
        "objects": dict(how.get("objects") or {}),
    }
    with output_folder(out, ("metrics.json", "index.html"), lambda: overwrite or _holds(out, identity)) as folder:
        result = measure(scored, source, count=count, description_of_data=description_of_data, **how)
        write_page(folder / "index.html", f"{scored.name}: evaluation", **page_values([result]))
        write_text(folder / "metrics.json", json_text(result.as_json()))
    return result


def _origin(scored: LoadedModel | PredictedMasks) -> str:
    """The section of the provenance that says where the masks come from."""
    return "predictions" if isinstance(scored, PredictedMasks) else "weights"


def _holds(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds the evaluation of the same weights and scenes, which may be replaced."""
    try:
        known = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["provenance"]
        return bool({name: known.get(name, {}) for name in identity} == json.loads(json.dumps(identity, default=str)))
    except (OSError, ValueError, KeyError, TypeError):  # missing, damaged or of another program
        return False


def write_side_by_side(
    folder: Path,
    name: str,
    title: str,
    table: Table,
    results: Sequence[ModelResult],
    facts: Mapping[str, Any],
    **shown: Any,
) -> None:
    """Write evaluations, a row of the table for each: `NAME.json`, and `index.html`, which also shows `shown`.

    `facts` stand in the JSON file beside the table; for `shown` see table.html.j2.
    """
    rows = [
        {table.label: row.name, **row.as_json(), "evaluation": result.as_json()}
        for row, result in zip(table.rows, results, strict=True)
    ]
    content = {"schema": SCHEMA, **facts, "notes": table.notes, f"{table.label}s": rows}
    write_text(folder / f"{name}.json", json_text(content))
    write_page(folder / "index.html", title, template="table.html.j2", table=table, **shown, **page_values(results))


def json_text(values: dict[str, Any]) -> str:
    """The text of a JSON file of results; NaN is an error."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def measure(
    scored: LoadedModel | PredictedMasks,
    source: Source,
    *,
    count: int,
    batch_size: int = 64,
    description_of_data: dict[str, Any],
    progress: bool = True,
    metrics_csv: Path | None = None,
    examples: bool = True,
    bar_name: str = "",
    objects: Mapping[str, Any] | None = None,
) -> ModelResult:
    """Evaluate a model or predicted masks, and write nothing.

    Scenes are read and decomposed batch by batch, so memory does not grow with their number. Images of their own sizes
    are decomposed one by one as in `decompose`, and their label maps are scored. `description_of_data` is ready for
    JSON. A training's `metrics_csv` gives the curves. With `examples`, the best, median and worst scenes are drawn.
    `objects` are options of `decompose_image` for images at their own sizes, and of `ClipTracking` for clips.

    DataError: fewer scenes than `count`, scenes of another size than the model's, no labels for predicted masks, or a
    damaged metrics.csv.
    """
    is_model, own_sizes = not isinstance(scored, PredictedMasks), has_own_sizes(source)
    if not 1 <= count <= len(source) or batch_size < 1:
        raise DataError(
            f"count must be from 1 to the {len(source):,} scenes of the source, and batch_size 1 or more, "
            f"but they are {count:,} and {batch_size}."
        )
    frames = clip_length(source) if is_model else 1
    of_frames = objects if objects and frames > 1 and set(objects) <= set(LIMITS) else {}
    clips = ClipTracking(frames, **of_frames) if frames > 1 else None
    if objects and not of_frames and not (is_model and own_sizes):
        options = ", ".join(f"--{name.replace('_', '-')}" for name in objects)
        raise RecipeError(f"{options}: only for a model that decomposes images at their own sizes (--data FOLDER).")
    read, predict, at_once, facts = _reader_and_predictor(scored, source, batch_size, objects or {})
    curves = training_curves(metrics_csv) if metrics_csv else None  # first, since the file may be damaged
    metrics, health, seconds = default_metrics(of_label_maps=own_sizes or not is_model), Health(), []
    with tqdm(total=count, unit=" scenes", desc=bar_name or scored.name, disable=not progress) as bar:
        for first in range(0, count, at_once):
            indices = range(first, min(first + at_once, count))
            scene = read(indices)
            began = perf_counter()
            prediction = predict(scene, indices)
            seconds.append((len(scene), perf_counter() - began))
            for metric in metrics.values():
                metric.update(scene, prediction)
            if isinstance(prediction, Decomposition):
                health.update(scene.images, prediction)
                if clips:
                    clips.update(scene, prediction)
            bar.update(len(scene))
    values = {name: value for metric in metrics.values() for name, value in metric.compute().items()}
    values |= clips.compute() if clips else {}
    # an image, over the full batches; without the first one, a warm-up, where there are others
    milliseconds = [1000 * taken / images for images, taken in seconds if images == seconds[0][0]]
    ranked_by, scores = scores_to_rank_by(metrics)
    names = object_names(source)
    by_label, locations = dict(enumerate(names, start=1)), metrics.get("object_locations")
    located = locations.by_label() if names and isinstance(locations, ObjectLocations) else []
    return ModelResult(
        name=scored.name,
        metrics=values | ({"ms_per_image": median(milliseconds[1:] or milliseconds)} if is_model else {}),
        health=health.compute() if health.images else {},
        verdict=health.verdict() if health.images else "",
        provenance={
            "evaluation": facts | ({"tracks": clips.options} if clips else {}) | describe_machine(),
            "data": {**description_of_data, "scenes": count},
            _origin(scored): dict(scored.provenance),
        }
        | ({"objects": dict(objects)} if objects else {}),
        recipe={} if isinstance(scored, PredictedMasks) else scored.config,
        ranked_by=ranked_by,
        scenes=tuple(example_scenes(read, predict, names, scores)) if examples else (),
        curves=curves,
        located={by_label.get(row.label, f"object {row.label}"): row for row in located},
    )


def has_own_sizes(source: Source) -> bool:
    return bool(getattr(source, "own_size", False))


def model_facts(loaded: LoadedModel) -> dict[str, Any]:
    """How a model decomposes, for the provenance."""
    device = next(loaded.model.parameters()).device
    bfloat16 = use_bfloat16(loaded.config["trainer"]["precision"], device)
    precision = "bfloat16 (autocast)" if bfloat16 else "float32"
    return {"recipe": loaded.name, "device": str(device), "precision": precision}


def _reader_and_predictor(
    scored: LoadedModel | PredictedMasks, source: Source, batch_size: int, objects: Mapping[str, Any]
) -> tuple[_Read, _Predict, int, dict[str, Any]]:
    """How scenes are read and predicted, how many at once, and what a report says about it."""
    own_sizes = has_own_sizes(source)
    if isinstance(scored, PredictedMasks):

        def read(indices: Sequence[int]) -> Scene:
            scene = Scene.from_batch(source.batch(indices))
            if scene.labels is None:
                raise DataError("the data has no masks, so nothing can be scored with it. Name labelled data.")
            return scene

        return read, scored.predict, 1 if own_sizes else batch_size, {}
    facts, frames = model_facts(scored), clip_length(source)
    if frames > 1 and scored.for_frames() is not scored:
        return (
            lambda indices: read_scenes(source, indices, scored.size),
            _ClipDecomposition(scored, source, frames),
            batch_size,
            facts | {"batch_size": 1, "over_frames": True},
        )
    if own_sizes:
        side = tile_side(scored, *(objects.get(name) for name in ("tile", "scale", "object_size")))
        return (
            lambda indices: Scene.from_batch(source.batch(indices)),
            lambda scene, _: segment_image(scored, scene, **objects),
            1,
            facts | {"batch_size": 1, "min_contrast": MIN_CONTRAST, **objects, "tile": side},
        )
    return (
        lambda indices: read_scenes(source, indices, scored.size),
        lambda scene, _: scored.decompose(scene.images, batch_size=batch_size),
        batch_size,
        facts | {"batch_size": batch_size},
    )


class _ClipDecomposition:
    """Decomposes frames by a model that carries something from frame to frame, anew in each clip of `length` frames."""

    def __init__(self, loaded: LoadedModel, source: Source, length: int) -> None:
        self.loaded, self.source, self.length = loaded, source, length
        self._next, self._current = -1, loaded  # index of the frame that follows, and the model with its state

    def __call__(self, scene: Scene, indices: Sequence[int]) -> Decomposition:
        return Decomposition.concatenate(
            [self._frame(image, index) for image, index in zip(scene.images.split(1), indices, strict=True)]
        )

    def _frame(self, image: Tensor, index: int) -> Decomposition:
        first = index - index % self.length
        if index == first or not first < self._next <= index:
            self._current, self._next = self.loaded.for_frames(), first
        for earlier in range(self._next, index):
            self._current.decompose(read_scenes(self.source, [earlier], self.loaded.size).images)
        self._next = index + 1
        return self._current.decompose(image)
