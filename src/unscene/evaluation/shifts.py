"""Evaluate a model on shifted test sets: scenes of another kind than those that it was trained on.

The test set without a shift, then each shift of it, on equally many scenes; one table.

shifts.json    every number and its provenance
index.html     the page: the table, and the first scenes of each test set
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unscene.data import SOURCES, shifts_of
from unscene.errors import RecipeError, did_you_mean
from unscene.evaluation.evaluate import measure, write_side_by_side
from unscene.evaluation.scenes import draw_scenes, test_source
from unscene.files import output_folder
from unscene.report.results import ModelResult, scenes_in_words
from unscene.report.table import Row, Table

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

NONE = "none"  # the name of the test set without a shift

_COLUMNS = ("slots", "ari_fg", "ari_fg_change", "map_50", "mask_iou", "reconstruction_mse")
_SHOWN = 6  # scenes of each test set on the page, the first ones

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


def evaluate_shifts(
    loaded: LoadedModel,
    shifts: Shifts,
    out: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    progress: bool = True,
    overwrite: bool = False,
) -> Table:
    """Evaluate a model on its test set and on shifts of it, and write the files above.

    `changes` are settings of the data in every test set, by name; a shift's own settings take precedence. Another
    evaluation in `out` is replaced with `overwrite` only. The other arguments are those of `measure`.

    Raises:
        RunError: `out` holds files of these names, or cannot be written.
    """
    all_shifts: Shifts = {NONE: {}, **shifts}
    sets = {name: test_source(loaded, None, {**(changes or {}), **shift}) for name, shift in all_shifts.items()}
    with output_folder(out, ("shifts.json", "index.html"), overwrite) as folder:
        results: list[ModelResult] = []
        rows, pictures = [], []
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "examples": False}
        for name, (source, described) in sets.items():
            shift = all_shifts[name]
            model, note = _with_slots_for(loaded, shift.get("max_objects"))
            result = measure(model, source, count=len(source), description_of_data=described, bar_name=name, **how)
            result = replace(result, name=name)
            if shift:  # the paper's numbers are of the test set without a shift
                about = (result.recipe.get("about") or {}) | {"reported": {}}
                result = replace(result, recipe=result.recipe | {"about": about})
            results.append(result)
            here, unshifted = result.metrics["ari_fg"], results[0].metrics["ari_fg"]
            change = here - unshifted if shift and here is not None and unshifted is not None else None
            values = {"slots": _slots(model), "ari_fg_change": change, **result.metrics}
            details = (changes_in_words(shift),) if shift else ()
            rows.append(Row(name, values, facts={"changes": dict(shift), "note": note}, details=details))
            pictures.append((name, draw_scenes({model.name: model}, source, min(_SHOWN, len(source)))))
        columns = tuple(name for name in _COLUMNS if any(row.values.get(name) is not None for row in rows))
        notes = tuple(f"{row.name}: {row.facts['note']}" for row in rows if row.facts["note"])
        intro = f"{scenes_in_words(results[0].provenance['data'])}; and as many of each shift."
        table = Table("shift", columns, tuple(rows), frozenset(columns), notes, intro)
        title = f"{loaded.name}: shifted test sets"
        write_side_by_side(folder, "shifts", title, table, results, {"name": loaded.name}, pictures=pictures)
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
    slots: int | None = loaded.config["model"].get("num_slots")
    return slots
