from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from unscene.ops import group_norm_relu as module
from unscene.ops.group_norm_relu import GroupNormReLU


def some(channels=12, groups=3, batch=5, size=(6, 4), spread=2.0, about=0.0):
    torch.manual_seed(0)
    layer = GroupNormReLU(groups, channels)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    features = torch.randn(batch, channels, *size) * spread + about
    return layer, features.bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()


def exactly(layer, features):
    """In float64: the output before the ReLU."""
    return F.group_norm(features.double(), layer.num_groups, layer.weight.double(), layer.bias.double(), layer.eps)


def gradients(output, layer, features, weights):
    return torch.autograd.grad((output * weights.to(output.dtype)).sum(), [features, layer.weight, layer.bias])


@pytest.mark.parametrize(("spread", "about"), [(2.0, 0.0), (1e-2, 0.5), (1.0, 30.0)], ids=["usual", "faint", "far"])
def test_compiled_it_is_group_norm_and_relu(spread, about):
    pytest.importorskip("numba")
    layer, features = some(spread=spread, about=about)
    assert module._fits_compiled(features)
    ours, exact = layer(features), exactly(layer, features)
    assert ours.dtype == torch.bfloat16
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert_close(ours.double(), exact.relu(), rtol=2**-8, atol=1e-4)  # rounded once
    weights = torch.randn(exact.shape) * (exact.abs() > 1e-3)  # at the kink, rounding decides
    for mine, theirs in zip(
        gradients(ours, layer, features, weights), gradients(exact.relu(), layer, features, weights), strict=True
    ):
        scale = float(theirs.abs().max())
        assert_close(mine.double(), theirs.double(), rtol=2**-8, atol=2**-8 * scale)


def test_by_hand():  # of 0, 0, 3, 3: mean 1.5, variance 2.25
    pytest.importorskip("numba")
    features = torch.tensor([0.0, 0, 3, 3]).view(1, 2, 1, 2).bfloat16().contiguous(memory_format=torch.channels_last)
    layer = GroupNormReLU(1, 2, eps=0.0)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([0.5, 1.0]))
        assert layer(features).flatten().tolist() == [0.0, 0.0, 2.0, 2.0]


def test_a_map_of_one_value_and_a_map_with_nan():
    pytest.importorskip("numba")
    layer, features = some()
    with torch.no_grad():
        flat = layer(torch.full_like(features, 3.0))
        assert_close(flat.float(), layer.bias.relu().view(1, -1, 1, 1).expand_as(flat), rtol=2**-8, atol=1e-6)
        features[1, 0, 0, 0] = torch.nan
        output = layer(features)
        assert output[1, :4].isnan().all()  # its group, as PyTorch has it
        assert not output[0].isnan().any()
        assert not output[1, 4:].isnan().any()


def test_the_number_of_threads_changes_no_bit():
    layer, features = some()
    threads = torch.get_num_threads()
    outputs = []
    try:
        for count in (1, 2, 7):
            torch.set_num_threads(count)
            output = layer(features)
            outputs.append([output, *torch.autograd.grad(output.sum(), [features, layer.weight, layer.bias])])
    finally:
        torch.set_num_threads(threads)
    for others in outputs[1:]:
        assert all(torch.equal(one, other) for one, other in zip(outputs[0], others, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_other_precisions_and_layouts_are_pytorchs(dtype):
    layer, features = some()
    for tensor in (features.to(dtype), features.contiguous()):
        assert not module._fits_compiled(tensor)
        alike = layer.to(tensor.dtype)
        expected = F.group_norm(tensor, 3, alike.weight, alike.bias).relu()
        assert torch.equal(alike(tensor), expected)


def test_empty_batch_and_missing_numba(monkeypatch):
    layer, features = some()
    assert layer(features[:0]).shape == (0, 12, 6, 4)
    monkeypatch.setattr(module, "compiled_module", lambda _: None)
    assert_close(layer(features).double(), exactly(layer, features).relu(), rtol=2**-7, atol=1e-2)


def test_parameters_have_the_names_of_group_norm():
    assert list(GroupNormReLU(2, 4).state_dict()) == list(torch.nn.GroupNorm(2, 4).state_dict())


def test_numba_is_not_needed():
    script = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from unscene.ops.group_norm_relu import GroupNormReLU\n"
        "features = torch.ones(1, 4, 2, 2).bfloat16().contiguous(memory_format=torch.channels_last)\n"
        "print(tuple(GroupNormReLU(2, 4)(features).shape))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "(1, 4, 2, 2)"


def test_plain_body_is_pytorchs_group_norm(monkeypatch):
    layer, features = some()
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert not module._fits_compiled(features)
    assert torch.equal(layer(features), F.group_norm(features, 3, layer.weight, layer.bias, layer.eps).relu())
