"""image_folder: which files are images, in which order, and what is left out."""

from __future__ import annotations

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from unscene.data.image_folder import ImageFolder, ImageFolderSettings
from unscene.data.image_resize import fit_image
from unscene.errors import DataError, RecipeError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def photo(height: int = 30, width: int = 40) -> np.ndarray:
    """[H, W, 3] uint8, smooth and different at every pixel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 7 + 60], axis=2).astype(np.uint8)


def folder_of(tmp_path: Path, **images: Image.Image) -> Path:
    folder = tmp_path / "images"
    for name, image in images.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return folder


def plain(colour: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (6, 4), colour)


class TestImageFolder:
    def test_finds_images_below_in_order(self, tmp_path):
        folder = folder_of(tmp_path, b_png=plain(GREEN), c__z_JPG=plain(BLUE), c__a_png=plain(WHITE), a_bmp=plain(RED))
        (folder / "notes.txt").write_text("not an image")
        (folder / "._b.png").write_text("what another system leaves beside its files")
        (folder / ".cache").mkdir()
        plain(RED).save(folder / ".cache" / "thumbnail.png")
        images = ImageFolder(ImageFolderSettings(str(folder), size=8))
        assert [path.relative_to(folder).as_posix() for path in images.paths] == [
            "a.bmp",
            "b.png",
            "c/a.png",
            "c/z.JPG",
        ]
        assert len(images) == 4
        assert images.skipped == []
        batch = images.batch([2, 0, 0])
        assert set(batch) == {"image"}
        assert (batch["image"].shape, batch["image"].dtype) == ((3, 8, 8, 3), np.uint8)
        assert batch["image"][:, 3, 5].tolist() == [[*WHITE], [*RED], [*RED]]

    def test_every_suffix_of_pillow_is_read_and_the_others_are_counted(self, tmp_path, caplog):
        names = ("a.jfif", "b.jpe", "c.pgm", "d.pnm", "e.apng", "f.TGA", "g.webp")
        kinds = ("JPEG", "JPEG", "PPM", "PPM", "PNG", "TGA", "WEBP")
        for name, kind in zip(names, kinds, strict=True):
            Image.new("L" if name == "c.pgm" else "RGB", (4, 4)).save(tmp_path / name, kind)
        for name in ("photo.heic", "photo.nef", "notes.txt", "more.txt", "figure.eps"):
            (tmp_path / name).write_bytes(b"")
        images = ImageFolder(ImageFolderSettings(str(tmp_path), size=4))
        assert [path.name for path in images.paths] == [*names]
        assert images.batch(range(7))["image"].shape == (7, 4, 4, 3)
        assert f"Files in {tmp_path} that are not read" in caplog.text
        assert "2 .txt" in caplog.text
        assert "1 .heic" in caplog.text

    def test_all_frames_are_images_of_their_own(self, tmp_path):
        frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, GREEN, BLUE)]
        folder = folder_of(tmp_path, a_png=plain(WHITE))
        frames[0].save(folder / "b.tif", save_all=True, append_images=frames[1:])
        (folder / "c.png").write_bytes(b"damaged")
        images = ImageFolder(ImageFolderSettings(str(folder), size=4, frames="all", skip_damaged=True))
        assert [(path.name, frame) for path, frame in zip(images.paths, images.frames, strict=True)] == [
            ("a.png", None),
            ("b.tif", 0),
            ("b.tif", 1),
            ("b.tif", 2),
        ]
        assert images.batch([3, 0, 1])["image"][:, 0, 0].tolist() == [[*BLUE], [*WHITE], [*RED]]
        first = ImageFolder(ImageFolderSettings(str(folder), size=4, skip_damaged=True))
        assert first.batch([1])["image"][0, 0, 0].tolist() == [*RED]
        assert len(first) == 2

    def test_follows_links_once(self, tmp_path):
        folder = folder_of(tmp_path, a__one_png=plain(RED))
        (folder / "a" / "back").symlink_to(folder)
        elsewhere = folder_of(tmp_path / "elsewhere", two_png=plain(BLUE))
        (folder / "b").symlink_to(elsewhere)
        images = ImageFolder(ImageFolderSettings(str(folder)))
        assert [path.name for path in images.paths] == ["one.png", "two.png"]

    @pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
    def test_an_image_of_a_batch_is_the_fitted_image_however_often_it_is_read(self, tmp_path, fit):
        folder = folder_of(tmp_path, photo_png=Image.fromarray(photo()))
        images = ImageFolder(ImageFolderSettings(str(folder), size=16, fit=fit))
        expected, _ = fit_image(photo(), 16, fit)
        first = images.batch([0])["image"]
        assert_array_equal(first[0], expected)
        first[:] = 0
        assert_array_equal(images.batch([0])["image"][0], expected)
        assert_array_equal(pickle.loads(pickle.dumps(images)).batch([0])["image"][0], expected)

    def test_an_image_is_decoded_once(self, tmp_path):
        folder = folder_of(tmp_path, a_png=plain(RED))
        images = ImageFolder(ImageFolderSettings(str(folder), size=4))
        before = images.batch([0])["image"]
        (folder / "a.png").unlink()
        assert_array_equal(images.batch([0])["image"], before)

    def test_an_empty_batch_and_one_too_far(self, tmp_path):
        images = ImageFolder(ImageFolderSettings(str(folder_of(tmp_path, a_png=plain(RED))), size=8))
        assert images.batch([])["image"].shape == (0, 8, 8, 3)
        with pytest.raises(DataError, match="there are 1"):
            images.batch([1])

    def test_a_damaged_image_stops_and_the_message_says_how_to_skip_it(self, tmp_path):
        folder = folder_of(tmp_path, a_png=plain(RED), b_png=plain(BLUE))
        (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:40])
        images = ImageFolder(ImageFolderSettings(str(folder)))
        assert len(images) == 2
        images.batch([0])
        with pytest.raises(DataError, match=r"b\.png is damaged.*--data.skip-damaged"):
            images.batch([1])

    def test_damaged_images_are_left_out(self, tmp_path, caplog):
        names = {f"{letter}_png": plain(RED) for letter in "abcdefgh"}
        folder = folder_of(tmp_path, **names, i_png=plain(BLUE))
        for letter in "abcdefg":
            (folder / f"{letter}.png").write_bytes(b"damaged")
        with caplog.at_level(logging.WARNING):
            images = ImageFolder(ImageFolderSettings(str(folder), size=2, skip_damaged=True))
        assert [path.name for path in images.paths] == ["h.png", "i.png"]
        assert [path.name for path in images.skipped] == [f"{letter}.png" for letter in "abcdefg"]
        assert images.batch([1, 0])["image"][:, 0, 0].tolist() == [[*BLUE], [*RED]]
        assert "7 of 9 images left out" in caplog.text
        assert "a.png" in caplog.text
        assert "and 2 more" in caplog.text

    def test_all_images_damaged(self, tmp_path):
        folder = folder_of(tmp_path, a_png=plain(RED))
        (folder / "a.png").write_bytes(b"damaged")
        with pytest.raises(DataError, match=r"none of the 1 images .* can be read: .*a\.png is damaged"):
            ImageFolder(ImageFolderSettings(str(folder), skip_damaged=True))

    def test_folders_without_images(self, tmp_path):
        with pytest.raises(DataError, match=r"There is no folder .*missing"):
            ImageFolder(ImageFolderSettings(str(tmp_path / "missing")))
        with pytest.raises(DataError, match="no file at all"):
            ImageFolder(ImageFolderSettings(str(tmp_path)))
        for name in ("a.txt", "b.txt", "README", "c.h5"):
            (tmp_path / name).write_text("")
        with pytest.raises(DataError, match=r"expected \.png, .*but 2 \.txt, 1 "):
            ImageFolder(ImageFolderSettings(str(tmp_path)))
        with pytest.raises(DataError, match=rf"a\.txt is a file\. Give the folder it is in: {tmp_path}"):
            ImageFolder(ImageFolderSettings(str(tmp_path / "a.txt")))

    @pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
    def test_a_folder_that_may_not_be_read(self, tmp_path):
        folder = folder_of(tmp_path, a_png=plain(RED), b__c_png=plain(RED))
        (folder / "b").chmod(0)
        with pytest.raises(DataError, match="cannot be searched"):
            ImageFolder(ImageFolderSettings(str(folder)))
        (folder / "b").chmod(0o700)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"folder": ""}, "folder is empty"),
            ({"folder": "x", "size": 0}, "size must be 1 or more"),
            ({"folder": "x", "fit": "padd"}, "Did you mean 'pad'"),
        ],
    )
    def test_impossible_settings(self, settings, message):
        with pytest.raises(RecipeError, match=message):
            ImageFolderSettings(**settings)


def test_run_that_trains_within_the_folder_adds_no_images(tmp_path):
    for name in ("a.png", "run/samples/step_1.png", "run/checkpoints/x.png", "trip/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "run" / "recipe.yaml").touch()
    (tmp_path / "trip" / "recipe.yaml").touch()  # of a cake
    assert [path.name for path in ImageFolder(ImageFolderSettings(str(tmp_path))).paths] == ["a.png", "b.png"]
    assert len(ImageFolder(ImageFolderSettings(str(tmp_path / "run")))) == 2, "a folder that is named is searched"
