"""image_crops: where crops come from, that they repeat, and which images are refused."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from unscene.data.image_crops import ImageCrops, ImageCropsSettings
from unscene.data.image_file import ContrastSettings
from unscene.errors import DataError, RecipeError

PLAIN = {"zoom": (1.0, 1.0), "flips": False, "turns": False}


def coordinates(height: int = 60, width: int = 100) -> Image.Image:
    """An image whose red is the column and whose green is the row."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([2 * x, 2 * y, 0 * x], axis=2).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    coordinates().save(tmp_path / "large.png")
    return tmp_path


def source(folder, **settings) -> ImageCrops:
    return ImageCrops(ImageCropsSettings(str(folder), **{"size": 16, "crop": 16, "count": 40, **settings}))


def test_a_crop_is_a_part_of_the_image_and_all_parts_are_taken(folder):
    crops = source(folder, **PLAIN).batch(range(40))["image"].astype(int)
    assert crops.shape == (40, 16, 16, 3)
    assert np.abs(np.diff(crops[..., 0], axis=2) - 2).max() <= 2  # one column further, rounded
    assert np.abs(np.diff(crops[..., 1], axis=1) - 2).max() <= 2
    assert crops[..., 0].min() < 20
    assert crops[..., 0].max() > 180
    assert crops[..., 1].min() < 12
    assert crops[..., 1].max() > 106


def test_a_crop_follows_from_seed_and_index_alone(folder):
    crops = source(folder)
    expected = crops.batch(range(10))["image"]
    again = pickle.loads(pickle.dumps(crops))
    assert_array_equal(again.batch([7, 2, 2])["image"], expected[[7, 2, 2]])
    assert not np.array_equal(source(folder, seed=1).batch(range(10))["image"], expected)
    assert len({crop.tobytes() for crop in expected}) == 10
    assert crops.batch([])["image"].shape == (0, 16, 16, 3)


def test_zoom_is_the_part_of_the_image_that_a_crop_shows(folder):
    crops = source(folder, **PLAIN | {"zoom": (0.5, 2.0)}).batch(range(40))["image"].astype(int)
    widths = (crops[:, 8, -1, 0] - crops[:, 8, 0, 0]) / 2  # columns between the first and the last pixel
    assert 15 / 16 * 8 - 1 < widths.min() < 10
    assert 24 < widths.max() < 15 / 16 * 32 + 1


def test_flips_and_turns_give_eight_views(folder):
    def views(**settings) -> set[tuple[bool, bool, bool]]:
        crops = source(folder, **PLAIN | settings).batch(range(40))["image"].astype(int)
        right, down = crops[:, 0, -1] - crops[:, 0, 0], crops[:, -1, 0] - crops[:, 0, 0]
        axis = np.abs(right[:, 0]) > np.abs(right[:, 1])  # whether columns are still columns
        return set(zip(axis, right[:, 0] + down[:, 0] > 0, right[:, 1] + down[:, 1] > 0, strict=True))

    assert views() == {(True, True, True)}
    assert views(flips=True) == {(True, True, True), (True, False, True)}
    assert len(views(turns=True)) == 4
    assert len(views(flips=True, turns=True)) == 8


def test_images_are_chosen_by_their_pixels_and_a_large_crop_is_reduced(tmp_path):
    Image.new("RGB", (160, 160), (200, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (80, 80), (0, 200, 0)).save(tmp_path / "b.png")
    crops = source(tmp_path, crop=80, count=500).batch(range(500))["image"][:, 8, 8, 0] > 100
    assert crops.mean() == pytest.approx(0.8, abs=0.06)


def test_a_reduced_image_gives_the_crops_of_the_image(tmp_path):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((320, 320), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.png")
    reduced, direct = (source(tmp_path, crop=128, count=5) for _ in range(2))
    direct._reduction = 1
    assert reduced._reduction == 6
    difference = reduced.batch(range(5))["image"].astype(int) - direct.batch(range(5))["image"]
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, np.float32])
def test_contrast_is_that_of_the_image_not_of_the_crop(tmp_path, depth):
    ramp = np.tile(np.linspace(1000 if depth == np.uint16 else 0, 3000 if depth == np.uint16 else 100, 200), (20, 1))
    Image.fromarray(ramp.astype(depth)).save(tmp_path / "ramp.tif")
    contrast = ContrastSettings(percentiles=(0.0, 100.0))
    crops = source(tmp_path, contrast=contrast, **PLAIN).batch(range(40))["image"][..., 0].astype(int)
    assert crops.max() > 240
    assert crops.min() < 15
    assert np.ptp(crops, axis=(1, 2)).max() < 30  # a twelfth of the range


@pytest.mark.parametrize("size", [(100, 12), (1, 500)])
def test_an_image_smaller_than_a_crop_is_named(folder, size):
    coordinates(*size).save(folder / "strip.png")
    message = rf"strip\.png has {size[1]} x {size[0]} pixels, but crops of 16 x 16 are taken\. Lower --data\.crop"
    with pytest.raises(DataError, match=message):
        source(folder)


def test_one_colour_gets_a_warning(tmp_path, caplog):
    Image.new("L", (40, 40), 255).save(tmp_path / "white.tif")
    source(tmp_path, contrast=ContrastSettings(percentiles=(1.0, 99.0))).batch([0])
    assert "white.tif has one colour only" in caplog.text


def test_what_is_no_image_is_named_or_left_out(folder):
    (folder / "text.tif").write_text("not what its name says")
    values = np.zeros((40, 40), np.float32)
    values[3, 3] = np.nan
    Image.fromarray(values).save(folder / "nan.tif")
    with pytest.raises(DataError, match=r"text\.tif is damaged or no image .* Pass --data\.skip-damaged"):
        source(folder)
    assert [path.name for path in source(folder, skip_damaged=True).paths] == ["large.png"]
    (folder / "text.tif").unlink()
    with pytest.raises(DataError, match=r"nan\.tif has pixels that are no numbers"):
        source(folder).batch(range(40))


def test_settings_are_checked(folder):
    with pytest.raises(RecipeError, match=r"zoom must rise, but is \[2\.0, 1\.0\]"):
        ImageCropsSettings(str(folder), zoom=(2.0, 1.0))
    with pytest.raises(RecipeError, match=r"data\.crop is auto.*--data\.crop N"):
        source(folder, crop="auto")


def test_more_than_memory_holds_is_read_again_with_a_warning(folder, monkeypatch, caplog):
    monkeypatch.setattr("unscene.data.image_crops._CACHE_BYTES", 100)
    crops = source(folder)
    assert "the others are read again" in caplog.text
    assert_array_equal(crops.batch([3])["image"], source(folder).batch([3])["image"])
