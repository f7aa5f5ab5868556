"""stacks: planes of microscopes' TIFFs and frames of videos, as images."""

import numpy as np
import pytest

from unscene.data.image_file import ContrastSettings, frame_numbers, image_size, read_image, readable
from unscene.errors import DataError, ExtraError


@pytest.fixture
def ome(tmp_path):
    """Writes an OME-TIFF of 2 times, 3 channels: the value is 1,000 time + 100 channel."""
    tifffile = pytest.importorskip("tifffile", reason="the extra 'microscopy' is not installed")

    def write(channels=3, kind=np.uint16, name="a.ome.tif", **options):
        values = 1000 * np.arange(2)[:, None] + 100 * np.arange(channels)
        stack = np.broadcast_to(values[..., None, None], (2, channels, 5, 7)).astype(kind).copy()
        stack[:, :, 0, 0] = 60000 if kind == np.uint16 else 1
        tifffile.imwrite(tmp_path / name, stack, metadata={"axes": "TCYX"}, **options)
        return tmp_path / name

    return write


@pytest.mark.parametrize("options", [{"name": "a.ome.tif"}, {"name": "b.tif", "imagej": True}])
def test_channels_are_colours_and_times_are_frames(ome, options):
    path = ome(**options)
    assert list(frame_numbers(path)) == [0, 1]
    assert image_size(path) == (5, 7)
    first, second = read_image(path, 0), read_image(path, 1)
    assert first.shape == (5, 7, 3)
    assert first[2, 3].tolist() == [round(255 * value / 65535) for value in (0, 100, 200)]
    assert second[2, 3].tolist() == [round(255 * value / 65535) for value in (1000, 1100, 1200)]
    assert first[0, 0].tolist() == [round(255 * 60000 / 65535)] * 3


def test_channels_are_chosen(ome):
    path = ome(channels=5)
    assert read_image(path, 1, ContrastSettings(channels=(5,)))[2, 3].tolist() == [round(255 * 1400 / 65535)] * 3
    two = read_image(path, 1, ContrastSettings(channels=(4, 1)))[2, 3].tolist()
    assert two == [round(255 * 1300 / 65535), round(255 * 1000 / 65535), 0]
    with pytest.raises(DataError, match="has 5 channels, but channel 6 is asked for"):
        read_image(path, 0, ContrastSettings(channels=(6,)))


def test_one_channel_of_a_picture_is_grey(tmp_path):
    from PIL import Image

    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", None, ContrastSettings(channels=(2,)))[0, 0].tolist() == [20, 20, 20]


@pytest.mark.parametrize("contrast", [{"percentiles": (0, 100)}, {"gamma": 0.5}, {"gamma": "auto", "channels": (3, 1)}])
def test_a_frame_of_a_video_has_the_colours_of_the_same_picture(tmp_path, monkeypatch, contrast):
    from PIL import Image

    from unscene.data import stacks

    picture = np.random.default_rng(0).integers(0, (60, 120, 200), (6, 5, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "a.mp4").write_bytes(b"a video")
    monkeypatch.setattr(stacks, "read_planes", lambda path, frame: picture.transpose(2, 0, 1))
    settings = ContrastSettings(**contrast)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.mp4", 0, settings), read_image(tmp_path / "a.png", None, settings)
    )


def test_only_the_first_of_several_planes_and_three_of_five_channels_are_read_with_a_warning(ome, caplog):
    read_image(ome(channels=5))
    assert "several frames or planes" in caplog.text
    assert "has 5 channels, of which the first three are read" in caplog.text


@pytest.mark.parametrize(("count", "warned"), [(1, False), (2, True)])
def test_a_video_of_one_frame_is_read_without_a_warning(tmp_path, monkeypatch, caplog, count, warned):
    from unscene.data import stacks

    (tmp_path / "a.mp4").write_bytes(b"a video")
    monkeypatch.setattr(stacks, "read_planes", lambda path, frame: np.zeros((3, 6, 5), np.uint8))
    monkeypatch.setattr(stacks, "count_frames", lambda path: count)
    read_image(tmp_path / "a.mp4")
    assert ("several frames or planes" in caplog.text) is warned


def test_no_number_and_a_damaged_stack_are_named(ome):
    path = ome(kind=np.float32)
    import tifffile

    tifffile.imwrite(path, np.full((2, 3, 5, 7), np.nan, np.float32), metadata={"axes": "TCYX"})
    with pytest.raises(DataError, match=r"a\.ome\.tif has pixels that are no numbers"):
        read_image(path)
    noise = np.random.default_rng(0).integers(0, 2**16, (2, 3, 90, 90), np.uint16)
    tifffile.imwrite(path, noise, metadata={"axes": "TCYX"}, compression="zlib")
    path.write_bytes(path.read_bytes()[: 90 * 90 * 2 * 4])
    with pytest.raises(DataError, match=r"a\.ome\.tif"):
        read_image(path)


def test_frames_of_a_video(tmp_path):
    av = pytest.importorskip("av", reason="the extra 'video' is not installed")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for grey in (0, 100, 200):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert ".mp4" in readable()[1]
    assert list(frame_numbers(path)) == [0, 1, 2]
    assert image_size(path) == (48, 64)
    for number in (2, 0, 1, 2):
        assert read_image(path, number).mean() == pytest.approx(100 * number, abs=6)
    with pytest.raises(DataError, match=r"a\.mp4 ends before frame 4"):
        read_image(path, 3)
    path.write_bytes(b"no video")
    with pytest.raises(DataError, match=r"a\.mp4 is damaged"):
        read_image(path, 0)


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"frames")
    with pytest.raises(ExtraError, match=r"unscene\[video\]"):
        read_image(tmp_path / "a.mp4")
