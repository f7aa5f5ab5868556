"""glimpses: by hand, against `grid_sample`, and the fast body against the plain one, values and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.ops.glimpses import composite_glimpses, cut_glimpses, paste_borders, paste_glimpses


def boxes_about(images: int, glimpses: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Some within the image, some across its border."""
    generator = torch.Generator().manual_seed(seed)
    corner = (torch.rand(images, glimpses, 2, generator=generator) * 1.2 - 0.3) * torch.tensor([width, height])
    sides = 1 + torch.rand(images, glimpses, 2, generator=generator) * torch.tensor([width, height])
    return torch.cat([corner, corner + sides], dim=2).double()


def affine_theta(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[S, 2, 3] of `affine_grid`: its -1..1 of the output is the box, in the image's -1..1."""
    x1, y1, x2, y2 = boxes.unbind(1)
    zero = torch.zeros_like(x1)
    across = torch.stack([(x2 - x1) / width, zero, (x1 + x2) / width - 1], dim=1)
    down = torch.stack([zero, (y2 - y1) / height, (y1 + y2) / height - 1], dim=1)
    return torch.stack([across, down], dim=1)


def test_glimpse_by_hand():
    """Two cells over pixels 1..5 of 0 10 20 30 40 50: at their centres 2 and 4, the borders of two pixels each."""
    row = 10 * torch.arange(6.0).view(1, 1, 1, 6)
    boxes = torch.tensor([[[1.0, 0, 5, 1]]])
    glimpse = cut_glimpses(row, boxes, (1, 2))
    assert glimpse.flatten().tolist() == pytest.approx([15, 35])
    # back over the box: half a pixel before its edge a quarter of the map is left, half a pixel after it three
    assert paste_glimpses(glimpse, boxes, (1, 6)).flatten().tolist() == pytest.approx(
        [3.75, 11.25, 20, 30, 26.25, 8.75]
    )


@pytest.mark.parametrize("seed", range(4))
def test_glimpses_equal_grid_sample(seed):
    images = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(seed)).double()
    boxes = boxes_about(2, 4, 9, 12, seed).requires_grad_()
    glimpses = cut_glimpses(images, boxes, (5, 6))
    grid = F.affine_grid(affine_theta(boxes.flatten(0, 1), 9, 12), [8, 3, 5, 6], align_corners=False)
    expected = F.grid_sample(images.repeat_interleave(4, dim=0), grid, align_corners=False).unflatten(0, (2, 4))
    assert_close(glimpses, expected)
    weights = torch.randn(glimpses.shape, dtype=torch.float64)
    assert_close(*(torch.autograd.grad((maps * weights).sum(), boxes)[0] for maps in (glimpses, expected)))


@pytest.mark.parametrize("seed", range(4))
def test_pasted_glimpses_equal_grid_sample_of_the_inverse(seed):
    maps = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(seed)).double()
    boxes = boxes_about(2, 4, 9, 12, seed).requires_grad_()
    pasted = paste_glimpses(maps, boxes, (9, 12))
    theta = affine_theta(boxes.flatten(0, 1), 9, 12)
    scale = torch.stack([theta[:, 0, 0], theta[:, 1, 1]], dim=1)
    inverse = torch.cat([torch.diag_embed(1 / scale), (-theta[:, :, 2] / scale).unsqueeze(2)], dim=2)
    grid = F.affine_grid(inverse, [8, 3, 9, 12], align_corners=False)
    expected = F.grid_sample(maps.flatten(0, 1), grid, align_corners=False).unflatten(0, (2, 4))
    assert_close(pasted, expected)
    weights = torch.randn(pasted.shape, dtype=torch.float64)
    assert_close(*(torch.autograd.grad((images * weights).sum(), boxes)[0] for images in (pasted, expected)))


def test_gradient_of_a_box_is_the_slope_of_the_image():
    ramp = torch.arange(16.0).expand(1, 1, 3, 16)
    boxes = torch.tensor([[[4.0, 0, 8, 3]]], requires_grad=True)
    cut_glimpses(ramp, boxes, (1, 1)).sum().backward()  # the value at the box's centre
    assert boxes.grad.flatten().tolist() == pytest.approx([0.5, 0, 0.5, 0])


def test_glimpses_of_boxes_without_area_or_far_away_are_finite():
    images = torch.rand(1, 1, 4, 4)
    boxes = torch.tensor([[[2.0, 2, 2, 2], [-1e4, 0, -9e3, 4], [3, 3, 1, 1]]], requires_grad=True)
    glimpses = cut_glimpses(images, boxes, (3, 3))
    pasted = paste_glimpses(glimpses, boxes, (4, 4))
    pasted.sum().backward()
    assert torch.isfinite(pasted).all()
    assert torch.isfinite(boxes.grad).all()
    assert not glimpses[0, 1].any()


def test_axes_that_do_not_fit_raise_shape_error():
    with pytest.raises(ShapeError, match="boxes"):
        cut_glimpses(torch.zeros(2, 1, 4, 4), torch.zeros(1, 3, 4), (8, 8))
    with pytest.raises(ShapeError, match="boxes"):
        paste_glimpses(torch.zeros(2, 3, 1, 4, 4), torch.zeros(2, 2, 4), (8, 8))
    with pytest.raises(ShapeError, match="nearness"):
        composite_glimpses(
            torch.zeros(2, 3, 4, 4, 4), torch.zeros(2, 3, 4), torch.zeros(2, 2), torch.zeros(2, 1).long(), (8, 8)
        )


def composite_inputs(images: int = 3, cells: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Maps, boxes, nearness and chosen cells; one box lies outside, one has no area, one covers all."""
    generator = torch.Generator().manual_seed(2)
    alpha = torch.rand(images, cells, 1, 5, 6, generator=generator)
    maps = torch.cat([alpha * torch.rand(images, cells, 3, 5, 6, generator=generator), alpha], dim=2)
    boxes = boxes_about(images, cells, 12, 16, 3).float()
    boxes[0, :3] = torch.tensor([[-30.0, 2, -20, 9], [5.3, 5.3, 5.3, 5.3], [-3.1, -2.2, 20.3, 15.4]])
    nearness = 100 * torch.rand(images, cells, generator=generator)
    nearness[1] = 0
    return maps, boxes, nearness, torch.tensor([[0, 2], [1, 5], [3, 4]])


def test_fast_composite_equals_plain(monkeypatch):
    inputs = composite_inputs()
    weights = torch.randn(3, 4, 12, 16, generator=torch.Generator().manual_seed(4))

    def values_and_gradients(plain: str, dtype: torch.dtype) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        leaves = [tensor.to(dtype).requires_grad_() for tensor in inputs[:3]]
        result = composite_glimpses(*leaves, inputs[3], (12, 16))
        gradients = torch.autograd.grad((result[0] * weights.to(dtype)).sum(), leaves)
        return [maps.detach().double() for maps in result], [gradient.double() for gradient in gradients]

    fast, exact = values_and_gradients("0", torch.float32), values_and_gradients("1", torch.float64)
    assert_close(fast[0], exact[0], rtol=1e-4, atol=1e-5)
    gradients = zip(*fast[1:], *exact[1:], strict=True)
    for found, expected in gradients:
        assert float((found - expected).norm() / expected.norm()) < 1e-5


def test_chosen_masks_and_layers_are_the_softmax_of_nearness_times_alpha():
    maps, boxes, nearness, chosen = composite_inputs()
    maps, boxes, nearness = maps.double(), boxes.double(), nearness.double()
    image, masks, layers = composite_glimpses(maps, boxes, nearness, chosen, (12, 16))
    pasted = paste_glimpses(maps, boxes, (12, 16))
    weights = (nearness[:, :, None, None, None] * pasted[:, :, 3:]).softmax(dim=1)
    assert_close(image, (weights * pasted).sum(dim=1))
    for scene, indices in enumerate(chosen):
        assert_close(layers[scene], pasted[scene, indices])
        assert_close(masks[scene], (weights * pasted[:, :, 3:])[scene, indices])


def test_nan_box_gives_a_nan_image(monkeypatch):
    maps, boxes, nearness, chosen = composite_inputs()
    boxes[1, 2] = torch.nan
    for plain in "01":
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        image, _, _ = composite_glimpses(maps, boxes, nearness, chosen, (12, 16))
        assert image[1].isnan().all()
        assert not image[[0, 2]].isnan().any()


@pytest.mark.parametrize("plain", ["0", "1"])
@pytest.mark.parametrize("seed", range(4))
def test_borders_equal_pasted_squares_without_their_inside(seed, plain, monkeypatch):
    monkeypatch.setenv("UNSCENE_PLAIN", plain)
    boxes = boxes_about(2, 4, 9, 12, seed).requires_grad_()
    weight = torch.rand(2, 4, generator=torch.Generator().manual_seed(seed)).double()
    border = torch.ones(6, 6).double()
    border[2:4, 2:4] = 0
    expected = paste_glimpses(weight[:, :, None, None, None] * border, boxes, (9, 12)).sum(dim=1)
    found = paste_borders(weight, boxes, 6, 2, (9, 12))
    assert_close(found, expected)
    pixels = torch.randn(found.shape, dtype=torch.float64)
    assert_close(*(torch.autograd.grad((image * pixels).sum(), boxes)[0] for image in (found, expected)))
