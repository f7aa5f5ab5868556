"""reproduce: whatever stops the queue, the same command finishes it, and every number of the table is in the ledger."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from unscene.cli.main import main
from unscene.data.hdf5.reader import SceneStore
from unscene.errors import CheckpointError, DataError, RecipeError, RunError, TrainingError
from unscene.evaluation import reproduce as module
from unscene.evaluation.ledger import draw_figure, mean_metrics, read_entry, results_table, summary, write_entry
from unscene.evaluation.paper_tables import choose_rows, find_table, paper_tables
from unscene.evaluation.reproduce import Queue, adopt, reproduce
from unscene.recipes import recipe_names, recipe_values


@pytest.fixture
def table_file(tiny, tmp_path):
    """A table of the tiny recipe: `a` as it is, `b` with another rate, `c` shows `a` again."""
    recipe = tmp_path / "tiny.yaml"
    values = {name: value for name, value in tiny().values.items() if name != "about"}
    recipe.write_text(yaml.safe_dump(values))
    row = {"title": "A", "data": "sprites", "recipe": str(recipe), "paper": {"ari_fg": 0.9}}
    rows = {
        "a": row,
        "b": {**row, "title": "B", "changes": {"optimizer.weight_decay": 0.01}, "seeds": 2},
        "c": {"like": "tiny/a", "title": "C", "paper": {"map_50": 0.5}},
    }
    table = tmp_path / "tables.yaml"
    table.write_text(yaml.safe_dump({"tiny": {"title": "Tiny", "metrics": ["ari_fg", "map_50"], "rows": rows}}))
    return table


@pytest.fixture
def make_queue(table_file, tmp_path):
    def make(*rows, **more):
        table = find_table(str(table_file))
        options = {"threads": 1, "progress": False} | more
        return Queue(table, choose_rows(table, rows), tmp_path / "results", tmp_path / "runs", **options)

    return make


@pytest.fixture
def finished_run(trained, tmp_path):
    """The trained run, where the queue expects the run of row `a`, seed 0."""
    folder = tmp_path / "runs" / "tiny" / "a" / "seed-0"
    shutil.copytree(trained.path, folder)
    return folder


@pytest.fixture
def no_training(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("nothing is to be trained")

    monkeypatch.setattr(module, "train", refuse)


def change_row_a(table_file, changes):
    values = yaml.safe_load(table_file.read_text())
    values["tiny"]["rows"]["a"]["changes"] = changes
    table_file.write_text(yaml.safe_dump(values))


def entry(tmp_path, row="a", seed=0):
    return read_entry(tmp_path / "results" / "tiny" / row / f"seed-{seed}.json")


def test_finished_training_is_scored_once(make_queue, finished_run, tmp_path, monkeypatch):
    table = reproduce(make_queue("a", "c"))
    first = entry(tmp_path)
    assert (first["seed"], first["steps"], first["images"]) == (0, 6, 24)
    assert first["scored"]["scenes"] == 4
    assert first["metrics"].keys() >= {"ari_fg", "ari_fg_objects", "map_50_95", "map_50", "map_75"}
    assert first["recipe"]["model"]["name"] == "rmonet"
    assert first["hardware"][0]["cpu"]
    assert len(first["commits"]) == 1
    assert first["curve"]["step"] == [6]
    assert first["verdict"]
    rows = {row.name: row for row in table.rows}
    assert rows["A"].values["ari_fg"] == rows["C"].values["ari_fg"] == first["metrics"]["ari_fg"]
    assert (rows["A"].paper, rows["C"].paper) == ({"ari_fg": 0.9}, {"map_50": 0.5})
    monkeypatch.setattr(module, "train", None)
    monkeypatch.setattr(module, "measure", None)
    assert reproduce(make_queue("a", "c")) == table


def test_queue_killed_before_scoring_only_scores(make_queue, finished_run, no_training, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_train", lambda *arguments: None)
    reproduce(make_queue("a"))
    scored = entry(tmp_path)
    write_entry(tmp_path / "results" / "tiny" / "a" / "seed-0.json", {**scored, "metrics": {}})
    assert results_table(tmp_path / "results", make_queue("a").table).rows[0].values == {"seeds": None}
    reproduce(make_queue("a"))
    assert entry(tmp_path)["metrics"]["ari_fg"] == scored["metrics"]["ari_fg"]


def test_a_finished_training_is_scored_again_where_its_row_shows_other_masks(
    table_file, make_queue, finished_run, no_training, tmp_path, monkeypatch
):
    """The inferred masks' score stays beside the posterior ones'; nothing is trained."""
    monkeypatch.setattr(module, "_train", lambda *arguments: None)
    reproduce(make_queue("a"))
    before = entry(tmp_path)["metrics"]
    assert before["ari_fg_inferred"] != before["ari_fg"]
    show_inferred_masks(table_file)
    reproduce(make_queue("a"))
    after = entry(tmp_path)
    assert after["recipe"]["model"]["masks"] == "inferred"
    assert after["metrics"]["ari_fg"] == after["metrics"]["ari_fg_inferred"] == before["ari_fg_inferred"]
    assert after["steps"] == 6


def test_an_entry_from_before_the_setting_shows_inferred_masks(
    table_file, make_queue, finished_run, no_training, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "_train", lambda *arguments: None)
    show_inferred_masks(table_file)
    reproduce(make_queue("a"))
    earlier = entry(tmp_path)
    del earlier["recipe"]["model"]["masks"]
    write_entry(tmp_path / "results" / "tiny" / "a" / "seed-0.json", earlier)
    shutil.rmtree(finished_run)
    reproduce(make_queue("a"))
    assert entry(tmp_path) == earlier


def test_training_anew_for_other_masks_says_why(table_file, make_queue, finished_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "_train", lambda *arguments: None)
    reproduce(make_queue("a"))
    shutil.rmtree(finished_run)
    show_inferred_masks(table_file)
    with pytest.raises(RunError, match="does not exist"):  # the stand-in trains nothing
        reproduce(make_queue("a", progress=True))
    expected = "tiny/a, seed 0: its scores are of posterior masks and its run is gone, so it trains anew in"
    assert expected in capsys.readouterr().out


def show_inferred_masks(table_file):
    change_row_a(table_file, {"model.masks": "inferred"})


@pytest.mark.slow
def test_same_command_finishes_a_killed_queue(table_file, tmp_path, capsys):
    values = yaml.safe_load(table_file.read_text())
    settings = {"trainer.max_steps": 30, "trainer.checkpoint_minutes": 0.002}
    values["tiny"]["rows"] = {"a": {**values["tiny"]["rows"]["a"], "changes": settings}}
    table_file.write_text(yaml.safe_dump(values))
    words = ["reproduce", str(table_file), "--out", str(tmp_path / "results"), "--runs", str(tmp_path / "runs")]
    words += ["--threads", "1"]
    checkpoint = tmp_path / "runs" / "tiny" / "a" / "seed-0" / "checkpoints" / "last.ckpt"
    process = subprocess.Popen([sys.executable, "-m", "unscene", *words], stderr=subprocess.DEVNULL)
    while not checkpoint.is_file() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert entry(tmp_path) is None
    assert main(words) == 0
    finished = entry(tmp_path)
    assert finished["steps"] == 30
    starts = json.loads((checkpoint.parent.parent / "environment.json").read_text())
    assert [start["first_step"] > 0 for start in starts] == [False, True]
    assert "0.900" in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert (row["table"], row["row"], row["data"], row["seeds"]) == ("tiny", "a", "sprites", [0])
    assert row["metrics"]["ari_fg"] == {"mean": finished["metrics"]["ari_fg"], "sd": None}
    assert row["paper"] == {"ari_fg": 0.9}


def test_run_killed_before_its_recipe_was_written_is_begun_again_there(make_queue, tmp_path):
    folder = tmp_path / "runs" / "tiny" / "a" / "seed-0"
    folder.mkdir(parents=True)
    (folder / ".recipe.yaml.part").write_text("half")
    reproduce(make_queue("a"))
    assert entry(tmp_path)["steps"] == 6
    assert [path.name for path in folder.parent.iterdir()] == ["seed-0"]
    assert not (folder / ".recipe.yaml.part").exists()


def test_longer_training_resumes_the_shorter_one(make_queue, finished_run, table_file, tmp_path, monkeypatch):
    reproduce(make_queue("a"))
    change_row_a(table_file, {"trainer.max_steps": 8})
    reproduce(make_queue("a"))
    assert entry(tmp_path)["steps"] == 8
    starts = json.loads((finished_run / "environment.json").read_text())
    assert [start["first_step"] for start in starts][-1] == 6
    assert not list(tmp_path.rglob("earlier-*"))


def test_training_at_another_rate_is_begun_anew_and_the_earlier_entry_is_kept(
    make_queue, finished_run, table_file, tmp_path, monkeypatch
):
    reproduce(make_queue("a"))
    before = entry(tmp_path)
    change_row_a(table_file, {"schedule.lowest": 0.3})
    trained = []

    def fail(row, recipe, run, resume, minutes):
        trained.append((run.path, resume))
        raise TrainingError("the loss is not finite.")

    monkeypatch.setattr(module, "_train", fail)
    with pytest.raises(RunError, match="the loss is not finite"):
        reproduce(make_queue("a"))
    assert trained == [(finished_run.with_name("seed-0-2"), False)]
    assert entry(tmp_path)["failed"]
    kept = tmp_path / "results" / "tiny" / "a" / "earlier-seed-0.json"
    assert json.loads(kept.read_text()) == before
    monkeypatch.undo()
    reproduce(make_queue("a"))
    assert entry(tmp_path)["metrics"]
    assert json.loads(kept.read_text()) == before


def test_stages_of_a_short_training_are_trained_further(make_queue, table_file, tmp_path):
    values = yaml.safe_load(table_file.read_text())
    values["tiny"]["rows"] = {"a": {**values["tiny"]["rows"]["a"], "stages": [0.5, 1.0]}}
    table_file.write_text(yaml.safe_dump(values))
    reproduce(make_queue(minutes=1e-6))
    assert entry(tmp_path)["steps"] < 3
    reproduce(make_queue())
    assert entry(tmp_path)["steps"] == 6
    assert [stage["step"] for stage in entry(tmp_path)["stages"]] == [3]


def test_run_of_other_settings_is_unchanged(make_queue, finished_run, tmp_path, monkeypatch):
    other = tmp_path / "runs" / "tiny" / "b" / "seed-1"  # row b has another weight decay
    shutil.copytree(finished_run, other)
    before = sorted((path, path.stat().st_mtime_ns) for path in other.rglob("*"))
    trained = []

    def note(row, recipe, run, resume, minutes):
        trained.append((run.path, resume))
        raise TrainingError("stop here")

    monkeypatch.setattr(module, "_train", note)
    with pytest.raises(RunError):
        reproduce(make_queue("b", seeds=[1]))
    assert trained == [(other.with_name("seed-1-2"), False)]
    assert sorted((path, path.stat().st_mtime_ns) for path in other.rglob("*")) == before


def test_failed_training_is_recorded_and_tried_again_by_the_next_call(make_queue, finished_run, tmp_path, monkeypatch):
    real = module._train

    def fails_for_b(row, recipe, run, resume, minutes):
        if row.title == "B":
            raise TrainingError("the loss is not finite.")
        real(row, recipe, run, resume, minutes)

    monkeypatch.setattr(module, "_train", fails_for_b)
    queue = make_queue("b", "a", seeds=[0])
    with pytest.raises(RunError, match=r"1 of the trainings failed.*tiny/b, seed 0: the loss is not finite"):
        reproduce(queue)
    assert entry(tmp_path)["metrics"]
    failed = entry(tmp_path, "b")
    assert (failed["collapsed"], failed["failed"], failed["metrics"]) == (True, "the loss is not finite.", {})
    by_row = {row["row"]: row for row in summary(tmp_path / "results", [queue.table])}
    assert (by_row["b"]["collapsed"], by_row["b"]["seeds"], by_row["b"]["metrics"]) == (1, [0], {})
    tried = []
    monkeypatch.setattr(module, "_train", lambda row, *others: tried.append(row.title))
    monkeypatch.setattr(module, "_score", lambda *arguments: None)
    reproduce(queue)
    assert tried == ["B"]


def test_full_disk_stops_the_queue_and_leaves_no_entry(make_queue, tmp_path, monkeypatch):
    def full(*arguments):
        raise RunError("the disk is full.")

    monkeypatch.setattr(module, "_train", full)
    with pytest.raises(RunError, match="disk is full"):
        reproduce(make_queue())
    assert not list((tmp_path / "results").rglob("seed-*.json"))


def test_adopt_takes_only_runs_of_a_rows_settings(make_queue, trained, tmp_path):
    path = adopt(make_queue(), trained.path)
    assert path == tmp_path / "results" / "tiny" / "a" / "seed-0.json"
    assert entry(tmp_path)["adopted"] is True
    assert entry(tmp_path)["commits"] == [str(trained.starts()[0]["commit"])]
    with pytest.raises(RunError, match=r"other settings than the rows of tiny: .*weight_decay"):
        adopt(make_queue("b"), trained.path)
    with pytest.raises(CheckpointError):
        adopt(make_queue(), tmp_path)


def test_adopt_takes_the_row_of_the_runs_length_and_no_shorter_training(make_queue, table_file, trained, tmp_path):
    values = yaml.safe_load(table_file.read_text())
    rows = values["tiny"]["rows"]
    values["tiny"]["rows"] = {"short": {**rows["a"], "changes": {"trainer.max_steps": 1}}, "a": rows["a"]}
    table_file.write_text(yaml.safe_dump(values))
    path = adopt(make_queue(), trained.path)
    assert path.parent.name == "a"
    path.write_text(json.dumps(read_entry(path) | {"steps": 7}))
    before = path.read_bytes()
    with pytest.raises(RunError, match=r"has 6 steps, and .*seed-0\.json is of a training of 7\. Move that file away"):
        adopt(make_queue(), trained.path)
    assert path.read_bytes() == before


def test_an_adopted_run_is_scored_by_its_rows_masks(table_file, make_queue, trained, tmp_path, no_training):
    show_inferred_masks(table_file)
    adopt(make_queue(), trained.path)  # its own recipe shows the posterior masks
    adopted = entry(tmp_path)
    assert adopted["recipe"]["model"]["masks"] == "inferred"
    assert adopted["metrics"]["ari_fg"] == adopted["metrics"]["ari_fg_inferred"]
    reproduce(make_queue("a"))
    assert entry(tmp_path) == adopted


def test_stages_are_scored_and_drawn(make_queue, table_file, tmp_path):
    values = yaml.safe_load(table_file.read_text())
    values["tiny"]["rows"] = {"a": {**values["tiny"]["rows"]["a"], "stages": [0.5, 1.0]}}
    values["tiny"]["figure"] = "scenes"
    table_file.write_text(yaml.safe_dump(values))
    table = reproduce(make_queue())
    stages = entry(tmp_path)["stages"]
    assert [stage["step"] for stage in stages] == [3]
    assert [row.name for row in table.rows] == ["A, step 3", "A"]
    assert table.rows[0].values["ari_fg"] == stages[0]["metrics"]["ari_fg"]
    assert (tmp_path / "results" / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_curves_and_slots_are_drawn_once_there_is_a_training(make_queue, finished_run, table_file, tmp_path):
    pictures = {}
    for figure in ("curves", "slots"):
        values = yaml.safe_load(table_file.read_text())
        values["tiny"]["figure"] = figure
        table_file.write_text(yaml.safe_dump(values))
        table = make_queue("a").table
        if figure == "curves":
            assert draw_figure(tmp_path / "results", tmp_path / "runs", table) is None
        reproduce(make_queue("a"))
        pictures[figure] = (tmp_path / "results" / "tiny.png").read_bytes()
        assert pictures[figure] == draw_figure(tmp_path / "results", tmp_path / "runs", table)
    assert pictures["curves"] != pictures["slots"]


def test_minutes_end_a_training_and_are_not_counted_twice(make_queue, finished_run, table_file, monkeypatch):
    asked = []
    monkeypatch.setattr(module, "train", lambda recipe, _, resume: asked.append((recipe.trainer.max_minutes, resume)))
    reproduce(make_queue("a", minutes=2.0))
    ((minutes, resume),) = asked
    assert resume
    assert 1 < minutes < 2
    monkeypatch.setattr(module, "_minutes_so_far", lambda run, checkpoint: 2.0)
    change_row_a(table_file, {"trainer.max_steps": 100})
    reproduce(make_queue("a", minutes=2.0))
    assert len(asked) == 1
    reproduce(make_queue("a", minutes=2.5))
    assert asked[1:] == [(0.5, True)]


def test_scenes_in_a_file_are_drawn_once_and_never_taken_for_others(make_queue, table_file, tmp_path):
    """A row's file is drawn by its first training; a file of other settings is refused, and nothing trains on it."""
    tables = yaml.safe_load(table_file.read_text())
    count = 24
    tables["tiny"]["rows"] = {"a": tables["tiny"]["rows"]["a"]}
    row = tables["tiny"]["rows"]["a"]
    row["changes"] = {
        "data": {"name": "hdf5", "path": "x.h5", "first": 0, "count": 16, "size": 32},
        "validation": {"first": 16, "count": 4},
        "test": {"first": 20, "count": 4},
        "trainer.max_steps": 1,
    }
    row["files"] = {"data.path": {"file": "x.h5", "source": "multi_dsprites", "count": count, "size": 32}}
    table_file.write_text(yaml.safe_dump(tables))
    reproduce(make_queue())
    file = tmp_path / "runs" / "data" / "x.h5"
    drawn = file.read_bytes()
    assert len(SceneStore(file)) == count
    assert entry(tmp_path)["metrics"]["ari_fg"] is not None
    assert entry(tmp_path)["recipe"]["data"]["path"] == "x.h5"  # without the folder
    reproduce(make_queue(seeds=[1]))
    assert file.read_bytes() == drawn
    row["files"]["data.path"]["seed"] = 5
    table_file.write_text(yaml.safe_dump(tables))
    with pytest.raises(RunError, match=r"x\.h5 does not hold the scenes .*'seed': 5.* Move the file away"):
        reproduce(make_queue(seeds=[2]))
    with pytest.raises(RunError, match=r"1 of the trainings failed"):  # a finished entry is of the other scenes
        reproduce(make_queue(seeds=[0]))
    assert file.read_bytes() == drawn
    assert not (tmp_path / "results" / "tiny" / "a" / "seed-2.json").exists()


def test_means_by_hand():
    entries = [{"metrics": {"ari_fg": 0.5, "map_50": None}}, {"metrics": {"ari_fg": 0.7, "map_50": 0.1}}]
    means = mean_metrics(entries)
    assert means["ari_fg"] == {"mean": pytest.approx(0.6), "sd": pytest.approx(0.02**0.5)}
    assert means["map_50"] == {"mean": 0.1, "sd": None}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", paper_tables())
def test_every_row_names_a_recipe_that_can_be_read(name, full):
    table = find_table(name, full)
    for row in table.rows.values():
        assert row.resolved(7).seed == 7
        assert sorted(row.stages) == list(row.stages)
        assert row.stages[-1] == 1


@pytest.mark.parametrize("row", [row for table in paper_tables().values() for row in table.rows.values()])
def test_rate_of_a_compact_row_is_lowest_at_the_end_of_its_training(row):
    """Also where a row changes the number of scenes, by which epochs are counted."""
    recipe = row.resolved(0)
    if not row.recipe.endswith("_cpu") or not recipe.schedule.cycle_epochs:
        return
    epochs = recipe.trainer.max_steps * recipe.trainer.batch_size / recipe.values["data"]["count"]
    assert recipe.schedule.factor(0.995 * epochs) < 0.1


def test_papers_numbers_are_those_of_its_recipes():
    compared = 0
    for name in paper_tables():
        table = find_table(name)
        for row in table.rows.values():
            known = row.full if row.full in recipe_names() else row.recipe
            reported = recipe_values(known.replace("/clevr_scenes", "/clevr"))["about"].get("reported", {})
            for metric in row.paper.keys() & reported.keys():
                compared += 1
                assert row.paper[metric] == reported[metric], (name, row.title, metric)
    assert compared > 25


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(RecipeError, match=r"no table 'rmonet_tabel1'.* Did you mean 'rmonet_table1'\?"):
        find_table("rmonet_tabel1")
    with pytest.raises(RecipeError, match=r"no row 'monnet'.* Did you mean 'monet'\?"):
        choose_rows(find_table("rmonet_table1"), ["monnet"])
    with pytest.raises(RecipeError, match=r"elm_table1_full has no rows.* --full.* leave it out"):
        choose_rows(find_table("elm_table1", full=True), [])


@pytest.mark.parametrize("name", ["../../out", "/out", "a/b", "..", ".", "", "x" * 101])
@pytest.mark.parametrize("where", ["table", "row", "file", "home"])
def test_names_of_a_table_lead_to_no_other_folder(table_file, name, where):
    tables = yaml.safe_load(table_file.read_text())
    rows = tables["tiny"]["rows"] = {"a": tables["tiny"]["rows"]["a"]}
    if where == "table":
        tables = {name: tables["tiny"]}
    elif where == "row":
        rows[name] = rows.pop("a")
    else:
        rows["a"] |= {"home": ["tiny", name]} if where == "home" else {"files": {"data.path": {"file": name}}}
    table_file.write_text(yaml.safe_dump(tables))
    with pytest.raises(RecipeError, match=r"becomes the name of a file or folder, .* Rename it"):
        find_table(str(table_file))


def test_damaged_entry_is_an_error(tmp_path):
    path = tmp_path / "seed-0.json"
    path.write_text("{")
    with pytest.raises(Exception, match=r"seed-0\.json is damaged.*Remove it"):
        read_entry(path)
    assert read_entry(tmp_path / "none.json") is None


def test_entry_without_a_needed_value_or_of_another_seed_is_an_error_and_the_queue_goes_on(
    make_queue, finished_run, tmp_path
):
    reproduce(make_queue("a"))
    whole = entry(tmp_path)
    path = tmp_path / "results" / "tiny" / "a" / "seed-3.json"
    for damaged, message in (
        (whole, "holds an entry of seed 0"),
        ({name: value for name, value in whole.items() if name != "curve"} | {"seed": 3}, "has no 'curve'"),
    ):
        path.write_text(json.dumps(damaged))
        with pytest.raises(DataError, match=rf"seed-3\.json {message}.*Remove it"):
            read_entry(path)
    with pytest.raises(RunError, match=r"2 of the trainings failed.*seed-3\.json has no 'curve'"):
        reproduce(make_queue("a", "b", seeds=[0]))
    assert entry(tmp_path, "b")["metrics"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a file of tables"),
        ("tiny: 3", "is not a file of tables"),
        ("tiny: {rows: [a]}", "is not a file of tables"),
        ("tiny: {rows: {a: 3}}", "row 'tiny/a' must be a mapping"),
        ("tiny: {rows: {a: {like: tiny/a}}}", "row 'tiny/a' must be a mapping, and its `like` the TABLE/ROW"),
        ("tiny: {rows: {a: {like: b}}}", "its `like` the TABLE/ROW"),
        ("tiny: {rows: {a: {like: 1}}}", "its `like` the TABLE/ROW"),
        ("tiny: {rows: {a: &a [*a]}}", "is not valid YAML"),
        ("a: !!python/name:os.system x", "is not valid YAML"),
    ],
)
def test_damaged_file_of_tables_is_named(text, message, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=rf"own\.yaml.*{message}"):
        find_table(str(file))
