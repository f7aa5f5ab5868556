"""image_resize: to the square and back, by hand and by what must hold for any image."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.transform
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from unscene.data.image_resize import ResizeGeometry, fit_image
from unscene.errors import RecipeError, ShapeError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(height: int = 30, width: int = 40) -> np.ndarray:
    """[H, W, 3] uint8, smooth and different at every pixel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 7 + 60], axis=2).astype(np.uint8)


sides = st.integers(1, 40)
kinds = st.sampled_from(["crop", "pad", "stretch"])


def test_crop_by_hand():
    image = np.zeros((2, 6, 3), np.uint8)
    image[:, 2:4] = [[RED, GREEN], [BLUE, WHITE]]
    square, geometry = fit_image(image, 2, "crop")
    assert square.tolist() == [[[*RED], [*GREEN]], [[*BLUE], [*WHITE]]]
    assert geometry == ResizeGeometry(height=2, width=6, size=2, source=(2, 0, 4, 2), target=(0, 0, 2, 2))


def test_pad_by_hand():
    image = np.zeros((2, 4, 3), np.uint8)
    image[:, :2] = RED
    square, geometry = fit_image(image, 4, "pad")
    assert_array_equal(square[1:3], image)
    assert (square[[0, 3]] == (128, 0, 0)).all()  # the mean colour
    assert geometry == ResizeGeometry(height=2, width=4, size=4, source=(0, 0, 4, 2), target=(0, 1, 4, 3))


def test_stretch_by_hand():
    square, geometry = fit_image(np.repeat(np.uint8([[RED], [BLUE]]), 5, axis=1), 2, "stretch")
    assert square.tolist() == [[[*RED]] * 2, [[*BLUE]] * 2]
    assert geometry == ResizeGeometry(height=2, width=5, size=2, source=(0, 0, 5, 2), target=(0, 0, 2, 2))


def test_reducing_smooths():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    square, _ = fit_image(stripes, 8, "stretch")
    assert np.abs(square[:, 1:-1].astype(int) - 127).max() < 12  # without smoothing it would be black or white


@pytest.mark.parametrize("kind", ["crop", "pad", "stretch"])
def test_a_square_of_the_right_size_stays_as_it_is(kind):
    assert_array_equal(fit_image(photo(20, 20), 20, kind)[0], photo(20, 20))


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 40), (40, 40)])
@pytest.mark.parametrize("kind", ["crop", "pad", "stretch"])
def test_labels_land_where_the_image_does(height, width, kind):
    labels = np.zeros((height, width), np.uint8)
    labels[10:34, 12:30], labels[20:38, 24:36] = 1, 2
    colours = np.uint8([[0, 0, 0], [0, 255, 0], [0, 0, 255]])
    square, geometry = fit_image(colours[labels], 20, kind)
    shown = geometry.resize_labels(labels)
    assert (shown.shape, shown.dtype, set(shown.ravel())) == ((20, 20), np.uint8, {0, 1, 2})
    differing = (np.abs(square.astype(int) - colours[shown]) > 130).any(axis=2)  # half of a pixel at an edge
    assert differing.mean() < 0.06
    x1, y1, x2, y2 = geometry.target
    shown[y1:y2, x1:x2] = 0
    assert not shown.any()
    with pytest.raises(ShapeError, match="labels must have the axes"):
        geometry.resize_labels(labels[:-1])


@given(sides, sides, sides, kinds)
def test_restore_gives_the_image_its_own_resolution(height, width, size, kind):
    square, geometry = fit_image(photo(height, width), size, kind)
    assert square.shape == (size, size, 3)
    shares = np.random.default_rng(size).dirichlet(np.ones(3), (size, size)).transpose(2, 0, 1)
    restored = np.stack([geometry.restore(mask, fill) for mask, fill in zip(shares, (1, 0, 0), strict=True)])
    assert (restored.shape, restored.dtype) == ((3, height, width), np.float32)
    np.testing.assert_allclose(restored.sum(axis=0), 1, atol=1e-5)
    assert restored.min() >= 0


@given(st.integers(8, 40), st.integers(8, 40), kinds)
def test_restore_is_the_inverse_of_fit(height, width, kind):
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2).astype(np.uint8)
    square, geometry = fit_image(image, 64, kind)
    restored = np.stack([geometry.restore(square[..., c].astype(np.float32), fill=-1) for c in range(3)], axis=2)
    x1, y1, x2, y2 = geometry.source
    step = 255 / min(height, width)  # from one pixel to the next
    assert np.abs(restored[y1:y2, x1:x2] - image[y1:y2, x1:x2]).max() < step
    outside = np.ones((height, width), bool)
    outside[y1:y2, x1:x2] = False
    assert (restored[outside] == -1).all()
    assert outside.any() == (kind == "crop" and height != width)


def test_restore_is_bilinear_as_in_scikit_image():
    masks = np.random.default_rng(0).random((2, 8, 8))
    _, geometry = fit_image(photo(24, 40), 8, "stretch")
    for mask in masks:
        expected = skimage.transform.resize(mask, (24, 40), order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(geometry.restore(mask), expected, atol=1e-5)


def test_a_crop_leaves_zero_outside():
    _, geometry = fit_image(photo(4, 8), 4, "crop")
    restored = geometry.restore(np.ones((4, 4)))
    assert restored.tolist() == [[0, 0, 1, 1, 1, 1, 0, 0]] * 4


def test_padding_does_not_leak_into_the_restored_mask():
    _, geometry = fit_image(photo(4, 8), 8, "pad")
    mask = np.zeros((8, 8))
    mask[2:6] = 1  # the image's rows; all that is padding is 0
    assert (geometry.restore(mask) == 1).all()


def test_no_box():
    _, geometry = fit_image(photo(), 8, "pad")
    assert geometry.restore_boxes(np.zeros((0, 4))).shape == (0, 4)


def test_boxes_by_hand():
    boxes = np.array([[2, 2, 4, 6], [0, 0, 8, 8], [0, 0, 0, 0], [3, 0, 5, 1]], np.float32)
    image = photo(40, 80)
    _, stretch = fit_image(image, 8, "stretch")
    assert stretch.restore_boxes(boxes).tolist() == [[20, 10, 40, 30], [0, 0, 80, 40], [0] * 4, [30, 0, 50, 5]]
    _, pad = fit_image(image, 8, "pad")  # rows 2 to 6 of the square, 10 pixels each; the last box is in the margin
    assert pad.restore_boxes(boxes).tolist() == [[20, 0, 40, 40], [0, 0, 80, 40], [0] * 4, [0] * 4]
    _, crop = fit_image(image, 8, "crop")  # columns 20 to 60 of the image, 5 pixels each
    assert crop.restore_boxes(boxes).tolist() == [[30, 10, 40, 30], [20, 0, 60, 40], [0] * 4, [35, 0, 45, 5]]


@given(st.integers(20, 60), st.integers(20, 60), st.integers(4, 20), kinds)
def test_a_box_goes_where_its_mask_goes(height, width, size, kind):
    _, geometry = fit_image(photo(height, width), size, kind)
    box = [size // 4, size // 3, size // 4 + size // 2, size // 3 + size // 2]
    mask = np.zeros((size, size))
    mask[box[1] : box[3], box[0] : box[2]] = 1
    (restored,) = geometry.restore_boxes(np.array([box]))
    rows, columns = np.nonzero(geometry.restore(mask) > 0.5)
    if len(rows):
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(restored, seen, atol=1)
    assert (restored >= 0).all()
    assert (restored <= [width, height, width, height]).all()


def test_locations_by_hand():
    locations = np.array([[0.5, 0.25], [0.0, 1.0]], np.float32)  # y and x
    image = photo(40, 80)
    _, stretch = fit_image(image, 8, "stretch")
    assert stretch.restore_locations(locations).tolist() == locations.tolist()
    _, pad = fit_image(image, 8, "pad")  # the image is the square's rows 2 to 6; the second is in the margin
    assert pad.restore_locations(locations).tolist() == [[0.5, 0.25], [0.0, 1.0]]
    assert pad.restore_locations(np.array([[3 / 8, 0.5]])).tolist() == [[0.25, 0.5]]
    _, crop = fit_image(image, 8, "crop")  # columns 20 to 60 of 80
    assert crop.restore_locations(locations).tolist() == [[0.5, 0.375], [0.0, 0.75]]
    with pytest.raises(ShapeError, match="locations"):
        crop.restore_locations(np.zeros((1, 3)))


def test_wrong_shapes_and_kinds():
    with pytest.raises(ShapeError, match="image must have the axes"):
        fit_image(np.zeros((4, 4), np.uint8), 8, "crop")
    with pytest.raises(ShapeError, match="uint8 with at least one pixel"):
        fit_image(np.zeros((4, 4, 3), np.float32), 8, "crop")
    with pytest.raises(ShapeError, match="uint8 with at least one pixel"):
        fit_image(np.zeros((0, 4, 3), np.uint8), 8, "crop")
    with pytest.raises(RecipeError, match="fit has no 'cut', only crop, pad, stretch"):
        fit_image(photo(), 8, "cut")
    _, geometry = fit_image(photo(), 8, "crop")
    with pytest.raises(ShapeError, match="mask must have the axes"):
        geometry.restore(np.zeros((4, 4)))
    with pytest.raises(ShapeError, match="boxes must have the axes"):
        geometry.restore_boxes(np.zeros((2, 5)))
