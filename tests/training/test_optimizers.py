"""combined_optimizer: bit for bit what the optimisers do by themselves, saved and resumed as one."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, RMSprop

from unscene.training.optimizers import CombinedOptimizer


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"foreground": nn.Linear(3, 4), "middle": nn.Linear(4, 4), "background": nn.Linear(4, 2)})


def optimizers(model: nn.ModuleDict) -> list[torch.optim.Optimizer]:
    slow = [
        {"params": list(model["foreground"].parameters())},
        {"params": list(model["middle"].parameters()), "lr": 1e-2},
    ]
    return [RMSprop(slow, lr=1e-3), Adam(model["background"].parameters(), lr=0.1, betas=(0.5, 0.9))]


def gradients(model: nn.ModuleDict, step: int) -> torch.Tensor:
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    loss = sum((layer(inputs if n == 0 else torch.ones(8, 4)) ** 2).mean() for n, layer in enumerate(model.values()))
    model.zero_grad()
    loss.backward()
    return loss


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [each.detach().clone() for each in model.parameters()]


def test_it_steps_as_the_two_do_by_themselves():
    model, other = network(), network()
    combined, alone = CombinedOptimizer(optimizers(model)), optimizers(other)
    for step in range(20):
        gradients(model, step)
        combined.step()
        gradients(other, step)
        for each in alone:
            each.step()
        assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert not torch.equal(model["foreground"].weight, network()["foreground"].weight)


def test_a_rate_that_is_set_here_is_set_there():
    model = network()
    combined = CombinedOptimizer(optimizers(model))
    assert [group["lr"] for group in combined.param_groups] == [1e-3, 1e-2, 0.1]
    for group in combined.param_groups[:2]:
        group["lr"] = 0.0
    before = network()
    gradients(model, 0)
    combined.step()
    assert torch.equal(model["foreground"].weight, before["foreground"].weight)
    assert torch.equal(model["middle"].weight, before["middle"].weight)
    assert not torch.equal(model["background"].weight, before["background"].weight)


def test_saved_and_loaded_it_goes_on_bit_for_bit():
    model = network()
    combined = CombinedOptimizer(optimizers(model))
    for step in range(5):
        gradients(model, step)
        combined.step()
    file = io.BytesIO()
    torch.save({"weights": model.state_dict(), "optimizer": combined.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = network()
    other.load_state_dict(saved["weights"])
    resumed = CombinedOptimizer(optimizers(other))
    resumed.load_state_dict(saved["optimizer"])
    for step in range(5, 12):
        for each, optimizer in ((model, combined), (other, resumed)):
            gradients(each, step)
            optimizer.step()
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert [group["lr"] for group in resumed.param_groups] == [1e-3, 1e-2, 0.1]


def test_its_state_is_that_of_all():
    model = network()
    combined = CombinedOptimizer(optimizers(model))
    gradients(model, 0)
    combined.step()
    assert set(combined.state) == set(model.parameters())
    assert "exp_avg" in combined.state[model["background"].weight]
    assert "square_avg" in combined.state[model["middle"].weight]
    combined.state.clear()  # as a restart does
    fresh = CombinedOptimizer(optimizers(model))
    before, state = weights(model), []
    gradients(model, 1)
    for optimizer in (combined, fresh):
        optimizer.step()
        state.append(weights(model))
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.data.copy_(value)
    assert all(torch.equal(one, two) for one, two in zip(*state, strict=True))


def test_the_closure_is_called_once_with_gradients():
    model, other = network(), network()
    combined, alone = CombinedOptimizer(optimizers(model)), optimizers(other)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        return gradients(model, 3)

    loss = combined.step(closure)
    expected = gradients(other, 3)
    for each in alone:
        each.step()
    assert calls == [True]
    assert torch.equal(loss, expected)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))


def test_a_parameter_of_two_is_refused():
    model = network()
    with pytest.raises(ValueError, match="more than one parameter group"):
        CombinedOptimizer([*optimizers(model), SGD(model["middle"].parameters(), lr=1.0)])


def test_a_copy_stands_by_itself():
    model = network()
    combined = CombinedOptimizer(optimizers(model))
    copied = copy.deepcopy(combined)
    copied.param_groups[0]["lr"] = 5.0
    assert combined.optimizers[0].param_groups[0]["lr"] == 1e-3
    assert copied.optimizers[0].param_groups[0]["lr"] == 5.0
