"""The harness: whose turn it is, the ratios by hand, the table and the JSON."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.command import finish, option_parser, started
from benchmarks.timing import Comparison, Spread, measure
from unscene.errors import RecipeError


def test_subjects_take_turns_round_by_round():
    calls: list[str] = []
    seconds = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, seconds=0)
    assert calls[:4] == ["a", "b"] * 2  # warm-up
    assert calls[4:] == ["a", "b"] * 3
    assert [len(rounds) for rounds in seconds.values()] == [3, 3]
    assert min(seconds["a"] + seconds["b"]) > 0


def test_quick_subject_is_called_again_and_again_within_its_turn():
    calls: list[int] = []
    measure({"quick": lambda: calls.append(1)}, rounds=1, seconds=1e-3)
    assert len(calls) > 10


def test_empty_comparison_is_an_error():
    with pytest.raises(RecipeError, match="at least 1 round, not 0 and 3"):
        measure({}, rounds=3)
    with pytest.raises(RecipeError, match="not 1 and 0"):
        measure({"a": list}, rounds=0)


COMPARISON = Comparison(
    "sorting", {"ours": [0.1, 0.2, 0.4], "theirs": [1.0, 1.0, 2.0]}, "theirs", items=10, unit="rows"
)


def test_ratios_are_paired_within_each_round():
    assert COMPARISON.ratio("ours") == Spread(5, 5, 10)  # not 2.0 / 0.1 or 1.0 / 0.2 of different rounds
    assert COMPARISON.ratio("theirs") == Spread(1, 1, 1)
    assert COMPARISON.speed("ours") == Spread(25, 50, 100)
    alone = Comparison("sorting", {"ours": [0.1]})
    assert alone.ratio("ours") is None
    assert alone.speed("ours") is None


def test_table_shows_every_subject_in_aligned_columns():
    title, head, *lines = COMPARISON.table().splitlines()
    assert title == "sorting (3 rounds)"
    assert " ".join(head.split()) == "ms a call: min median max rows/s: min median max times as fast: min median max"
    assert " ".join(lines[0].split()) == "ours 100 200 400 25 50 100 5 5 10"
    assert " ".join(lines[1].split()) == "theirs 1,000 1,000 2,000 5 10 10 1 1 1"
    assert len({len(line) for line in (head, *lines)}) == 1


def test_impossible_comparison_is_an_error():
    with pytest.raises(RecipeError, match="same rounds"):
        Comparison("sorting", {"ours": [1.0], "theirs": [1.0, 2.0]})
    with pytest.raises(RecipeError, match="same rounds"):
        Comparison("sorting", {"ours": []})
    with pytest.raises(RecipeError, match="'old' was not measured, only ours"):
        Comparison("sorting", {"ours": [1.0]}, reference="old")


@pytest.fixture
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
def test_json_holds_the_numbers_and_where_they_come_from(tmp_path, capsys):
    file = tmp_path / "new" / "sorting.json"
    options = started(option_parser("sorting", "Sorts."), ["--threads", "1", "--rounds", "3", "--json", str(file)])
    finish(options, [COMPARISON], batch=8)
    content = json.loads(file.read_text())
    assert content["benchmark"] == "sorting"
    assert content["batch"] == 8
    assert content["machine"]["threads"] == torch.get_num_threads() == 1
    assert content["machine"]["command"] == f"python -m benchmarks.sorting --threads 1 --rounds 3 --json {file}"
    assert {"cpu", "torch", "commit", "date"} <= content["machine"].keys()
    ours = content["comparisons"][0]["subjects"]["ours"]
    assert ours["seconds"] == {"min": 0.1, "median": 0.2, "max": 0.4, "rounds": [0.1, 0.2, 0.4]}
    assert ours["times_as_fast"] == {"min": 5, "median": 5, "max": 10}
    assert ours["rows_per_second"]["median"] == 50
    assert [path.name for path in file.parent.iterdir()] == ["sorting.json"]
    assert str(file) in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu_is_an_error():
    with pytest.raises(RecipeError, match="PyTorch finds no GPU"):
        started(option_parser("sorting", None), ["--device", "cuda"])
