"""checkpoints: whole, finite, and the best one kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from unscene.errors import RunError, TrainingError
from unscene.runs import run_folder
from unscene.runs.run_folder import RunFolder
from unscene.training.callbacks.checkpoints import BestCheckpoint, WholeFiles, save_checkpoint
from unscene.training.callbacks.metrics_log import MetricsLog
from unscene.training.module import SceneModule


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", "seed: 0\n")


def test_a_checkpoint_is_what_was_saved(run):
    WholeFiles().save_checkpoint({"a": torch.arange(3), "step": 2}, run.last)
    content = torch.load(run.last, weights_only=True)
    assert content["step"] == 2
    assert torch.equal(content["a"], torch.arange(3))


def test_a_full_disk_keeps_the_checkpoint_that_is_there(run, monkeypatch):
    WholeFiles().save_checkpoint({"step": 1}, run.last)

    def full(path, content):
        with run_folder.writing(path):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("unscene.training.callbacks.checkpoints.write_bytes", full)
    with pytest.raises(RunError, match=r"last\.ckpt: the disk is full"):
        WholeFiles().save_checkpoint({"step": 2}, run.last)
    assert torch.load(run.last, weights_only=True) == {"step": 1}
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.ckpt"]


def test_weights_that_are_not_finite_are_not_written(run, tiny):
    module = SceneModule(tiny(), 1)
    with torch.no_grad():
        next(module.model.vae.parameters())[0] = float("inf")
    trainer = SimpleNamespace(lightning_module=module, global_step=12, save_checkpoint=lambda path: path.touch())
    with pytest.raises(
        TrainingError, match=r"step 12: \d+ of the weights are not finite, '.*' among them.*Resume the run"
    ):
        save_checkpoint(trainer, run)
    assert not run.last.exists()


def test_finite_weights_are_written(run, tiny):
    trainer = SimpleNamespace(
        lightning_module=SceneModule(tiny(), 1), global_step=12, save_checkpoint=lambda path: path.touch()
    )
    save_checkpoint(trainer, run)
    assert run.last.exists()


def test_the_best_validation_is_kept(run, tiny):
    module = SceneModule(tiny(), 1)
    trainer = SimpleNamespace(is_global_zero=True)
    best = BestCheckpoint(run, MetricsLog(run, 1))
    best.on_train_start(trainer, module)
    kept = []
    for step, score in enumerate([-0.5, 0.25, 0.25, 0.125, float("nan"), 0.5]):
        run.last.write_text(f"step {step}")
        module.results = {"val/score": score}
        best.on_validation_end(trainer, module)
        kept.append(run.best.read_text())
    assert kept == ["step 0", "step 1", "step 1", "step 1", "step 1", "step 5"]


def test_a_resumed_run_has_the_best_score_to_beat(run, tiny):
    module = SceneModule(tiny(), 1)
    trainer = SimpleNamespace(is_global_zero=True)
    log = MetricsLog(run, 1)
    log.table.append({"step": 3, "seconds": 1, "val/score": 0.75})
    run.best.write_text("best")
    run.last.write_text("last")
    best = BestCheckpoint(run, log)
    best.on_train_start(trainer, module)
    module.results = {"val/score": 0.5}
    best.on_validation_end(trainer, module)
    assert run.best.read_text() == "best"
