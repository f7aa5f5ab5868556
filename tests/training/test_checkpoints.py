"""checkpoints: written whole and synced, finite, and the best one knows its score."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from unscene import files
from unscene.errors import CheckpointError, RunError, TrainingError
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import read_checkpoint
from unscene.training.checkpoints import (
    Progression,
    checkpoint_content,
    set_random_state,
    write_checkpoint,
)


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "seed: 0\n")


def content(model: nn.Module, step: int = 12, best_score: float | None = None) -> dict:
    return checkpoint_content(Progression(step), model, [torch.optim.Adam(model.parameters())], {}, best_score)


def test_checkpoint_holds_what_was_saved(run):
    model, progression = nn.Linear(2, 2), Progression(7, 3, ["step 3: collapsed"], validation_due=True)
    write_checkpoint(checkpoint_content(progression, model, [torch.optim.Adam(model.parameters())], {}, 0.5), run.last)
    read = torch.load(run.last, weights_only=True)
    assert Progression.from_checkpoint(read) == progression
    assert progression.attempt_step == 4
    assert torch.equal(read["model"]["weight"], model.weight)
    assert read["best_score"] == 0.5


def test_full_disk_keeps_the_earlier_checkpoint(run, monkeypatch):
    write_checkpoint({"step": 1}, run.last)

    def full(path, content):
        with files.writing(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("unscene.training.checkpoints.write_bytes", full)
    with pytest.raises(RunError, match=r"last\.ckpt: the disk is full"):
        write_checkpoint({"step": 2}, run.last)
    assert torch.load(run.last, weights_only=True) == {"step": 1}
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.ckpt"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells the path of an open file")
def test_checkpoint_is_synced_before_its_rename_and_its_folder_after(run, monkeypatch):
    synced = []
    monkeypatch.delenv("UNSCENE_SYNC", raising=False)
    monkeypatch.setattr(
        os, "fsync", lambda file: synced.append((str(Path(f"/proc/self/fd/{file}").readlink()), run.last.exists()))
    )
    write_checkpoint({"step": 1}, run.last)
    assert synced == [(str(run.checkpoints / ".last.ckpt.part"), False), (str(run.checkpoints), True)]


def test_checkpoint_of_an_earlier_version_has_observed_nothing():
    assert Progression.from_checkpoint(
        {"step": 2, "first_step": 0, "restarts": [], "validation_due": True}
    ) == Progression(2, validation_due=True)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_are_refused(value):
    model = nn.ModuleDict({"good": nn.Linear(2, 2), "bad": nn.Linear(2, 2)})
    with torch.no_grad():
        model["bad"].bias[1] = value
    with pytest.raises(TrainingError, match=r"1 of the weights are not finite, 'bad\.bias' .*Lower --optimizer"):
        content(model)


def test_random_numbers_continue_after_the_checkpoint():
    state = content(nn.Linear(2, 2))["random_state"]
    expected = torch.rand(3)
    torch.manual_seed(5)
    set_random_state(state)
    assert torch.equal(torch.rand(3), expected)


def test_best_checkpoint_knows_its_score(run):
    write_checkpoint(content(nn.Linear(2, 2), best_score=-0.25), run.best)
    assert read_checkpoint(run.best)["best_score"] == -0.25
    run.best.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"best\.ckpt cannot be read as a checkpoint"):
        read_checkpoint(run.best)


def test_scenes_are_described_by_their_number_and_the_files_names():
    def folder(*names: str, skipped: tuple[str, ...] = ()) -> SimpleNamespace:
        return SimpleNamespace(paths=[Path(name) for name in names], skipped=[Path(name) for name in skipped])

    def describe_scenes(*sources: SimpleNamespace | range) -> str:
        return Progression.from_sources(*sources).scenes

    assert describe_scenes(range(1200), range(3)) == "1,200 scenes and 3 scenes"
    assert describe_scenes(folder("a/1.png", "2.png")).startswith("2 images (names ")
    assert describe_scenes(folder("a/1.png", "2.png")) == describe_scenes(folder("b/2.png", skipped=("b/1.png",)))
    assert describe_scenes(folder("1.png", "2.png")) != describe_scenes(folder("1.png", "3.png"))
    coco = SimpleNamespace(paths=np.array(["a/1.png", "2.png"]))
    assert describe_scenes(coco) == describe_scenes(folder("a/1.png", "2.png"))


@pytest.mark.parametrize(
    ("validations", "settled"),
    [
        ([[0.5, -1.0]], False),  # nothing earlier
        ([[0.5, -1.0], [0.5, -1.0]], False),
        ([[0.5, -1.0], [0.5, -1.0], [0.505, -0.99]], True),
        ([[0.5, -1.0], [0.52, -1.0], [0.4, -1.0]], False),  # the first column gained
        ([[0.5, -1.0], [0.4, -0.9], [0.4, -1.0]], False),  # the second
        ([[0.0, -1.0], [0.0, -2.0], [0.0, -2.0]], True),
    ],
)
def test_settled_if_no_column_gains_two_percent(validations, settled):
    progression = Progression(validations=validations)
    assert progression.is_settled(2) is settled
    assert not progression.is_settled(0)
