"""The papers' figures, drawn from the ledger and from the weights of its trainings."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unscene.evaluation.example_scenes import read_scenes
from unscene.evaluation.ledger import scored_entries, stage_checkpoint
from unscene.evaluation.paper_tables import PaperRow, PaperTable
from unscene.evaluation.test_data import test_source
from unscene.report.comparison_figure import scenes_png
from unscene.report.figures import INK, png_bytes, scene_figure
from unscene.report.metric_descriptions import description_of
from unscene.report.score_curves import score_figure
from unscene.runs.loading import LoadedModel, load
from unscene.runs.run_folder import RunFolder
from unscene.scene import Scene

SCENES = 6  # of a figure, the first ones of the test


def draw_figure(results: Path, runs: Path, table: PaperTable) -> bytes | None:
    """The figure of a table as a PNG file.

    Args:
        results: folder of the ledger.
        runs: folder of the trainings, whose weights see the scenes.
        table: whose `figure` says what is drawn: `curves` (the score against images and against time), `scenes`
            (segmentations by every row and stage), `slots` (every slot of the first row's model).

    Returns:
        The file; None where the table has no figure, or nothing is there to be drawn.
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
    scene = _first_scenes(next(iter(models.values())))
    if table.figure == "scenes":
        return scenes_png(scene, {name: model.decompose(scene.images) for name, model in models.items()})
    return _slots(next(iter(models.values())), scene)


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
    """The weights of a row's first seed, and of its stages, by name; those that are not there are left out."""
    run = RunFolder(runs.joinpath(*row.home, "seed-0"))
    if len(row.stages) > 1:
        stages = {f"{share:.1%} of the training": stage_checkpoint(run, n) for n, share in enumerate(row.stages, 1)}
        return {name: path for name, path in stages.items() if path.is_file()}
    return {row.title: run.weights} if run.weights.is_file() else {}


def _first_scenes(model: LoadedModel) -> Scene:
    source, _ = test_source(model, None, {})
    return read_scenes(source, range(min(SCENES, len(source))), model.size)


def _slots(model: LoadedModel, scene: Scene) -> bytes:
    """Every slot of the first scenes, below one another."""
    decomposition = model.decompose(scene.images)
    parts = [Image.open(io.BytesIO(png_bytes(scene_figure(scene, decomposition, i)))) for i in range(len(scene))]
    whole = Image.new("RGBA", (max(part.width for part in parts), sum(part.height for part in parts)))
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    file = io.BytesIO()
    whole.save(file, "PNG", optimize=True)
    return file.getvalue()
