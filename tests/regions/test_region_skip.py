from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.regions.region_skip import doubled_beside_region


def some(dtype=torch.float64, layout=torch.channels_last):
    torch.manual_seed(0)
    coarse = torch.randn(5, 3, 2, 4, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    maps = torch.randn(2, 4, 4, 8, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    ternary = torch.randint(-1, 2, (5, 1, 4, 8)).to(dtype)
    return coarse, maps, ternary, torch.tensor([1, 0, 1, 1, 0])


def in_three_operations(coarse, maps, ternary, image):
    return torch.cat([F.interpolate(coarse, scale_factor=2.0, mode="nearest"), maps[image] * ternary], dim=1)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_it_is_the_three_operations(layout):
    inputs = some(layout=layout)
    together = doubled_beside_region(*inputs)
    assert torch.equal(together, in_three_operations(*inputs))
    assert together.is_contiguous(memory_format=torch.channels_last)


def test_gradients_are_right():
    coarse, maps, ternary, image = some()
    assert torch.autograd.gradcheck(lambda *parts: doubled_beside_region(*parts, ternary, image), (coarse, maps))


def test_half_precision_stays_half_and_mixed_is_widened():
    coarse, maps, ternary, image = some(torch.float32)
    half = doubled_beside_region(coarse.bfloat16(), maps.bfloat16(), ternary, image)
    assert half.dtype == torch.bfloat16
    mixed = doubled_beside_region(coarse.bfloat16(), maps, ternary, image)
    assert mixed.dtype == torch.float32
    mixed.sum().backward()
    assert_close(coarse.grad, torch.full_like(coarse, 4.0))
    assert maps.grad.dtype == torch.float32


def test_an_image_without_a_region_has_no_gradient_and_no_region_gives_nothing():
    coarse, maps, ternary, _ = some()
    doubled_beside_region(coarse, maps, ternary, torch.ones(5, dtype=torch.long)).sum().backward()
    assert not maps.grad[0].any()
    assert maps.grad[1].any()
    nothing = doubled_beside_region(coarse[:0], maps, ternary[:0], torch.zeros(0, dtype=torch.long))
    assert nothing.shape == (0, 7, 4, 8)


def test_maps_that_are_not_twice_as_large_are_refused():
    coarse, maps, ternary, image = some()
    with pytest.raises(ShapeError, match="maps"):
        doubled_beside_region(coarse, maps[..., :-1], ternary, image)
    with pytest.raises(ShapeError, match="ternary"):
        doubled_beside_region(coarse, maps, ternary[:-1], image)
