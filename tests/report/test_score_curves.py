"""score_curves: every training in one figure, told apart."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import to_hex

from unscene.report.score_curves import score_figure

CURVE = np.array([[1.0, 0.4], [3.0, 0.6]])


def test_all_trainings_stand_in_every_panel():
    panels = {"images": {"A": [CURVE, CURVE + 1], "B": [CURVE]}, "minutes": {"A": [CURVE], "B": [CURVE]}}
    figure = score_figure(panels, "ARI", "#123456")
    images, minutes = figure.axes
    assert [line.get_xydata().tolist() for line in images.lines] == [
        [[1, 0.4], [3, 0.6]],
        [[2, 1.4], [4, 1.6]],
        CURVE.tolist(),
    ]
    assert images.lines[0].get_color() == images.lines[1].get_color() != images.lines[2].get_color()
    assert (images.get_xlabel(), minutes.get_xlabel(), images.get_ylabel()) == ("images", "minutes", "ARI")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["A", "B"]
    assert to_hex(images.xaxis.label.get_color()) == "#123456"


def test_no_two_of_many_trainings_look_alike():
    figure = score_figure({"minutes": {f"run {number}": [CURVE] for number in range(20)}}, "ARI", "black")
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 20
