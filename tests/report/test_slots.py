"""slots: tints, outlines and boxes where they belong and nothing elsewhere; what the sample figure shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unscene.errors import ShapeError
from unscene.report.slots import SLOT_COLOURS, label_map_palette, overlay, sample_figure, slot_colour, text_colour
from unscene.scene import Decomposition

GREY = np.full((20, 30, 3), 100, np.uint8)


def decomposition(boxes: bool) -> tuple[torch.Tensor, Decomposition]:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.full((2, 3, 1, 8, 8), 0.25)
    masks[:, 0] = 0.5
    result = Decomposition(
        log_masks=masks.log(),
        components=torch.stack([torch.full((2, 3, 8, 8), value) for value in (1.0, 0.5, 0.0)], dim=1),
        background=-1,
        boxes=torch.tensor([[[1.0, 2, 5, 6], [0, 0, 0, 0]], [[0, 0, 8, 8], [2, 2, 4, 4]]]) if boxes else None,
        box_scores=torch.ones(2, 2) if boxes else None,
        box_valid=torch.tensor([[True, False], [True, True]]) if boxes else None,
    )
    return images, result


def test_rows_are_input_reconstruction_masks_and_slots():
    images, result = decomposition(boxes=False)
    axes = sample_figure(images, result, "step 3").axes[0]
    picture = np.asarray(axes.get_images()[0].get_array())
    assert picture.shape == (8 * 8, 2 * 8, 3)  # 2 + 2 a slot rows of 8 pixels, 2 columns
    assert np.allclose(picture[:8, 8:], images[1].permute(1, 2, 0))
    assert np.allclose(picture[8:16], 0.5 * 1 + 0.25 * 0.5)  # .5 of white, .25 of grey, .25 of black
    assert np.allclose(picture[16:24], 0.5)  # mask of slot 0
    assert np.allclose(picture[40:48], 0.125)  # slot 1: a quarter of grey
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["input", "reconstruction", "mask 0", "slot 0", "mask 1", "slot 1", "mask 2", "slot 2"]


def test_valid_boxes_are_on_their_image():
    images, result = decomposition(boxes=True)
    patches = [patch.get_bbox().extents.tolist() for patch in sample_figure(images, result).axes[0].patches]
    assert patches == [[0.5, 1.5, 4.5, 5.5], [7.5, -0.5, 15.5, 7.5], [9.5, 1.5, 11.5, 3.5]]


def test_model_without_boxes_has_none_in_the_figure():
    images, result = decomposition(boxes=False)
    assert not sample_figure(images, result).axes[0].patches


def test_title_is_shown():
    images, result = decomposition(boxes=False)
    assert sample_figure(images, result, "step 3   decomposing").get_suptitle() == "step 3   decomposing"


def test_mask_is_tinted_inside_and_opaque_at_its_border():
    labels = np.zeros((20, 30), np.int64)
    labels[5:12, 8:20] = 2
    picture = overlay(GREY, labels)
    colour = np.array(slot_colour(2))
    assert (picture[5, 8] == colour).all()
    assert (picture[11, 19] == colour).all()
    inside = (100 * 10 + colour * 6) // 16  # .4 of the colour is 6 of 16 parts
    assert (picture[8, 12] == inside).all()
    assert (picture[labels == 0] == 100).all()


def test_full_tint_is_the_slots_colour_and_no_tint_is_the_image():
    labels = np.zeros((20, 30), np.uint8)
    labels[5:12, 8:20] = 1
    assert (overlay(GREY, labels, tint=1.0)[labels == 1] == slot_colour(1)).all()
    assert (overlay(GREY, labels, tint=0.0)[6:11, 9:19] == 100).all()


def test_box_has_its_corners_on_its_end_exclusive_sides():
    picture = overlay(GREY, None, np.array([[0, 0, 0, 0], [3, 4, 10, 9]], np.float32))
    changed = (picture != GREY).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 8, 3, 9)
    assert not changed[5:8, 4:9].any()
    assert (picture[changed] == slot_colour(2)).all()


def test_numbers_stand_on_large_images_only():
    large = np.full((200, 200, 3), 100, np.uint8)
    box = np.array([[50, 60, 150, 160]], np.float32)
    numbered = (overlay(large, None, box) != overlay(large, None, box, numbers=False)).any(axis=2)
    assert numbered[40:60, 50:70].any()
    assert not numbered[61:].any()
    small = large[:100, :100]
    assert (overlay(small, None, box / 2) == overlay(small, None, box / 2, numbers=False)).all()


def test_a_number_hides_no_other_object():
    """Three objects in a column, 3 pixels apart; a number is at least 11 pixels high."""
    labels, boxes = np.zeros((200, 200), np.uint8), []
    for label, top in enumerate((60, 73, 86), start=1):
        labels[top : top + 10, 50:60] = label
        boxes.append([50.0, top, 60, top + 10])
    image = np.full((200, 200, 3), 100, np.uint8)
    written = written_at(image, labels, np.array(boxes))
    assert written[40:60, 50:70].any()  # above the first
    assert not written[60:96].any()  # of the second, nowhere
    assert written[96:120, 50:70].any()  # below the third


@pytest.mark.parametrize("x", [0, 93, 190])
@pytest.mark.parametrize("y", [0, 93, 190])
def test_a_number_stands_wholly_in_the_image_and_beside_a_small_box(x, y):
    image = np.full((200, 200, 3), 100, np.uint8)
    written = written_at(image, None, np.array([[x, y, x + 10, y + 10]], np.float32))
    rows, columns = np.nonzero(written)
    assert rows.max() - rows.min() >= 10
    assert columns.max() - columns.min() >= 10
    assert not written[y : y + 10, x : x + 10].any()


def test_a_number_hides_no_other_number():
    """Two boxes in a column, 14 pixels apart at the image's upper edge: room for one number between them."""
    image, boxes = np.full((200, 200, 3), 100, np.uint8), np.array([[50.0, 0, 60, 10], [50, 24, 60, 34]])
    first, both = written_at(image, None, boxes[:1]), written_at(image, None, boxes)
    assert first[10:24].any()
    assert (both[:24] == first[:24]).all()
    assert both[34:60].any()


def test_numbers_of_boxes_that_leave_the_image():
    image = np.full((200, 300, 3), 100, np.uint8)
    for box in ([-50, -50, 400, 300], [-50, 50, 400, 150]):
        assert written_at(image, None, np.array([box], np.float32)).any()
    assert not written_at(image, None, np.array([[-50, 50, -20, 80]], np.float32)).any()


def written_at(image, labels, boxes):
    return (overlay(image, labels, boxes) != overlay(image, labels, boxes, numbers=False)).any(axis=2)


def test_number_at_the_upper_edge_stays_in_the_image():
    large = np.full((200, 200, 3), 100, np.uint8)
    box = np.array([[50, 0, 150, 160]], np.float32)
    own = np.zeros((200, 200), np.uint8)
    own[0:160, 50:150] = 1
    for labels in (None, own):
        assert written_at(large, labels, box)[1:20, 51:70].any()


def test_input_image_is_unchanged():
    image = GREY.copy()
    overlay(image, np.ones((20, 30), np.uint8), np.array([[1, 1, 5, 5]], np.float32))
    assert (image == GREY).all()


@given(labels=arrays(np.uint8, (9, 11), elements=st.integers(0, 4)))
def test_only_object_pixels_are_tinted(labels):
    image = np.full((9, 11, 3), 7, np.uint8)
    picture = overlay(image, labels)
    assert (picture[labels == 0] == 7).all()
    assert (picture[labels > 0] != 7).any(axis=1).all()


def test_labels_above_255_have_the_colours_of_their_boxes():
    labels = np.zeros((20, 30), np.int32)
    labels[6:11, 9:19] = 1000
    picture = overlay(GREY, labels, np.array([[1, 12, 8, 18]], np.float32), slots=np.array([1000]), tint=1.0)
    assert (picture[labels == 1000] == slot_colour(1000)).all()
    assert (picture[12, 1:8] == slot_colour(1000)).all()
    assert (overlay(GREY, labels) == overlay(GREY, labels // 1000 * 4)).all()  # 999 = 83 * 12 + 3


@pytest.mark.parametrize(
    ("labels", "boxes"),
    [
        (np.zeros((20, 29), np.uint8), None),
        (np.full((20, 30), -1), None),
        (None, np.zeros((2, 3))),
    ],
)
def test_wrong_shapes_are_errors(labels, boxes):
    with pytest.raises(ShapeError):
        overlay(GREY, labels, boxes)


def test_palette_is_black_then_repeats_the_slot_colours():
    palette = np.frombuffer(label_map_palette(), np.uint8).reshape(256, 3)
    assert palette[0].tolist() == [0, 0, 0]
    assert tuple(palette[1].tolist()) == SLOT_COLOURS[0] == slot_colour(1)
    assert palette[1 + len(SLOT_COLOURS)].tolist() == palette[1].tolist()
    assert len(set(SLOT_COLOURS)) == len(SLOT_COLOURS)


def test_text_is_black_on_yellow_and_white_on_indigo():
    assert text_colour((240, 228, 66)) == (0, 0, 0)
    assert text_colour((51, 34, 136)) == (255, 255, 255)


@pytest.mark.parametrize("stroke", [1, 3])
def test_stripes_of_a_large_image_join_without_a_seam(stroke, monkeypatch):
    labels = np.zeros((20, 30), np.uint8)
    labels[2:17, 3:28], labels[9:11, 10:20] = 1, 2
    at_once = overlay(GREY, labels, stroke=stroke)
    monkeypatch.setattr("unscene.report.slots._PIXELS_AT_ONCE", 90)  # three rows
    assert (overlay(GREY, labels, stroke=stroke) == at_once).all()


def test_lines_of_a_thin_box_stay_within_its_rim():
    picture = overlay(GREY, None, np.array([[10, 5, 12, 15]], np.float32), stroke=4)
    rows, columns = np.nonzero((picture != GREY).any(axis=2))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 15, 9, 12)
