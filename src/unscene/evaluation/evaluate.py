"""Evaluate a model: every metric over a test set, numbers of health, time, and the provenance of all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
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
from unscene.metrics.object_locations import LocatedObject, ObjectLocations
from unscene.report.curves import curves_figure, light_and_dark, read_curves
from unscene.report.page import write_page
from unscene.report.results import Curves, ModelResult, page_values
from unscene.runs.run_folder import describe_machine
from unscene.runs.trainer_settings import use_bfloat16

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel


def evaluate(
    loaded: LoadedModel,
    source: Source,
    out: Path,
    *,
    count: int,
    batch_size: int = 64,
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
    about: dict[str, Any] = {"count": count, "batch_size": batch_size, "description_of_data": description_of_data}
    identity = _identity(_provenance(loaded, **about))
    with output_folder(out, ("metrics.json", "index.html"), overwrite or _holds(out, identity)) as folder:
        result = measure(loaded, source, **about, **how)
        write_page(folder / "index.html", f"{loaded.name}: evaluation", **page_values([result]))
        write_text(folder / "metrics.json", json_text(result.as_json()))
    return result


def json_text(values: dict[str, Any]) -> str:
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
    provenance = _provenance(loaded, description_of_data=description_of_data, count=count, batch_size=batch_size)
    curves = draw_curves(metrics_csv) if metrics_csv else None  # first, since the file may be damaged
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
            health.update(decomposition)
            bar.update(len(scene))
    values = {name: value for metric in metrics.values() for name, value in metric.compute().items()}
    ranked_by, scores = scores_to_rank_by(metrics)
    return ModelResult(
        name=loaded.name,
        metrics={**values, "ms_per_image": _milliseconds(seconds)},
        health={name.removeprefix("health/"): value for name, value in health.compute().items()},
        verdict=health.verdict(),
        provenance=provenance,
        recipe=loaded.config,
        ranked_by=ranked_by,
        scenes=tuple(example_scenes(loaded, source, scores)) if examples else (),
        curves=curves,
        located=_located(metrics["object_locations"], object_names(source)),
    )


def _holds(out: Path, identity: dict[str, Any]) -> bool:
    """Whether `out` holds the same evaluation, which may be replaced."""
    try:
        known = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        return bool(_identity(known["provenance"]) == json.loads(json.dumps(identity, default=str)))
    except (OSError, ValueError, KeyError, TypeError):  # missing, damaged or of another program
        return False


def draw_curves(metrics_csv: Path) -> Curves | None:
    """The curves of a training, for light and dark pages; None where nothing was measured yet.

    Raises:
        DataError: see `read_curves`.
    """
    if not read_curves(metrics_csv)[0]:
        return None
    alt = "Losses and validation metrics of the training, each against step and wall-clock."
    return light_and_dark(partial(curves_figure, metrics_csv), alt)


def _located(metric: Metric, names: Sequence[str]) -> dict[str, LocatedObject]:
    """How often each object was located, by its name; empty without names or locations."""
    assert isinstance(metric, ObjectLocations)
    return {names[found.label - 1]: found for found in metric.by_label()} if names else {}


def _identity(provenance: dict[str, Any]) -> dict[str, Any]:
    """What makes two evaluations the same: weights, data and the number of scenes."""
    return {"weights": provenance["weights"], "data": provenance["data"]}


def _provenance(
    loaded: LoadedModel, *, description_of_data: dict[str, Any], count: int, batch_size: int
) -> dict[str, dict[str, Any]]:
    device = next(loaded.model.parameters()).device
    setting = loaded.config.get("trainer", {}).get("precision", "auto")
    computed = {
        "recipe": loaded.name,
        "device": str(device),
        "precision": "bfloat16 (autocast)" if use_bfloat16(setting, device) else "float32",
        "batch_size": batch_size,
    }
    return {
        "evaluation": {**computed, **describe_machine()},
        "data": {**description_of_data, "scenes": count},
        "weights": dict(loaded.provenance),
    }


def _milliseconds(seconds: list[tuple[int, float]]) -> float:
    """Median milliseconds an image, over the full batches; without the first one, a warm-up, where there are others."""
    full = [taken for taken in seconds if taken[0] == seconds[0][0]]
    timed = full[1:] or full
    return median(1000 * taken / images for images, taken in timed)
