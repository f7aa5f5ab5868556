"""sprites: each shape against scikit-image's polygons of the curves that the published images were fitted with."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import polygon

from unscene.data.multi_dsprites.sprites import ALL_SHAPES, covered_windows

T = np.linspace(0, 2 * np.pi, 500, endpoint=False)


def outline(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Right and down of the fitted curve, at scale 1, in pixels of an image of 64."""
    if shape == "square":
        return np.array([-9.6, 9.6, 9.6, -9.6]), np.array([-9.6, -9.6, 9.6, 9.6])
    if shape == "ellipse":
        return 12.8 * np.cos(T), 7.2 * np.sin(T)
    if shape == "triangle":
        corners = np.deg2rad([-90, 30, 150])
        return 13.5 * np.cos(corners), 13.5 * np.sin(corners)
    x = 16 * np.sin(T) ** 3
    y = 13 * np.cos(T) - 5 * np.cos(2 * T) - 2 * np.cos(3 * T) - np.cos(4 * T)
    down = -(y - (y.min() + y.max()) / 2) * 1.075
    return x * 9.6 / 16, down * 9.6 / 16


def rasterised(shape: str, scale: float, orientation: float, x: float, y: float, size: int) -> np.ndarray:
    right, down = (size / 64 * scale * coordinate for coordinate in outline(shape))
    column = size * (0.25 + 0.5 * x) + right * np.cos(orientation) - down * np.sin(orientation)
    row = size * (0.25 + 0.5 * y) + right * np.sin(orientation) + down * np.cos(orientation)
    image = np.zeros((size, size), bool)
    image[polygon(row - 0.5, column - 0.5, image.shape)] = True  # scikit-image's pixel middles are whole numbers
    return image


def drawn(sprites: dict[str, np.ndarray], size: int) -> np.ndarray:
    covered, corner = covered_windows(sprites, size)  # of whole images, in which every window lies
    images = np.zeros((len(covered), size, size), bool)
    side = covered.shape[1]
    for image, window, (x, y) in zip(images, covered, corner, strict=True):
        image[y : y + side, x : x + side] = window
    return images


def random_sprites(shape: str, count: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "shape": np.full(count, ALL_SHAPES.index(shape) + 1, np.uint8),
        "scale": generator.uniform(0.5, 1, count).astype(np.float32),
        "orientation": generator.uniform(0, 2 * np.pi, count).astype(np.float32),
        "x": generator.uniform(0, 1, count).astype(np.float32),
        "y": generator.uniform(0, 1, count).astype(np.float32),
    }


@pytest.mark.parametrize("shape", ALL_SHAPES)
@pytest.mark.parametrize(("size", "worst"), [(64, 0.97), (256, 0.995)])
def test_a_sprite_covers_its_polygon(shape, size, worst):
    sprites = random_sprites(shape, 30)
    factors = zip(*(sprites[key] for key in ("scale", "orientation", "x", "y")), strict=True)
    expected = np.stack([rasterised(shape, *values, size) for values in factors])
    found = drawn(sprites, size)
    both, either = (found & expected).sum(axis=(1, 2)), (found | expected).sum(axis=(1, 2))
    assert (both / either).min() >= worst


def upright(shape: str, orientation: float = 0.0) -> np.ndarray:
    one = {"shape": np.array([ALL_SHAPES.index(shape) + 1]), "orientation": np.array([orientation], np.float32)}
    middle = {"scale": np.ones(1, np.float32), "x": np.full(1, 0.5, np.float32), "y": np.full(1, 0.5, np.float32)}
    return drawn(one | middle, 64)[0]


def test_a_square_by_hand():
    rows, columns = np.nonzero(upright("square"))  # 32 - 9.6 = 22.4 .. 41.6: middles 22.5 .. 41.5
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (22, 41, 22, 41)
    assert len(rows) == 400


def test_an_ellipse_lies_and_a_quarter_turn_makes_it_stand():
    lying = upright("ellipse")
    assert lying.any(axis=0).sum() == 26  # middles within 12.8 of 32
    assert lying.any(axis=1).sum() == 14  # within 7.2
    assert np.array_equal(upright("ellipse", np.pi / 2), lying.T)


def test_a_heart_points_down_and_a_positive_angle_turns_it_clockwise():
    heart = upright("heart")
    widths = heart.sum(axis=1)[heart.any(axis=1)]
    assert widths[: len(widths) // 2].sum() > 1.5 * widths[len(widths) // 2 :].sum()  # more above than below
    assert np.array_equal(heart, heart[:, ::-1])
    turned = upright("heart", np.pi / 2)  # its point, at the bottom, goes to the left
    assert turned[:, :32].sum() < turned[:, 32:].sum()


def test_a_triangle_stands_on_a_side_and_a_third_of_a_turn_leaves_it_as_it_is():
    rows, columns = np.nonzero(triangle := upright("triangle"))
    assert (rows.min(), rows.max()) == (19, 38)  # 32 - 13.5 = 18.5, where it is a point, to 32 + 6.75
    assert (columns.min(), columns.max()) == (20, 43)  # 13.5 cos 30 = 11.69 at the base, 11.55 in row 38: from 20.5
    assert np.array_equal(triangle, triangle[:, ::-1])
    assert triangle.sum() == pytest.approx(3 * np.sqrt(3) / 4 * 13.5**2, rel=0.04)
    turned = upright("triangle", 2 * np.pi / 3)
    assert (turned & triangle).sum() / (turned | triangle).sum() > 0.97


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_a_crop_is_the_middle_of_a_larger_image(shape):
    sprites = random_sprites(shape, 50)
    whole, corner = covered_windows(sprites, 128)
    cropped, corner_in_crop = covered_windows(sprites, 64, crop=0.5)
    assert np.array_equal(cropped, whole)
    assert np.array_equal(corner_in_crop, corner - 32)
    assert corner_in_crop.min() < 0


@pytest.mark.parametrize("size", [16, 17, 31, 64, 100, 333])
@pytest.mark.parametrize("place", [0.0, 1.0])
def test_no_window_leaves_the_image(size, place):
    one = np.ones(1, np.float32)
    covered, corner = covered_windows(
        {"shape": one, "scale": one, "orientation": one * np.pi / 4, "x": one * place, "y": one * place}, size
    )
    assert corner.min() >= 0
    assert corner.max() + covered.shape[1] <= size
    assert covered.any(axis=(1, 2)).all()


def test_no_sprite_is_no_window():
    none = {key: np.zeros(0, np.float32) for key in ("shape", "scale", "orientation", "x", "y")}
    covered, corner = covered_windows(none, 64)
    assert covered.shape == (0, 29, 29)
    assert corner.shape == (0, 2)
