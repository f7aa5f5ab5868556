"""Compare trained models: all scored on the same scenes, timed side by side, in one table and on one page.

compare.json   every number and where it comes from
compare.csv    the table
index.html     the page
scenes.png     some scenes as every model sees them
curves.png     the validations of the trainings against their wall-clock, where there are any
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from unscene.data import Source
from unscene.errors import DataError
from unscene.evaluation.evaluate import json_text, measure
from unscene.evaluation.example_scenes import read_scenes
from unscene.evaluation.speed import interleaved_timings
from unscene.files import output_folder, write_bytes, write_text
from unscene.report.comparison_figure import scenes_png
from unscene.report.curves import light_and_dark, time_unit
from unscene.report.metric_descriptions import description_of
from unscene.report.page import first_unique, page_text, scenes_in_words
from unscene.report.results import Curves, ModelResult, Picture
from unscene.report.score_curves import score_figure
from unscene.report.table import Row, Table
from unscene.runs.metrics_csv import TrainingRecord, read_training
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

SCHEMA = 1  # of compare.json; raised whenever a name in it changes its meaning

_FILES = ("compare.json", "compare.csv", "index.html", "scenes.png", "curves.png")
_MOST_SHOWN = 24  # scenes in the figure
_MAY_DIFFER = ("count", "seed", "first")  # settings that make no other kind of data
_COLUMNS = (
    *("parameters", "training_steps", "training_minutes", "training_images_per_second", "images_per_second"),
    *("ari_fg", "map_50_95", "map_50", "map_75", "mask_iou", "reconstruction_mse"),
)
_FOOTNOTE = (
    "★ the best of its column, as far as digits are shown; what was spent (parameters, steps, minutes) has none, nor "
    "have speeds of trainings on different machines. - does not apply, or is not known (weights without their run's "
    "folder). Training: the whole of it, by the run's log; the weights that are scored may be of an earlier step. "
    "Decomposing: on the same {images} images at once, the models taking turns for {rounds} rounds, median."
)

Models: TypeAlias = "Mapping[str, LoadedModel]"  # by the name that each has in the comparison


@dataclass(frozen=True)
class Comparison:
    """Models that were scored on the same scenes.

    Attributes:
        table: a row for each model, in the order in which they were named.
        results: their evaluations, under the names of the table.
        seconds: that each round took each model to decompose the same images.
        images: the number of those images.
        scenes: the figure of some scenes, see `unscene.report.comparison_figure`.
        curves: of the validations, where there is a run with any.
    """

    table: Table
    results: tuple[ModelResult, ...]
    seconds: tuple[tuple[float, ...], ...]
    images: int
    scenes: Picture
    curves: Curves | None

    def as_json(self) -> dict[str, Any]:
        """What compare.json holds; pictures are left out."""
        models = [
            row.as_json()
            | {"decomposing": {"images": self.images, "seconds": list(seconds)}, "evaluation": result.as_json()}
            for row, seconds, result in zip(self.table.rows, self.seconds, self.results, strict=True)
        ]
        data = self.results[0].provenance["data"]
        return {"schema": SCHEMA, "data": data, "notes": list(self.table.notes), "models": models}


def compare(
    models: Models,
    source: Source,
    out: Path,
    *,
    description_of_data: dict[str, Any],
    batch_size: int = 32,
    shown: int = 6,
    progress: bool = True,
    overwrite: bool = False,
) -> Comparison:
    """Compare models on all scenes of a source, and write the files above.

    Args:
        models: by name, at least one, of one image size.
        source: of the test scenes, of that size.
        out: folder of the files; made if need be. They appear in it at the end, at once.
        description_of_data: name, seed and settings of the source, ready for JSON.
        batch_size: scenes at once; the speed is measured for it.
        shown: how many scenes, the first ones, are drawn.
        progress: show bars on stderr.
        overwrite: replace what another comparison left in `out`.

    Returns:
        The comparison; compare.json holds its `as_json()`.

    Raises:
        RunError: `out` holds files of these names, or cannot be written.
        DataError: models or scenes of different sizes, no scene, or a damaged metrics.csv.
    """
    _check_sizes(models)
    if not 1 <= shown <= _MOST_SHOWN:
        raise DataError(f"the scenes that are drawn must be from 1 to {_MOST_SHOWN}, not {shown}.")
    trainings = {name: read_training(model.run) if model.run else None for name, model in models.items()}
    with output_folder(out, _FILES, overwrite) as folder:
        how: dict[str, Any] = {"batch_size": batch_size, "description_of_data": description_of_data}
        scored = [
            measure(model, source, count=len(source), progress=progress, examples=False, **how)
            for model in models.values()
        ]
        images = _first_scenes(models, source, min(batch_size, len(source))).images
        seconds = interleaved_timings(list(models.values()), images)
        speeds = [len(images) / median(rounds) for rounds in seconds]
        results = tuple(map(_side_by_side, models, scored, speeds, trainings.values()))
        rows = tuple(map(_row, models.values(), results, speeds, trainings.values()))
        comparison = Comparison(
            _table(rows, trainings, _notes(models, description_of_data)),
            results,
            tuple(map(tuple, seconds)),
            len(images),
            scenes=draw_scenes(models, source, min(shown, len(source))),
            curves=_draw_curves(trainings),
        )
        _write(comparison, folder)
    return comparison


def _check_sizes(models: Models) -> None:
    """Raise DataError unless the models take images of one size."""
    first, *others = models
    for name in others:
        if models[name].size != models[first].size:
            here, there = models[name].size, models[first].size
            raise DataError(
                f"{name} takes images of {here} x {here} pixels, but {first} of {there} x {there}. The same scenes are "
                "for models of one size only: compare those of each size by themselves."
            )


def unique_names(words: Sequence[str], models: Sequence[LoadedModel]) -> list[str]:
    """A name for each model, as short as tells all apart.

    Args:
        words: by which they were loaded.
        models: as many.

    Returns:
        The names of the runs' folders, or with the folders above them, or the words, the first of these that are all
        different; the word for weights without a run. A word that stands there twice is numbered.
    """
    runs = [model.run.path.resolve() if model.run else None for model in models]
    named = list(zip(words, runs, strict=True))
    short = [run.name if run else word for word, run in named]
    longer = [f"{run.parent.name}/{run.name}" if run else word for word, run in named]
    return first_unique(short, longer, words)


def _side_by_side(name: str, result: ModelResult, speed: float, training: TrainingRecord | None) -> ModelResult:
    """An evaluation under the name of this comparison, with the time that was measured beside the others'."""
    known: dict[str, Any] = {}
    if training:
        minutes = round(training.minutes, 2)
        known = {"training": {"steps": training.steps, "minutes": minutes, "machine": training.machine}}
    return replace(
        result,
        name=name,
        metrics=result.metrics | {"ms_per_image": 1000 / speed},
        provenance=result.provenance | known,
    )


def _row(model: LoadedModel, result: ModelResult, speed: float, training: TrainingRecord | None) -> Row:
    step = result.provenance["weights"].get("step")
    spent: dict[str, Any] = {"parameters": sum(parameter.numel() for parameter in model.model.parameters())}
    for name in ("steps", "minutes", "images_per_second"):
        spent[f"training_{name}"] = getattr(training, name, None)
    details = [model.name] if model.name != result.name else []
    details += [f"weights of step {step:,}"] if isinstance(step, int) else []
    return Row(
        result.name,
        {**spent, "images_per_second": speed, **result.metrics},
        result.reported,
        facts={
            "recipe": model.name,
            "weights_step": step if isinstance(step, int) else None,
            "training_machine": training.machine if training else None,
        },
        details=(*details, result.verdict.partition(" (")[0].partition(":")[0]),
    )


def _table(rows: tuple[Row, ...], trainings: Mapping[str, TrainingRecord | None], notes: tuple[str, ...]) -> Table:
    """The columns above, and any other score that a paper of one of the models reports.

    Speeds of trainings on different machines say nothing of the models: none is the best.
    """
    machines = {training.machine for training in trainings.values() if training}
    unranked = frozenset() if len(machines) == 1 and "" not in machines else frozenset(["training_images_per_second"])
    reported = [name for row in rows for name in row.paper]
    return Table("model", tuple(dict.fromkeys([*_COLUMNS, *reported])), rows, unranked, notes)


def _first_scenes(models: Models, source: Source, count: int) -> Scene:
    return read_scenes(source, range(count), next(iter(models.values())).size)


def draw_scenes(models: Models, source: Source, count: int) -> Picture:
    """The first scenes of a source as every model sees them, see `unscene.report.comparison_figure`."""
    scene = _first_scenes(models, source, count)
    found = {name: model.decompose(scene.images) for name, model in models.items()}
    rows = "images, " + ("their true segmentation, " if scene.labels is not None else "")
    alt = f"{count} scenes, a column each. Rows: {rows}then segmentation and reconstruction by {', '.join(models)}."
    columns = "Scene 0" if count == 1 else f"Scenes 0 to {count - 1}"
    return Picture(scenes_png(scene, found), alt, f"{columns} of the data, from which they can be drawn again.")


def _draw_curves(trainings: Mapping[str, TrainingRecord | None]) -> Curves | None:
    validations = {name: training.validation for name, training in trainings.items() if training}
    validations = {name: points for name, points in validations.items() if len(points)}
    if not validations:
        return None
    divisor, unit = time_unit(max(float(points[:, 0].max()) for points in validations.values()))
    panel = {name: [points / [divisor, 1]] for name, points in validations.items()}
    score = f"validation: {description_of('ari_fg').label}"
    alt = f"Foreground ARI of the validations against the time of training, of {', '.join(validations)}."
    return light_and_dark(partial(score_figure, {f"{unit} of training": panel}, score), alt)


def _notes(models: Models, scored: Mapping[str, Any]) -> tuple[str, ...]:
    """What models were trained on, where that is not what the first one was, or where it is what they are scored on."""
    (first, model), *others = models.items()
    reference = model.config["data"]
    notes = [
        f"{name} was trained on scenes that it is scored on here: its scores say little of others. Another --data.seed "
        "or file draws fresh ones."
        for name, trained in models.items()
        if _overlap(trained.config["data"], scored)
    ]
    for name, other in others:
        data = other.config["data"]
        if data["name"] != reference["name"]:
            notes.append(f"{name} was trained on {data['name']}, {first} on {reference['name']}.")
            continue
        differing = [key for key in data if key not in _MAY_DIFFER and data[key] != reference.get(key)]
        if differing:
            changed = ", ".join(f"{key} {data[key]} instead of {reference.get(key)}" for key in differing)
            notes.append(f"{name} was trained on other data than {first}: {changed}.")
    return tuple(notes)


def _overlap(trained: Mapping[str, Any], scored: Mapping[str, Any]) -> bool:
    """Whether a recipe's training scenes are, in part, those of the description of the scored ones."""
    kind = {key: value for key, value in trained.items() if key not in ("name", "count", "first")}
    both = trained.keys() & scored.keys()
    if trained["name"] != scored.get("source") or "count" not in both or not both & {"seed", "path"}:
        return False
    first, other = trained.get("first", 0), scored.get("first", 0)
    return (
        all(scored.get(key, value) == value for key, value in kind.items())
        and first < other + scored["count"]
        and other < first + trained["count"]
    )


def _write(comparison: Comparison, folder: Path) -> None:
    names = [row.name for row in comparison.table.rows]
    page = page_text(
        "table.html.j2",
        f"{' and '.join(names) if len(names) < 3 else f'{len(names)} models'}: comparison",
        comparison.results,
        heading="Side by side",
        intro=f"All scored on the same {scenes_in_words(comparison.results[0].provenance['data'])}.",
        table=comparison.table,
        footnote=_FOOTNOTE.format(images=comparison.images, rounds=len(comparison.seconds[0])),
        curves=comparison.curves,
        pictures=[("", comparison.scenes)],
    )
    write_text(folder / "compare.json", json_text(comparison.as_json()))
    write_text(folder / "compare.csv", comparison.table.csv())
    write_text(folder / "index.html", page)
    write_bytes(folder / "scenes.png", comparison.scenes.data)
    if comparison.curves:
        write_bytes(folder / "curves.png", comparison.curves.light)
