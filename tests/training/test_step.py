"""step: the loss of a batch, a loss that is not finite, the groups of the optimisers, clipped gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unscene.errors import RecipeError, TrainingError
from unscene.runs.trainer_settings import OptimizerSettings, ParamGroup
from unscene.scene import Losses
from unscene.training import step
from unscene.training.step import (
    BatchLoss,
    build_optimizers,
    check_finite,
    clip_gradients,
    param_groups,
    parameters_by_prefix,
)


class Broken(nn.Module):
    """A model whose loss terms are given."""

    def __init__(self, terms: dict[str, torch.Tensor], weights: dict[str, float]) -> None:
        super().__init__()
        self.terms, self.weights = terms, weights

    def loss(self, images: torch.Tensor, step: int) -> tuple[Losses, None]:
        return Losses(self.terms, self.weights), None


def loss_of(terms: dict[str, torch.Tensor], weight: float = 1.0) -> torch.Tensor:
    """The mean loss of a step, checked."""
    batch_loss = BatchLoss(Broken(terms, dict.fromkeys(terms, weight)), bfloat16=False)
    losses, _ = batch_loss(torch.zeros(2, 3, 32, 32), 0)
    total = losses["loss"].mean()
    check_finite(total, losses, step=12)
    return total


def test_finite_loss_is_the_mean_over_the_batch():
    total = loss_of({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([10.0, 20.0])}, weight=0.5)
    assert float(total) == 0.5 * (2 + 15)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_term_that_is_not_finite_is_named(value):
    terms = {"reconstruction": torch.tensor([1.0, 2.0]), "mask_kl": torch.tensor([1.0, value])}
    with pytest.raises(TrainingError, match=r"step 12: .* because of mask_kl \(reconstruction 1\.5, mask_kl .*Lower"):
        loss_of(terms)


def test_total_that_overflows_is_named():
    with pytest.raises(TrainingError, match="because of the weighted total"):
        loss_of({"a": torch.tensor([3e38, 3e38])}, weight=10.0)


def test_loss_not_finite_in_another_process_ends_all_processes(monkeypatch):
    """Otherwise this process would wait for ever for the gradients of the other."""
    monkeypatch.setattr(step, "mean_over_processes", lambda values: values * float("nan"))
    with pytest.raises(TrainingError, match="step 12: the loss is not finite, because of mask_kl "):
        loss_of({"mask_kl": torch.tensor([1.0, 2.0])})


@pytest.fixture
def model() -> nn.Module:
    layers = {"vae": nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)}
    return nn.ModuleDict(layers)


def test_longest_prefix_decides(model):
    groups = parameters_by_prefix(model, ["vae", "vae.decoder"])
    assert list(groups) == ["vae.decoder", "vae", ""]
    assert groups["vae.decoder"] == list(model["vae"]["decoder"].parameters())
    assert groups["vae"] == list(model["vae"]["encoder"].parameters())
    assert groups[""] == list(model["head"].parameters())


def test_every_parameter_is_in_one_group(model):
    for prefixes in ([], ["vae"], ["vae", "head"]):
        grouped = [parameter for group in parameters_by_prefix(model, prefixes).values() for parameter in group]
        assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in model.parameters()}
        assert len(grouped) == len(list(model.parameters()))


def test_misspelt_prefix_is_refused_with_the_nearest(model):
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
    found = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert {name.rpartition(".")[0]: found[id(parameter)] for name, parameter in model.named_parameters()} == expected
    assert optimizer.defaults.get("betas", (0.0, 0.9)) == (0.0, 0.9)


def test_every_group_has_its_own_optimiser(model):
    groups = (ParamGroup("vae", name="adam", learning_rate=0.25), ParamGroup("vae.decoder", name="adamw"))
    optimizers = build_optimizers(model, OptimizerSettings(name="rmsprop", learning_rate=0.5, param_groups=groups))
    kinds = {id(parameter): type(o) for o in optimizers for group in o.param_groups for parameter in group["params"]}
    rates = {id(parameter): group["lr"] for group in param_groups(optimizers) for parameter in group["params"]}
    for part, kind, rate in (
        (model["vae"]["decoder"], torch.optim.AdamW, 0.5),
        (model["vae"]["encoder"], torch.optim.Adam, 0.25),
        (model["head"], torch.optim.RMSprop, 0.5),
    ):
        assert {kinds[id(parameter)] for parameter in part.parameters()} == {kind}
        assert {rates[id(parameter)] for parameter in part.parameters()} == {rate}


def test_groups_of_one_optimiser_share_it(model):
    (optimizer,) = build_optimizers(model, OptimizerSettings(param_groups=(ParamGroup("vae", name="adam"),)))
    assert type(optimizer) is torch.optim.Adam


def test_gradients_of_all_optimisers_are_clipped_by_one_norm(model):
    """By hand: 18 gradients of 2 have the norm sqrt(72)."""
    groups = (ParamGroup("vae", name="rmsprop"),)
    optimizers = build_optimizers(model, OptimizerSettings(param_groups=groups, clip_norm=1.0))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    clip_gradients(optimizers, 1.0)
    assert [float(parameter.grad.flatten()[0]) for parameter in model.parameters()] == pytest.approx([2 / 72**0.5] * 6)
