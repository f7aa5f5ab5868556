"""Evaluate a model: every metric over a test set, numbers of health, time, and the provenance of all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from unscene.data import Source, object_names
from unscene.errors import DataError
from unscene.evaluation.scenes import example_scenes, read_scenes, scores_to_rank_by
from unscene.files import output_folder, write_text
from unscene.metrics import METRICS, Metric, default_metrics
from unscene.metrics.health import Health
from unscene.metrics.object_locations import ObjectLocations
from unscene.report.curves import training_curves
from unscene.report.page import write_page
from unscene.report.results import ModelResult, page_values
from unscene.report.table import Table
from unscene.runs.run_folder import describe_machine
from unscene.runs.trainer_settings import use_bfloat16

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

SCHEMA = 2  # of compare.json and shifts.json; raised whenever a name in them changes its meaning


def evaluate(
    loaded: LoadedModel,
    source: Source,
    out: Path,
    *,
    count: int,
    description_of_data: dict[str, Any],
    overwrite: bool = False,
    **how: Any,
) -> ModelResult:
    """Evaluate a model on the first scenes of a source, and write `metrics.json` and `index.html`.

    The same evaluation (weights, data, count) may be written again; another one in `out` is replaced with `overwrite`
    only. The other arguments are those of `measure`.

    Raises:
        RunError: `out` holds another evaluation, or cannot be written.
    """
    identity = {"weights": dict(loaded.provenance), "data": {**description_of_data, "scenes": count}}
    with output_folder(out, ("metrics.json", "index.html"), lambda: overwrite or _holds(out, identity)) as folder:
        result = measure(loaded, source, count=count, description_of_data=description_of_data, **how)
        write_page(folder / "index.html", f"{loaded.name}: evaluation", **page_values([result]))
        write_text(folder / "metrics.json", _json_text(result.as_json()))
    return result


def _holds(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds the evaluation of the same weights and scenes, which may be replaced."""
    try:
        known = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["provenance"]
        return bool({name: known[name] for name in identity} == json.loads(json.dumps(identity, default=str)))
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
    write_text(folder / f"{name}.json", _json_text(content))
    write_page(folder / "index.html", title, template="table.html.j2", table=table, **shown, **page_values(results))


def _json_text(values: dict[str, Any]) -> str:
    """The text of a JSON file of results; NaN is an error."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def measure(
    loaded: LoadedModel,
    source: Source,
    *,
    count: int,
    batch_size: int = 64,
    description_of_data: dict[str, Any],
    progress: bool = True,
    metrics_csv: Path | None = None,
    examples: bool = True,
    bar_name: str = "",
) -> ModelResult:
    """Evaluate a model and write nothing.

    Scenes are read and decomposed batch by batch, so memory does not grow with their number.

    Args:
        loaded: the model.
        source: source of the test scenes, of the model's size.
        count: number of scenes, from the first.
        batch_size: scenes in one call of the model; the time is measured for it.
        description_of_data: name, seed and settings of the source, ready for JSON.
        progress: show a bar on stderr.
        metrics_csv: file of the training, for the curves.
        examples: draw the best, median and worst scenes.
        bar_name: before the bar; the model's name if empty.

    Raises:
        DataError: fewer scenes than `count`, scenes of another size than the model's, or a damaged metrics.csv.
    """
    if not 1 <= count <= len(source) or batch_size < 1:
        raise DataError(
            f"count must be from 1 to the {len(source):,} scenes of the source, and batch_size 1 or more, "
            f"but they are {count:,} and {batch_size}."
        )
    device = next(loaded.model.parameters()).device
    bfloat16 = use_bfloat16(loaded.config["trainer"]["precision"], device)
    ran = {
        "recipe": loaded.name,
        "device": str(device),
        "precision": "bfloat16 (autocast)" if bfloat16 else "float32",
        "batch_size": batch_size,
        **describe_machine(),
    }
    curves = training_curves(metrics_csv) if metrics_csv else None  # first, since the file may be damaged
    metrics: dict[str, Metric] = dict(zip(METRICS, default_metrics(), strict=True))
    health, seconds = Health(), []
    with tqdm(total=count, unit=" scenes", desc=bar_name or loaded.name, disable=not progress) as bar:
        for first in range(0, count, batch_size):
            scene = read_scenes(source, range(first, min(first + batch_size, count)), loaded.size)
            began = perf_counter()
            decomposition = loaded.decompose(scene.images, batch_size=batch_size)
            seconds.append((len(scene), perf_counter() - began))
            for metric in metrics.values():
                metric.update(scene, decomposition)
            health.update(scene.images, decomposition)
            bar.update(len(scene))
    values = {name: value for metric in metrics.values() for name, value in metric.compute().items()}
    ranked_by, scores = scores_to_rank_by(metrics)
    names, locations = dict(enumerate(object_names(source), start=1)), metrics["object_locations"]
    assert isinstance(locations, ObjectLocations)
    return ModelResult(
        name=loaded.name,
        metrics={**values, "ms_per_image": _milliseconds(seconds)},
        health={name.removeprefix("health/"): value for name, value in health.compute().items()},
        verdict=health.verdict(),
        provenance={
            "evaluation": ran,
            "data": {**description_of_data, "scenes": count},
            "weights": dict(loaded.provenance),
        },
        recipe=loaded.config,
        ranked_by=ranked_by,
        scenes=tuple(example_scenes(loaded, source, scores)) if examples else (),
        curves=curves,
        located={names.get(row.label, f"object {row.label}"): row for row in locations.by_label()} if names else {},
    )


def _milliseconds(seconds: list[tuple[int, float]]) -> float:
    """Median milliseconds an image, over the full batches; without the first one, a warm-up, where there are others."""
    full = [taken for taken in seconds if taken[0] == seconds[0][0]]
    return median(1000 * taken / images for images, taken in full[1:] or full)
