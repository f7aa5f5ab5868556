"""train: the files of a run, the same numbers from the same seed, and a resumed run equal to an uninterrupted one."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import unscene
from unscene.cli.main import main
from unscene.errors import CheckpointError, DataError, RecipeError, RunError, TrainingError
from unscene.metrics.health import Health
from unscene.models.rmonet.model import RMONet
from unscene.recipes import load_recipe
from unscene.runs import run_folder
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import read_checkpoint, read_weights
from unscene.scene import Losses
from unscene.training import loop
from unscene.training.checkpoints import write_checkpoint
from unscene.training.loop import Timer, TrainingLoop
from unscene.training.train import resume_hint, train
from unscene.training.validation import show_validation

TIMINGS = ("seconds", "train/images_per_second")
VALIDATE_EVERY_STEP = {"trainer.validate_minutes": 1e-6}  # after every step


def rows(run: RunFolder, prefix: str = "train/") -> list[dict[str, str]]:
    """What metrics.csv says of the training (or the validation), without the time it took."""
    with run.metrics.open(newline="") as file:
        table = list(csv.DictReader(file))
    kept = [row for row in table if any(value for name, value in row.items() if name.startswith(prefix))]
    return [
        {name: row[name] for name in row if name == "step" or (name.startswith(prefix) and name not in TIMINGS)}
        for row in kept
    ]


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def stop_after(monkeypatch):
    """`stop_after(3)` presses Ctrl-C in step 3."""

    def press(step: int) -> None:
        decide = TrainingLoop.save_and_validate

        def pressed(self: TrainingLoop) -> bool:
            if self.progression.step == step:
                signal.raise_signal(signal.SIGINT)
            return decide(self)

        monkeypatch.setattr(TrainingLoop, "save_and_validate", pressed)

    return press


def test_run_folder_holds_all_files(trained, tiny):
    names = {path.relative_to(trained.path).as_posix() for path in trained.path.rglob("*") if path.is_file()}
    events = {name for name in names if name.startswith("tensorboard/events")}
    assert len(events) == 1
    assert names - events == {
        "recipe.yaml",
        "environment.json",
        "metrics.csv",
        "health.txt",
        "weights.safetensors",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        "samples/step_0000006.png",
    }
    assert trained.recipe.read_text() == tiny().text()
    start = json.loads(trained.environment.read_text())[0]
    assert {"date", "command", "commit", "python", "torch", "cpu", "cores", "seed", "first_step"} <= start.keys()
    assert (start["seed"], start["first_step"]) == (0, 0)
    assert trained.health.read_text().startswith("step 6: ")
    assert Image.open(trained.samples / "step_0000006.png").width > 100


def test_metrics_name_every_term_and_the_validation(trained):
    assert [row["step"] for row in rows(trained)] == ["2", "4", "6"]
    terms = {
        "loss",
        "reconstruction",
        "latent_kl",
        "mask_kl",
        "objectness",
        "regression",
        "pseudo_boxes",
        "learning_rate",
    }
    assert rows(trained)[0].keys() - {"step"} == {f"train/{name}" for name in terms}
    assert all(value for row in rows(trained) for value in row.values())
    (validation,) = rows(trained, "val/")
    assert validation["step"] == "6"
    assert {"val/ari_fg", "val/map_50_95", "val/reconstruction_mse", "val/score"} <= validation.keys()
    assert rows(trained, "health/")[0]["health/slots_used"]


@pytest.mark.parametrize(("by", "score"), [("mask_iou", "mask_iou"), ("map_50", "map_50"), ("located", None)])
def test_named_score_chooses_the_best_weights(tiny, tmp_path, by, score):
    run = train(tiny({"trainer.keep_best_by": by, "trainer.max_steps": 2}), tmp_path / "run")
    (validation,) = rows(run, "val/")
    assert validation["val/score"] == validation[f"val/{score or 'label_free'}"]  # the model has no locations


def test_the_last_weights_are_kept_though_others_scored_more(tiny, tmp_path, monkeypatch):
    scores = iter([9.0, 8.0, 1.0])
    monkeypatch.setattr(Health, "score", lambda health: next(scores))
    changes = {"trainer.keep_best_by": "last", "trainer.max_steps": 3, "trainer.validate_minutes": 1e-6}
    run = train(tiny(changes), tmp_path / "run")
    assert [row["val/score"] for row in rows(run, "val/")] == ["9.0", "8.0", "1.0"]
    best, last = read_checkpoint(run.best), read_checkpoint(run.last)
    assert best["step"] == last["step"] == 3
    assert_close(best["model"], last["model"], rtol=0, atol=0)


def test_without_labels_the_label_free_score_chooses(tiny, tmp_path):
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 90, 20)).save(tmp_path / f"{number}.png")
    run = train(tiny({"trainer.max_steps": 2}, images=str(tmp_path)), tmp_path / "run")
    (validation,) = rows(run, "val/")
    health = {name: float(value) for name, value in rows(run, "health/")[0].items() if name.startswith("health/")}
    expected = health["health/explained"] ** 2 * math.sqrt(health["health/stable_objects"])
    assert float(validation["val/score"]) == float(validation["val/label_free"]) == pytest.approx(expected, rel=1e-5)
    assert "val/ari_fg" not in validation


@pytest.mark.parametrize(("steps", "best"), [(2, 2), (5, 4)])
def test_without_labels_the_best_weights_are_not_of_the_warm_up(tiny, tmp_path, monkeypatch, steps, best):
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 90, 20)).save(tmp_path / f"{number}.png")
    scores = iter([9.0, 8.0, 1.0, 2.0, 1.5])
    monkeypatch.setattr(Health, "score", lambda health: next(scores))
    changes = {"model.warmup.steps": 3, "trainer.max_steps": steps, "trainer.validate_minutes": 1e-6}
    run = train(tiny(changes, images=str(tmp_path)), tmp_path / "run")
    assert read_checkpoint(run.best)["step"] == best
    assert len(read_checkpoint(run.last)["validations"]) == max(0, steps - 2)  # that patience counts


def test_a_restart_keeps_the_best_weights_of_before_while_it_warms_up(tiny, tmp_path, monkeypatch):
    for number in range(8):
        Image.new("RGB", (32, 32), (30 * number, 90, 20)).save(tmp_path / f"{number}.png")
    collapses = iter(["collapsed"])
    monkeypatch.setattr(Health, "score", lambda health: 1.0)
    monkeypatch.setattr(Health, "collapse", lambda health, *limits: next(collapses, None))
    changes = {"model.warmup.steps": 2, "trainer.max_steps": 4, "trainer.validate_minutes": 1e-6}
    run = train(
        tiny(changes | {"trainer.restart.times": 1, "trainer.restart.from_step": 2}, images=str(tmp_path)),
        tmp_path / "run",
    )
    assert read_checkpoint(run.best)["step"] == 2


def test_a_settled_training_ends_says_so_and_exports(tiny, tmp_path, capsys):
    still = {"optimizer.learning_rate": 1e-12, "trainer.validate_minutes": 1e-6, "trainer.patience": 2}
    run = train(tiny(still | {"trainer.max_steps": 50}), tmp_path / "run")
    steps = [int(row["step"]) for row in rows(run, "val/")]
    assert 3 <= len(steps) < 50
    gained = "neither val/score nor the reconstruction gained 2 % in 2 validations"
    assert f"step {steps[-1]}: {gained}, so the training ends" in capsys.readouterr().out
    assert unscene.load(run.weights).provenance["checkpoint"] == "best.ckpt"


def test_training_that_ends_with_a_cycle_ends_at_its_lowest_rate(tiny, tmp_path):
    """Not with one step at the next cycle's peak, which the kept weights would be of."""
    recipe = tiny({"trainer.log_every": 1, "trainer.max_steps": 4, "schedule.cycle_epochs": 1})
    epoch = len(recipe.source()) // recipe.trainer.batch_size
    one_cycle = {"schedule.warmup_epochs": 0, "schedule.cycle_epochs": 4 / epoch, "schedule.lowest": 0}
    run = train(tiny({"trainer.log_every": 1, "trainer.max_steps": 4, **one_cycle}), tmp_path / "run")
    rates = [float(row["train/learning_rate"]) / recipe.optimizer.learning_rate for row in rows(run)]
    assert rates == pytest.approx([0.5 + 0.5 * math.cos(math.pi * (step + 0.5) / 4) for step in range(4)], rel=1e-3)


def test_the_loss_is_the_weighted_sum_of_its_terms(trained, tiny):
    model = tiny().model
    gamma = model.weights.mask * 0.5 / model.warmup.steps  # the warm-up's mean over steps 0 and 1
    row = {name: float(value) for name, value in rows(trained)[0].items()}
    total = row["train/reconstruction"] + row["train/objectness"] + row["train/regression"]
    total += gamma * row["train/mask_kl"] + gamma * row["train/latent_kl"]
    assert row["train/loss"] == pytest.approx(total, rel=1e-3)


def test_tensorboard_holds_the_losses(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained.tensorboard))
    events.Reload()
    logged = {event.step: event.value for event in events.Scalars("train/loss")}
    assert logged == pytest.approx({int(row["step"]): float(row["train/loss"]) for row in rows(trained)}, rel=1e-5)
    assert events.Scalars("val/score")


def test_same_seed_gives_the_same_bits(trained, tiny, tmp_path, state):
    again = train(tiny(), tmp_path / "again")
    assert rows(again) == rows(trained)
    assert rows(again, "val/") == rows(trained, "val/")
    assert same(state(again.last), state(trained.last))
    other = train(tiny({"seed": 1}), tmp_path / "other")
    assert rows(other) != rows(trained)


def test_validations_do_not_change_the_training(trained, tiny, tmp_path, state):
    run = train(tiny(VALIDATE_EVERY_STEP), tmp_path / "run")
    assert [row["step"] for row in rows(run, "val/")] == ["1", "2", "3", "4", "5", "6"]
    assert rows(run) == rows(trained)
    assert same(state(run.last), state(trained.last))
    scores = [float(row["val/score"]) for row in rows(run, "val/")]
    assert torch.load(run.best, weights_only=True)["step"] == 1 + scores.index(max(scores))
    assert read_weights(run.weights)[2]["step"] == 1 + scores.index(max(scores))
    assert len(list(run.samples.iterdir())) == 6


@pytest.mark.parametrize("step", [1, 4])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(
    trained, tiny, tmp_path, state, stop_after, monkeypatch, step
):
    stop_after(step)
    with pytest.raises(KeyboardInterrupt, match=r"unscene train --resume .*run"):
        train(tiny(), tmp_path / "run")
    monkeypatch.undo()
    run = RunFolder.open(tmp_path / "run")
    assert torch.load(run.last, weights_only=True)["step"] == step
    assert not list(run.samples.iterdir())  # no validation while the user waits
    assert run.weights.is_file()
    train(tiny(), run.path, resume=True)
    assert rows(run) == rows(trained)  # a row that the interruption cut in two as well
    assert rows(run, "val/") == rows(trained, "val/")
    assert same(state(run.last), state(trained.last))
    assert [start["first_step"] for start in run.starts()] == [0, step]


def test_finished_run_can_be_prolonged(trained, tiny, tmp_path, state):
    longer = tiny({"trainer.max_steps": 9})
    unbroken = train(longer, tmp_path / "unbroken")
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    train(longer, run.path, resume=True)
    assert rows(run) == rows(unbroken)
    assert same(state(run.last), state(unbroken.last))
    assert run.recipe_values()["trainer"]["max_steps"] == 9


def test_resuming_a_finished_run_changes_nothing(trained, tiny, tmp_path, state, capsys):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    train(tiny(), run.path, resume=True)
    assert "has had its 6 steps. To train longer, raise --trainer.max_steps" in capsys.readouterr().out
    assert rows(run) == rows(trained)


def test_run_without_a_checkpoint_resumes_from_its_first_step(trained, tiny, tmp_path, state):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    shutil.rmtree(run.checkpoints)
    shutil.rmtree(run.samples)
    train(tiny(), run.path, resume=True)
    assert rows(run) == rows(trained)
    assert same(state(run.last), state(trained.last))


def test_resumed_run_may_change_its_learning_rates(tiny, tmp_path):
    groups = "optimizer.param_groups"
    run = train(tiny({groups: [{"prefix": "vae", "learning_rate": 0.001}]}), tmp_path / "run")
    changes = {"trainer.max_steps": 8, "optimizer.learning_rate": 0.02, "schedule.cycle_epochs": 0}
    changes |= {groups: [{"prefix": "vae", "learning_rate": 0.01}], "schedule.warmup_epochs": 0}
    train(tiny(changes), run.path, resume=True)
    (optimizer,) = torch.load(run.last, weights_only=True)["optimizers"]
    assert [group["lr"] for group in optimizer["param_groups"]] == [0.01, 0.02]


@pytest.mark.parametrize("precision", ["bf16", "float32"])
def test_gradients_are_clipped_in_either_precision(tiny, tmp_path, state, precision):
    changes = {"trainer.precision": precision, "trainer.max_steps": 2, "optimizer.name": "rmsprop"}
    free = train(tiny(changes), tmp_path / "free")
    for name in ("rmsprop", "adam", "adamw"):
        clipped = train(tiny(changes | {"optimizer.name": name, "optimizer.clip_norm": 1e-3}), tmp_path / name)
        assert all(value.isfinite().all() for value in state(clipped.last).values() if value.is_floating_point())
        if name == "rmsprop":
            assert not same(state(free.last), state(clipped.last))


TWO = {
    "optimizer.name": "rmsprop",
    "optimizer.param_groups": [{"prefix": "vae", "name": "adam", "learning_rate": 0.01}],
    "optimizer.clip_norm": 1.0,
}


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_two_optimisers_are_resumed(tiny, tmp_path, state, stop_after, monkeypatch, clip_norm):
    recipe = tiny(TWO | {"optimizer.clip_norm": clip_norm})
    unbroken = train(recipe, tmp_path / "unbroken")
    stop_after(3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    monkeypatch.undo()
    run = train(recipe, tmp_path / "run", resume=True)
    assert rows(run) == rows(unbroken)
    assert same(state(run.last), state(unbroken.last))
    kept = torch.load(run.last, weights_only=True)["optimizers"]
    assert {tuple(sorted(moments)) for optimizer in kept for moments in optimizer["state"].values()} == {
        ("exp_avg", "exp_avg_sq", "step"),
        ("square_avg", "step"),
    }


@pytest.mark.parametrize("masks", ["posterior", "inferred"])
def test_a_resumed_run_may_show_other_masks_whose_scores_are_not_compared(masks, tiny, tmp_path):
    run = train(tiny(VALIDATE_EVERY_STEP | {"trainer.max_steps": 1, "model.masks": "inferred"}), tmp_path / "run")
    write_checkpoint(read_checkpoint(run.best) | {"best_score": 2.0}, run.best)
    train(tiny(VALIDATE_EVERY_STEP | {"trainer.max_steps": 2, "model.masks": masks}), run.path, resume=True)
    best = read_checkpoint(run.best)
    assert (best["step"], best["best_score"] == 2.0) == ((1, True) if masks == "inferred" else (2, False))
    assert run.recipe_values()["model"]["masks"] == read_weights(run.weights)[1]["model"]["masks"] == masks


def test_clipping_may_begin_with_a_resume(tiny, tmp_path):
    changes = {"trainer.precision": "bf16", "trainer.max_steps": 2}
    run = train(tiny(changes), tmp_path / "run")
    train(tiny(changes | {"trainer.max_steps": 4, "optimizer.clip_norm": 0.1}), run.path, resume=True)
    assert torch.load(run.last, weights_only=True)["step"] == 4


def test_time_limit_counts_from_each_start(tiny, tmp_path):
    run = train(tiny({"trainer.max_minutes": 1e-6, "trainer.max_steps": 100}), tmp_path / "run")
    assert [row["step"] for row in rows(run, "val/")] == ["1"]
    train(tiny({"trainer.max_minutes": 1e-6, "trainer.max_steps": 100}), run.path, resume=True)
    assert [row["step"] for row in rows(run, "val/")] == ["1", "2"]


@pytest.fixture
def broken_at(monkeypatch):
    """`broken_at(3, "mask_kl")` makes a term of step 3's loss not finite."""

    def breaks(step: int, term: str) -> None:
        right = RMONet.loss

        def wrong(self, images, now):
            losses, decomposition = right(self, images, now)
            if now == step:
                losses = Losses(
                    losses.terms | {term: losses.terms[term] * float("nan")}, losses.weights, losses.observed
                )
            return losses, decomposition

        monkeypatch.setattr(RMONet, "loss", wrong)

    return breaks


def test_loss_that_is_not_finite_ends_the_training_and_names_the_term(
    trained, tiny, tmp_path, broken_at, state, monkeypatch
):
    broken_at(4, "mask_kl")
    run = RunFolder(tmp_path / "run")
    with pytest.raises(TrainingError, match=r"step 4: the loss is not finite, because of mask_kl "):
        train(tiny({"trainer.checkpoint_minutes": 1e-6}), run.path)
    assert torch.load(run.last, weights_only=True)["step"] == 4  # after the last finite step
    assert [row["step"] for row in rows(run)] == ["2", "4"]
    monkeypatch.undo()
    train(tiny(), run.path, resume=True)
    assert rows(run) == rows(trained)
    assert same(state(run.last), state(trained.last))


def test_full_disk_ends_the_training_and_keeps_the_checkpoint(tiny, tmp_path, monkeypatch):
    write, seen = Path.write_bytes, []

    def full(self: Path, content: bytes) -> int:
        seen.append(self.name)
        if sum("last.ckpt" in name for name in seen) == 3:
            write(self, content[: len(content) // 2])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    run = RunFolder(tmp_path / "run")
    with pytest.raises(RunError, match=r"last\.ckpt: the disk is full\. Free some space"):
        train(tiny({"trainer.checkpoint_minutes": 1e-6}), run.path)
    assert torch.load(run.last, weights_only=True)["step"] == 2
    assert [path.name for path in run.checkpoints.iterdir()] == ["last.ckpt"]


def test_second_training_into_the_folder_is_refused(trained, tiny):
    before = trained.last.read_bytes()
    with pytest.raises(RunError, match="is not empty, and a run is never overwritten"):
        train(tiny(), trained.path)
    with trained.lock():
        for resume in (False, True):
            with pytest.raises(RunError, match="is in use by process"):
                train(tiny({"trainer.max_steps": 9}), trained.path, resume)
    assert trained.last.read_bytes() == before


def test_failed_start_leaves_no_run_folder(tiny, tmp_path, monkeypatch):
    for changes, error, message in (
        ({"trainer.batch_size": 41}, RecipeError, r"batch_size is 41, but there are only 40 images"),
        ({"optimizer.param_groups": [{"prefix": "vea"}]}, RecipeError, r"Did you mean 'vae'"),
        ({"validation.count": 0}, RecipeError, r"validation\.count must be 1 or more"),
    ):
        with pytest.raises(error, match=message):
            train(tiny(changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="There is no folder"):
        train(tiny(images=str(tmp_path / "no")), tmp_path / "run")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"trainer\.accelerator is gpu, but PyTorch finds no GPU here"):
        train(tiny({"trainer.accelerator": "gpu"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_damaged_image_is_named_in_one_line(tiny, tmp_path, workers):
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(12):
        Image.new("RGB", (40, 40), (index, 0, 0)).save(photos / f"{index:02}.png")
    changes = {"trainer.workers": workers, "trainer.max_steps": 3}
    train(tiny(changes, images=str(photos)), tmp_path / "well")
    whole = (photos / "11.png").read_bytes()
    (photos / "11.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"11\.png") as caught:
        train(tiny(changes, images=str(photos)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    run = train(tiny(changes | {"data.skip_damaged": True}, images=str(photos)), tmp_path / "skipped")
    validation = rows(run, "val/")[0]
    assert validation["val/score"] == validation["val/label_free"]  # nothing is labelled


def test_checkpoint_of_another_model_is_refused(trained, tiny, tmp_path):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    with pytest.raises(CheckpointError, match=r"last\.ckpt holds the weights of another model than recipe"):
        train(tiny({"model.vae.latent_dim": 3}), run.path, resume=True)
    assert run.recipe.read_text() == trained.recipe.read_text()
    run.last.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read as a checkpoint"):
        train(tiny(), run.path, resume=True)
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        train(tiny(), tmp_path / "nowhere", resume=True)


@pytest.fixture
def fourth_is_best(monkeypatch):
    """The validation of step 4 has the best score."""
    decide, measure, step = TrainingLoop.validate, loop.validate, []

    def validate(self: TrainingLoop, last: bool) -> None:
        step[:] = [self.progression.step]
        decide(self, last)

    def scored(*arguments) -> tuple[dict[str, float], Health]:
        scores, health = measure(*arguments)
        return scores | {"val/score": -abs(step[0] - 4.0)}, health

    monkeypatch.setattr(TrainingLoop, "validate", validate)
    monkeypatch.setattr(loop, "validate", scored)


@pytest.mark.slow
@pytest.mark.parametrize("killed_before", ["validation", "best.ckpt", "last.ckpt"])
@pytest.mark.parametrize("steps", [4, 6])
def test_validation_that_was_killed_is_repeated(
    tiny, tmp_path, state, fourth_is_best, monkeypatch, killed_before, steps
):
    """Whatever was on the disk by then, row and best.ckpt agree after the run is resumed."""
    recipe = tiny(VALIDATE_EVERY_STEP | {"trainer.max_steps": steps})
    unbroken = train(recipe, tmp_path / "unbroken")

    def write(content: dict, path: Path) -> None:
        in_validation = content["step"] == 4 and not content["validation_due"]
        if in_validation and killed_before == path.name:
            raise SystemExit(9)
        write_checkpoint(content, path)
        if content["step"] == 4 and killed_before == "validation":
            raise SystemExit(9)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "write_checkpoint", write)
        with pytest.raises(SystemExit):
            train(recipe, tmp_path / "run")
    run = train(recipe, tmp_path / "run", resume=True)
    assert rows(run) == rows(unbroken)
    assert rows(run, "val/") == rows(unbroken, "val/")
    for path in ("last", "best"):
        assert same(state(getattr(run, path)), state(getattr(unbroken, path)))
    assert torch.load(run.best, weights_only=True)["step"] == read_weights(run.weights)[2]["step"] == 4
    assert read_checkpoint(run.best)["best_score"] == 0
    assert run.health.read_text() == unbroken.health.read_text()
    assert "pseudo boxes" in run.health.read_text()
    assert not torch.load(run.last, weights_only=True)["validation_due"]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["deleted", "emptied", "zeroed"])
def test_best_weights_stay_when_metrics_csv_is_lost(tiny, tmp_path, fourth_is_best, damage):
    run = train(tiny(VALIDATE_EVERY_STEP | {"trainer.max_steps": 4}), tmp_path / "run")
    size = run.metrics.stat().st_size
    run.metrics.unlink()
    if damage != "deleted":
        run.metrics.write_bytes(bytes(size if damage == "zeroed" else 0))
    train(tiny(VALIDATE_EVERY_STEP), run.path, resume=True)
    assert torch.load(run.best, weights_only=True)["step"] == 4
    assert read_weights(run.weights)[2]["step"] == 4
    assert [row["step"] for row in rows(run, "val/")] == ["5", "6"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a killed process is a fork")
@pytest.mark.parametrize("or_resume", [[], ["--or-resume"]])
def test_command_can_be_repeated_after_kills_before_recipe_yaml(tmp_path, tiny_arguments, monkeypatch, or_resume):
    run = RunFolder(tmp_path / "run")
    command = ["train", *tiny_arguments, "--trainer.max_steps=1", "--out", str(run.path), *or_resume]

    def killed(path: Path, text: str) -> None:
        path.with_name(f".{path.name}.part").write_text(text[:10])
        os._exit(9)

    with monkeypatch.context() as patched:
        patched.setattr(run_folder, "write_text", killed)
        for _ in range(2):
            child = os.fork()
            if child == 0:
                try:
                    main(command)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
            assert [path.name for path in run.path.iterdir()] == [".recipe.yaml.part"]
    assert main(command) == 0
    assert torch.load(run.last, weights_only=True)["step"] == 1
    assert not list(run.path.glob(".*"))


def test_full_memory_is_a_clear_error(tiny, tmp_path, monkeypatch):
    def full(*arguments, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(TrainingLoop, "step", full)
    with pytest.raises(TrainingError, match=r"memory is full\. Lower trainer\.batch_size"):
        train(tiny(), tmp_path / "run")


def test_validation_uses_at_most_so_many_images(tiny, tmp_path, monkeypatch):
    batches, seen = loop.ordered_batches, []

    def counted(*arguments):
        for batch in batches(*arguments):
            seen.append(len(batch["image"]))
            yield batch

    monkeypatch.setattr(loop, "ordered_batches", counted)
    train(tiny({"trainer.validate_images": 5, "trainer.max_steps": 1}), tmp_path / "run")
    assert seen == [4, 1]


def images_in(folder: Path, *names: str) -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", (40, 40), (len(name) * 20, 90, 20)).save(folder / name)
    return str(folder)


def test_changed_images_are_told_when_a_run_is_resumed(tmp_path, tiny):
    photos = images_in(tmp_path / "photos", "a.png", "b.png", "c.png", "d.png")
    recipe = tiny({"trainer.max_steps": 1, "trainer.validate_minutes": 99}, images=photos)
    train(recipe, tmp_path / "run")
    longer = tiny({"trainer.max_steps": 2}, images=photos)
    (tmp_path / "photos" / "d.png").rename(tmp_path / "photos" / "e.png")
    for _ in range(2):
        with pytest.raises(DataError, match=r"the data changed since the run began: it had 4 images .* now there are"):
            train(longer, tmp_path / "run", resume=True)
        images_in(tmp_path / "photos", "d.png")
    (tmp_path / "photos" / "e.png").unlink()
    run = train(longer, tmp_path / "run", resume=True)
    assert read_checkpoint(run.last)["step"] == 2


def test_weights_of_an_earlier_end_are_not_loaded_during_a_resumed_training(tmp_path, tiny, monkeypatch):
    run = train(tiny({"trainer.max_steps": 1}), tmp_path / "run")
    assert run.weights.is_file()
    found = []
    save = TrainingLoop.save

    def save_and_load(loop, best=False):
        loop.best_score, loop.checkpoint_timer = 1.0, Timer(0)
        save(loop, best)
        found.append((best, unscene.load(run.path).provenance["weights"]))

    monkeypatch.setattr(TrainingLoop, "save", save_and_load)
    monkeypatch.setattr(TrainingLoop, "run_to_end", lambda loop: [loop.save(), loop.save(best=True)])
    train(tiny({"trainer.max_steps": 2}), run.path, resume=True)
    assert found == [(False, "weights.safetensors"), (True, "best.ckpt")]
    assert run.weights.is_file()


@pytest.mark.parametrize(
    "foreign",
    [
        {"optimizers": "x"},
        {"optimizers": []},
        {"log": 3},
        {"random_state": {"cpu": "x"}},
        {"random_state": {"cpu": torch.zeros(5056)}},
        {"random_state": {}},
        {"restarts": None},
    ],
)
def test_foreign_sections_of_a_checkpoint_are_refused(tmp_path, tiny, foreign):
    run = train(tiny({"trainer.max_steps": 1}), tmp_path / "run")
    write_checkpoint(read_checkpoint(run.last) | foreign, run.last)
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be resumed: it is not of this run"):
        train(tiny({"trainer.max_steps": 2}), run.path, resume=True)


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
def test_batch_normalisation_over_one_value_names_what_to_raise(tmp_path, tiny, kind):
    one = {"trainer.batch_size": 1, "data.size": 32, "model.head.kind": kind, "trainer.max_steps": 1}
    message = (
        r"trainer\.batch_size 1 at this image size .* Raise --trainer\.batch_size to 2 or more, or else --data\.size"
    )
    with pytest.raises(RecipeError, match=message):
        train(tiny(one), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train(tiny({**one, "trainer.batch_size": 2}), tmp_path / "run")
    before = run.recipe.read_text(), run.weights.read_bytes()
    with pytest.raises(RecipeError, match=message):
        train(tiny({**one, "trainer.max_steps": 2}), run.path, resume=True)
    assert (run.recipe.read_text(), run.weights.read_bytes()) == before


def test_samples_that_were_removed_are_made_again(tmp_path, tiny):
    run = train(tiny({"trainer.max_steps": 1}), tmp_path / "run")
    shutil.rmtree(run.samples)
    images, health = torch.rand(1, 3, 32, 32), Health()
    decomposition = unscene.load(run.path).decompose(images)
    health.update(images, decomposition)
    show_validation(run, 1, {}, health, {}, images, decomposition)
    assert [path.name for path in run.samples.iterdir()] == ["step_0000001.png"]


@pytest.mark.parametrize("trained_before", [False, True])
def test_an_interruption_at_once_names_only_a_command_that_works(tmp_path, tiny, monkeypatch, trained_before):
    path = tmp_path / "my run"
    if trained_before:
        train(tiny({"trainer.max_steps": 1}), path)

    def interrupted(self: TrainingLoop) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "run_to_end", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(tiny({"trainer.max_steps": 2}), path, resume=trained_before)
    hint = f" Resume it with:  unscene train --resume '{path}'" if trained_before else ""
    assert str(caught.value) == f"Stopped at once.{hint}"
    assert path.exists() == trained_before


@pytest.mark.parametrize(("lost", "kept"), [("best", "last"), ("last", "best")])
def test_lost_checkpoint_is_told_before_anything_is_replaced(tiny, trained, tmp_path, lost, kept):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "run"))
    getattr(run, lost).unlink()
    exported = run.weights.read_bytes()
    with pytest.raises(CheckpointError, match=rf"{lost}\.ckpt is missing.* copy .*{kept}\.ckpt to .*{lost}\.ckpt"):
        train(tiny({"trainer.max_steps": 7}), run.path, resume=True)
    assert run.weights.read_bytes() == exported
    shutil.copy(getattr(run, kept), getattr(run, lost))
    train(tiny({"trainer.max_steps": 7}), run.path, resume=True)
    assert read_checkpoint(run.last)["step"] == 7


def test_hint_to_resume_names_the_folders_of_the_data(tmp_path):
    recipe = load_recipe("rmonet_unet/images", {"data.folder": "my photos"})
    run = RunFolder.create(tmp_path / "run", recipe.text())
    assert resume_hint(run, recipe) == ""
    run.last.touch()
    expected = f"Resume it with:  unscene train --resume {run.path} --data.folder 'my photos'"
    assert resume_hint(run, recipe) == expected
