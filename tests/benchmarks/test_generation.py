"""The generation's benchmark: what it counts, and what it says."""

from __future__ import annotations

import json

import pytest

from benchmarks import generation
from benchmarks.generation import LOADER, ONE_PROCESS, STEP, LoadedScenes, main, verdict
from benchmarks.timing import Comparison


class Counted:
    """Batches, counted as they are taken."""

    taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.taken += 1


@pytest.mark.parametrize(("workers", "taken", "counted"), [(0, 1, 1), (2, 40, 32)])
def test_batches_that_lay_ready_do_not_count(tiny, monkeypatch, workers, taken, counted):
    batches = Counted()
    monkeypatch.setattr(generation, "training_batches", lambda *rest, **more: batches)
    loader = LoadedScenes(tiny(), 4, workers, on_gpu=False)
    loader()
    assert (batches.taken, loader.batches) == (taken, counted)


def test_loaders_time_is_that_of_one_batch(tiny, monkeypatch):
    monkeypatch.setattr(generation, "measure", lambda subjects, *rest: {name: [8.0] for name in subjects})
    monkeypatch.setattr(generation, "training_batches", lambda *rest, **more: Counted())
    found = generation.compare(tiny(), 4, 2, "cpu", 1, 0.0)
    assert found.seconds == {STEP: [8.0], ONE_PROCESS: [8.0], LOADER: [8.0 / 32]}
    assert found.notes[LOADER]["workers"] == 2


@pytest.mark.parametrize(
    ("seconds", "word"), [(0.25, "4 times what the training consumes: enough"), (0.5, "too little")]
)
def test_three_times_is_enough(seconds, word):
    found = Comparison("x", {STEP: [1.0], ONE_PROCESS: [1.0], LOADER: [seconds]}, reference=STEP, items=4)
    assert word in verdict(found)


def test_command_prints_the_ratio_and_writes_it(tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.setattr(generation, "recipe_to_measure", lambda name, changes: tiny())
    main(["--rounds", "1", "--seconds", "0", "--json", str(tmp_path / "g.json")])
    assert "times what the training consumes" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "g.json").read_text())["comparisons"]
    assert set(found["subjects"]) == {STEP, ONE_PROCESS, LOADER}
    assert found["subjects"][LOADER]["times_as_fast"]["median"] > 0
