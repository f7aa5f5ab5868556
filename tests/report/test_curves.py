"""curves: metrics.csv with gaps, one panel for each series; and a score of several trainings."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from unscene.errors import DataError
from unscene.report.curves import curves_figure, read_curves, score_figure, training_curves

TABLE = """step,seconds,train/loss,val/ari_fg,train/constant,train/total,other/nothing
50,10,3.5,,1,3.5,
100,20,2.5,,1,2.5,nan
100,25,,0.4,,,
150,30,1.5,,1,1.5,
200,45,1,0.6,1,1,
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(TABLE)
    return path


def test_series_have_their_own_steps(table):
    series, clock = read_curves(table)
    assert series["train/loss"].tolist() == [[50, 3.5], [100, 2.5], [150, 1.5], [200, 1]]
    assert series["val/ari_fg"].tolist() == [[100, 0.4], [200, 0.6]]
    assert clock.tolist() == [[50, 10], [100, 20], [100, 25], [150, 30], [200, 45]]


def test_constant_repeated_and_empty_series_are_left_out(table):
    assert set(read_curves(table)[0]) == {"train/loss", "val/ari_fg"}


def test_validation_comes_first_and_clock_ticks_are_above_their_steps(table):
    panels = [axes for axes in curves_figure(*read_curves(table)).axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in panels] == ["val/ari_fg", "train/loss"]
    clocks = [axes for axes in curves_figure(*read_curves(table)).axes if not axes.get_title(loc="left")]
    ticks = dict(zip([label.get_text() for label in clocks[0].get_xticklabels()], clocks[0].get_xticks(), strict=True))
    assert clocks[0].get_xlabel() == "seconds"
    assert ticks["20"] == pytest.approx(100)  # the row of step 100, 20 seconds
    assert ticks["40"] == pytest.approx(150 + 50 * 10 / 15)


def test_start_far_outside_is_cut_off_with_a_note(tmp_path):
    path = tmp_path / "metrics.csv"
    rows = [f"{step},{step},{1000 if step == 0 else step % 7}" for step in range(200)]
    path.write_text("\n".join(["step,seconds,train/loss", *rows]))
    axes = curves_figure(*read_curves(path)).axes[0]
    assert axes.get_ylim()[1] < 10
    assert [text.get_text() for text in axes.texts] == ["start beyond the axis"]


def test_one_row_is_enough(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,seconds,train/loss\n0,0,2\n")
    curves = training_curves(path)
    assert curves is not None
    assert curves.light.startswith(b"\x89PNG")
    assert curves.light != curves.dark


def test_no_curve_without_measured_values(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,seconds\n")
    assert training_curves(path) is None


@pytest.mark.parametrize("text", ["epoch,loss\n1,2\n", "step,seconds,a\n1,2,three\n", "step,seconds,a\n1\n", ""])
def test_damaged_metrics_csv_is_an_error(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=r"metrics\.csv"):
        read_curves(path)


def test_missing_metrics_csv_is_an_error(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_curves(tmp_path / "metrics.csv")


SCORES = np.array([[1.0, 0.4], [3.0, 0.6]])


def test_every_panel_has_all_trainings():
    panels = {"images": {"A": [SCORES, SCORES + 1], "B": [SCORES]}, "minutes": {"A": [SCORES], "B": [SCORES]}}
    figure = score_figure(panels, "ARI", "#123456")
    images, minutes = figure.axes
    assert [line.get_xydata().tolist() for line in images.lines] == [
        [[1, 0.4], [3, 0.6]],
        [[2, 1.4], [4, 1.6]],
        SCORES.tolist(),
    ]
    assert images.lines[0].get_color() == images.lines[1].get_color() != images.lines[2].get_color()
    assert (images.get_xlabel(), minutes.get_xlabel(), images.get_ylabel()) == ("images", "minutes", "ARI")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]
    assert to_hex(images.xaxis.label.get_color()) == "#123456"


def test_many_trainings_have_different_lines():
    figure = score_figure({"minutes": {f"run {number}": [SCORES] for number in range(20)}}, "ARI", "black")
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 20
