from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.ops import roi_align

from unscene.errors import ShapeError
from unscene.models.common.spatial_transformer import crop_boxes, paste_boxes


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


def test_pixels_outside_of_the_image_do_not_count():
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


def test_boxes_of_other_maps_are_refused():
    with pytest.raises(ShapeError, match="boxes"):
        paste_boxes(torch.zeros(2, 1, 4, 4), torch.zeros(3, 4), (8, 8))
    with pytest.raises(ShapeError, match="boxes"):
        crop_boxes(torch.zeros(2, 1, 4, 4), torch.zeros(2, 5), (8, 8))
