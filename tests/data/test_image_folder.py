import logging
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from unscene.data.image_file import read_image
from unscene.data.image_folder import ImageFolder, ImageFolderSettings
from unscene.data.image_resize import fit_image
from unscene.errors import DataError, RecipeError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def photo(height: int = 30, width: int = 40) -> np.ndarray:
    """[H, W, 3] uint8, smooth and different at every pixel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 7 + 60], axis=2).astype(np.uint8)


class TestReadImage:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "ppm"])
    def test_lossless_formats(self, tmp_path, suffix):
        image = read_image(saved(tmp_path / f"photo.{suffix}", Image.fromarray(photo())))
        assert image.dtype == np.uint8
        assert_array_equal(image, photo())

    @pytest.mark.parametrize("suffix", ["jpg", "webp"])
    def test_lossy_formats(self, tmp_path, suffix):
        image = read_image(saved(tmp_path / f"photo.{suffix}", Image.fromarray(photo()), quality=95))
        assert image.shape == (30, 40, 3)
        assert np.abs(image.astype(int) - photo()).mean() < 4

    def test_the_content_says_the_format_not_the_name(self, tmp_path):
        assert_array_equal(read_image(saved(tmp_path / "photo.jpg", Image.fromarray(photo()), format="PNG")), photo())

    def test_grey(self, tmp_path):
        image = read_image(saved(tmp_path / "grey.png", Image.fromarray(np.uint8([[0, 7, 255]]))))
        assert image.tolist() == [[[0, 0, 0], [7, 7, 7], [255, 255, 255]]]

    def test_one_bit(self, tmp_path):
        image = Image.fromarray(np.uint8([[0, 255, 0]])).convert("1")
        assert read_image(saved(tmp_path / "bits.png", image)).tolist() == [[[0] * 3, [255] * 3, [0] * 3]]

    def test_transparent_pixels_are_laid_on_white(self, tmp_path):
        pixels = np.uint8([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]])
        image = read_image(saved(tmp_path / "alpha.png", Image.fromarray(pixels)))
        assert image.tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]  # 255 * (1 - 51 / 255) = 204

    def test_grey_with_alpha(self, tmp_path):
        image = Image.merge("LA", [Image.fromarray(np.uint8([[100, 100]])), Image.fromarray(np.uint8([[255, 0]]))])
        assert read_image(saved(tmp_path / "alpha.png", image)).tolist() == [[[100] * 3, [255] * 3]]

    def test_palette(self, tmp_path):
        image = Image.fromarray(np.uint8([[0, 1, 2]])).convert("P")
        image.putpalette([*RED, *GREEN, *BLUE])
        assert read_image(saved(tmp_path / "opaque.png", image)).tolist() == [[[*RED], [*GREEN], [*BLUE]]]
        path = saved(tmp_path / "transparent.png", image, transparency=1)
        assert read_image(path).tolist() == [[[*RED], [*WHITE], [*BLUE]]]

    def test_one_colour_may_be_transparent(self, tmp_path):
        path = saved(tmp_path / "key.png", Image.fromarray(np.uint8([[RED, BLUE]])), transparency=BLUE)
        assert read_image(path).tolist() == [[[*RED], [*WHITE]]]

    def test_cmyk(self, tmp_path):
        image = Image.fromarray(np.uint8([[[0, 255, 255, 0], [0, 0, 0, 255], [0, 0, 0, 0]]]), "CMYK")
        assert read_image(saved(tmp_path / "print.tif", image)).tolist() == [[[*RED], [0, 0, 0], [*WHITE]]]

    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bit_grey_is_scaled_not_cut(self, tmp_path, suffix):
        values = np.uint16([[0, 128, 129, 257, 32896, 65535]])
        image = read_image(saved(tmp_path / f"deep.{suffix}", Image.fromarray(values)))
        assert image[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
        assert (image == image[..., :1]).all()

    def test_thirty_two_bit_grey(self, tmp_path):
        small = read_image(saved(tmp_path / "small.tif", Image.fromarray(np.int32([[0, 257, 65535]]))))
        assert small[0, :, 0].tolist() == [0, 1, 255]
        large = read_image(saved(tmp_path / "large.tif", Image.fromarray(np.int32([[-100, 0, 100_100]]))))
        assert large[0, :, 0].tolist() == [0, 0, 255]

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.0, 0.5, 1.0], [0, 128, 255]),
            ([0.25, 0.25, 0.25], [64, 64, 64]),
            ([-2, 0, 2], [0, 128, 255]),
            ([9, 9, 9], [0] * 3),
        ],
    )
    def test_floats(self, tmp_path, values, expected):
        image = read_image(saved(tmp_path / "float.tif", Image.fromarray(np.float32([values]))))
        assert image[0, :, 1].tolist() == expected

    def test_floats_that_are_no_numbers(self, tmp_path):
        path = saved(tmp_path / "float.tif", Image.fromarray(np.float32([[0, np.nan]])))
        with pytest.raises(DataError, match=r"float\.tif has pixels that are no numbers"):
            read_image(path)

    def test_of_an_animation_the_first_frame(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN)]
        path = saved(tmp_path / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
        assert (read_image(path) == RED).all()

    # EXIF: where the stored image's first row and first column are to be seen
    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, ["abc", "def"]),  # top, left
            (2, ["cba", "fed"]),  # top, right
            (3, ["fed", "cba"]),  # bottom, right
            (4, ["def", "abc"]),  # bottom, left
            (5, ["ad", "be", "cf"]),  # left, top
            (6, ["da", "eb", "fc"]),  # right, top
            (7, ["fc", "eb", "da"]),  # right, bottom
            (8, ["cf", "be", "ad"]),  # left, bottom
        ],
    )
    @pytest.mark.parametrize("kind", ["png", "tif", "deep.png"])
    def test_exif_orientation(self, tmp_path, orientation, upright, kind):
        stored = np.array([[ord(letter) for letter in row] for row in ("abc", "def")])
        pixels = (stored * 257).astype(np.uint16) if kind == "deep.png" else stored.astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = read_image(saved(tmp_path / f"turned.{kind}", Image.fromarray(pixels), exif=exif))
        assert ["".join(chr(value) for value in row) for row in image[..., 0]] == upright

    def test_one_pixel(self, tmp_path):
        assert read_image(saved(tmp_path / "dot.png", Image.new("RGB", (1, 1), GREEN))).tolist() == [[[*GREEN]]]


class TestImagesThatCannotBeRead:
    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"])
    @pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
    def test_cut_short(self, tmp_path, suffix, share):
        noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
        path = saved(tmp_path / f"photo.{suffix}", Image.fromarray(noise))
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=rf"photo\.{suffix} is damaged"):
            read_image(path)

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"]), st.data())
    def test_any_damage_is_an_image_or_a_data_error(self, tmp_path_factory, kind, data):
        path = saved(tmp_path_factory.mktemp("damaged") / "photo", Image.fromarray(photo()), format=kind)
        content = bytearray(path.read_bytes())
        for _ in range(3):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        with warnings.catch_warnings(action="ignore"):
            error = None
            try:
                shape = read_image(path).shape
            except DataError as caught:
                error = caught
        assert str(path) in str(error) if error else shape[2] == 3

    def test_missing_folder_and_text(self, tmp_path):
        with pytest.raises(DataError, match=r"nothing\.png does not exist\. Check"):
            read_image(tmp_path / "nothing.png")
        with pytest.raises(DataError, match="is a folder"):
            read_image(tmp_path)
        (tmp_path / "note.png").write_text("not an image")
        with pytest.raises(DataError, match=r"note\.png is damaged or no image"):
            read_image(tmp_path / "note.png")

    def test_a_decompression_bomb(self, tmp_path, monkeypatch):
        path = saved(tmp_path / "bomb.png", Image.fromarray(photo()))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
        with pytest.raises(DataError, match=r"bomb\.png has more than 1,000 pixels"):
            read_image(path)


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
