"""Evaluate a model on shifted test sets: scenes of another kind than those that it was trained on.

The test set as it is, then each shift of it, on equally many scenes; one table.

shifts.json    every number and where it comes from
index.html     the page: the table, and the first scenes of each test set as the model sees them
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unscene.data import SOURCES, Source, shifts_of
from unscene.errors import RecipeError, did_you_mean
from unscene.evaluation.compare import draw_scenes
from unscene.evaluation.evaluate import measure
from unscene.evaluation.test_data import scenes_to_score
from unscene.files import output_folder, write_text
from unscene.report.page import page_text, scenes_in_words
from unscene.report.shift_table import changes_in_words, shift_table
from unscene.report.shifted_evaluation import NONE, ShiftedEvaluation, ShiftResult

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_FILES = ("shifts.json", "index.html")
_SHOWN = 6  # scenes of each test set on the page, the first ones

Shifts = Mapping[str, Mapping[str, Any]]  # changes of the data's settings, by the shift's name


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
        name: scenes_to_score(loaded, None, {**(changes or {}), **shift})
        for name, shift in {NONE: {}, **shifts}.items()
    }
    with output_folder(out, _FILES, overwrite) as folder:
        rows = (
            _scored(loaded, name, dict(shifts.get(name, {})), *scenes, batch_size=batch_size, progress=progress)
            for name, scenes in sets.items()
        )
        evaluation = ShiftedEvaluation(loaded.name, tuple(rows))
        _write(evaluation, folder)
    return evaluation


def _scored(
    loaded: LoadedModel,
    name: str,
    shift: dict[str, Any],
    source: Source,
    described: dict[str, Any],
    **how: Any,
) -> ShiftResult:
    """The row of one test set; `how` is handed on to `measure`."""
    model, note = _with_slots_for(loaded, shift.get("max_objects"))
    result = measure(
        model, source, count=len(source), description_of_data=described, examples=False, bar_name=name, **how
    )
    recipe = result.recipe
    if shift:  # what a paper reports is of the test set without a shift
        recipe = recipe | {"about": (recipe.get("about") or {}) | {"reported": {}}}
    return ShiftResult(
        result=replace(result, name=name, recipe=recipe),
        changes=shift,
        slots=_slots(model),
        note=note,
        scenes=draw_scenes({model.name: model}, source, min(_SHOWN, len(source))),
    )


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
    page = page_text(
        "shifts.html.j2",
        f"{evaluation.name}: shifted test sets",
        [row.result for row in evaluation.rows],
        evaluation=evaluation,
        columns=shift_table(evaluation),
        changes_in_words=changes_in_words,
        data=scenes_in_words(evaluation.data),
    )
    text = json.dumps(evaluation.as_json(), indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n"
    write_text(folder / "index.html", page)
    write_text(folder / "shifts.json", text)
