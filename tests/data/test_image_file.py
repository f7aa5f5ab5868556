"""image_file: pixels by hand in every format and mode; metadata that are wrong; files that cannot be read."""

from __future__ import annotations

import errno
import io
import os
import socket
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from unscene.data import image_file
from unscene.data.image_file import ContrastSettings, frame_numbers, image_size, is_turned, read_image
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

    def test_photoshop(self, tmp_path):  # whose frames are counted from 1
        header = b"8BPS\0\1" + bytes(6) + (3).to_bytes(2) + (1).to_bytes(4) + (2).to_bytes(4) + b"\0\x08\0\3"
        (tmp_path / "a.psd").write_bytes(header + bytes(12) + bytes(2) + bytes([255, 0, 0, 0, 0, 255]))
        assert read_image(tmp_path / "a.psd").tolist() == [[[*RED], [*BLUE]]]

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

    def test_what_is_no_file_is_said_and_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.png")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "s.png"))
            for name in ("pipe.png", "s.png"):
                with pytest.raises(DataError, match=rf"{name} is not a regular file"):
                    read_image(tmp_path / name)
        (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
        with pytest.raises(DataError, match=r"loop\.png is a link that leads to itself"):
            read_image(tmp_path / "loop.png")
        with pytest.raises(DataError, match="longer name than the system allows"):
            read_image(tmp_path / ("x" * 300))

    @pytest.mark.parametrize(
        ("number", "message"),
        [
            (errno.EACCES, r"may not be read\. Change its permissions"),
            (errno.EMFILE, r"cannot be opened, too many files are open\. Close some"),
            (errno.EAGAIN, r"is locked by another program"),
            (errno.EIO, r"cannot be read from its disk"),
        ],
    )
    def test_a_refusal_of_the_system_is_no_damage(self, tmp_path, monkeypatch, number, message):
        path = saved(tmp_path / "a.png", Image.new("RGB", (4, 4)))

        def refuse(*given, **named):
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(DataError, match=rf"a\.png {message}") as caught:
            read_image(path)
        assert "damaged" not in str(caught.value)

    def test_no_other_program_is_started(self, tmp_path):
        (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
        with pytest.raises(DataError, match="no image that Pillow knows"):
            read_image(tmp_path / "a.png")


def encoded(kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo()).save(file, kind, **options)
    return file.getvalue()


def png_with(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    """A PNG with one more chunk after its header."""
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    chunk = len(content).to_bytes(4) + kind + content + checksum.to_bytes(4)
    png = encoded("PNG")
    return png[:33] + chunk + png[33:]


def jpeg_with(marker: int, content: bytes, jpeg: bytes | None = None) -> bytes:
    """A JPEG with one more segment at its start."""
    jpeg = jpeg or encoded("JPEG")
    return jpeg[:2] + b"\xff" + bytes([marker]) + (len(content) + 2).to_bytes(2) + content + jpeg[2:]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class TestMetadata:
    """The pixels are read whatever the rest of the file says."""

    @pytest.mark.parametrize("kind", ["gAMA", "cHRM", "pHYs", "tIME", "iCCP", "zTXt", "iTXt", "tEXt", "eXIf", "acTL"])
    @pytest.mark.parametrize(("content", "checksum"), [(b"", None), (b"\0", None), (b"abc\0def", 5)])
    def test_chunks_of_a_png(self, tmp_path, kind, content, checksum):
        path = written(tmp_path / "a.png", png_with(kind.encode(), content, checksum))
        assert_array_equal(read_image(path), photo())

    @pytest.mark.parametrize("start", [b"key\0\0\0\0\0", b"key\0\1\0\0\0"])
    def test_a_text_of_more_than_a_megabyte(self, tmp_path, start):
        text = zlib.compress(b"x" * 2**21) if b"\1" in start else b"x" * 2**21
        assert_array_equal(read_image(written(tmp_path / "a.png", png_with(b"iTXt", start + text))), photo())

    @pytest.mark.parametrize("cut", [12, 4])
    def test_a_png_without_its_end(self, tmp_path, cut):
        assert_array_equal(read_image(written(tmp_path / "a.png", encoded("PNG")[:-cut])), photo())

    @pytest.mark.parametrize(
        ("marker", "content"),
        [
            (0xE0, b"JFIF\0"),
            (0xE1, b"Exif\0\0garbage"),
            (0xE1, b"Exif\0\0MM"),
            (0xE2, b"ICC_PROFILE\0"),
            (0xE2, b"MPF\0garbage"),
            (0xED, b"Photoshop 3.0\08BIM\x03\xed\x05"),
            (0xEE, b"Adobe"),
        ],
    )
    def test_segments_of_a_jpeg(self, tmp_path, marker, content):
        sound = read_image(written(tmp_path / "sound.jpg", encoded("JPEG")))
        assert_array_equal(read_image(written(tmp_path / "a.jpg", jpeg_with(marker, content))), sound)

    @pytest.mark.parametrize("progressive", [False, True])
    @pytest.mark.parametrize("cut", [1, 2])
    def test_a_jpeg_without_its_end_is_read_and_one_without_data_is_not(self, tmp_path, progressive, cut):
        content = encoded("JPEG", progressive=progressive)
        sound = read_image(written(tmp_path / "sound.jpg", content))
        assert_array_equal(read_image(written(tmp_path / "a.jpg", content[:-cut])), sound)
        with pytest.raises(DataError, match="damaged"):
            read_image(written(tmp_path / "cut.jpg", content[:-12]))

    @pytest.mark.parametrize(
        ("tag", "kind", "value"),
        [(0x010F, 5, 8), (0x011A, 2, 8), (0x0213, 9, 2**32 - 1), (0x0128, 8, 2**32 - 1)],  # Make, XResolution ...
    )
    def test_an_orientation_counts_beside_tags_of_another_type(self, tmp_path, tag, kind, value):
        entries = [(0x0112, 3, 6), (tag, kind, value)]  # turned, and what has another type than the standard's
        fields = [n.to_bytes(2, "little") + k.to_bytes(2, "little") + (1).to_bytes(4, "little") for n, k, _ in entries]
        body = b"".join(field + v.to_bytes(4, "little") for field, (_, _, v) in zip(fields, entries, strict=True))
        exif = b"Exif\0\0II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little") + body + b"\0" * 4
        path = written(tmp_path / "a.jpg", jpeg_with(0xE1, exif))
        assert read_image(path).shape == (40, 30, 3)
        assert is_turned(path)
        assert not is_turned(written(tmp_path / "b.jpg", encoded("JPEG")))


class TestGreys:
    """A container that is wider than its values."""

    @pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (16383, 14)])
    def test_fewer_bits_fill_the_range_with_a_warning(self, tmp_path, caplog, top, bits):
        values = np.linspace(0, top, 64).round().astype(np.uint16).reshape(8, 8)
        image = read_image(saved(tmp_path / "a.png", Image.fromarray(values)))
        assert_array_equal(image[..., 0], (values.astype(float) * 255 / top).round())
        assert f"a.png has no grey above {top:,} of 65,535: it is read as {bits} bits" in caplog.text
        read_image(saved(tmp_path / "b.png", Image.fromarray(values)))
        assert "b.png" not in caplog.text  # once for a folder

    def test_all_sixteen_bits_and_black_are_as_they_are(self, tmp_path, caplog):
        assert read_image(saved(tmp_path / "a.png", Image.fromarray(np.uint16([[0, 16384]])))).max() == 64
        assert read_image(saved(tmp_path / "b.png", Image.fromarray(np.uint16([[0, 0]])))).max() == 0
        assert caplog.text == ""

    def test_a_nearly_black_picture_is_named(self, tmp_path, caplog):
        read_image(saved(tmp_path / "labels.png", Image.fromarray(np.uint8([[0, 3]]))))
        assert "labels.png has no value above 3 of 255, it is nearly black" in caplog.text

    def test_sixteen_bits_of_colour_of_which_eight_are_used(self, tmp_path, caplog):
        header = (2).to_bytes(4) + (1).to_bytes(4) + bytes([16, 2, 0, 0, 0])  # 2 x 1 pixels of 16-bit RGB
        parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + np.full(6, 200, ">u2").tobytes())), (b"IEND", b"")]
        chunks = [len(c).to_bytes(4) + k + c + zlib.crc32(k + c).to_bytes(4) for k, c in parts]
        read_image(written(tmp_path / "rgb.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks)))
        assert "rgb.png has no value above 0 of 255" in caplog.text


class TestFrames:
    @pytest.mark.parametrize("suffix", ["gif", "tif", "webp", "png"])
    def test_every_frame_on_request_and_else_a_warning(self, tmp_path, caplog, suffix):
        frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
        options = {"lossless": True} if suffix == "webp" else {}
        path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        assert list(frame_numbers(path)) == [0, 1, 2]
        assert [read_image(path, frame)[0, 0].tolist() for frame in (2, 0, 1)] == [[*BLUE], [*RED], [*GREEN]]
        assert caplog.text == ""
        assert (read_image(path) == RED).all()
        assert f"a.{suffix} has 3 pages or frames, of which only the first is read" in caplog.text

    def test_one_frame(self, tmp_path):
        assert frame_numbers(saved(tmp_path / "a.png", Image.new("L", (2, 2)))) == [None]
        assert frame_numbers(tmp_path / "missing.png") == [None]

    @pytest.mark.parametrize("share", [0.35, 0.6, 0.9])
    def test_a_stack_that_is_cut_short_ends_with_the_damaged_page(self, tmp_path, share):
        frames = [Image.fromarray(photo() // n) for n in range(1, 7)]
        path = saved(tmp_path / "a.tif", frames[0], save_all=True, append_images=frames[1:])
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        whole = int(6 * share)
        for frame in range(whole):
            assert (read_image(path, frame) == photo() // (frame + 1)).all()
        assert len(frame_numbers(path)) > whole
        with pytest.raises(DataError, match="damaged"):
            read_image(path, frame_numbers(path)[-1])


def test_stripes_are_not_seen(tmp_path, monkeypatch):
    alpha = np.dstack([photo(), np.arange(1200).reshape(30, 40) % 256]).astype(np.uint8)
    deep = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
    paths = [saved(tmp_path / f"{n}.png", Image.fromarray(pixels)) for n, pixels in enumerate((photo(), alpha, deep))]
    once = [read_image(path) for path in paths]
    monkeypatch.setattr(image_file, "_STRIPE", 100)  # two rows
    for path, expected in zip(paths, once, strict=True):
        assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_behind_an_entry_that_points_beyond_the_metadata(order, tmp_path):
    entries = struct.pack(f"{order}HHII", 0x010F, 2, 900, 2**30) + struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)
    Image.new("RGB", (30, 20)).save(tmp_path / "1.jpg", exif=exif)
    assert read_image(tmp_path / "1.jpg").shape == (30, 20, 3)


class TestContrast:
    def test_percentiles_become_black_and_white_and_gamma_lifts_faint_values(self, tmp_path):
        values = np.arange(100, 201, dtype=np.uint16)[None]  # percentile p is 100 + p
        path = saved(tmp_path / "dark.tif", Image.fromarray(values))
        image = read_image(path, contrast=ContrastSettings(percentiles=(10.0, 90.0), gamma=0.5))[0, :, 0]
        expected = 255 * np.sqrt(((values[0] - 110.0) / 80).clip(0, 1))
        assert_array_equal(image, expected.round())

    def test_eight_bits_of_colour_keep_their_hue(self, tmp_path):
        image = np.zeros((1, 4, 3), np.uint8)
        image[0, 1:] = [[10, 20, 40], [30, 60, 90], [100, 100, 100]]
        path = saved(tmp_path / "dark.png", Image.fromarray(image))
        assert_array_equal(
            read_image(path, contrast=ContrastSettings(percentiles=(0.0, 100.0))), (image * 2.55).round()
        )

    def test_floats_and_their_nan(self, tmp_path):
        path = saved(tmp_path / "float.tif", Image.fromarray(np.float32([[-2, 0, 2, 1000]])))
        image = read_image(path, contrast=ContrastSettings(percentiles=(0.0, 67.0)))
        assert image[0, :, 0].tolist() == [0, 128, 255, 255]
        path = saved(tmp_path / "nan.tif", Image.fromarray(np.float32([[0, np.nan]])))
        with pytest.raises(DataError, match=r"nan\.tif has pixels that are no numbers"):
            read_image(path, contrast=ContrastSettings(percentiles=(1.0, 99.0)))

    @pytest.mark.parametrize("depth", [np.uint8, np.uint16])
    def test_few_bright_pixels_are_seen_and_one_value_is_black(self, tmp_path, depth):
        stars = np.zeros((50, 50), depth)
        stars[3, 4] = 200
        contrast = ContrastSettings(percentiles=(1.0, 99.0))
        image = read_image(saved(tmp_path / "stars.tif", Image.fromarray(stars)), contrast=contrast)
        assert (image.max(), image.sum()) == (255, 3 * 255)
        plain = saved(tmp_path / "plain.tif", Image.fromarray(stars * 0 + depth(200)))
        assert read_image(plain, contrast=contrast).max() == 0

    def test_stripes_are_not_seen(self, tmp_path, monkeypatch):
        contrast = ContrastSettings(percentiles=(5.0, 95.0), gamma=0.7)
        path = saved(tmp_path / "photo.png", Image.fromarray(photo()))
        expected = read_image(path, contrast=contrast)
        monkeypatch.setattr(image_file, "_STRIPE", 45)
        assert_array_equal(read_image(path, contrast=contrast), expected)

    @pytest.mark.parametrize("depth", [np.uint8, np.uint16])
    @pytest.mark.parametrize(("bright", "lifted"), [(63.75, 127.5), (200, 200), (2, 255 * (2 / 255) ** 0.4)])
    def test_automatic_gamma_brings_the_90th_percentile_to_the_middle(self, tmp_path, depth, bright, lifted):
        values = np.zeros((1, 101), np.float64)
        values[0, 85:], values[0, -1] = bright, 255
        values = (values * 4).astype(np.uint16) if depth is np.uint16 else values.round().astype(np.uint8)
        path = saved(tmp_path / "dark.tif", Image.fromarray(values))
        image = read_image(path, contrast=ContrastSettings(percentiles=(0.0, 100.0), gamma="auto"))[0, :, 0]
        assert image[90] == pytest.approx(lifted, abs=1)
        assert (image[0], image[-1]) == (0, 255)

    def test_percentiles_must_rise(self):
        with pytest.raises(RecipeError, match=r"percentiles must rise, but are \[9.0, 1.0\]"):
            ContrastSettings(percentiles=(9.0, 1.0))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_is_that_of_the_upright_image(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "photo.jpg", Image.fromarray(photo()), exif=exif)
    assert image_size(path) == read_image(path).shape[:2]


def test_size_of_a_frame(tmp_path):
    pages = [Image.new("L", (6, 4)), Image.new("L", (5, 9))]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    assert [image_size(tmp_path / "stack.tif", frame) for frame in (None, 1)] == [(4, 6), (9, 5)]
