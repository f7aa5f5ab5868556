"""labelled_folder: images with label images, of any depth and in both layouts; what is missing or of the wrong kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from unscene.data.image_file import read_label_image
from unscene.data.labelled_folder import LabelledFolder, LabelledFolderSettings, label_images, renumbered
from unscene.errors import DataError


def save(path: Path, values, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values))
    image.convert(mode).save(path) if mode else image.save(path)


def folder(path: Path) -> LabelledFolder:
    return LabelledFolder(LabelledFolderSettings(str(path)))


LABELS = np.zeros((4, 6), np.uint8)
LABELS[:2, :3], LABELS[3, 2:] = 9, 4
PICTURE = np.full((4, 6, 3), 50, np.uint8)


@pytest.mark.parametrize(
    ("image", "label_image"),
    [
        ("x.png", "x_label.png"),
        ("x.jpg", "x_cp_masks.tif"),
        ("deep/x.png", "deep/x_masks.png"),
        ("images/x.png", "labels/x.tif"),
        ("images/deep/x.png", "masks/deep/x_mask.png"),
    ],
)
def test_layouts(tmp_path, image, label_image):
    save(tmp_path / image, PICTURE)
    save(tmp_path / label_image, LABELS)
    source = folder(tmp_path)
    assert source.names == [image.removeprefix("images/").partition(".")[0]]
    batch = source.batch([0])
    assert batch["image"].shape == (1, 4, 6, 3)
    assert_array_equal(batch["labels"][0], np.select([LABELS == 4, LABELS == 9], [1, 2]))
    assert batch["boxes"].tolist() == [[[2, 3, 6, 4], [0, 0, 3, 2]]]


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32, bool])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_depths(tmp_path, kind, suffix):
    values = np.array([[0, 1], [1, min(np.iinfo(kind).max, 70_000) if np.issubdtype(kind, np.integer) else 1]], kind)
    if suffix == ".png" and kind in (np.int32, np.float32):
        values = np.minimum(values, 65_535)
        values = values.astype(np.uint16)  # a PNG has no more
    save(tmp_path / f"x{suffix}", values)
    labels = read_label_image(tmp_path / f"x{suffix}")
    assert labels.dtype == np.int32
    assert_array_equal(labels, values)


def test_a_palette_image_holds_the_numbers_of_its_colours(tmp_path):
    image = Image.fromarray(LABELS)
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    image.save(tmp_path / "x.png")
    assert_array_equal(read_label_image(tmp_path / "x.png"), LABELS)


def test_images_of_several_sizes_are_read_one_by_one(tmp_path):
    for name, size in (("a", 4), ("b", 5)):
        save(tmp_path / f"{name}.png", np.zeros((size, 6), np.uint8))
        save(tmp_path / f"{name}_label.png", np.zeros((size, 6), np.uint8))
    source = folder(tmp_path)
    assert source.batch([1])["boxes"].shape == (1, 0, 4)
    with pytest.raises(DataError, match="several sizes"):
        source.batch([0, 1])


@pytest.mark.parametrize(
    ("values", "mode", "message"),
    [
        (PICTURE, None, r"x_label\.png has several channels \(RGB\)"),
        (LABELS[:3], None, r"x\.png has 6 x 4 pixels, but .*x_label\.png has 6 x 3"),
    ],
)
def test_label_images_that_are_none(tmp_path, values, mode, message):
    save(tmp_path / "x.png", PICTURE)
    save(tmp_path / "x_label.png", values, mode)
    with pytest.raises(DataError, match=message):
        folder(tmp_path).batch([0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.5, 1]], np.float32), "holds fractions"),
        (np.array([[np.nan, 1]], np.float32), "holds fractions"),
        (np.array([[-1, 1]], np.int32), "holds negative labels"),
    ],
)
def test_values_that_are_no_labels(tmp_path, values, message):
    save(tmp_path / "x.tif", values)
    with pytest.raises(DataError, match=rf"x\.tif {message}"):
        read_label_image(tmp_path / "x.tif")


def test_several_pages_and_damage(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "x.tif", save_all=True, append_images=[Image.fromarray(LABELS)])
    with pytest.raises(DataError, match="has 2 pages"):
        read_label_image(tmp_path / "x.tif")
    (tmp_path / "y.png").write_bytes((tmp_path / "x.tif").read_bytes()[:30])
    with pytest.raises(DataError, match=r"y\.png"):
        read_label_image(tmp_path / "y.png")


def test_files_that_stand_alone(tmp_path):
    save(tmp_path / "x.png", PICTURE)
    with pytest.raises(DataError, match=r"1 of 1 files in .* have no label image, for instance .*x\.png"):
        folder(tmp_path)
    save(tmp_path / "x_label.png", LABELS)
    save(tmp_path / "y_label.png", LABELS)
    with pytest.raises(DataError, match=r"have no image, for instance .*y_label\.png"):
        folder(tmp_path)
    save(tmp_path / "images" / "x.png", PICTURE)
    with pytest.raises(DataError, match="Name it 'labels'"):
        folder(tmp_path)


def test_label_images_of_one_name(tmp_path):
    for name in ("x.masks.png", "x.overlay.png", "x.labels.tif", "y.masks.png", "z.png"):
        save(tmp_path / name, LABELS)
    found = {name: path.name for name, path in label_images(tmp_path).items()}
    assert found == {"x": "x.labels.tif", "y": "y.masks.png", "z": "z.png"}
    save(tmp_path / "z_label.png", LABELS)
    with pytest.raises(DataError, match=r"two label images of 'z': z\.png and z_label\.png"):
        label_images(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    for name in ("x.png", "x.tif", "x_label.png"):
        save(tmp_path / name, LABELS if "label" in name else PICTURE)
    with pytest.raises(DataError, match=r"two images of 'x': x\.png and x\.tif"):
        folder(tmp_path)


def test_renumbered_keeps_the_order_and_what_does_not_count():
    labels, objects = renumbered(np.array([[-1, 0, 70_000], [3, 3, 5]]))
    assert labels.tolist() == [[-1, 0, 3], [1, 1, 2]]
    assert objects.tolist() == [3, 5, 70_000]
    assert renumbered(np.zeros((1, 2), int))[0].tolist() == [[0, 0]]


def test_a_jpeg_is_no_label_image(tmp_path):
    Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / "x_label.jpg")
    with pytest.raises(DataError, match=r"x_label\.jpg is a JPEG, which changes labels"):
        read_label_image(tmp_path / "x_label.jpg")
