"""Restarts: a collapse is found and reported, and the training starts again from new initial weights."""

from __future__ import annotations

import pytest
import torch

from unscene.errors import RecipeError
from unscene.metrics.health import Health
from unscene.runs.trainer_settings import RestartSettings
from unscene.scene import Decomposition
from unscene.training.train import train

ALWAYS = {"times": 2, "largest_slot": 0.001}  # any mask at all is a collapse
EVERY_STEP = {"trainer.validate_minutes": 1e-9, "trainer.max_steps": 4}


def health_of(shares: list[float], background: int | None) -> Health:
    masks = torch.tensor(shares).view(1, -1, 1, 1, 1).expand(1, -1, 1, 4, 4)
    health = Health()
    health.update(torch.rand(1, 3, 4, 4), Decomposition(masks.log(), torch.zeros(1, len(shares), 3, 4, 4), background))
    return health


def test_collapse_by_hand():
    limits = {"largest_slot": 0.9, "foreground_won": 0.005}
    assert health_of([0.95, 0.05], None).collapse(**limits) == "the largest slot holds 0.950 of the foreground"
    assert health_of([0.6, 0.4], None).collapse(**limits) is None
    assert "win 0.000 of the pixels" in health_of([0.9, 0.05, 0.05], 0).collapse(**limits)
    assert health_of([0.2, 0.4, 0.4], 0).collapse(**limits) is None


def test_training_restarts_until_the_limit_and_reports_it(tiny, tmp_path):
    run = train(tiny({"trainer.restart": ALWAYS, **EVERY_STEP}), tmp_path / "run")
    lines = run.restarts.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 1", "step 2"]
    assert "restart 2 of 2" in lines[1]
    assert "after 1 steps" in lines[1]


def test_restart_takes_the_weights_of_another_seed_and_a_new_optimiser(tiny, tmp_path, state):
    """One step, a restart, one step: what a training of the other seed's weights does in one step."""
    changes = {"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP, "trainer.max_steps": 2}
    run = train(tiny(changes), tmp_path / "run")
    recipe = tiny({})
    torch.manual_seed(recipe.seed + 1)
    initial = recipe.build_model().state_dict()
    rate = recipe.optimizer.learning_rate
    moved = 0
    for name, value in state(run.last).items():
        if value.is_floating_point() and "running" not in name:
            change = (value - initial[name]).abs().max()
            assert change <= 1.01 * rate  # Adam's first step, its memory empty, is one rate at most
            moved += int(change > 0)
    assert moved > 10
    (optimizer,) = torch.load(run.last, weights_only=True)["optimizers"]
    assert {float(state["step"]) for state in optimizer["state"].values()} == {1.0}


def test_restart_resets_all_optimisers(tiny, tmp_path):
    two = {"optimizer.name": "rmsprop", "optimizer.param_groups": [{"prefix": "vae", "name": "adam"}]}
    changes = {"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP, **two, "trainer.max_steps": 2}
    run = train(tiny(changes), tmp_path / "run")
    optimizers = torch.load(run.last, weights_only=True)["optimizers"]
    states = [state for optimizer in optimizers for state in optimizer["state"].values()]
    assert {len(state) for state in states} == {2, 3}  # RMSprop's and Adam's
    assert {float(state["step"]) for state in states} == {1.0}


def test_resumed_training_keeps_its_restarts(tiny, tmp_path):
    recipe = tiny({"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP, "trainer.max_steps": 2})
    train(recipe, tmp_path / "run")
    longer = tiny({"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP})
    run = train(longer, tmp_path / "run", resume=True)
    assert len(run.restarts.read_text().splitlines()) == 1
    checkpoint = torch.load(run.last, weights_only=True)
    assert checkpoint["first_step"] == 1
    assert [f"{line}\n" for line in checkpoint["restarts"]] == [run.restarts.read_text()]


@pytest.mark.parametrize("settings", [{"times": 0}, {"from_step": 100}, {"until_step": 0}])
def test_no_restart_outside_of_its_limits(tiny, tmp_path, settings):
    run = train(
        tiny({"trainer.restart": {**ALWAYS, **settings}, **EVERY_STEP, "trainer.max_steps": 2}), tmp_path / "run"
    )
    assert not run.restarts.exists()


@pytest.mark.parametrize(("name", "value"), [("times", -1), ("largest_slot", 0.0), ("foreground_won", 1.0)])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(RecipeError, match=f"{name} must be"):
        RestartSettings(**{name: value})
