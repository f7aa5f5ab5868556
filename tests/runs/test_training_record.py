"""training_record, validation_curves: a training's length, speed and validations, against its clock."""

from __future__ import annotations

import json

import numpy as np
import pytest
from matplotlib.colors import to_hex

from unscene.errors import CheckpointError, DataError
from unscene.runs.training_record import TrainingRecord, read_training
from unscene.report.validation_curves import validation_figure
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


def record(*points):
    return TrainingRecord(1, 1, None, "", np.array(points, np.float64).reshape(-1, 2))


def test_a_training_by_hand(run):
    starts = [{"gpu": None, "cpu": "old", "threads": 1}, {"gpu": None, "cpu": "fast", "threads": 2}]
    run.environment.write_text(json.dumps(starts))
    found = read_training(run)
    assert (found.steps, found.minutes, found.images_per_second) == (150, 1.5, 200)
    assert found.machine == "fast, 2 threads"
    assert found.validation.tolist() == [[30, 0.4], [90, 0.6]]


def test_the_gpu_is_the_machine_where_there_is_one(run):
    run.environment.write_text(json.dumps({"gpu": "large", "cpu": "fast", "threads": 2}))
    assert read_training(run).machine == "large"


def test_what_was_not_written_is_not_known(tmp_path):
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
    run.metrics.write_text("step,seconds,a\n1,2,three\n")
    with pytest.raises(DataError, match=r"metrics\.csv"):
        read_training(run)


def test_all_trainings_stand_in_one_figure_against_one_clock():
    figure = validation_figure({"A": record((60, 0.4), (180, 0.6)), "B": record((30, 0.5))}, "#123456")
    (axes,) = figure.axes
    first, second = axes.lines
    assert first.get_xydata().tolist() == [[1, 0.4], [3, 0.6]]
    assert second.get_xydata().tolist() == [[0.5, 0.5]]
    assert axes.get_xlabel() == "minutes of training"
    assert axes.get_ylabel() == "validation: ARI, foreground"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]
    assert to_hex(axes.xaxis.label.get_color()) == "#123456"


@pytest.mark.parametrize(("seconds", "unit"), [(90, "seconds"), (200, "minutes"), (8000, "hours"), (200_000, "days")])
def test_the_clock_is_read_in_a_fitting_unit(seconds, unit):
    figure = validation_figure({"A": record((seconds, 0.5))}, "black")
    assert figure.axes[0].get_xlabel() == f"{unit} of training"


def test_no_two_of_many_trainings_look_alike():
    figure = validation_figure({f"run {number}": record((1, 0.5)) for number in range(20)}, "black")
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 20
