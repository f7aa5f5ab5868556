"""shifts: the numbers of an evaluation of each test set, slots enough, and files that appear whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from unscene.data import shifts_of
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.errors import DataError, RecipeError, RunError
from unscene.evaluation import shifts
from unscene.evaluation.evaluate import evaluate, measure
from unscene.evaluation.shifts import changes_in_words, chosen_shifts, evaluate_shifts, evaluate_slots

CROP = {"crop": {"crop": 0.5}}
MORE = {"more_objects": {"min_objects": 7, "max_objects": 10}}


@pytest.fixture
def loaded(make_loaded, make_model):
    """A model of six slots on eight scenes, which takes any other number of slots but twelve."""

    @dataclass
    class Shifting(make_loaded):
        @property
        def config(self) -> dict[str, Any]:
            return super().config | {"test": {"count": 8, "seed": 3}}

        @property
        def recipe(self):
            def data_settings(part, **changes):
                return MultiDSpritesSettings(**{"count": 8, "seed": 3, **changes})

            return SimpleNamespace(data_settings=data_settings, data_name="multi_dsprites", locations=lambda part: {})

        def with_slots(self, num_slots):
            if num_slots == self.model.num_slots:
                return self
            if num_slots == 12:
                raise RecipeError("twelve is too many.")
            return Shifting(make_model(num_slots=num_slots))

    return Shifting()


@pytest.fixture
def evaluated(loaded, tmp_path):
    """Evaluate under shifts into tmp_path/out."""

    def run(chosen, **more):
        return evaluate_shifts(loaded, chosen, tmp_path / "out", **({"progress": False} | more))

    return run


def read(folder):
    return json.loads((folder / "shifts.json").read_text(encoding="utf-8"))


def test_scores_are_those_of_an_evaluation_of_each_test_set(loaded, evaluated, tmp_path):
    evaluated(CROP)
    written = read(tmp_path / "out")
    assert (written["schema"], written["name"], written["notes"]) == (2, "colour/multi_dsprites", [])
    assert [row["shift"] for row in written["shifts"]] == ["none", "crop"]
    for row, changes in zip(written["shifts"], ({}, CROP["crop"]), strict=True):
        source = MultiDSprites(MultiDSpritesSettings(count=8, seed=3, **changes))
        alone = measure(loaded, source, count=8, batch_size=32, description_of_data={}, progress=False)
        scores = {name: value for name, value in alone.metrics.items() if name != "ms_per_image"}
        assert {name: row[name] for name in scores} == scores
        assert row["changes"] == changes
        assert row["evaluation"]["provenance"]["data"]["scenes"] == 8
        assert row["evaluation"]["provenance"]["weights"]["step"] == 20000
    none, crop = written["shifts"]
    assert none["ari_fg_change"] is None
    assert crop["ari_fg_change"] == crop["ari_fg"] - none["ari_fg"]
    assert crop["evaluation"]["provenance"]["data"]["crop"] == 0.5


def test_changes_apply_to_every_test_set_unless_the_shift_sets_them(evaluated, tmp_path):
    evaluated(CROP, changes={"count": 3, "seed": 7, "crop": 0.9})
    data = [row["evaluation"]["provenance"]["data"] for row in read(tmp_path / "out")["shifts"]]
    assert [(entry["scenes"], entry["seed"], entry["crop"]) for entry in data] == [(3, 7, 0.9), (3, 7, 0.5)]


def test_more_objects_have_a_slot_each(evaluated, tmp_path):
    rows = evaluated(CROP | MORE).rows
    assert [row.values["slots"] for row in rows] == [6, 6, 11]
    assert [row.facts["note"] for row in rows] == ["", "", "scored with 11 slots; it was trained with 6."]
    assert rows[2].values["ari_fg"] > 0.95  # which six slots cannot have
    assert read(tmp_path / "out")["shifts"][2]["evaluation"]["recipe"]["model"]["num_slots"] == 11


def test_model_of_a_fixed_number_of_slots_keeps_it(evaluated):
    _, row = evaluated({"more": {"min_objects": 11, "max_objects": 11}}).rows
    assert row.values["slots"] == 6
    note = "scored with its own 6 slots, too few for 11 objects and the background: twelve is too many."
    assert row.facts["note"] == note
    assert row.values["ari_fg"] < 0.95


def test_numbers_of_slots_are_scored_on_the_same_scenes(loaded, make_model, scenes, tmp_path):
    how = {"batch_size": 32, "description_of_data": {"source": "multi_dsprites"}, "progress": False}
    table = evaluate_slots(loaded, [3, 6, 3], scenes, tmp_path / "out", **how)
    written = json.loads((tmp_path / "out" / "slots.json").read_text(encoding="utf-8"))["models"]
    assert [row["model"] for row in written] == ["3 slots", "6 slots"]
    for row, number in zip(written, (3, 6), strict=True):
        alone = measure(type(loaded)(make_model(num_slots=number)), scenes, count=40, **how)
        assert {name: row[name] for name in alone.metrics if name != "ms_per_image"} == {
            name: value for name, value in alone.metrics.items() if name != "ms_per_image"
        }
        assert (row["slots"], row["explained"]) == (number, alone.health["explained"])
        assert row["evaluation"]["recipe"]["model"]["num_slots"] == number
    assert [row["changes"] for row in written] == [{"num_slots": 3}, {}]
    assert [bool(row["evaluation"]["reported"]) for row in written] == [False, True]  # the paper's are of its own K
    assert written[0]["ari_fg"] < written[1]["ari_fg"]  # three slots are too few for five objects
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<h1>colour/multi_dsprites: numbers of slots</h1>" in page
    assert "and as many of each shift" not in page + table.intro
    for name in ("3 slots", "6 slots"):
        assert f'alt="{name}: 6 scenes, a column each.' in page
    with pytest.raises(RecipeError, match="twelve is too many"):
        evaluate_slots(loaded, [6, 12], scenes, tmp_path / "other", **how)
    assert not (tmp_path / "other").exists()


def test_shifted_scenes_have_no_paper_numbers(evaluated, tmp_path):
    evaluated(CROP)
    none, crop = read(tmp_path / "out")["shifts"]
    assert none["evaluation"]["reported"] == {"ari_fg": 0.951, "map_50_95": 0.435}
    assert crop["evaluation"]["reported"] == {}


def test_page_has_table_and_scenes_of_every_test_set(evaluated, tmp_path):
    evaluated(CROP | MORE)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<h1>colour/multi_dsprites: shifted test sets</h1>" in page
    assert "8 scenes of multi_dsprites, seed 3; and as many of each shift." in page
    assert "min_objects 7, max_objects 10" in page
    assert "more_objects: scored with 11 slots; it was trained with 6." in page
    for name in ("none", "crop", "more_objects"):
        assert f'alt="{name}: 6 scenes, a column each.' in page
    for address in ("src=", "href=", "srcset="):
        assert all(part.startswith('"data:') for part in page.split(address)[1:])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "shifts.json"]


def test_table_has_a_line_for_every_test_set_and_only_columns_with_numbers(evaluated, loaded, make_model):
    table = evaluated(CROP | MORE)
    lines = table.lines()
    none, crop, more = (line.split() for line in lines[2:5])
    assert (none[:2], none[3]) == (["none", "6"], "-")
    assert (crop[:2], more[:2]) == (["crop", "6"], ["more_objects", "11"])
    assert crop[3] == f"{table.rows[1].values['ari_fg_change']:+.3f}"
    assert lines[-1] == "more_objects: scored with 11 slots; it was trained with 6."
    names = ("slots", "ari_fg", "ari_fg_change", "map_50", "mask_iou", "reconstruction_mse")
    assert table.columns == names
    loaded.model = make_model(boxes=False)
    assert evaluated(CROP, overwrite=True).columns == (*names[:3], *names[4:])


def test_changes_in_words():
    assert changes_in_words({"shapes": ("cone", "cube"), "crop": 2 / 3, "min_objects": 7}) == (
        "shapes cone, cube, crop 0.667, min_objects 7"
    )
    assert changes_in_words({}) == ""


def test_progress_bars_have_the_names_of_the_test_sets(evaluated, capsys):
    evaluated(CROP, progress=True)
    bars = capsys.readouterr().err.replace("\r", "\n").split("\n")
    assert list(dict.fromkeys(bar.split(":")[0] for bar in bars if bar)) == ["none", "crop"]


def test_chosen_shifts_by_all_or_by_name(loaded):
    known = shifts_of("multi_dsprites")
    assert list(known) == ["more_objects", "unseen_shape", "unseen_colour", "occlusion", "crop"]
    assert chosen_shifts(loaded, "all") == known
    assert chosen_shifts(loaded, "crop, occlusion") == {name: known[name] for name in ("crop", "occlusion")}
    assert list(shifts_of("clevr_scenes")) == list(known)


@pytest.mark.parametrize(
    ("data", "word", "message"),
    [
        ({}, "corp", r"multi_dsprites has no shift 'corp', only more_objects.* Did you mean 'crop'\?"),
        ({}, "crop,", "has no shift ''"),
        ({}, "all,crop", "'all' stands alone: --shift all for every shift of multi_dsprites"),
        ({"name": "hdf5"}, "all", "of 'colour/multi_dsprites' are of hdf5, which has no shifts. .*--data FILE.h5"),
        ({"name": "images"}, "crop", "SOURCE is multi_dsprites or clevr_scenes"),
    ],
)
def test_unknown_shifts_are_errors_with_a_hint(loaded, data, word, message):
    loaded.data = data
    with pytest.raises(RecipeError, match=message):
        chosen_shifts(loaded, word)


def test_impossible_change_is_an_error_before_any_scene_is_scored(evaluated, loaded, tmp_path):
    with pytest.raises(RecipeError, match=r"crop must be from 0\.25 to 1"):
        evaluated({**MORE, "crop": {"crop": 7.0}})
    assert loaded.batches == []
    assert not (tmp_path / "out").exists()


def test_error_leaves_no_folder_and_only_overwrite_replaces_files(evaluated, tmp_path, monkeypatch):
    real, calls = shifts.measure, []

    def breaks_at_the_second(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 2:
            raise DataError("scene 4 is damaged.")
        return real(*arguments, **named)

    monkeypatch.setattr(shifts, "measure", breaks_at_the_second)
    with pytest.raises(DataError, match="scene 4"):
        evaluated(CROP)
    assert not (tmp_path / "out").exists()
    evaluated(CROP)
    before = read(tmp_path / "out")
    with pytest.raises(RunError, match=r"shifts\.json and 1 more would be overwritten.*--overwrite"):
        evaluated(MORE)
    assert len(calls) == 4
    assert read(tmp_path / "out") == before
    evaluated(MORE, overwrite=True)
    assert [row["shift"] for row in read(tmp_path / "out")["shifts"]] == ["none", "more_objects"]


def test_evaluation_and_shifts_do_not_share_a_folder(evaluated, loaded, scenes, tmp_path):
    plain = {"count": 1, "description_of_data": {}, "progress": False, "overwrite": True}
    evaluate(loaded, scenes, tmp_path / "out", **plain)
    with pytest.raises(RunError, match=r"metrics\.json is of an evaluation, and an evaluation under shifts"):
        evaluated(CROP, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "metrics.json"]
    (tmp_path / "out" / "metrics.json").rename(tmp_path / "out" / "shifts.json")
    with pytest.raises(RunError, match=r"shifts\.json is of an evaluation under shifts, and an evaluation would"):
        evaluate(loaded, scenes, tmp_path / "out", **plain)
