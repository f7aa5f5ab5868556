"""Evaluate a model on shifted test sets: scenes of another kind than those that it was trained on.

The test set as it is, then each shift of it, on equally many scenes; one table.

shifts.json    every number and where it comes from
index.html     the page: the table, and the first scenes of each test set as the model sees them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unscene.data import SOURCES, shifts_of
from unscene.errors import RecipeError, did_you_mean
from unscene.evaluation.compare import draw_scenes
from unscene.evaluation.evaluate import json_text, measure
from unscene.evaluation.test_data import test_source
from unscene.files import output_folder, write_text
from unscene.report.page import page_text, scenes_in_words
from unscene.report.results import ModelResult, Picture
from unscene.report.table import Row, Table

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

SCHEMA = 1  # of shifts.json; raised whenever a name in it changes its meaning
NONE = "none"  # the name of the test set without a shift

_FILES = ("shifts.json", "index.html")
_COLUMNS = ("slots", "ari_fg", "ari_fg_change", "map_50", "mask_iou", "reconstruction_mse")
_PAGE: dict[str, Any] = {
    "heading": "Shift by shift",
    "footnote": "ARI change: less the ARI without a shift. - does not apply.",
}
_SHOWN = 6  # scenes of each test set on the page, the first ones

Shifts = Mapping[str, Mapping[str, Any]]  # changes of the data's settings, by the shift's name


@dataclass(frozen=True)
class ShiftedEvaluation:
    """A model on its test set, and on shifted ones.

    Attributes:
        name: of the model's recipe.
        table: a row for each test set, `NONE` first.
        results: the evaluations, under the names of the table.
        scenes: the first scenes of each, see `unscene.report.comparison_figure`.
    """

    name: str
    table: Table
    results: tuple[ModelResult, ...]
    scenes: tuple[Picture, ...]

    @property
    def scored(self) -> str:
        """Which scenes were scored, in words."""
        return f"{scenes_in_words(self.results[0].provenance['data'])}; and as many of each shift"

    def as_json(self) -> dict[str, Any]:
        """What shifts.json holds; pictures are left out."""
        rows = [
            {"shift": row.name, **row.as_json(), "evaluation": result.as_json()}
            for row, result in zip(self.table.rows, self.results, strict=True)
        ]
        return {"schema": SCHEMA, "name": self.name, "shifts": rows}


def chosen_shifts(loaded: LoadedModel, word: str) -> dict[str, Mapping[str, Any]]:
    """Return the shifts of the model's test set that a word names.

    Args:
        loaded: the model, whose recipe names the source of its scenes.
        word: `all`, or names with commas between them.

    Raises:
        RecipeError: the source has no shifts, or none of that name, or `all` stands beside names.
    """
    source = loaded.config["data"]["name"]
    known = shifts_of(source)
    if not known:
        drawing = " or ".join(name for name in SOURCES if shifts_of(name))
        raise RecipeError(
            f"shifts are drawn, but the test scenes of '{loaded.name}' are of {source}, which has none. Draw shifted "
            f"scenes into a file, `unscene generate SOURCE --data.size {loaded.size} --data.crop 0.667 --count 320 "
            f"--out FILE.h5` for instance, where SOURCE is {drawing}, and score them with --data FILE.h5."
        )
    names = list(known) if word.strip() == "all" else [name.strip() for name in word.split(",")]
    if "all" in names:
        raise RecipeError(f"'all' stands alone: --shift all for every shift of {source}, or --shift with their names.")
    for name in names:
        if name not in known:
            raise RecipeError(
                f"{source} has no shift '{name}', only {', '.join(known)}, or all of them: --shift all."
                f"{did_you_mean(name, known)}"
            )
    return {name: known[name] for name in names}


def evaluate_shifts(
    loaded: LoadedModel,
    shifts: Shifts,
    out: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    progress: bool = True,
    overwrite: bool = False,
) -> ShiftedEvaluation:
    """Evaluate a model on its test set and on shifts of it, and write the files above.

    Args:
        loaded: the model.
        shifts: see `chosen_shifts`.
        out: folder of the files; made if need be. They appear in it at the end, at once.
        changes: of the settings of the data in every test set, by name; a shift's own go before them.
        batch_size: scenes at once.
        progress: show bars on stderr.
        overwrite: replace what another evaluation under shifts left in `out`.

    Returns:
        The evaluation; shifts.json holds its `as_json()`.

    Raises:
        RunError: `out` holds files of these names, or cannot be written.
        RecipeError: a setting that the source does not have.
        DataError: no scene, or scenes of another size than the model's.
    """
    sets = {
        name: test_source(loaded, None, {**(changes or {}), **shift}) for name, shift in {NONE: {}, **shifts}.items()
    }
    with output_folder(out, _FILES, overwrite) as folder:
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "examples": False}
        results: list[ModelResult] = []
        rows, scenes = [], []
        for name, (source, described) in sets.items():
            shift = dict(shifts.get(name, {}))
            model, note = _with_slots_for(loaded, shift.get("max_objects"))
            result = measure(model, source, count=len(source), description_of_data=described, bar_name=name, **how)
            if shift:  # what a paper reports is of the test set without a shift
                about = (result.recipe.get("about") or {}) | {"reported": {}}
                result = replace(result, recipe=result.recipe | {"about": about})
            results.append(replace(result, name=name))
            rows.append(_row(results[-1], results[0], shift, _slots(model), note))
            scenes.append(draw_scenes({model.name: model}, source, min(_SHOWN, len(source))))
        evaluation = ShiftedEvaluation(loaded.name, _table(rows), tuple(results), tuple(scenes))
        _write(evaluation, folder)
    return evaluation


def _row(result: ModelResult, unshifted: ModelResult, shift: dict[str, Any], slots: int | None, note: str) -> Row:
    here, there = result.metrics.get("ari_fg"), unshifted.metrics.get("ari_fg")
    change = None if result is unshifted or here is None or there is None else here - there
    return Row(
        result.name,
        {"slots": slots, "ari_fg_change": change, **result.metrics},
        facts={"changes": shift, "note": note},
        details=(changes_in_words(shift),) if shift else (),
    )


def _table(rows: list[Row]) -> Table:
    """The columns in which there is a number."""
    columns = tuple(name for name in _COLUMNS if any(row.values.get(name) is not None for row in rows))
    notes = tuple(f"{row.name}: {row.facts['note']}" for row in rows if row.facts["note"])
    return Table("shift", columns, tuple(rows), frozenset(columns), notes)


def changes_in_words(changes: Mapping[str, object]) -> str:
    """`min_objects 7, shapes cone`; empty for none."""
    return ", ".join(f"{name} {_in_words(value)}" for name, value in changes.items())


def _in_words(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _with_slots_for(loaded: LoadedModel, objects: int | None) -> tuple[LoadedModel, str]:
    """The model with a slot for each object and one for the background, where its weights are for any number of slots.

    The papers of MONet and IODINE test on more objects than in training in this way.

    Returns:
        The model, and a note where its slots are others than its own or too few.
    """
    own = _slots(loaded)
    if objects is None or own is None or own > objects:
        return loaded, ""
    try:
        return loaded.with_slots(objects + 1), f"scored with {objects + 1} slots; it was trained with {own}."
    except RecipeError as error:
        return loaded, f"scored with its own {own} slots, too few for {objects} objects and the background: {error}"


def _slots(loaded: LoadedModel) -> int | None:
    slots = loaded.config["model"].get("num_slots")
    return slots if isinstance(slots, int) else None


def _write(evaluation: ShiftedEvaluation, folder: Path) -> None:
    names = [row.name for row in evaluation.table.rows]
    page = page_text(
        "table.html.j2",
        f"{evaluation.name}: shifted test sets",
        evaluation.results,
        **_PAGE,
        intro=f"{evaluation.scored}.",
        table=evaluation.table,
        pictures=list(zip(names, evaluation.scenes, strict=True)),
    )
    write_text(folder / "index.html", page)
    write_text(folder / "shifts.json", json_text(evaluation.as_json()))
