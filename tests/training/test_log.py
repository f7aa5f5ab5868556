"""log: what a checkpoint keeps of an unfinished row, and metrics.csv after kills, full disks and other damage."""

from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unscene.errors import ExtraError, RunError, TrainingError
from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import TrainerSettings
from unscene.training import log
from unscene.training.log import MetricsTable, TrainingLog


def test_checkpoint_keeps_the_sums_of_all_processes(tmp_path, monkeypatch):
    """The first process writes it, and all processes resume from it."""
    training_log = TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True)
    training_log.sums, training_log.steps = {"loss": torch.tensor(6.0), "mask_kl": torch.tensor(2.0)}, 3
    other = torch.tensor([2.0, 4.0])
    monkeypatch.setattr(log, "mean_over_processes", lambda mine: (mine + other) / 2)
    state = training_log.state_dict()
    assert state == {"sums": {"loss": torch.tensor(4.0), "mask_kl": torch.tensor(3.0)}, "steps": 3}
    assert training_log.sums["loss"] == 6.0
    again = TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True)
    again.load_state_dict(state)
    assert (again.sums, again.steps) == (state["sums"], 3)


def test_sums_are_empty_before_the_first_step(tmp_path):
    assert TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True).state_dict() == {"sums": {}, "steps": 0}


def test_resumed_events_replace_those_after_the_checkpoint(tmp_path):
    for step, loss in ((0, 2.0), (2, 1.0)):
        events = log.EventFile(tmp_path, step)
        for further in (1, 2, 3):
            events.add(step + further, {"loss": loss})
        events.close()
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(scalar.step, scalar.value) for scalar in read.Scalars("loss")] == [
        *((1, 2.0), (2, 2.0)),
        *((3, 1.0), (4, 1.0), (5, 1.0)),
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full disk")
def test_events_that_cannot_be_written_are_an_error_of_one_line(tmp_path):
    training_log = TrainingLog(RunFolder(tmp_path), TrainerSettings(), writes=True)
    training_log.start(0, repeat_validation=False)
    training_log.tracker.file = Path("/dev/full").open("wb")  # noqa: SIM115
    with pytest.raises(RunError, match=r"tensorboard: the disk is full"):
        training_log.write(1, {"loss": 2.0})


def logged(run: RunFolder, logger: str) -> None:
    """Write two rows, and one more of a resumed run, to a tracker."""
    run.make_folders()
    run.recipe.write_text("name: a/b\nseed: 3\n")
    for step, losses in ((0, (3.0, 2.0)), (2, (1.0,))):
        training_log = TrainingLog(run, TrainerSettings(logger=logger), writes=True)
        training_log.start(step, repeat_validation=False)
        for further, loss in enumerate(losses, start=1):
            training_log.write(step + further, {"train/loss": loss})
        training_log.close()
    assert [row["train/loss"] for row in rows(run.metrics)] == ["3.0", "2.0", "1.0"]


def test_csv_alone_leaves_no_other_file(tmp_path):
    logged(RunFolder(tmp_path), "csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "metrics.csv", "recipe.yaml", "samples"]


@pytest.mark.slow
def test_trackio_holds_all_rows_of_a_resumed_run(tmp_path, monkeypatch):
    pytest.importorskip("trackio", reason="needs the extra trackio")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    script = (
        "import sys; from tests.training.test_log import *\n"
        "logged(RunFolder(Path(sys.argv[1])), 'trackio')\n"
        "import trackio\n"
        "(found,) = trackio.Api().runs('unscene')\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "print([(row['step'], row['train/loss']) for row in SQLiteStorage.get_logs('unscene', found.name)])\n"
    )
    environment = {"TRACKIO_DIR": str(tmp_path / "store"), "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    ran = subprocess.run(
        [sys.executable, "-c", script, str(run.path)], env=os.environ | environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[-1] == "[(1, 3.0), (2, 2.0), (3, 1.0)]"


@pytest.mark.slow
def test_wandb_writes_offline_runs_into_the_folder(tmp_path):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    script = "import sys; from tests.training.test_log import *\nlogged(RunFolder(Path(sys.argv[1])), 'wandb')\n"
    environment = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", script, str(run.path)], env=os.environ | environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    content = b"".join(path.read_bytes() for path in sorted(run.path.rglob("*.wandb")))
    assert content.count(b"train/loss") >= 3


class FakeTracker(ModuleType):
    """A module with the interface of wandb and trackio."""

    def __init__(self, refuses: bool = False) -> None:
        super().__init__("wandb")
        self.refuses, self.calls = refuses, []

    def init(self, **how: Any) -> None:
        if self.refuses:
            raise RuntimeError("api_key not configured")
        self.calls.append(("init", how))

    def log(self, values: dict[str, float], step: int) -> None:
        self.calls.append((step, values))

    def finish(self) -> None:
        self.calls.append(("finish", None))


def test_a_tracker_gets_the_recipe_and_every_row_under_one_name(tmp_path, monkeypatch):
    tracker = FakeTracker()
    monkeypatch.setitem(sys.modules, "wandb", tracker)
    run = RunFolder(tmp_path)
    run.add_environment({"date": "2026-01-02T03:04:05+00:00"})
    logged(run, "wandb")
    first, *written = tracker.calls
    name = f"{tmp_path.name}-20260102030405"
    expected = {"project": "unscene", "name": name, "id": name, "resume": "allow", "dir": str(tmp_path)}
    assert first == ("init", expected | {"config": {"name": "a/b", "seed": 3}})
    assert written[:3] == [(1, {"train/loss": 3.0}), (2, {"train/loss": 2.0}), ("finish", None)]
    assert written[3:] == [first, (3, {"train/loss": 1.0}), ("finish", None)]


def test_a_tracker_that_refuses_or_is_missing_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeTracker(refuses=True))
    with pytest.raises(TrainingError, match=r"wandb cannot record this run \(api_key not configured\)\. Log in, or"):
        logged(RunFolder(tmp_path), "wandb")
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(ExtraError, match=r"trackio is not installed, .*'unscene\[trackio\]'"):
        logged(RunFolder(tmp_path), "trackio")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.csv"


def test_new_column_is_empty_in_earlier_rows(path):
    table = MetricsTable(path)
    table.append({"step": 1, "seconds": 0.5, "loss": 2.5})
    table.append({"step": 2, "seconds": 0.9, "ari": 0.25})
    table.append({"step": 3, "seconds": 1.5, "loss": 1.5})
    assert path.read_text() == "step,seconds,loss,ari\n1,0.5,2.5,\n2,0.9,,0.25\n3,1.5,1.5,\n"


def test_resumed_table_keeps_its_columns(path):
    MetricsTable(path).append({"step": 1, "seconds": 0.5, "loss": 2.5})
    table = MetricsTable(path)
    table.append({"seconds": 2, "step": 2, "loss": 1.0})
    assert rows(path)[1] == {"step": "2", "seconds": "2", "loss": "1.0"}
    assert table.last_seconds() == 2


def test_rows_after_a_step_are_dropped(path):
    table = MetricsTable(path)
    for step in (2, 4, 4, 6):
        table.append({"step": step, "seconds": step / 10, "loss": 1.0})
    table.keep_until(4)
    assert [row["step"] for row in rows(path)] == ["2", "4", "4"]
    assert table.last_seconds() == 0.4
    table.keep_until(0)
    assert path.read_text() == "step,seconds,loss\n"
    assert table.last_seconds() == 0


def test_repeated_validation_drops_its_row(path):
    table = MetricsTable(path)
    for step in (2, 4):
        table.append({"step": step, "seconds": step, "loss": 1.0})
        table.append({"step": step, "seconds": step, "val/score": 0.5})
    table.keep_until(4, repeat_validation=True)
    assert [(row["step"], row["val/score"]) for row in rows(path)] == [("2", ""), ("2", "0.5"), ("4", "")]


def test_incomplete_row_is_dropped(path):
    path.write_text("step,seconds,loss\n2,0.1,1.0\n4,0.2,0.9\n6,0.3,0.")  # the power went off
    table = MetricsTable(path)
    assert table.last_seconds() == 0.2
    table.keep_until(100)
    assert path.read_text() == "step,seconds,loss\n2,0.1,1.0\n4,0.2,0.9\n"


def test_row_without_a_step_is_dropped(path):
    path.write_text("step,seconds,loss\n2,0.1,1.0\n\x00\x00,,\n,,\n3,0.2\n4,0.2,0.5\n")
    MetricsTable(path).keep_until(100)
    assert [row["step"] for row in rows(path)] == ["2", "4"]


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"\0" * 40 + b"\n1,2,3\n", b"step,sec", b"stage,seconds\n1,2\n"])
@pytest.mark.parametrize("resumed", [True, False])
def test_damaged_header_starts_a_new_table(path, content, resumed):
    path.write_bytes(content)
    table = MetricsTable(path)
    assert table.last_seconds() == 0
    if resumed:
        table.keep_until(4)
        assert path.read_text() == "step,seconds\n"
    table.append({"step": 1, "seconds": 1, "loss": 2})
    assert path.read_text() == "step,seconds,loss\n1,1,2\n"


def test_full_disk_leaves_the_table_unchanged(path, monkeypatch):
    table = MetricsTable(path)
    table.append({"step": 1, "seconds": 1, "loss": 2.0})
    before = path.read_bytes()

    class Full(csv.DictWriter):
        def writerow(self, row):
            super().writerow(dict(list(row.items())[:1]))
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(csv, "DictWriter", Full)
    with pytest.raises(RunError, match=r"metrics\.csv: the disk is full"):
        table.append({"step": 2, "seconds": 2, "loss": 1.0})
    assert path.read_bytes() == before


@pytest.mark.parametrize("row", ["1step,2.0,3.0", "1,1step,3.0", "1,,3.0", "²,1.0,3.0", "1,²,3.0"])
def test_row_without_a_step_or_a_time_is_dropped(row, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(f"step,seconds,loss\n{row}\n2,4.5,1.0\n", encoding="utf-8")
    table = MetricsTable(path)
    assert table.last_seconds() == 4.5
    table.keep_until(5)
    assert path.read_text(encoding="utf-8") == "step,seconds,loss\n2,4.5,1.0\n"
