"""compare: the same scenes for all, the numbers of an evaluation, and files that appear whole or not at all."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from unscene.errors import DataError, RunError
from unscene.evaluation import compare as comparing
from unscene.evaluation.compare import compare, interleaved_timings, unique_names
from unscene.evaluation.evaluate import measure
from unscene.runs.run_folder import RunFolder

DATA = {"source": "multi_dsprites", "seed": 3, "count": 8}
FILES = ["compare.csv", "compare.json", "index.html", "scenes.png"]
CURVE = "step,seconds,train/images_per_second,val/ari_fg\n10,30,50,0.25\n20,120,70,0.5\n"


class Few:
    """The first scenes of a source, with their truth or without."""

    def __init__(self, source, count=8, labelled=True):
        self.source, self.count, self.labelled = source, count, labelled

    def __len__(self):
        return self.count

    def batch(self, indices):
        batch = self.source.batch(indices)
        return batch if self.labelled else {"image": batch["image"]}


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch):
    monkeypatch.setattr(comparing, "_ROUNDS", 3)


@pytest.fixture
def compared(scenes, tmp_path):
    """Compare models on eight scenes, into tmp_path/out."""

    def run(models, source=None, **more):
        source = source or Few(scenes)
        arguments = {"batch_size": 4, "shown": 2, "progress": False, "description_of_data": DATA}
        return compare(models, source, tmp_path / "out", **(arguments | more))

    return run


def read(folder):
    return json.loads((folder / "compare.json").read_text(encoding="utf-8"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_scores_are_those_of_an_evaluation_of_each_on_the_same_scenes(
    make_loaded, make_model, compared, scenes, tmp_path
):
    models = {"A": make_loaded(), "B": make_loaded(make_model(num_slots=3))}
    compared(models)
    written = read(tmp_path / "out")
    table = list(csv.DictReader((tmp_path / "out" / "compare.csv").read_text().splitlines()))
    for model, entry, row in zip(models.values(), written["models"], table, strict=True):
        alone = measure(model, Few(scenes), count=8, batch_size=4, description_of_data=DATA, progress=False)
        scores = {name: value for name, value in alone.metrics.items() if name != "ms_per_image"}
        assert {name: entry[name] for name in scores} == scores
        assert float(row["ari_fg"]) == scores["ari_fg"]
        assert entry["evaluation"]["provenance"]["data"] == {**DATA, "scenes": 8}
    assert written["models"][0]["ari_fg"] > written["models"][1]["ari_fg"]
    assert [row["name"] for row in table] == ["A", "B"]


def test_json_has_all_facts_of_a_model(make_loaded, compared, tmp_path):
    compared({"A": make_loaded()})
    written = read(tmp_path / "out")
    assert (written["schema"], written["notes"]) == (2, [])
    (entry,) = written["models"]
    assert (entry["name"], entry["recipe"], entry["weights_step"]) == ("A", "colour/multi_dsprites", 20_000)
    assert entry["parameters"] == 1
    assert entry["reported"] == {"ari_fg": 0.951, "map_50_95": 0.435}
    assert (entry["training_steps"], entry["training_minutes"], entry["training_machine"]) == (None, None, None)
    timed = entry["evaluation"]["provenance"]["decomposing"]
    assert timed["images"] == 4
    assert len(timed["seconds"]) == 3
    assert entry["images_per_second"] == pytest.approx(1000 / entry["ms_per_image"])
    assert written["data"] == {**DATA, "scenes": 8}


def test_run_adds_its_training_and_a_curve(make_loaded, compared, tmp_path):
    run = RunFolder(tmp_path / "runs" / "A")
    run.path.mkdir(parents=True)
    run.metrics.write_text(CURVE)
    compared({"A": make_loaded(run=run), "B": make_loaded()})
    first, second = read(tmp_path / "out")["models"]
    assert (first["training_steps"], first["training_minutes"], first["training_images_per_second"]) == (20, 2, 60)
    assert second["training_steps"] is None
    assert names(tmp_path / "out") == sorted([*FILES, "curves.png"])
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Validation against time" in page
    assert "wall-clock" not in page  # the curves of single runs


def test_page_shows_all_models_and_loads_no_other_file(make_loaded, make_model, compared, tmp_path):
    compared({"first": make_loaded(), "<b>second</b>": make_loaded(make_model(num_slots=3))})
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<h1>first and &lt;b&gt;second&lt;/b&gt;: comparison</h1>" in page
    assert "All scored on the same 8 scenes of multi_dsprites, seed 3." in page
    assert "paper 0.951" in page
    assert '<td class="number best"><b>' in page
    assert "Validation against time" not in page
    assert "Headline numbers" not in page
    assert page.count('<h2 id="scenes">') == 1
    for address in ("src=", "href=", "srcset="):
        assert all(part.startswith('"data:') for part in page.split(address)[1:])
    assert "Provenance" in page


def test_model_without_boxes_has_no_box_scores(make_loaded, make_model, compared, tmp_path):
    compared({"A": make_loaded(), "B": make_loaded(make_model(boxes=False))})
    first, second = read(tmp_path / "out")["models"]
    assert first["map_50"] > 0.5
    assert (second["map_50"], second["map_75"], second["map_50_95"]) == (None, None, None)
    assert first["ari_fg"] == second["ari_fg"]


def test_without_truth_only_the_reconstruction_is_scored(loaded, compared, scenes, tmp_path):
    compared({"A": loaded}, Few(scenes, labelled=False))
    (entry,) = read(tmp_path / "out")["models"]
    assert (entry["ari_fg"], entry["map_50"], entry["mask_iou"]) == (None, None, None)
    assert entry["reconstruction_mse"] > 0
    assert names(tmp_path / "out") == FILES


def test_figure_has_at_most_all_scenes(loaded, compared, scenes, tmp_path):
    compared({"A": loaded}, Few(scenes, 1), shown=6)
    assert "<figcaption>Scene 0 of" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    compared({"A": loaded}, shown=3, overwrite=True)
    assert "<figcaption>Scenes 0 to 2 of" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("shown", [0, 25])
def test_wrong_number_of_shown_scenes_is_an_error(loaded, compared, shown, tmp_path):
    with pytest.raises(DataError, match="from 1 to 24"):
        compared({"A": loaded}, shown=shown)
    assert not (tmp_path / "out").exists()


def test_models_of_different_sizes_are_an_error(make_loaded, compared, tmp_path):
    models = {"A": make_loaded(), "B": make_loaded(), "C": make_loaded(size=128)}
    with pytest.raises(DataError, match="C takes images of 128 x 128 pixels, but A of 64 x 64"):
        compared(models)
    assert all(model.batches == [] for model in models.values())
    assert not (tmp_path / "out").exists()


def test_only_overwrite_replaces_a_comparison(loaded, make_loaded, compared, tmp_path):
    compared({"A": loaded})
    before = read(tmp_path / "out")
    (tmp_path / "out" / "curves.png").write_text("of before")
    (tmp_path / "out" / "mine.txt").write_text("mine")
    other = make_loaded()
    with pytest.raises(RunError, match=r"compare\.json and 4 more would be overwritten.*--overwrite"):
        compared({"B": other})
    assert other.batches == []
    assert read(tmp_path / "out") == before
    compared({"B": other}, overwrite=True)
    assert read(tmp_path / "out")["models"][0]["name"] == "B"
    assert names(tmp_path / "out") == [*FILES[:3], "mine.txt", "scenes.png"]  # no curve of another comparison


def test_page_of_an_evaluation_is_not_replaced(loaded, compared, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("of evaluate")
    with pytest.raises(RunError, match=r"index\.html would be overwritten"):
        compared({"A": loaded})
    assert (tmp_path / "out" / "index.html").read_text() == "of evaluate"


def test_error_leaves_no_folder(loaded, compared, scenes, tmp_path):
    class Broken(Few):
        def batch(self, indices):
            if 4 in indices:
                raise DataError("scene 4 is damaged.")
            return super().batch(indices)

    with pytest.raises(DataError, match="scene 4"):
        compared({"A": loaded}, Broken(scenes))
    assert not (tmp_path / "out").exists()


def test_damaged_metrics_csv_is_an_error_before_any_scene_is_scored(make_loaded, compared, tmp_path):
    run = RunFolder(tmp_path)
    run.metrics.write_text("step,loss\n")
    model = make_loaded(run=run)
    with pytest.raises(DataError, match=r"metrics\.csv"):
        compared({"A": model})
    assert model.batches == []


def test_notes_name_models_of_other_data(make_loaded, compared):
    models = {
        "A": make_loaded(data={"background": "grey", "count": 5}),
        "B": make_loaded(data={"background": "colour", "count": 7}),
        "C": make_loaded(data={"name": "hdf5"}),
        "D": make_loaded(data={"background": "grey", "count": 9}),
    }
    assert compared(models).notes == (
        "B was trained on other data than A: background colour instead of grey.",
        "C was trained on hdf5, A on multi_dsprites.",
    )


def test_speeds_of_trainings_on_different_machines_are_not_ranked(make_loaded, compared, tmp_path):
    runs = []
    for name, speed, gpu in (("A", 200, "one"), ("B", 100, "one"), ("C", 50, "another")):
        run = RunFolder(tmp_path / "runs" / name)
        run.path.mkdir(parents=True)
        run.metrics.write_text(CURVE.replace("50,0.25", f"{speed},0.25").replace("70,0.5", f"{speed},0.5"))
        run.environment.write_text(json.dumps([{"gpu": gpu}]))
        runs.append(run)

    def best(*chosen):
        table = compared({run.path.name: make_loaded(run=run) for run in chosen}, overwrite=True)
        column = table.columns.index("training_images_per_second")
        return [cells[column].best for cells in table.cells()]

    assert best(*runs[:2]) == [True, False]
    assert best(*runs[1:]) == [False, False]


FILE = {"name": "hdf5", "path": "a.h5"}


@pytest.mark.parametrize(
    ("trained", "scored", "seen"),
    [
        ({"seed": 2, "count": 100}, {"source": "multi_dsprites", "seed": 2, "count": 8}, True),
        ({"seed": 0, "count": 100}, {"source": "multi_dsprites", "seed": 2, "count": 8}, False),
        ({"seed": 2, "count": 100, "size": 64}, {"source": "multi_dsprites", "seed": 2, "size": 32, "count": 8}, False),
        ({"seed": 2, "count": 100}, {"source": "hdf5", "path": "a.h5", "count": 8}, False),
        (FILE | {"first": 0, "count": 10}, {"source": "hdf5", "path": "a.h5", "first": 9, "count": 8}, True),
        (FILE | {"first": 0, "count": 9}, {"source": "hdf5", "path": "a.h5", "first": 9, "count": 8}, False),
        ({"name": "images", "folder": "photos"}, {"source": "images", "folder": "photos", "count": 8}, False),
    ],
)  # fmt: skip
def test_notes_name_models_trained_on_the_scored_scenes(make_loaded, compared, trained, scored, seen):
    notes = compared({"A": make_loaded(data=trained)}, description_of_data=scored).notes
    assert [note.split(":")[0] for note in notes] == ["A was trained on scenes that it is scored on here"] * seen


def test_unique_names_by_hand(make_loaded, tmp_path):
    one, other = make_loaded(run=RunFolder(tmp_path / "one" / "A")), make_loaded(run=RunFolder(tmp_path / "two" / "A"))
    shipped, third = make_loaded(), make_loaded(run=RunFolder(tmp_path / "C"))
    assert unique_names(["x/C", "m/d"], [third, shipped]) == ["C", "m/d"]
    assert unique_names(["r/one/A", "two/A", "m/d"], [one, other, shipped]) == ["one/A", "two/A", "m/d"]
    far = make_loaded(run=RunFolder(tmp_path / "far" / "one" / "A"))
    assert unique_names(["r/one/A", "far/one/A"], [one, far]) == ["r/one/A", "far/one/A"]
    assert unique_names(["x/C", "x/C", "m/d"], [third, third, shipped]) == ["x/C [1]", "x/C [2]", "m/d"]


def test_models_are_timed_in_turns_after_a_warm_up(monkeypatch):
    clock, order = [0.0], []

    class Timed:
        def __init__(self, name, takes):
            self.name, self.takes = name, takes

        def decompose(self, images, batch_size):
            assert batch_size == len(images) == 5
            order.append(self.name)
            clock[0] += self.takes[min(order.count(self.name), len(self.takes)) - 1]

    monkeypatch.setattr(comparing, "perf_counter", lambda: clock[0])
    models = [Timed("A", [9.0, 1.0, 2.0, 3.0]), Timed("B", [5.0, 4.0])]
    assert interleaved_timings(models, torch.zeros(5, 3, 4, 4)) == [[1, 2, 3], [4, 4, 4]]
    assert order == ["A", "B"] * 4


def test_slow_models_have_fewer_rounds(monkeypatch):
    monkeypatch.setattr(comparing, "_ROUNDS", 15)
    clock = [0.0]

    class Slow:
        def decompose(self, images, batch_size):
            clock[0] += 4.0

    monkeypatch.setattr(comparing, "perf_counter", lambda: clock[0])
    assert interleaved_timings([Slow()], torch.zeros(1, 3, 4, 4)) == [[4, 4, 4]]
