"""synchronised_batch_norm: two processes normalise as nn.BatchNorm2d does with the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unscene.distributed.sync_batch_norm import SynchronisedBatchNorm2d, synchronise_batch_norm

CHANNELS = 3
# layer's settings, images' type, and how many of the images each process has
CASES: dict[str, tuple[dict[str, Any], torch.dtype, list[int]]] = {
    "plain": ({}, torch.float32, [3, 3]),
    "unequal": ({"momentum": 0.3, "eps": 1e-2}, torch.float32, [1, 5]),
    "one has none": ({}, torch.float32, [0, 6]),
    "no weights": ({"affine": False}, torch.float32, [3, 3]),
    "cumulative": ({"momentum": None}, torch.float32, [2, 4]),
    "no history": ({"track_running_stats": False}, torch.float32, [3, 3]),
    "bfloat16": ({}, torch.bfloat16, [3, 3]),
}


def given(name: str) -> dict[str, Any]:
    """A layer with some history and two batches far from 0, where sums of squares would cancel."""
    settings, dtype, shares = CASES[name]
    noise = torch.Generator().manual_seed(len(name))

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=noise)

    state = {key: draw(*value.shape).abs() + 0.5 if value.ndim else value for key, value in layer_of(settings).items()}
    steps = [((20 + draw(6, CHANNELS, 5, 4)).to(dtype), draw(6, CHANNELS, 5, 4)) for _ in range(2)]
    return {"settings": settings, "state": state, "steps": steps, "shares": shares}


def layer_of(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    return nn.BatchNorm2d(CHANNELS, **settings).state_dict()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes made of every case."""
    folder = tmp_path_factory.mktemp("batch_norm")
    torch.save({name: given(name) for name in CASES}, folder / "given.pt")
    program = [sys.executable, str(Path(__file__).with_name("sync_batch_norm_process.py")), str(folder)]
    processes = [subprocess.Popen([*program, str(rank), "2"]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one_with_the_full_batch(found, name):
    case = given(name)
    tolerance = dict.fromkeys(("rtol", "atol"), 2e-2 if case["steps"][0][0].dtype == torch.bfloat16 else 2e-5)
    layer = nn.BatchNorm2d(CHANNELS, **case["settings"])
    layer.load_state_dict(case["state"])
    for step, (images, weights) in enumerate(case["steps"]):
        images = images.clone().requires_grad_()
        normalised = layer(images)
        layer.zero_grad()
        (normalised.float() * weights).sum().backward()
        parts = [result[name]["steps"][step] for result in found]
        assert parts[0][0].dtype == images.dtype
        assert_close(torch.cat([part[0] for part in parts]), normalised.detach(), **tolerance)
        assert_close(torch.cat([part[1] for part in parts]), images.grad, **tolerance)
        for mine, theirs in zip(parts[0][2], layer.parameters(), strict=True):
            assert_close(mine, theirs.grad, **tolerance)
    for result in found:
        assert result[name]["type"] == "SynchronisedBatchNorm2d"
        assert result[name]["state"].keys() == layer.state_dict().keys()
        for key, value in layer.state_dict().items():
            assert_close(result[name]["state"][key], value, **tolerance)
        evaluated = layer.eval()(case["steps"][0][0]).detach()
        assert_close(result[name]["evaluated"], evaluated, **tolerance)


def test_one_process_equals_batch_norm_bit_for_bit():
    plain, images = nn.BatchNorm2d(CHANNELS), torch.randn(4, CHANNELS, 6, 6)
    same = SynchronisedBatchNorm2d.from_layer(nn.BatchNorm2d(CHANNELS))
    assert torch.equal(same(images), plain(images))
    for key, value in plain.state_dict().items():
        assert torch.equal(same.state_dict()[key], value)
    assert torch.equal(same.eval()(images), plain.eval()(images))


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=0.5, momentum=0.2)), nn.GroupNorm(2, 4)
    )


def test_a_converted_model_has_the_same_tensors():
    network = model()
    network[1].eval()
    before = dict(network.named_parameters()) | dict(network.named_buffers())
    assert synchronise_batch_norm(network, "cpu") is network
    after = dict(network.named_parameters()) | dict(network.named_buffers())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    layer = network[1][0]
    assert isinstance(layer, SynchronisedBatchNorm2d)
    assert (layer.eps, layer.momentum, layer.training) == (0.5, 0.2, False)


def test_on_a_gpu_it_is_pytorchs():
    network = synchronise_batch_norm(model(), "cuda")
    assert type(network[1][0]) is nn.SyncBatchNorm
