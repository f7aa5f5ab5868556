"""The papers' figures, drawn from the ledger and from the weights of its trainings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unscene.evaluation.ledger import scored_entries, stage_checkpoint
from unscene.evaluation.paper_tables import PaperRow, PaperTable
from unscene.evaluation.scenes import read_scenes, test_source
from unscene.report.curves import png_bytes, score_figure
from unscene.report.figures import INK, comparison_rows, rows_png, scene_rows
from unscene.report.table import description_of
from unscene.runs.loading import load
from unscene.runs.run_folder import RunFolder

SCENES = 6  # of a figure, the first ones of the test


def draw_figure(results: Path, runs: Path, table: PaperTable) -> bytes | None:
    """The figure of a table as a PNG file, from the ledger in `results` and the weights in `runs`.

    `table.figure` is its kind: `curves` (the score against images and against time), `scenes` (segmentations by every
    row and stage), `slots` (every slot of the first row's model). None if the table has no figure or no training yet.
    """
    if table.figure == "curves":
        return _curves(results, table)
    models = {
        name: load(weights)
        for row in table.rows.values()
        for name, weights in _weights(runs, row).items()
        if table.figure and scored_entries(results, row)
    }
    if not models:
        return None
    first = next(iter(models.values()))
    source, _ = test_source(first, None, {})
    scene = read_scenes(source, range(min(SCENES, len(source))), first.size)
    if table.figure == "scenes":
        found = {name: model.decompose(scene.images) for name, model in models.items()}
        return rows_png(comparison_rows(scene, found))
    decomposition = first.decompose(scene.images)
    return rows_png([row for index in range(len(scene)) for row in scene_rows(scene, decomposition, index)])


def _curves(results: Path, table: PaperTable) -> bytes | None:
    metric = table.metrics[0]
    images: dict[str, list[NDArray]] = {}
    minutes: dict[str, list[NDArray]] = {}
    for row in table.rows.values():
        for entry in scored_entries(results, row):
            curve = entry["curve"]
            if curve.get("step") and metric in curve:
                seen = np.array(curve["step"]) * entry["images"] / max(1, entry["steps"]) / 1000
                scores = np.array(curve[metric], np.float64)  # NaN where a validation has none
                images.setdefault(row.title, []).append(np.stack([seen, scores], axis=1))
                minutes.setdefault(row.title, []).append(np.stack([curve["minutes"], scores], axis=1))
    if not images:
        return None
    panels = {"thousand images": images, "minutes of training": minutes}
    return png_bytes(score_figure(panels, f"validation: {description_of(metric).label}", INK))


def _weights(runs: Path, row: PaperRow) -> dict[str, Path]:
    """The weights of a row's first seed, and of its stages, by name; missing ones are left out."""
    run = RunFolder(runs.joinpath(*row.home, "seed-0"))
    if len(row.stages) > 1:
        stages = {f"{share:.1%} of the training": stage_checkpoint(run, n) for n, share in enumerate(row.stages, 1)}
        return {name: path for name, path in stages.items() if path.is_file()}
    return {row.title: run.weights} if run.weights.is_file() else {}
