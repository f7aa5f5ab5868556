from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.iodine.refinement_network import (
    RefinementNetwork,
    RefinementSettings,
    pixel_likelihoods,
)

TINY = RefinementSettings(channels=(6, 5), hidden=7, lstm=8)


def network(size: int = 8, **changes) -> RefinementNetwork:
    torch.manual_seed(0)
    return RefinementNetwork(dataclasses.replace(TINY, **changes), 2, 3, 4, size).double()


def inputs(batch: int = 2, slots: int = 3, size: int = 8) -> list[Tensor]:
    """Shared maps, maps of the slots, lambda and its gradient."""
    shapes = [(batch, 2, size, size), (batch, slots, 3, size, size), (batch, slots, 8), (batch, slots, 8)]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


def slot_by_slot_updates(net: RefinementNetwork, shared, own, posterior, gradient, states) -> list[list[Tensor]]:
    """[B][K] updates, each slot with all its maps concatenated and its own LSTM state."""
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
            hidden = F.elu(net.hidden(pooled))
            vector = torch.cat([hidden, posterior[image, slot][None], gradient[image, slot][None]], dim=1)
            states[image, slot] = net.lstm(vector, states.get((image, slot)))
            updates[-1].append(net.update(states[image, slot][0])[0])
    return updates


@pytest.mark.parametrize(
    "changes",
    [{}, {"kernel": 5}, {"stride": 1}, {"averaged": 2}, {"pooling": "flatten"}, {"channels": (4, 4, 4), "averaged": 4}],
)
def test_slots_are_refined_separately(changes):
    net, state, states = network(**changes), None, {}
    for _ in range(3):
        arguments = inputs()
        update, state = net(*arguments, state)
        expected = torch.stack([torch.stack(updates) for updates in slot_by_slot_updates(net, *arguments, states)])
        assert update.shape == (2, 3, 8)
        assert_close(update, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_odd_sizes_are_allowed(pooling):
    update, _ = network(size=7, pooling=pooling)(*inputs(size=7), None)
    assert torch.isfinite(update).all()


def test_initial_layers_keep_the_variance_of_their_inputs():
    net = network(channels=(64, 64, 64), hidden=256, pooling="flatten", size=32).float()
    maps = torch.randn(16, 5, 32, 32)
    for layer in net.convolutions:
        maps = layer(maps.relu())
    assert maps.std().item() == pytest.approx(1, rel=0.4)  # PyTorch's default: 0.07
    assert net.hidden(maps.relu().flatten(1)).std().item() == pytest.approx(1, rel=0.4)


def test_state_and_update_stay_float32_in_half_precision():
    net = network().float()
    shared, own, posterior, gradient = (tensor.float() for tensor in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        update, state = net(shared, own, posterior, gradient, None)
        update, state = net(shared, own, posterior, gradient, state)
    assert {update.dtype, *(tensor.dtype for tensor in state)} == {torch.float32}


@pytest.mark.parametrize(
    "wrong", [{"channels": ()}, {"channels": (4, 0)}, {"kernel": 4}, {"kernel": -1}, {"stride": 0}, {"lstm": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"^{next(iter(wrong))} must be"):
        network(**wrong)


def test_averaging_must_divide_the_size():
    with pytest.raises(RecipeError, match="averaged must divide the size"):
        network(size=8, averaged=3)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(2, 5), channels=st.sampled_from([1, 3]))
def test_likelihoods_are_those_of_the_mixtures_of_all_and_of_the_other_slots(seed, slots, channels):
    generator = torch.Generator().manual_seed(seed)
    densities = (3 * torch.randn(2, slots, channels, 3, 2, dtype=torch.float64, generator=generator)).exp()
    masks = torch.randn(2, slots, 1, 3, 2, dtype=torch.float64, generator=generator).softmax(dim=1)
    likelihood, leave_one_out = pixel_likelihoods(densities, masks)
    assert_close(likelihood, (masks * densities).sum(dim=1).prod(dim=1, keepdim=True), rtol=1e-9, atol=0)
    for slot in range(slots):
        others = [other for other in range(slots) if other != slot]
        shares = masks[:, others] / masks[:, others].sum(dim=1, keepdim=True)
        expected = (shares * densities[:, others]).sum(dim=1).prod(dim=1, keepdim=True)
        assert_close(leave_one_out[:, slot], expected, rtol=1e-9, atol=0)


def test_likelihoods_by_hand():
    """Densities 1, 2 and 4 with masks 1/2, 1/4 and 1/4."""
    densities = torch.tensor([1.0, 2, 4]).view(1, 3, 1, 1, 1)
    shares = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1, 1)
    likelihood, leave_one_out = pixel_likelihoods(densities, shares)
    assert likelihood.item() == pytest.approx(0.5 + 0.5 + 1)
    assert leave_one_out.flatten().tolist() == pytest.approx([3, (0.5 + 1) / 0.75, (0.5 + 0.5) / 0.75])


@pytest.mark.parametrize("slots", [2, 3, 7])
def test_leave_one_out_keeps_float32_precision_where_one_slot_dominates(slots):
    """The dominant slot has almost all of the masks and of the density; a difference of sums would give 0."""
    masks = torch.full((1, slots, 1, 1, 1), 1e-12)
    masks[0, 1] = 1.0
    densities = torch.full((1, slots, 1, 1, 1), 1e-10)
    densities[0, 1] = 60.0
    leave_one_out = pixel_likelihoods(densities, masks)[1].flatten()
    assert leave_one_out[1].item() == pytest.approx(1e-10, rel=1e-6)
    assert leave_one_out[0].item() == pytest.approx(60, rel=1e-6)


def test_likelihoods_far_from_the_image_and_without_any_share_are_zero():
    densities, masks = torch.zeros(1, 3, 3, 2, 2), torch.zeros(1, 3, 1, 2, 2)
    masks[:, 0] = 1
    for values in pixel_likelihoods(densities, masks):
        assert not values.any()
