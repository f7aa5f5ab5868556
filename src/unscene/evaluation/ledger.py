"""The ledger: one small JSON file for each training of a paper's row, the means over their seeds, and their figures.

RESULTS/TABLE/ROW/seed-N.json   one training: its recipe, commit, hardware, length, curve, health and scores
RESULTS/summary.json            all rows: mean and standard deviation over the seeds, beside the paper's numbers
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError
from unscene.evaluation.paper_tables import PaperRow, PaperTable
from unscene.evaluation.scenes import read_scenes, test_source
from unscene.files import write_text, writing
from unscene.report.curves import png_bytes, score_figure
from unscene.report.figures import INK, comparison_rows, rows_png, scene_rows
from unscene.report.table import Row, Table, description_of
from unscene.runs.loading import load
from unscene.runs.run_folder import RunFolder

_NEEDED = {
    "seed",
    "recipe",
    "commits",
    "steps",
    "images",
    "minutes",
    "planned_minutes",
    "curve",
    "collapsed",
    "metrics",
}
SCHEMA = 1  # of the entries; raised whenever a name in them changes its meaning
_SCENES = 6  # of a figure, the first ones of the test


def entry_path(results: Path, row: PaperRow, seed: int) -> Path:
    return results.joinpath(*row.home, f"seed-{seed}.json")


def stage_checkpoint(run: RunFolder, number: int) -> Path:
    """The file of the checkpoint of a stage, from 1."""
    return run.checkpoints / f"stage-{number}.ckpt"


def read_entry(path: Path) -> dict[str, Any] | None:
    """An entry, or None without a file; DataError for a damaged file."""
    if not path.is_file():
        return None
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}). Remove it; the same command writes it again.") from None
    if not isinstance(entry, dict) or entry.get("schema") != SCHEMA:
        raise DataError(f"{path} is not an entry of schema {SCHEMA}. Remove it; the same command writes it again.")
    missing = sorted(_NEEDED - entry.keys())
    if missing or path.name != f"seed-{entry['seed']}.json":
        wrong = f"has no '{missing[0]}'" if missing else f"holds an entry of seed {entry['seed']}"
        raise DataError(f"{path} {wrong}. Remove it; the same command writes it again.")
    return entry


def write_entry(path: Path, entry: Mapping[str, Any]) -> None:
    write_json(path, {"schema": SCHEMA, **entry})


def write_json(path: Path, content: Any) -> None:
    """Write a file of the ledger, whole or not at all."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def scored_entries(results: Path, row: PaperRow) -> list[dict[str, Any]]:
    """The finished trainings of a row, those that failed included, by seed."""
    paths = sorted(results.joinpath(*row.home).glob("seed-*.json"), key=lambda path: (len(path.name), path.name))
    entries = [entry for path in paths if (entry := read_entry(path))]
    return [entry for entry in entries if entry["metrics"] or entry.get("failed")]


def mean_metrics(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Mean and standard deviation (of the sample; None for one value) of every metric that applies."""
    values: dict[str, list[float]] = {}
    for entry in entries:
        for name, value in entry["metrics"].items():
            values.setdefault(name, []).extend([] if value is None else [value])
    spread = {name: stdev(numbers) if len(numbers) > 1 else None for name, numbers in values.items()}
    return {name: {"mean": fmean(numbers), "sd": spread[name]} for name, numbers in values.items() if numbers}


def summary(results: Path, tables: Iterable[PaperTable]) -> list[dict[str, Any]]:
    """Every row that has a finished training, ready for JSON."""
    return [
        {
            "table": table.name,
            "row": name,
            "data": row.data,
            "recipe": ", ".join(sorted({entry["recipe"]["name"] for entry in entries})),
            "seeds": [entry["seed"] for entry in entries],
            "collapsed": sum(entry["collapsed"] for entry in entries),
            "minutes": fmean(entry["minutes"] for entry in entries),
            "steps": fmean(entry["steps"] for entry in entries),
            "commits": sorted({commit for entry in entries for commit in entry["commits"]}),
            "metrics": mean_metrics(entries),
            "paper": row.paper,
        }
        for table in tables
        for name, row in table.rows.items()
        if (entries := scored_entries(results, row))
    ]


def results_table(results: Path, table: PaperTable) -> Table:
    """The means over the seeds, a row for each of the paper's and, where a training has stages, for each stage."""
    rows: list[Row] = []
    several = len({row.data for row in table.rows.values()}) > 1
    for row in table.rows.values():
        name = f"{row.title}, {row.data}" if several else row.title
        entries = scored_entries(results, row)
        for number in range(len(row.stages) - 1):
            stages = [entry["stages"][number] for entry in entries if len(entry.get("stages", [])) > number]
            if stages:
                steps = round(fmean(stage["step"] for stage in stages))
                rows.append(_row(f"{name}, step {steps:,}", stages, {}))
        share = fmean([entry["steps"] / entry["recipe"]["trainer"]["max_steps"] for entry in entries] or [1])
        name = name if share > 0.95 else f"{name} ({share:.0%} of its steps)"
        rows.append(_row(name, entries, row.paper))
    columns = ("seeds", "share_decomposing", "training_minutes", *table.metrics)
    note = (
        f"{table.title}: mean ± standard deviation over the seeds, collapsed trainings included, failed ones not; "
        "foreground ARI of all K slots, and of the objects' slots alone (ARI objects)."
    )
    return Table("row", columns, tuple(rows), unranked=frozenset(columns), notes=(note,))


def _row(name: str, entries: list[dict[str, Any]], paper: Mapping[str, float]) -> Row:
    values: dict[str, Any] = {"seeds": len(entries) or None}
    if entries:
        values["share_decomposing"] = fmean(not entry["collapsed"] for entry in entries)
        values["training_minutes"] = fmean(entry["minutes"] for entry in entries)
    metrics = mean_metrics(entries)
    means = {metric: value["mean"] for metric, value in metrics.items()}
    deviations = {metric: value["sd"] for metric, value in metrics.items() if value["sd"] is not None}
    return Row(name, values | means, paper, deviations)


def draw_figure(results: Path, runs: Path, table: PaperTable) -> bytes | None:
    """The figure of a table as a PNG file, from the ledger in `results` and the weights in `runs`; None without any.

    `table.figure` is its kind: `curves` (the score against images and against time), `scenes` (segmentations by every
    row and stage), `slots` (every slot of the first row's model).
    """
    if table.figure == "curves":
        return _curves(results, table)
    models = {
        name: load(weights).with_settings({"masks": masks} if (masks := entry["recipe"]["model"].get("masks")) else {})
        for row in table.rows.values()
        for entry in scored_entries(results, row)[:1]
        for name, weights in _weights(runs, row, entry).items()
        if table.figure
    }
    if not models:
        return None
    first = next(iter(models.values()))
    source, _ = test_source(first, None, {}, trusted=True)
    scene = read_scenes(source, range(min(_SCENES, len(source))), first.size)
    if table.figure == "scenes":
        return rows_png(comparison_rows(scene, {name: model.decompose(scene.images) for name, model in models.items()}))
    decomposition = first.decompose(scene.images)
    return rows_png([row for index in range(len(scene)) for row in scene_rows(scene, decomposition, index)])


def _curves(results: Path, table: PaperTable) -> bytes | None:
    metric = table.metrics[0]
    panels: dict[str, dict[str, list[NDArray]]] = {"thousand images": {}, "minutes of training": {}}
    for row in table.rows.values():
        for entry in scored_entries(results, row):
            curve = entry["curve"]
            if curve.get("step") and metric in curve:
                images = np.array(curve["step"]) * entry["images"] / max(1, entry["steps"]) / 1000
                scores = np.array(curve[metric], np.float64)  # NaN where a validation has none
                for panel, x in zip(panels.values(), (images, curve["minutes"]), strict=True):
                    panel.setdefault(row.title, []).append(np.stack([x, scores], axis=1))
    if not all(panels.values()):
        return None
    return png_bytes(score_figure(panels, f"validation: {description_of(metric).label}", INK))


def _weights(runs: Path, row: PaperRow, entry: Mapping[str, Any]) -> dict[str, Path]:
    """The weights of a row's training, and of its stages, by name; missing ones are left out."""
    run = RunFolder(runs.joinpath(*row.home, entry.get("run", f"seed-{entry['seed']}")))
    weights = {row.title: run.weights}
    if len(row.stages) > 1:
        weights = {f"{share:.1%} of the training": stage_checkpoint(run, n) for n, share in enumerate(row.stages, 1)}
    return {name: path for name, path in weights.items() if path.is_file()}
