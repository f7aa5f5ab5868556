"""Compare trained models: all scored on the same scenes, timed in turns, in one table and on one page.

compare.json   every number and its provenance
compare.csv    the table
index.html     the page
scenes.png     some scenes, segmented and reconstructed by every model
curves.png     the validations of the trainings against their wall-clock, where there are any
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

from torch import Tensor

from unscene.data import Source
from unscene.errors import DataError
from unscene.evaluation.evaluate import measure, write_side_by_side
from unscene.evaluation.scenes import draw_scenes, read_scenes
from unscene.files import output_folder, write_bytes, write_text
from unscene.report.curves import light_and_dark, score_figure, time_unit
from unscene.report.results import Curves, ModelResult, scenes_in_words
from unscene.report.table import Row, Table, description_of
from unscene.runs.loading import LoadedModel
from unscene.runs.metrics_csv import TrainingRecord, read_training

_FILES = ("compare.json", "compare.csv", "index.html", "scenes.png", "curves.png")
_MOST_SHOWN = 24  # scenes in the figure
_MAY_DIFFER = ("count", "seed", "first")  # settings that do not change the kind of data
_COLUMNS = (
    *("parameters", "training_steps", "training_minutes", "training_images_per_second", "images_per_second"),
    *("ari_fg", "map_50_95", "map_50", "map_75", "mask_iou", "reconstruction_mse"),
)
_ROUNDS, _FEWEST_ROUNDS = 15, 3
_SECONDS = 10.0  # for each model; then no further round begins

Models: TypeAlias = Mapping[str, LoadedModel]  # by their names in the comparison


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
) -> Table:
    """Compare models on all scenes of a source, and write the files above.

    The models have one image size, that of the source. The figure shows the first `shown` scenes. Another comparison in
    `out` is replaced with `overwrite` only (RunError). The other arguments are those of `measure`. DataError: models or
    scenes of different sizes, no scene, or a damaged metrics.csv.
    """
    if getattr(source, "own_size", False):
        raise DataError("models are compared on scenes of their size: name an HDF5 file, or evaluate each by itself.")
    first, size = next((name, model.size) for name, model in models.items())
    for name, model in models.items():
        if model.size != size:
            raise DataError(
                f"{name} takes images of {model.size} x {model.size} pixels, but {first} of {size} x {size}. "
                "Models are compared on the same scenes: compare those of each size separately."
            )
    if not 1 <= shown <= _MOST_SHOWN:
        raise DataError(f"the number of scenes in the figure must be from 1 to {_MOST_SHOWN}, not {shown}.")
    trainings = {name: read_training(model.run) if model.run else None for name, model in models.items()}
    with output_folder(out, _FILES, overwrite) as folder:
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "examples": False}
        how |= {"count": len(source), "description_of_data": description_of_data}
        scored = [replace(measure(model, source, **how), name=name) for name, model in models.items()]
        images = read_scenes(source, range(min(batch_size, len(source))), size).images
        seconds = interleaved_timings(list(models.values()), images)
        timings = [{"images": len(images), "seconds": rounds} for rounds in seconds]
        results = [*map(_with_times, scored, timings, trainings.values())]
        rows = tuple(map(_row, models.values(), results, trainings.values()))
        reported = [name for row in rows for name in row.paper]
        machines = {training.machine for training in trainings.values() if training}
        same_machine = len(machines) == 1 and "" not in machines
        data = results[0].provenance["data"]
        table = Table(
            "model",
            tuple(dict.fromkeys([*_COLUMNS, *reported])),
            rows,
            unranked=frozenset() if same_machine else frozenset(["training_images_per_second"]),
            notes=_notes(models, description_of_data),
            intro=f"All scored on the same {scenes_in_words(data)}.",
        )
        picture, curves = draw_scenes(models, source, min(shown, len(source))), _draw_curves(trainings)
        title = f"{' and '.join(models) if len(models) < 3 else f'{len(models)} models'}: comparison"
        page = {"pictures": [("", picture)], "curves": curves, "images": len(images), "rounds": len(seconds[0])}
        write_side_by_side(folder, "compare", title, table, results, {"data": data}, **page)
        write_text(folder / "compare.csv", table.csv())
        write_bytes(folder / "scenes.png", picture.data)
        if curves:
            write_bytes(folder / "curves.png", curves.light)
    return table


def interleaved_timings(models: Sequence[LoadedModel], images: Tensor) -> list[list[float]]:
    """The seconds that each model takes for images [B, 3, H, W] at once, one number for each round.

    The speed of a shared machine varies, so every round times all models in turns. A round of warm-up is not counted.
    """
    for model in models:
        model.decompose(images, batch_size=len(images))
    seconds: list[list[float]] = [[] for _ in models]
    until = perf_counter() + _SECONDS * len(models)
    while len(seconds[0]) < _ROUNDS and (len(seconds[0]) < _FEWEST_ROUNDS or perf_counter() < until):
        for model, rounds in zip(models, seconds, strict=True):
            began = perf_counter()
            model.decompose(images, batch_size=len(images))
            rounds.append(perf_counter() - began)
    return seconds


def unique_names(words: Sequence[str], models: Sequence[LoadedModel]) -> list[str]:
    """A short name for each model: its run's folder, with the folder above it if names are equal, or else its word.

    Weights without a run have the word by which they were loaded. A word that is repeated is numbered.
    """
    runs = [model.run.path.resolve() if model.run else None for model in models]
    named = list(zip(words, runs, strict=True))
    short = [run.name if run else word for word, run in named]
    longer = [f"{run.parent.name}/{run.name}" if run else word for word, run in named]
    for names in (short, longer):
        if len(set(names)) == len(names):
            return names
    return [f"{w} [{words[: i + 1].count(w)}]" if words.count(w) > 1 else w for i, w in enumerate(words)]


def _with_times(result: ModelResult, timing: dict[str, Any], training: TrainingRecord | None) -> ModelResult:
    """An evaluation with the time measured in turns, and the training."""
    known = {"decomposing": timing}
    if training:
        minutes = round(training.minutes, 2)
        known["training"] = {"steps": training.steps, "minutes": minutes, "machine": training.machine}
    metrics = result.metrics | {"ms_per_image": 1000 * median(timing["seconds"]) / timing["images"]}
    return replace(result, metrics=metrics, provenance=result.provenance | known)


def _row(model: LoadedModel, result: ModelResult, training: TrainingRecord | None) -> Row:
    step = model.provenance.get("step")
    trained = {f"training_{name}": getattr(training, name, None) for name in ("steps", "minutes", "images_per_second")}
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    speeds = {"parameters": parameters, **trained, "images_per_second": 1000 / (result.metrics["ms_per_image"] or 1)}
    details = [model.name] if model.name != result.name else []
    details += [f"weights of step {step:,}"] if step is not None else []
    details += [result.verdict.partition(" (")[0].partition(":")[0]]
    facts = {"recipe": model.name, "weights_step": step, "training_machine": getattr(training, "machine", None)}
    return Row(result.name, {**speeds, **result.metrics}, result.reported, facts=facts, details=tuple(details))


def _draw_curves(trainings: Mapping[str, TrainingRecord | None]) -> Curves | None:
    validations = {name: training.validation for name, training in trainings.items() if training}
    validations = {name: points for name, points in validations.items() if len(points)}
    if not validations:
        return None
    divisor, unit = time_unit(max(float(points[:, 0].max()) for points in validations.values()))
    panels = {f"{unit} of training": {name: [points / [divisor, 1]] for name, points in validations.items()}}
    alt = f"Foreground ARI of the validations against the time of training, of {', '.join(validations)}."
    return light_and_dark(partial(score_figure, panels, f"validation: {description_of('ari_fg').label}"), alt)


def _notes(models: Models, scored: Mapping[str, Any]) -> tuple[str, ...]:
    """Which models were trained on other data than the first one, and which on the scenes that are scored."""
    (first, model), *others = models.items()
    reference = model.config["data"]
    notes = [
        f"{name} was trained on scenes that it is scored on here: its scores say little about other scenes. Choose "
        "another --data.seed or file for fresh ones."
        for name, trained in models.items()
        if _overlap(trained.config["data"], scored)
    ]
    for name, other in others:
        data = other.config["data"]
        differing = [key for key in data if key not in _MAY_DIFFER and data[key] != reference.get(key)]
        changed = ", ".join(f"{key} {data[key]} instead of {reference.get(key)}" for key in differing)
        if data["name"] != reference["name"]:
            notes.append(f"{name} was trained on {data['name']}, {first} on {reference['name']}.")
        elif differing:
            notes.append(f"{name} was trained on other data than {first}: {changed}.")
    return tuple(notes)


def _overlap(trained: Mapping[str, Any], scored: Mapping[str, Any]) -> bool:
    """Whether some of a recipe's training scenes are among the scored scenes of a description."""
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
