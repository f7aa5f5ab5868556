from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.ops import roi_align

from unscene.errors import ShapeError
from unscene.models.common.spatial_transformer import crop_boxes, cut_glimpses, paste_boxes, paste_glimpses


def grid_of(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The pixel centres [S, H, W, 2] in each box's own coordinates, -1..1 from edge to edge."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    low, high = boxes[:, None, None, :2], boxes[:, None, None, 2:]
    return 2 * (torch.stack([x, y], dim=-1) - low) / (high - low) - 1


@given(st.integers(0, 10_000))
def test_pasting_is_grid_sample_of_the_box(seed):
    torch.manual_seed(seed)
    corner = 40 * torch.rand(3, 2) - 10
    boxes = torch.cat([corner, corner + 1 + 40 * torch.rand(3, 2)], dim=1)
    maps = torch.randn(3, 2, 5, 7)
    grid = grid_of(boxes, 20, 30).clamp(-2, 2)
    expected = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)
    assert_close(paste_boxes(maps, boxes, (20, 30), outside=None), expected, rtol=1e-4, atol=1e-4)


def test_pasting_by_hand():
    """Two values over a box of four pixels: the outer pixels repeat the edge, the inner ones are between."""
    maps, box = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2).requires_grad_(), torch.tensor([[2.0, 0, 6, 1]])
    pasted = paste_boxes(maps, box, (1, 8), outside=None)
    assert pasted.flatten().tolist() == pytest.approx([0, 0, 0, 1, 3, 4, 4, 4], abs=1e-5)
    assert paste_boxes(maps, box, (1, 8)).flatten().tolist() == pytest.approx([0, 0, 0, 1, 3, 4, 0, 0], abs=1e-5)
    assert paste_boxes(maps, box, (1, 8), outside=-40).flatten()[[0, 1, 6, 7]].tolist() == [-40] * 4
    pasted.sum().backward()
    assert maps.grad.flatten().tolist() == pytest.approx([4, 4], abs=1e-4)


def test_no_gradient_comes_from_outside_of_the_box():
    maps = torch.randn(1, 1, 2, 2, requires_grad=True)
    paste_boxes(maps, torch.tensor([[1.0, 1, 3, 3]]), (4, 4), outside=-40).sum().backward()
    assert maps.grad.sum().item() == pytest.approx(4)  # the four pixels inside


def test_pasting_is_the_inverse_of_roi_align_on_a_ramp():
    y, x = torch.meshgrid(torch.arange(32) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    ramp = (2 * x - 3 * y + 5)[None, None]
    boxes = torch.tensor([[3.0, 5, 31, 19], [8.25, 2.5, 36.75, 30.25]])
    cut = roi_align(ramp, [boxes], (14, 28), 1.0, sampling_ratio=2, aligned=True)
    pasted = paste_boxes(cut, boxes, (32, 40), outside=None)
    for n, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        half_x, half_y = (x2 - x1) / 28 / 2, (y2 - y1) / 14 / 2  # beyond the outer samples the edge goes on
        inner = (x > x1 + half_x) & (x < x2 - half_x) & (y > y1 + half_y) & (y < y2 - half_y)
        assert inner.sum() > 200
        assert_close(pasted[n, 0][inner], ramp[0, 0][inner], rtol=1e-4, atol=1e-3)


def test_a_crop_of_its_own_size_is_the_image():
    image = torch.rand(1, 2, 6, 8)
    assert_close(crop_boxes(image, torch.tensor([[0.0, 0, 8, 6]]), (6, 8)), image)
    assert_close(crop_boxes(image, torch.tensor([[2.0, 1, 5, 5]]), (4, 3)), image[:, :, 1:5, 2:5])


def test_enlarging_is_bilinear_and_keeps_the_edge():
    row = torch.tensor([0.0, 4.0, 8.0]).view(1, 1, 1, 3)
    crop = crop_boxes(row, torch.tensor([[0.0, 0, 3, 1]]), (1, 6))
    assert crop.flatten().tolist() == pytest.approx([0, 1, 3, 5, 7, 8])


def test_shrinking_averages_so_that_nothing_is_lost_between_the_cells():
    row = torch.zeros(1, 1, 1, 16)
    row[..., 5] = 1.0  # lies between the centres 2, 6 ... of four cells
    crop = crop_boxes(row, torch.tensor([[0.0, 0, 16, 1]]), (1, 4)).flatten()
    assert crop.sum().item() == pytest.approx(0.25, abs=0.01)
    assert crop[1] > crop[0] > 0
    assert crop[3] == 0


def test_what_lies_outside_of_the_image_is_not_seen():
    crop = crop_boxes(torch.ones(1, 1, 4, 4), torch.tensor([[-8.0, 0, 4, 4]]), (4, 12))
    assert crop[..., :7].abs().max() == 0
    assert_close(crop[..., 8:], torch.ones(1, 1, 4, 4))


def test_a_box_without_area_gives_finite_numbers_and_gradients():
    images = torch.rand(1, 1, 4, 4, requires_grad=True)
    for box in ([[0.0, 0, 0, 0]], [[2.0, 2, 2, 4]]):
        pasted = paste_boxes(crop_boxes(images, torch.tensor(box), (3, 3)), torch.tensor(box), (4, 4), outside=-40)
        pasted.sum().backward()
        assert torch.isfinite(pasted).all()
        assert torch.isfinite(images.grad).all()


def test_no_boxes_give_nothing():
    assert crop_boxes(torch.zeros(0, 3, 8, 8), torch.zeros(0, 4), (4, 4)).shape == (0, 3, 4, 4)
    assert paste_boxes(torch.zeros(0, 3, 4, 4), torch.zeros(0, 4), (8, 8)).shape == (0, 3, 8, 8)


def test_gradients_are_right():
    torch.manual_seed(0)
    boxes = torch.tensor([[0.5, 1, 5.5, 4], [1, 0, 7, 6]])
    maps = torch.rand(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: paste_boxes(each, boxes, (6, 7)), maps)
    images = torch.rand(2, 1, 6, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: crop_boxes(each, boxes, (2, 3)), images)


def test_autocast_does_not_blur_an_edge():
    maps = torch.rand(1, 1, 8, 8)
    box = torch.tensor([[3.0, 2, 30, 25]])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(paste_boxes(maps, box, (32, 32)), paste_boxes(maps, box, (32, 32)))
        half = paste_boxes(maps, box, (32, 32))
    assert torch.equal(half, paste_boxes(maps, box, (32, 32)))


def boxes_about(images: int, glimpses: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Some within the image, some across its border."""
    chance = torch.Generator().manual_seed(seed)
    corner = (torch.rand(images, glimpses, 2, generator=chance) * 1.2 - 0.3) * torch.tensor([width, height])
    sides = 1 + torch.rand(images, glimpses, 2, generator=chance) * torch.tensor([width, height])
    return torch.cat([corner, corner + sides], dim=2).double()


def theta_of(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[S, 2, 3] of `affine_grid`: what it calls -1..1 of the answer lies at the box within -1..1 of the image."""
    x1, y1, x2, y2 = boxes.unbind(1)
    nothing = torch.zeros_like(x1)
    across = torch.stack([(x2 - x1) / width, nothing, (x1 + x2) / width - 1], dim=1)
    down = torch.stack([nothing, (y2 - y1) / height, (y1 + y2) / height - 1], dim=1)
    return torch.stack([across, down], dim=1)


@given(st.integers(0, 10_000))
def test_glimpses_are_grid_samples(seed):
    images = torch.randn(2, 3, 9, 12, generator=torch.Generator().manual_seed(seed)).double()
    boxes = boxes_about(2, 4, 9, 12, seed).requires_grad_()
    glimpses = cut_glimpses(images, boxes, (5, 6))
    grid = F.affine_grid(theta_of(boxes.flatten(0, 1), 9, 12), [8, 3, 5, 6], align_corners=False)
    expected = F.grid_sample(images.repeat_interleave(4, dim=0), grid, align_corners=False).unflatten(0, (2, 4))
    assert_close(glimpses, expected)
    weights = torch.randn(glimpses.shape, dtype=torch.float64)
    of_ours, of_theirs = (torch.autograd.grad((each * weights).sum(), boxes)[0] for each in (glimpses, expected))
    assert_close(of_ours, of_theirs)


@given(st.integers(0, 10_000))
def test_pasted_glimpses_are_grid_samples_the_other_way(seed):
    maps = torch.randn(2, 4, 3, 5, 6, generator=torch.Generator().manual_seed(seed)).double()
    boxes = boxes_about(2, 4, 9, 12, seed).requires_grad_()
    pasted = paste_glimpses(maps, boxes, (9, 12))
    theta = theta_of(boxes.flatten(0, 1), 9, 12)
    scale = torch.stack([theta[:, 0, 0], theta[:, 1, 1]], dim=1)
    inverse = torch.cat([torch.diag_embed(1 / scale), (-theta[:, :, 2] / scale).unsqueeze(2)], dim=2)
    grid = F.affine_grid(inverse, [8, 3, 9, 12], align_corners=False)
    expected = F.grid_sample(maps.flatten(0, 1), grid, align_corners=False).unflatten(0, (2, 4))
    assert_close(pasted, expected)
    weights = torch.randn(pasted.shape, dtype=torch.float64)
    of_ours, of_theirs = (torch.autograd.grad((each * weights).sum(), boxes)[0] for each in (pasted, expected))
    assert_close(of_ours, of_theirs)


def test_a_glimpse_by_hand():
    """Two cells over pixels 1..5 of 0 10 20 30 40 50: at their centres 2 and 4, the borders of two pixels each."""
    row = 10 * torch.arange(6.0).view(1, 1, 1, 6)
    boxes = torch.tensor([[[1.0, 0, 5, 1]]])
    glimpse = cut_glimpses(row, boxes, (1, 2))
    assert glimpse.flatten().tolist() == pytest.approx([15, 35])
    # back over the box: half a pixel before its edge a quarter of the map is left, half a pixel after it three
    assert paste_glimpses(glimpse, boxes, (1, 6)).flatten().tolist() == pytest.approx(
        [3.75, 11.25, 20, 30, 26.25, 8.75]
    )


def test_a_box_that_moves_moves_what_it_shows():
    ramp = torch.arange(16.0).view(1, 1, 1, 16)
    boxes = torch.tensor([[[4.0, 0, 8, 1]]], requires_grad=True)
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


def test_boxes_of_other_maps_are_refused():
    with pytest.raises(ShapeError, match="boxes"):
        paste_boxes(torch.zeros(2, 1, 4, 4), torch.zeros(3, 4), (8, 8))
    with pytest.raises(ShapeError, match="boxes"):
        crop_boxes(torch.zeros(2, 1, 4, 4), torch.zeros(2, 5), (8, 8))
    with pytest.raises(ShapeError, match="boxes"):
        cut_glimpses(torch.zeros(2, 1, 4, 4), torch.zeros(1, 3, 4), (8, 8))
    with pytest.raises(ShapeError, match="boxes"):
        paste_glimpses(torch.zeros(2, 3, 1, 4, 4), torch.zeros(2, 2, 4), (8, 8))
