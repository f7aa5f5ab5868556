"""module: parameter groups by the beginning of their names, and a loss that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unscene.errors import RecipeError, TrainingError
from unscene.scene import Losses
from unscene.training import module
from unscene.training.module import SceneModule, parameter_groups


@pytest.fixture
def model() -> nn.Module:
    layers = {"vae": nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)}
    return nn.ModuleDict(layers)


def test_the_longest_prefix_wins(model):
    groups = parameter_groups(model, ["vae", "vae.decoder"])
    assert list(groups) == ["vae.decoder", "vae", ""]
    assert groups["vae.decoder"] == list(model["vae"]["decoder"].parameters())
    assert groups["vae"] == list(model["vae"]["encoder"].parameters())
    assert groups[""] == list(model["head"].parameters())


def test_every_parameter_is_in_one_group(model):
    for prefixes in ([], ["vae"], ["vae", "head"]):
        grouped = [each for group in parameter_groups(model, prefixes).values() for each in group]
        assert {id(each) for each in grouped} == {id(each) for each in model.parameters()}
        assert len(grouped) == len(list(model.parameters()))


def test_a_misspelt_prefix_names_the_nearest(model):
    with pytest.raises(
        RecipeError,
        match=r"optimizer\.groups, decays or names has 'vea'.*Did you mean 'vae'\? Its parts are: vae, head",
    ):
        parameter_groups(model, ["vea"])


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_groups_have_their_own_learning_rates(tiny, name):
    changes = {
        "optimizer.name": name,
        "optimizer.learning_rate": 0.5,
        "optimizer.groups": {"vae": 0.25, "vae.decoder": 0.125},
    }
    module = SceneModule(tiny(changes), steps_per_epoch=10)
    optimizer = module.configure_optimizers()
    rates = {id(each): group["lr"] for group in optimizer.param_groups for each in group["params"]}
    for parameter_name, parameter in module.model.named_parameters():
        expected = (
            0.125 if parameter_name.startswith("vae.decoder") else 0.25 if parameter_name.startswith("vae") else 0.5
        )
        assert rates[id(parameter)] == expected


def test_decays_and_betas_are_of_their_groups(tiny):
    changes = {
        "optimizer.betas": [0.0, 0.9],
        "optimizer.weight_decay": 0.25,
        "optimizer.groups": {"vae": 0.5},
        "optimizer.decays": {"vae.decoder": 0.125},
    }
    module = SceneModule(tiny(changes), steps_per_epoch=10)
    optimizer = module.configure_optimizers()
    assert optimizer.defaults["betas"] == (0.0, 0.9)
    of = {id(each): group for group in optimizer.param_groups for each in group["params"]}
    for name, parameter in module.model.named_parameters():
        group = of[id(parameter)]
        assert group["lr"] == (0.5 if name.startswith("vae") else module.recipe.optimizer.learning_rate)
        assert group["weight_decay"] == (0.125 if name.startswith("vae.decoder") else 0.25)


def test_each_part_has_its_optimiser(tiny):
    changes = {
        "optimizer.name": "rmsprop",
        "optimizer.names": {"vae": "adam", "vae.decoder": "adamw"},
        "optimizer.learning_rate": 0.5,
        "optimizer.groups": {"vae": 0.25, "head": 0.125},
        "optimizer.betas": [0.0, 0.9],
    }
    module = SceneModule(tiny(changes), steps_per_epoch=10)
    optimizer = module.configure_optimizers()
    kinds = {id(p): type(each) for each in optimizer.optimizers for g in each.param_groups for p in g["params"]}
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert module.peaks == [group["lr"] for group in optimizer.param_groups]
    for name, parameter in module.model.named_parameters():
        of_decoder, of_vae = name.startswith("vae.decoder"), name.startswith("vae")
        kind = torch.optim.AdamW if of_decoder else torch.optim.Adam if of_vae else torch.optim.RMSprop
        assert kinds[id(parameter)] is kind, name
        assert rates[id(parameter)] == (0.25 if of_vae else 0.125 if name.startswith("head") else 0.5)
    assert all(each.defaults.get("betas", (0.0, 0.9)) == (0.0, 0.9) for each in optimizer.optimizers)


@pytest.mark.parametrize("names", [{}, {"vae": "adam"}])
def test_optimisers_of_one_kind_are_one(tiny, names):
    optimizer = SceneModule(tiny({"optimizer.names": names}), steps_per_epoch=10).configure_optimizers()
    assert type(optimizer) is torch.optim.Adam


def test_a_part_that_is_not_there_has_no_optimiser(tiny):
    with pytest.raises(RecipeError, match=r"optimizer\.groups, decays or names has 'vea'"):
        SceneModule(tiny({"optimizer.names": {"vea": "adamw"}}), steps_per_epoch=10).configure_optimizers()


class Broken(nn.Module):
    """A model whose loss terms are given."""

    def __init__(self, terms: dict[str, torch.Tensor], weights: dict[str, float]) -> None:
        super().__init__()
        self.terms, self.weights = terms, weights

    def loss(self, images: torch.Tensor, step: int) -> tuple[Losses, None]:
        return Losses(self.terms, self.weights), None


def step_of(module: SceneModule, terms: dict[str, torch.Tensor], weight: float = 1.0) -> torch.Tensor:
    module.model = Broken(terms, dict.fromkeys(terms, weight))
    return module.training_step({"images": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)}, 0)


def test_a_finite_loss_is_the_mean_over_the_batch(tiny):
    module = SceneModule(tiny(), 1)
    total = step_of(module, {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([10.0, 20.0])}, weight=0.5)
    assert float(total) == 0.5 * (2 + 15)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_term_that_is_not_finite_is_named(tiny, value):
    terms = {"reconstruction": torch.tensor([1.0, 2.0]), "mask_kl": torch.tensor([1.0, value])}
    with pytest.raises(TrainingError, match=r"step 0: .* because of mask_kl \(reconstruction 1\.5, mask_kl .*Resume"):
        step_of(SceneModule(tiny(), 1), terms)


def test_a_total_that_overflows_is_named(tiny):
    with pytest.raises(TrainingError, match="because of the weighted total"):
        step_of(SceneModule(tiny(), 1), {"a": torch.tensor([3e38, 3e38])}, weight=10.0)


def test_a_loss_that_is_not_finite_elsewhere_ends_every_process(tiny, monkeypatch):
    """Else this process would wait for the other one's gradients for ever."""
    monkeypatch.setattr(module, "mean_over_processes", lambda values: values * float("nan"))
    with pytest.raises(TrainingError, match="step 0: the loss is not finite, because of mask_kl "):
        step_of(SceneModule(tiny(), 1), {"mask_kl": torch.tensor([1.0, 2.0])})
