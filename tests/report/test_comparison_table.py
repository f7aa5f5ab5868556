"""comparison_table: numbers by hand, the best of each column, and lines that a terminal holds."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from unscene.report.comparison import ComparedModel, Comparison
from unscene.report.comparison_table import best_places, comparison_table, table_csv, table_lines
from unscene.report.metric_descriptions import description_of
from unscene.report.results import ModelResult, Picture
from unscene.runs.training_record import TrainingRecord

SCORES = {
    "ari_fg": 0.5,
    "map_50_95": None,
    "map_50": None,
    "map_75": None,
    "mask_iou": 0.25,
    "reconstruction_mse": 0.01,
}


def training(machine="one", speed: float | None = 200.4):
    return TrainingRecord(12_000, 75.26, speed, machine, np.zeros((0, 2)))


def model(name="A", scores=None, record=None, reported=None, seconds=(0.5, 4.0, 1.0), step: int | None = 11_659):
    result = ModelResult(
        name,
        SCORES | (scores or {}),
        {},
        "decomposing",
        {"data": {}, "weights": {"step": step}},
        {"about": {"reported": reported or {}}},
    )
    return ComparedModel(result, "model/data", 1_234_567, record, tuple(seconds), 32)


def comparison(*models, notes=()):
    return Comparison(models, {"source": "multi_dsprites"}, Picture(b"", ""), None, notes)


def texts(made):
    """name -> what each model shows, the best with a star."""
    return {column.name: [cell.text + "*" * cell.best for cell in column.cells] for column in comparison_table(made)}


def numbers(line):
    return line.split()


def test_numbers_by_hand():
    shown = texts(comparison(model(record=training())))
    assert shown == {
        "parameters": ["1,234,567"],
        "training_steps": ["12,000"],
        "training_minutes": ["75.3"],
        "training_images_per_second": ["200"],
        "images_per_second": ["32"],  # 32 images in the middle one of three rounds, a second
        "ari_fg": ["0.500"],
        "map_50_95": ["-"],
        "map_50": ["-"],
        "map_75": ["-"],
        "mask_iou": ["0.250"],
        "reconstruction_mse": ["0.01000"],
    }


def test_the_best_of_each_column_is_marked_and_what_was_spent_is_not():
    better = model("B", {"ari_fg": 0.75, "map_50": 0.9, "reconstruction_mse": 0.02}, training(speed=100.0))
    third = model("C", {"ari_fg": 0.7504, "map_50": 0.8}, seconds=(2.0, 2.0, 2.0))
    shown = texts(comparison(model(record=training()), better, third))
    assert shown["ari_fg"] == ["0.500", "0.750*", "0.750*"]  # the same, as far as digits are shown
    assert shown["map_50"] == ["-", "0.900*", "0.800"]
    assert shown["reconstruction_mse"] == ["0.01000*", "0.02000", "0.01000*"]
    assert shown["mask_iou"] == ["0.250", "0.250", "0.250"]
    assert shown["images_per_second"] == ["32*", "32*", "16"]
    assert shown["training_images_per_second"] == ["200*", "100", "-"]
    assert shown["training_steps"] == ["12,000", "12,000", "-"]
    assert shown["training_minutes"] == ["75.3", "75.3", "-"]


def test_speeds_of_trainings_on_different_machines_are_not_ranked():
    other = model("B", record=training("another", 100.0))
    assert texts(comparison(model(record=training()), other))["training_images_per_second"] == ["200", "100"]
    unknown = [model(name, record=training("", speed)) for name, speed in (("A", 200.4), ("B", 100.0))]
    assert texts(comparison(*unknown))["training_images_per_second"] == ["200", "100"]


@pytest.mark.parametrize(
    ("name", "values", "places"),
    [
        ("ari_fg", [0.1, None, 0.3], {2}),
        ("reconstruction_mse", [0.1, None, 0.3], {0}),
        ("ari_fg", [None, 0.3], set()),
        ("ari_fg", [0.3, 0.3], set()),
        ("ari_fg", [-0.1, -0.2], {0}),
        ("parameters", [1, 2], set()),
        ("ari_fg", [None], set()),
    ],
)
def test_best_places_by_hand(name, values, places):
    assert best_places(values, description_of(name)) == places


def test_the_papers_numbers_stand_below_and_bring_their_own_columns():
    reported = model("B", {"ami_fg": 0.4}, reported={"ari_fg": 0.951, "ami_fg": 0.375}, step=None)
    lines = table_lines(comparison(model(), reported, notes=("word " * 40,)))
    assert lines[:2] == ["1  A: model/data, weights of step 11,659", "2  B: model/data"]
    first, second, paper = (numbers(line) for line in lines[5:8])
    assert [first[0], first[-1]] == ["1", "-"]
    assert [second[0], second[-1]] == ["2", "0.400"]
    assert paper == ["paper", "0.951", "0.375"]
    ends = [line.rstrip().endswith for line in lines[3:5]]
    assert ends[0]("AMI")
    assert ends[1]("foreground")
    assert lines[6].index("0.500") == lines[7].index("0.951")
    assert lines[-2].startswith("word")
    assert max(map(len, lines)) <= 120


def test_columns_that_do_not_fit_go_on_below():
    reported = dict.fromkeys(("ami_fg", "iou_polarity", "located", "ari", "ar_100"), 0.5)
    lines = table_lines(comparison(model(reported=reported), model("B")))
    assert max(map(len, lines)) <= 120
    assert [line.split()[0] for line in lines if line[:1].isdigit() or line.startswith("paper")] == [
        *("1", "2"),
        *("1", "paper", "2"),
        *("1", "paper", "2"),
    ]


def test_csv_has_every_digit_and_empty_cells():
    third = 1 / 3
    reported = model("B, the second", {"ari_fg": third}, training(), {"map_50": 0.8})
    first, second = csv.DictReader(table_csv(comparison(model(), reported)).splitlines())
    assert first["name"] == "A"
    assert first["recipe"] == "model/data"
    assert (first["weights_step"], first["training_steps"], first["map_50"]) == ("11659", "", "")
    assert first["reported_map_50"] == ""
    assert second["name"] == "B, the second"
    assert float(second["ari_fg"]) == third
    assert (second["training_minutes"], second["reported_map_50"], second["parameters"]) == ("75.26", "0.8", "1234567")
