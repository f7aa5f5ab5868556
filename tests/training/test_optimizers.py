"""optimizers: groups by the beginning of a name, and one optimiser for each name that the recipe uses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unscene.errors import RecipeError
from unscene.runs.trainer_settings import OptimizerSettings, ParamGroup
from unscene.training.optimizers import build_optimizers, clip_gradients, param_groups, parameters_by_prefix


@pytest.fixture
def model() -> nn.Module:
    layers = {"vae": nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)}
    return nn.ModuleDict(layers)


def test_the_longest_prefix_wins(model):
    groups = parameters_by_prefix(model, ["vae", "vae.decoder"])
    assert list(groups) == ["vae.decoder", "vae", ""]
    assert groups["vae.decoder"] == list(model["vae"]["decoder"].parameters())
    assert groups["vae"] == list(model["vae"]["encoder"].parameters())
    assert groups[""] == list(model["head"].parameters())


def test_every_parameter_is_in_one_group(model):
    for prefixes in ([], ["vae"], ["vae", "head"]):
        grouped = [each for group in parameters_by_prefix(model, prefixes).values() for each in group]
        assert {id(each) for each in grouped} == {id(each) for each in model.parameters()}
        assert len(grouped) == len(list(model.parameters()))


def test_a_misspelt_prefix_names_the_nearest(model):
    with pytest.raises(
        RecipeError,
        match=r"param_groups has the prefix 'vea'.*Did you mean 'vae'\? The model's parts are: vae, head",
    ):
        parameters_by_prefix(model, ["vea"])


GROUPS = (
    ParamGroup("vae", learning_rate=0.25),
    ParamGroup("vae.decoder", learning_rate=0.125, weight_decay=0.5),
    ParamGroup("head", weight_decay=0.0),
)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_groups_have_their_own_rates_and_decays(model, name):
    settings = OptimizerSettings(name=name, learning_rate=1.0, weight_decay=0.75, betas=(0.0, 0.9), param_groups=GROUPS)
    (optimizer,) = build_optimizers(model, settings)
    expected = {"vae.encoder": (0.25, 0.75), "vae.decoder": (0.125, 0.5), "head": (1.0, 0.0)}
    of = {
        id(each): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for each in group["params"]
    }
    assert {name.rpartition(".")[0]: of[id(each)] for name, each in model.named_parameters()} == expected
    assert optimizer.defaults.get("betas", (0.0, 0.9)) == (0.0, 0.9)


def test_each_part_has_its_optimiser(model):
    groups = (ParamGroup("vae", name="adam", learning_rate=0.25), ParamGroup("vae.decoder", name="adamw"))
    optimizers = build_optimizers(model, OptimizerSettings(name="rmsprop", learning_rate=0.5, param_groups=groups))
    kinds = {id(each): type(o) for o in optimizers for group in o.param_groups for each in group["params"]}
    rates = {id(each): group["lr"] for group in param_groups(optimizers) for each in group["params"]}
    for part, kind, rate in (
        (model["vae"]["decoder"], torch.optim.AdamW, 0.5),
        (model["vae"]["encoder"], torch.optim.Adam, 0.25),
        (model["head"], torch.optim.RMSprop, 0.5),
    ):
        assert {kinds[id(each)] for each in part.parameters()} == {kind}
        assert {rates[id(each)] for each in part.parameters()} == {rate}


def test_optimisers_of_one_name_are_one(model):
    (optimizer,) = build_optimizers(model, OptimizerSettings(param_groups=(ParamGroup("vae", name="adam"),)))
    assert type(optimizer) is torch.optim.Adam


def test_gradients_of_all_optimisers_are_clipped_by_one_norm(model):
    """By hand: 18 gradients of 2 have the norm sqrt(72)."""
    groups = (ParamGroup("vae", name="rmsprop"),)
    optimizers = build_optimizers(model, OptimizerSettings(param_groups=groups, clip_norm=1.0))
    for each in model.parameters():
        each.grad = torch.full_like(each, 2.0)
    clip_gradients(optimizers, 1.0)
    assert [float(each.grad.flatten()[0]) for each in model.parameters()] == pytest.approx([2 / 72**0.5] * 6)
