from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.iodine.refinement_network import RefinementNetwork, RefinementSettings

TINY = RefinementSettings(channels=(6, 5), hidden=7, lstm=8)


def network(size: int = 8, **changes) -> RefinementNetwork:
    torch.manual_seed(0)
    return RefinementNetwork(dataclasses.replace(TINY, **changes), 2, 3, 4, size).double()


def inputs(batch: int = 2, slots: int = 3, size: int = 8) -> list[Tensor]:
    """Shared maps, slots' maps, lambda and its gradient."""
    shapes = [(batch, 2, size, size), (batch, slots, 3, size, size), (batch, slots, 8), (batch, slots, 8)]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def slot_by_slot(net: RefinementNetwork, shared, own, posterior, gradient, states) -> list[list[Tensor]]:
    """[B][K] updates, every slot with all of its maps joined, and its own LSTM."""
    updates = []
    for image in range(len(own)):
        updates.append([])
        for slot in range(own.shape[1]):
            maps = torch.cat([shared[image], own[image, slot]])[None]
            if net.settings.averaged > 1:
                maps = F.avg_pool2d(maps, net.settings.averaged)
            for layer in net.convolutions:
                maps = F.elu(layer(maps))
            pooled = maps.mean(dim=(2, 3)) if net.settings.pooling == "average" else maps.flatten(1)
            seen = F.elu(net.hidden(pooled))
            read = torch.cat([seen, posterior[image, slot][None], gradient[image, slot][None]], dim=1)
            states[image, slot] = net.lstm(read, states.get((image, slot)))
            updates[-1].append(net.update(states[image, slot][0])[0])
    return updates


@pytest.mark.parametrize(
    "changes",
    [{}, {"kernel": 5}, {"stride": 1}, {"averaged": 2}, {"pooling": "flatten"}, {"channels": (4, 4, 4), "averaged": 4}],
)
def test_every_slot_is_refined_by_itself(changes):
    net, state, states = network(**changes), None, {}
    for _ in range(3):
        given = inputs()
        update, state = net(*given, state)
        expected = torch.stack([torch.stack(each) for each in slot_by_slot(net, *given, states)])
        assert update.shape == (2, 3, 8)
        assert_close(update, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_odd_sizes_fit(pooling):
    update, _ = network(size=7, pooling=pooling)(*inputs(size=7), None)
    assert torch.isfinite(update).all()


def test_the_layers_before_the_lstm_begin_with_the_variance_they_read():
    net = network(channels=(64, 64, 64), hidden=256, pooling="flatten", size=32).float()
    maps = torch.randn(16, 5, 32, 32)
    for layer in net.convolutions:
        maps = layer(maps.relu())
    assert maps.std().item() == pytest.approx(1, rel=0.4)  # PyTorch's default: 0.07
    assert net.hidden(maps.relu().flatten(1)).std().item() == pytest.approx(1, rel=0.4)


def test_state_and_update_stay_float32_in_half_precision():
    net = network().float()
    shared, own, posterior, gradient = (each.float() for each in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        update, state = net(shared, own, posterior, gradient, None)
        update, state = net(shared, own, posterior, gradient, state)
    assert {update.dtype, *(each.dtype for each in state)} == {torch.float32}


@pytest.mark.parametrize(
    "wrong", [{"channels": ()}, {"channels": (4, 0)}, {"kernel": 4}, {"kernel": -1}, {"stride": 0}, {"lstm": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"^{next(iter(wrong))} must be"):
        network(**wrong)


def test_averaging_must_divide_the_size():
    with pytest.raises(RecipeError, match=r"refinement\.averaged that divides data\.size"):
        network(size=8, averaged=3)


@pytest.mark.parametrize(("wrong", "name"), [(0, "shared"), (1, "own"), (2, "posterior"), (3, "grad_posterior")])
def test_axes_that_do_not_fit_are_refused(wrong, name):
    given = inputs()
    given[wrong] = given[wrong][:, :, :1] if wrong != 1 else given[1][:, :, :2]
    with pytest.raises(ShapeError, match=name):
        network()(*given, None)
