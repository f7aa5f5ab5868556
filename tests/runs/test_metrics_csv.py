"""metrics_csv: the length, speed and validations of a training, read from its folder."""

from __future__ import annotations

import json

import pytest

from unscene.errors import CheckpointError, DataError
from unscene.runs.metrics_csv import read_training
from unscene.runs.run_folder import RunFolder

TABLE = """step,seconds,train/loss,train/images_per_second,val/ari_fg
50,10,3.5,100,
100,20,2.5,400,
100,30,,,0.4
150,40,1.5,200,
150,90,,,0.6
"""


@pytest.fixture
def run(tmp_path):
    (tmp_path / "metrics.csv").write_text(TABLE)
    return RunFolder(tmp_path)


def test_training_by_hand(run):
    starts = [{"gpu": None, "cpu": "old", "threads": 1}, {"gpu": None, "cpu": "fast", "threads": 2}]
    run.environment.write_text(json.dumps(starts))
    found = read_training(run)
    assert (found.steps, found.minutes, found.images_per_second) == (150, 1.5, 200)
    assert found.machine == "fast, 2 threads"
    assert found.validation.tolist() == [[30, 0.4], [90, 0.6]]


def test_machine_is_the_gpu_where_there_is_one(run):
    run.environment.write_text(json.dumps({"gpu": "large", "cpu": "fast", "threads": 2}))
    assert read_training(run).machine == "large"


def test_missing_files_and_columns_give_none(tmp_path):
    run = RunFolder(tmp_path)
    assert read_training(run) is None
    run.metrics.write_text("step,seconds\n")
    assert read_training(run) is None
    run.metrics.write_text("step,seconds,val/score\n5,2,0.1\n")
    found = read_training(run)
    assert (found.images_per_second, found.machine, len(found.validation)) == (None, "", 0)


def test_damaged_files_are_named(run):
    run.environment.write_text("{")
    with pytest.raises(CheckpointError, match=r"environment\.json"):
        read_training(run)
    for damaged in (
        b"",
        b"\0\0",
        b"\xff",
        b"stage,seconds\n1,2\n",
        b"step,seconds,a\n1,2,three\n",
        b"step,seconds\n1,\n",
    ):
        run.metrics.write_bytes(damaged)
        with pytest.raises(DataError, match=r"metrics\.csv"):
            read_training(run)
    for damaged in (bytes(5000), b"step,seconds\n1," + bytes(5000)):
        run.metrics.write_bytes(damaged)
        with pytest.raises(DataError) as error:
            read_training(run)
        assert len(str(error.value)) < 400
    run.metrics.write_text("step,seconds,a\n1,2,3\n4,5\n")  # cut short
    with pytest.raises(DataError, match=r"metrics\.csv is damaged"):
        read_training(run)
