"""restart: a collapse is found, reported, and begun again with other weights, at most so often."""

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
    health.update(Decomposition(masks.log(), torch.zeros(1, len(shares), 3, 4, 4), background))
    return health


def test_what_a_collapse_is():
    limits = {"largest_slot": 0.9, "foreground_won": 0.005}
    assert health_of([0.95, 0.05], None).collapse(**limits) == "the largest slot holds 0.950 of the foreground"
    assert health_of([0.6, 0.4], None).collapse(**limits) is None
    assert "win 0.000 of the pixels" in health_of([0.9, 0.05, 0.05], 0).collapse(**limits)
    assert health_of([0.2, 0.4, 0.4], 0).collapse(**limits) is None


def test_it_begins_again_as_often_as_it_may_and_says_so(tiny, tmp_path):
    run = train(tiny({"trainer.restart": ALWAYS, **EVERY_STEP}), tmp_path / "run")
    lines = run.restarts.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 1", "step 2"]
    assert "restart 2 of 2" in lines[1]
    assert "after 1 steps" in lines[1]


def test_the_weights_are_those_of_another_seed_and_training_goes_on_as_from_the_start(tiny, tmp_path, state):
    """One step, a restart, one step: what a training of the other seed's weights does in one step."""
    changes = {"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP, "trainer.max_steps": 2}
    run = train(tiny(changes), tmp_path / "run")
    recipe = tiny({})
    torch.manual_seed(recipe.seed + 1)
    begun = recipe.build_model().state_dict()
    rate = recipe.optimizer.learning_rate
    moved = 0
    for name, value in state(run.last).items():
        if value.is_floating_point() and "running" not in name:
            change = (value - begun[name]).abs().max()
            assert change <= 1.01 * rate  # Adam's first step, its memory empty, is one rate at most
            moved += int(change > 0)
    assert moved > 10
    (optimizer,) = torch.load(run.last, weights_only=True)["optimizers"]
    assert {float(each["step"]) for each in optimizer["state"].values()} == {1.0}  # it has forgotten the first attempt


def test_every_optimiser_forgets(tiny, tmp_path):
    two = {"optimizer.name": "rmsprop", "optimizer.param_groups": [{"prefix": "vae", "name": "adam"}]}
    changes = {"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP, **two, "trainer.max_steps": 2}
    run = train(tiny(changes), tmp_path / "run")
    optimizers = torch.load(run.last, weights_only=True)["optimizers"]
    states = [each for optimizer in optimizers for each in optimizer["state"].values()]
    assert {len(each) for each in states} == {2, 3}  # RMSprop's and Adam's
    assert {float(each["step"]) for each in states} == {1.0}


def test_a_resumed_training_remembers(tiny, tmp_path):
    recipe = tiny({"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP, "trainer.max_steps": 2})
    train(recipe, tmp_path / "run")
    longer = tiny({"trainer.restart": {**ALWAYS, "times": 1}, **EVERY_STEP})
    run = train(longer, tmp_path / "run", resume=True)
    assert len(run.restarts.read_text().splitlines()) == 1
    checkpoint = torch.load(run.last, weights_only=True)
    assert checkpoint["first_step"] == 1
    assert [f"{line}\n" for line in checkpoint["restarts"]] == [run.restarts.read_text()]


@pytest.mark.parametrize("settings", [{"times": 0}, {"from_step": 100}, {"until_step": 0}])
def test_outside_of_its_limits_it_leaves_a_training_alone(tiny, tmp_path, settings):
    run = train(
        tiny({"trainer.restart": {**ALWAYS, **settings}, **EVERY_STEP, "trainer.max_steps": 2}), tmp_path / "run"
    )
    assert not run.restarts.exists()


@pytest.mark.parametrize(("name", "value"), [("times", -1), ("largest_slot", 0.0), ("foreground_won", 1.0)])
def test_impossible_settings_are_refused(name, value):
    with pytest.raises(RecipeError, match=f"{name} must be"):
        RestartSettings(**{name: value})
