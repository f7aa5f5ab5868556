"""Evaluate a model under several conditions, in one table: on shifted test sets, or with other numbers of slots.

A shift is a test set of another kind of scenes than those of the training. The test set without a shift comes first,
and each shift has equally many scenes.

shifts.json or slots.json    every number and its provenance
index.html                   the page: the table, and the first scenes of each row
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unscene.data import SOURCES, Source, shifts_of
from unscene.errors import RecipeError, did_you_mean
from unscene.evaluation.evaluate import has_own_sizes, measure, write_side_by_side
from unscene.evaluation.scenes import draw_scenes, test_source
from unscene.files import output_folder
from unscene.report.results import ModelResult, scenes_in_words
from unscene.report.table import Row, Table
from unscene.runs.loading import LoadedModel

NONE = "none"  # the name of the test set without a shift

_OF_SHIFTS = ("slots", "ari_fg", "ari_fg_change", "map_50", "mask_iou", "reconstruction_mse")
_OF_SLOTS = (
    *("ari_fg", "ari", "map_50", "mask_iou", "pq", "count_error", "false_per_image", "reconstruction_mse"),
    *("explained", "slots_used", "ms_per_image"),
)
_SHOWN = 6  # scenes of each row on the page, the first ones

Shifts = Mapping[str, Mapping[str, Any]]  # changes of the data's settings, by the shift's name


def chosen_shifts(loaded: LoadedModel, word: str) -> dict[str, Mapping[str, Any]]:
    """Return the shifts of the model's test set that a word names: `all`, or names separated by commas."""
    source = loaded.config["data"]["name"]
    known = shifts_of(source)
    if not known:
        generators = " or ".join(name for name in SOURCES if shifts_of(name))
        raise RecipeError(
            f"the test scenes of '{loaded.name}' are of {source}, which has no shifts. Generate shifted scenes, for "
            f"instance with `unscene generate SOURCE --data.size {loaded.size} --data.crop 0.667 --count 320 --out "
            f"FILE.h5` where SOURCE is {generators}, and score them with --data FILE.h5."
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


@dataclass(frozen=True)
class _Condition:
    """A row of the table: a model, the scenes that it is scored on, and what differs from its own recipe."""

    name: str
    model: LoadedModel
    source: Source
    description_of_data: dict[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)
    details: tuple[str, ...] = ()  # the changes in words, for the page
    note: str = ""


def evaluate_shifts(
    loaded: LoadedModel, shifts: Shifts, out: Path, *, changes: Mapping[str, Any] | None = None, **how: Any
) -> Table:
    """Evaluate a model on its test set and on shifts of it, and write the files above.

    `changes` are settings of the data in every test set, by name; a shift's own settings take precedence. Another
    evaluation in `out` is replaced with `overwrite` only (RunError). The other arguments are those of `measure`.
    """
    rows = []
    for name, shift in {NONE: {}, **shifts}.items():
        source, described = test_source(loaded, None, {**(changes or {}), **shift})
        model, note = _with_slots_for(loaded, shift.get("max_objects"))
        details = (changes_in_words(shift),) if shift else ()
        rows.append(_Condition(name, model, source, described, shift, details, note))
    title = f"{loaded.name}: shifted test sets"
    return _evaluate_side_by_side(rows, out, "shifts", title, "shift", _OF_SHIFTS, **how)


def evaluate_slots(
    loaded: LoadedModel,
    numbers: Sequence[int],
    source: Source,
    out: Path,
    *,
    description_of_data: dict[str, Any],
    **how: Any,
) -> Table:
    """Evaluate the same weights with other numbers of slots on the same scenes, and write the files above.

    The other arguments are those of `evaluate_shifts`. RecipeError: the weights are for one number of slots.
    """
    rows = []
    for number in dict.fromkeys(numbers):
        model = loaded.with_slots(number)
        changes, details = ({}, ("as in the training",)) if model is loaded else ({"num_slots": _slots(model)}, ())
        rows.append(_Condition(f"{_slots(model)} slots", model, source, description_of_data, changes, details))
    title = f"{loaded.name}: numbers of slots"
    return _evaluate_side_by_side(rows, out, "slots", title, "model", _OF_SLOTS, **how)


def _evaluate_side_by_side(
    conditions: Sequence[_Condition], out: Path, kind: str, title: str, label: str, columns: Sequence[str], **how: Any
) -> Table:
    """The table of all conditions, and its files in `out`; changes of the ARI are those from the first one."""
    with output_folder(out, (f"{kind}.json", "index.html"), how.pop("overwrite", False)) as folder:
        results: list[ModelResult] = []
        rows, pictures = [], []
        how = {"batch_size": 32, "examples": False} | how
        for at in conditions:
            how |= {"count": len(at.source), "description_of_data": at.description_of_data, "bar_name": at.name}
            result = replace(measure(at.model, at.source, **how), name=at.name)
            if at.changes:  # the paper's numbers are of the recipe as it is
                about = (result.recipe.get("about") or {}) | {"reported": {}}
                result = replace(result, recipe=result.recipe | {"about": about})
            results.append(result)
            here, first = result.metrics["ari_fg"], results[0].metrics["ari_fg"]
            change = here - first if at.changes and here is not None and first is not None else None
            health = {name: result.health[name] for name in columns if name in result.health}
            values = {"slots": _slots(at.model), "ari_fg_change": change, **health, **result.metrics}
            rows.append(Row(at.name, values, facts={"changes": dict(at.changes), "note": at.note}, details=at.details))
            if not has_own_sizes(at.source):
                scenes = min(_SHOWN, len(at.source))
                pictures.append((at.name, draw_scenes({at.model.name: at.model}, at.source, scenes)))
        shown = tuple(name for name in columns if any(row.values.get(name) is not None for row in rows))
        notes = tuple(f"{row.name}: {row.facts['note']}" for row in rows if row.facts["note"])
        intro = f"{scenes_in_words(results[0].provenance['data'])}{'; and as many of each shift' * (kind == 'shifts')}."
        unranked = frozenset(shown) if kind == "shifts" else frozenset({"slots_used", "ms_per_image"})
        table = Table(label, shown, tuple(rows), unranked, notes, intro)
        name = {"name": conditions[0].model.name}
        write_side_by_side(folder, kind, title, table, results, name, pictures=pictures)
    return table


def changes_in_words(changes: Mapping[str, object]) -> str:
    """`min_objects 7, shapes cone`; empty for none."""

    def text(value: object) -> str:
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    return ", ".join(f"{name} {text(value)}" for name, value in changes.items())


def _with_slots_for(loaded: LoadedModel, objects: int | None) -> tuple[LoadedModel, str]:
    """The model with a slot for each object and one for the background, if its weights fit any number of slots.

    The papers of MONet and IODINE test on more objects than in training in this way. The note is empty unless the
    number of slots changes or is too small.
    """
    own = _slots(loaded)
    if objects is None or own is None or own > objects:
        return loaded, ""
    try:
        return loaded.with_slots(objects + 1), f"scored with {objects + 1} slots; it was trained with {own}."
    except RecipeError as error:
        return loaded, f"scored with its own {own} slots, too few for {objects} objects and the background: {error}"


def _slots(loaded: LoadedModel) -> int | None:
    return loaded.config["model"].get("num_slots")
