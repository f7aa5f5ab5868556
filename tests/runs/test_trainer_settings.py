"""trainer_settings: the schedule by hand, values that are refused, and when a training uses bfloat16."""

from __future__ import annotations

import pytest
import torch

from unscene.errors import RecipeError
from unscene.runs import trainer_settings
from unscene.runs.trainer_settings import OptimizerSettings, ParamGroup, ScheduleSettings, TrainerSettings


def test_cycles_that_grow_or_shrink():
    """Cycles of 4, 2, 1 ... epochs: place 5 is the middle of the second one; after 8 epochs the last one is over."""
    shrinking = ScheduleSettings(cycle_epochs=4, cycle_growth=0.5, restart_factor=0.5, lowest=0.2)
    assert [shrinking.factor(epoch) for epoch in (0, 2, 4, 5, 6)] == pytest.approx([1, 0.6, 0.5, 0.3, 0.25])
    assert 0 < shrinking.factor(8) == shrinking.factor(100) < 1e-3
    growing = ScheduleSettings(cycle_epochs=1, cycle_growth=2)
    assert [growing.factor(epoch) for epoch in (1, 2, 3, 7)] == pytest.approx([1, 0.5, 1, 1])


def test_default_factor_is_one():
    schedule = ScheduleSettings()
    assert [schedule.factor(epoch) for epoch in (0.01, 1, 1000)] == [1, 1, 1]


def test_warmup_is_linear():
    schedule = ScheduleSettings(warmup_epochs=4)
    assert [schedule.factor(epoch) for epoch in (0, 1, 2, 3, 4, 5)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_cosine_cycles_with_falling_peaks():
    schedule = ScheduleSettings(warmup_epochs=2, cycle_epochs=4, restart_factor=0.1)
    # warm-up until 2; cycles begin at 2, 6, 10 with peaks 1, .1, .01; half of the peak in their middle
    expected = {2: 1, 4: 0.5, 3: 0.8535534, 5: 0.1464466, 6: 0.1, 8: 0.05, 10: 0.01, 12: 0.005}
    assert {epoch: schedule.factor(epoch) for epoch in expected} == pytest.approx(expected)


def test_just_before_a_restart_the_factor_is_the_lowest():
    assert ScheduleSettings(cycle_epochs=10, lowest=0.2).factor(10 - 1e-9) == pytest.approx(0.2)
    assert ScheduleSettings(cycle_epochs=10, lowest=0.2).factor(5) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("settings", "values", "message"),
    [
        (OptimizerSettings, {"learning_rate": 0}, r"^learning_rate must be above 0"),
        (ParamGroup, {"prefix": "vae", "learning_rate": -1e-3}, r"^learning_rate must be 0 or more, not -0\.001"),
        (OptimizerSettings, {"param_groups": (ParamGroup("a"), ParamGroup("a"))}, r"^param_groups has a prefix twice"),
        (OptimizerSettings, {"weight_decay": -1}, r"^weight_decay must be 0 or more, not -1"),
        (OptimizerSettings, {"clip_norm": -0.5}, r"^clip_norm must be 0 or more"),
        (ScheduleSettings, {"warmup_epochs": -1}, r"^warmup_epochs must be 0 or more"),
        (TrainerSettings, {"batch_size": 0}, r"^batch_size must be 1 or more, not 0"),
        (TrainerSettings, {"max_steps": 0}, r"^max_steps must be 1 or more"),
        (TrainerSettings, {"max_minutes": -1}, r"^max_minutes must be 0 or more"),
        (TrainerSettings, {"workers": -2}, r"^workers must be from -1 to 256, not -2"),
        (TrainerSettings, {"devices": 0}, r"^devices must be .*from 1 to 1,?024"),
        (TrainerSettings, {"validate_minutes": 0}, r"^validate_minutes must be above 0"),
    ],
)
def test_impossible_values_are_refused_by_name(settings, values, message):
    with pytest.raises(RecipeError, match=message):
        settings(**values)


def test_rate_of_zero_is_allowed_in_a_group():
    assert ParamGroup("backbone", learning_rate=0.0).learning_rate == 0


def test_auto_precision_follows_the_device(monkeypatch):
    for fast in (True, False):
        monkeypatch.setattr(trainer_settings, "fast_at_bfloat16", lambda device, fast=fast: fast)
        assert trainer_settings.use_bfloat16("auto", "cpu") is fast
        assert trainer_settings.use_bfloat16("bf16", "cpu") is True
        assert trainer_settings.use_bfloat16("float32", "cpu") is False


@pytest.mark.parametrize("supported", [True, False])
def test_cpu_with_amx_is_fast_at_bfloat16(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: supported, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert trainer_settings.fast_at_bfloat16("cpu") is supported


def test_unknown_device_is_not_fast_at_bfloat16():
    assert not trainer_settings.fast_at_bfloat16("meta")
