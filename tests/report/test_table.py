"""table: numbers by hand, the best of each column, and lines that a terminal holds."""

from __future__ import annotations

import csv

import pytest

from unscene.report.table import Row, Table, best_rows, description_of

COLUMNS = ("training_steps", "ari_fg", "map_50", "reconstruction_mse", "ari_fg_change")
SCORES = {"training_steps": 12_000, "ari_fg": 0.5, "map_50": None, "reconstruction_mse": 0.01}


def row(name="A", scores=None, **more):
    return Row(name, SCORES | (scores or {}), **more)


def table(*rows, columns=COLUMNS, **more):
    return Table("model", columns, rows, **more)


def texts(result):
    """name -> what each row shows, the best with a star."""
    columns = zip(*result.cells(), strict=True)
    return {
        name: [cell.text + "*" * cell.best for cell in column]
        for name, column in zip(result.columns, columns, strict=True)
    }


def test_numbers_by_hand():
    assert texts(table(row(scores={"ari_fg_change": 0.25}))) == {
        "training_steps": ["12,000"],
        "ari_fg": ["0.500"],
        "map_50": ["-"],
        "reconstruction_mse": ["0.01000"],
        "ari_fg_change": ["+0.250"],
    }


def test_mean_has_its_standard_deviation():
    assert texts(table(row(sd={"ari_fg": 0.0123})))["ari_fg"] == ["0.500 ± 0.012"]


def test_best_of_each_ranked_column_is_marked():
    better = row("B", {"ari_fg": 0.75, "map_50": 0.9, "reconstruction_mse": 0.02})
    third = row("C", {"ari_fg": 0.7504, "map_50": 0.8})
    shown = texts(table(row(), better, third))
    assert shown["ari_fg"] == ["0.500", "0.750*", "0.750*"]  # the same, as far as digits are shown
    assert shown["map_50"] == ["-", "0.900*", "0.800"]
    assert shown["reconstruction_mse"] == ["0.01000*", "0.02000", "0.01000*"]
    assert shown["training_steps"] == ["12,000"] * 3
    assert texts(table(row(), better, unranked=frozenset(["ari_fg"])))["ari_fg"] == ["0.500", "0.750"]


@pytest.mark.parametrize(
    ("name", "values", "indices"),
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
def test_best_rows_by_hand(name, values, indices):
    assert best_rows(values, description_of(name)) == indices


def test_lines_have_the_papers_numbers_below_and_notes_at_the_end():
    result = table(row("first"), row("second", {"ari_fg": 0.4}, paper={"ari_fg": 0.951}), notes=("word " * 40,))
    lines = result.lines()
    assert lines[0].split()[:2] == ["training", "ARI"]
    assert lines[1].split()[:3] == ["model", "steps", "fg"]
    first, second, paper = (line.split() for line in lines[2:5])
    assert first == ["first", "12,000", "0.500*", "-", "0.01000", "-"]
    assert second[:3] == ["second", "12,000", "0.400"]
    assert paper == ["paper", "0.951"]
    assert lines[3].index("0.400") == lines[4].index("0.951")
    assert "* best of its column   - not applicable, or not known" in lines
    assert lines[-1].startswith("word")
    assert max(map(len, lines)) <= 120


def test_columns_that_do_not_fit_follow_in_a_further_block():
    lines = table(row("a name of thirty-one characters"), columns=COLUMNS * 4).lines()
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("a name of thirty-one") for line in lines) == 2


def test_without_rows_or_columns_nothing_breaks():
    assert table().cells() == []
    assert table(row(), columns=()).cells() == [[]]
    assert table(row(), columns=()).lines()[-1] == "A"


def test_csv_has_every_digit_and_empty_cells():
    third = 1 / 3
    reported = row("B, the second", {"ari_fg": third}, paper={"map_50": 0.8}, facts={"recipe": "m/d"})
    first, second = csv.DictReader(table(row(), reported).csv().splitlines())
    assert (first["name"], first["recipe"], first["map_50"], first["reported_map_50"]) == ("A", "", "", "")
    assert (second["name"], second["recipe"], second["reported_map_50"]) == ("B, the second", "m/d", "0.8")
    assert float(second["ari_fg"]) == third


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_cell_of_text_is_a_formula(name):
    (written,) = csv.DictReader(table(row(name, facts={"recipe": name}), columns=("ari_fg_change",)).csv().splitlines())
    assert written["name"] == written["recipe"] == f"'{name}"
    negative = table(row(scores={"ari_fg_change": -0.5}), columns=("ari_fg_change",)).csv()
    assert negative.splitlines()[1] == "A,-0.5"


def test_json_names_every_number():
    assert row(paper={"ari_fg": 0.9}, facts={"recipe": "m"}).as_json() == {
        "name": "A",
        "recipe": "m",
        **SCORES,
        "reported": {"ari_fg": 0.9},
    }
