"""Compare trained models: all scored on the same scenes, timed side by side, in one table and on one page.

compare.json   every number and where it comes from
compare.csv    the table
index.html     the page
scenes.png     some scenes as every model sees them
curves.png     the validations of the trainings against their wall-clock, where there are any
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from unscene.data import Source
from unscene.errors import DataError
from unscene.evaluation.evaluate import measure
from unscene.evaluation.example_scenes import read_scenes
from unscene.evaluation.speed import seconds_by_turns
from unscene.files import output_folder, write_bytes, write_text
from unscene.report.comparison import ComparedModel, Comparison
from unscene.report.comparison_figure import scenes_png
from unscene.report.comparison_table import comparison_table, table_csv
from unscene.report.curves import light_and_dark
from unscene.report.page import page_text, scenes_in_words
from unscene.report.results import Curves, ModelResult, Picture
from unscene.report.validation_curves import validation_figure
from unscene.runs.training_record import TrainingRecord, read_training
from unscene.scene import Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_FILES = ("compare.json", "compare.csv", "index.html", "scenes.png", "curves.png")
_MOST_SHOWN = 24  # scenes in the figure
_MAY_DIFFER = ("count", "seed", "first")  # settings that make no other kind of data

Models: TypeAlias = "Mapping[str, LoadedModel]"  # by the name that each has in the comparison


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
        compared = _measured(models, source, trainings, description_of_data, batch_size, progress)
        comparison = Comparison(
            models=compared,
            data=compared[0].result.provenance["data"],
            scenes=draw_scenes(models, source, min(shown, len(source))),
            curves=_draw_curves(trainings),
            notes=_notes(models, description_of_data),
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


def names_told_apart(words: Sequence[str], models: Sequence[LoadedModel]) -> list[str]:
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
    names = next((each for each in (short, longer) if len(set(each)) == len(each)), list(words))
    met: Counter[str] = Counter()
    told_apart = []
    for name in names:
        met[name] += 1
        told_apart.append(f"{name} [{met[name]}]" if names.count(name) > 1 else name)
    return told_apart


def _measured(
    models: Models,
    source: Source,
    trainings: Mapping[str, TrainingRecord | None],
    data: dict[str, Any],
    batch_size: int,
    progress: bool,
) -> tuple[ComparedModel, ...]:
    """Score one model after the other, then time them side by side."""
    scored = [
        measure(
            model,
            source,
            count=len(source),
            batch_size=batch_size,
            description_of_data=data,
            progress=progress,
            examples=False,
        )
        for model in models.values()
    ]
    images = _first_scenes(models, source, min(batch_size, len(source))).images
    seconds = seconds_by_turns(list(models.values()), images)
    return tuple(
        ComparedModel(
            result=_side_by_side(result, name, 1000 * median(taken) / len(images), trainings[name]),
            recipe=model.name,
            parameters=sum(parameter.numel() for parameter in model.model.parameters()),
            training=trainings[name],
            seconds=tuple(taken),
            images=len(images),
        )
        for (name, model), result, taken in zip(models.items(), scored, seconds, strict=True)
    )


def _side_by_side(result: ModelResult, name: str, milliseconds: float, training: TrainingRecord | None) -> ModelResult:
    """An evaluation under the name of this comparison, with the time that was measured beside the others'."""
    known: dict[str, Any] = {}
    if training:
        known = {"steps": training.steps, "minutes": round(training.minutes, 2), "machine": training.machine}
    return replace(
        result,
        name=name,
        metrics=result.metrics | {"ms_per_image": milliseconds},
        provenance=result.provenance | ({"training": known} if known else {}),
    )


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
    validated = {name: each for name, each in trainings.items() if each and len(each.validation)}
    if not validated:
        return None
    alt = f"Foreground ARI of the validations against the time of training, of {', '.join(validated)}."
    return light_and_dark(partial(validation_figure, validated), alt)


def _notes(models: Models, scored: Mapping[str, Any]) -> tuple[str, ...]:
    """What models were trained on, where that is not what the first one was, or where it is what they are scored on."""
    (first, model), *others = models.items()
    reference = model.config["data"]
    notes = [
        f"{name} was trained on scenes that it is scored on here: its scores say little of others. Another --data.seed "
        "or file draws fresh ones."
        for name, each in models.items()
        if _overlap(each.config["data"], scored)
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
    results = [model.result for model in comparison.models]
    names = [result.name for result in results]
    page = page_text(
        "compare.html.j2",
        f"{' and '.join(names) if len(names) < 3 else f'{len(names)} models'}: comparison",
        results,
        comparison=comparison,
        columns=comparison_table(comparison),
        data=scenes_in_words(comparison.data),
    )
    text = json.dumps(comparison.as_json(), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    write_text(folder / "compare.json", text)
    write_text(folder / "compare.csv", table_csv(comparison))
    write_text(folder / "index.html", page)
    write_bytes(folder / "scenes.png", comparison.scenes.data)
    if comparison.curves:
        write_bytes(folder / "curves.png", comparison.curves.light)
