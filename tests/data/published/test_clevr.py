"""clevr: crop, size, objects and split by hand; damage, other files, a full disk, a kill and resuming."""

from __future__ import annotations

import gzip
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from unscene.data.hdf5 import resumable_writer
from unscene.data.hdf5.reader import SceneStore
from unscene.data.published import conversion, deepmind
from unscene.data.published.conversion import _resized, convert
from unscene.data.published.deepmind import clevr_split
from unscene.data.tfrecord import records as tfrecord
from unscene.errors import DataError, RecipeError, RunError

NAME = "clevr_with_masks_train.tfrecords"
BYTES = ("size", "material", "shape", "color")
FLOATS = ("x", "y", "z", "rotation")
COUNTS = [3, 7, 6, 2, 4, 10, 5, 3, 6, 4]  # objects of ten scenes; seven have 3 to 6
KEPT = [0, 2, 4, 6, 7, 8, 9]


def convert_clevr(path: Path, out: Path, skip_damaged=False, progress=True, count=None, **settings) -> int:
    return convert("clevr", [path], out, settings, skip_damaged, progress, count)


def scene_of(objects: int, number: int = 0) -> dict[str, np.ndarray]:
    """A scene in DeepMind's schema: all pixels are background; `number` can be read off the image and the factors."""
    scene = {"image": np.full((240, 320, 3), 10 + number, np.uint8), "mask": np.zeros((11, 240, 320, 1), np.uint8)}
    scene["mask"][0] = 255
    scene.update({name: np.full(11, 1 + number, np.uint8) for name in BYTES})
    scene.update({name: np.full(11, 0.5 + number, np.float32) for name in FLOATS})
    scene["visibility"] = (np.arange(11) <= objects).astype(np.float32)  # the background is visible, too
    scene["pixel_coords"] = np.arange(33, dtype=np.float32).reshape(11, 3)
    return scene


def put(scene: dict[str, np.ndarray], entry: int, rows: slice, columns: slice, color: tuple[int, int, int]) -> None:
    scene["image"][rows, columns] = color
    scene["mask"][:, rows, columns] = 0
    scene["mask"][entry, rows, columns] = 255


@pytest.fixture(scope="module")
def records(framed, example) -> list[bytes]:
    return [framed(example(scene_of(objects, number))) for number, objects in enumerate(COUNTS)]


def written(folder: Path, parts: list[bytes], plain: bool = False) -> Path:
    path = folder / NAME
    path.write_bytes(b"".join(parts) if plain else gzip.compress(b"".join(parts), compresslevel=1))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def numbers(out: Path) -> list[int]:
    """Which scenes a file holds, by their images."""
    store = SceneStore(out)
    return (store.batch(range(len(store)))["image"][:, 0, 0, 0] - 10).tolist()


@pytest.fixture
def small_parts(monkeypatch):
    """A part for every two scenes."""
    monkeypatch.setattr(conversion, "_BATCH", 1)
    monkeypatch.setattr(resumable_writer, "_BATCHES_A_PART", 2)


class TestConversion:
    @pytest.mark.parametrize("plain", [False, True])
    def test_by_hand(self, tmp_path, framed, example, plain):
        scene = scene_of(4)
        put(scene, 1, slice(29, 32), slice(64, 70), (250, 0, 9))  # the crop's top left: 3 x 6 pixels become 2 x 4
        put(scene, 2, slice(0, 29), slice(0, 320), (1, 2, 3))  # above the crop
        put(scene, 3, slice(219, 240), slice(255, 320), (90, 90, 90))  # one column and two rows of it are in the crop
        out = tmp_path / "clevr.h5"
        path = written(tmp_path, [framed(example(scene))], plain)
        assert convert_clevr(path, out, progress=False) == 1
        store = SceneStore(out)
        assert store.image_size == (128, 128)
        sample = store.batch([0])
        image, mask = sample["image"][0], sample["labels"][0]
        assert image[:2, :3].reshape(-1, 3).tolist() == [[250, 0, 9]] * 6
        assert image[2, 0].tolist() == [10, 10, 10]  # beginning with the fourth row, nothing of the object
        assert image[0, 4].tolist() == [10, 10, 10]
        # of the crop's last 3 x 3 pixels only the right ones of the lower two rows are the third object's
        assert image[126:, 126:, 0].tolist() == [[10, 10 + 80 * 3 / 16], [10, 10 + 80 * 3 / 4]]
        labels = np.zeros((128, 128), np.uint8)
        labels[:2, :4] = 1
        labels[127, 127] = 3
        np.testing.assert_array_equal(mask, labels)
        boxes = [[0, 0, 4, 2], [0] * 4, [127, 127, 128, 128], *[[0] * 4] * 7]
        assert sample["boxes"][0].tolist() == boxes

    def test_factors_are_those_of_the_objects(self, tmp_path, framed, example):
        scene = scene_of(3, number=4)
        scene["x"][5:] = np.nan  # what absent objects say means nothing
        out = tmp_path / "clevr.h5"
        convert_clevr(written(tmp_path, [framed(example(scene))]), out, progress=False)
        sample = SceneStore(out).batch([0])
        for name in BYTES:
            assert sample[name].dtype == np.uint8
            assert sample[name][0].tolist() == [5, 5, 5] + [0] * 7
        for name in FLOATS:
            assert sample[name].dtype == np.float32
            assert sample[name][0].tolist() == [4.5] * 3 + [0] * 7
        assert sample["pixel_coords"][0, :4].tolist() == [[3, 4, 5], [6, 7, 8], [9, 10, 11], [0, 0, 0]]
        assert sample["visibility"][0].tolist() == [1] * 3 + [0] * 7
        assert not sample["boxes"].any()  # no object has a pixel

    def test_scenes_of_3_to_6_objects_are_kept_in_their_order(self, tmp_path, records):
        out = tmp_path / "clevr.h5"
        assert convert_clevr(written(tmp_path, records), out, progress=False) == 7
        assert numbers(out) == KEPT
        attributes = SceneStore(out).attributes
        assert attributes["source"] == f"clevr, converted from {NAME}"
        assert (attributes["records_read"], attributes["damaged_left_out"]) == (10, 0)
        settings = attributes["settings"]
        assert (settings["min_objects"], settings["max_objects"], settings["size"]) == (3, 6, 128)
        assert names(tmp_path) == ["clevr.h5", NAME]

    @pytest.mark.parametrize(
        ("objects", "kept"), [((0, 10), list(range(10))), ((0, 2), [3]), ((7, 10), [1, 5]), ((6, 6), [2, 8])]
    )
    def test_other_numbers_of_objects(self, tmp_path, records, objects, kept):
        out = tmp_path / "clevr.h5"
        low, high = objects
        convert_clevr(written(tmp_path, records), out, progress=False, min_objects=low, max_objects=high)
        assert numbers(out) == kept

    def test_count_counts_records(self, tmp_path, records):
        out = tmp_path / "clevr.h5"
        assert convert_clevr(written(tmp_path, records), out, progress=False, count=5) == 3
        assert SceneStore(out).attributes["records_read"] == 5

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"count": 11}, "10 records, fewer than the 11 asked for. Set count to 10"),
            ({"count": 0}, "count must be 1 or more"),
            ({"min_objects": 7}, "min_objects must be at most max_objects, 6, not 7"),
            ({"min_objects": -1}, "min_objects must be 0 or more"),
            ({"sizes": 3}, "Did you mean 'data.size'"),
            ({"min_objects": 8, "max_objects": 9}, "no scene of 8 to 9 objects. --data.min_objects 0"),
        ],
    )
    def test_impossible_numbers(self, tmp_path, records, settings, message):
        with pytest.raises((DataError, RecipeError), match=message):
            convert_clevr(written(tmp_path, records), tmp_path / "clevr.h5", progress=False, **settings)
        assert not (tmp_path / "clevr.h5").exists()

    def test_the_bar_counts_the_bytes_of_the_file(self, tmp_path, records, capfd):
        path = written(tmp_path, records)
        convert_clevr(path, tmp_path / "quiet.h5", progress=False)
        assert "B/s" not in capfd.readouterr().err
        convert_clevr(path, tmp_path / "clevr.h5")
        shown = capfd.readouterr().err
        assert f"{NAME}: 100%" in shown
        assert "B/s" in shown
        assert "clevr.h5: 100%" in shown  # while the parts are joined


class TestSplit:
    def test_split_of_the_paper(self, caplog):  # R-MONet, Section 4: 48,400 and 1,600 of 50,000
        expected = {"train_first": 0, "train_count": 48_400, "test_first": 48_400, "test_count": 1_600}
        assert clevr_split(50_000) == clevr_split(50_123) == expected
        assert not caplog.text

    @pytest.mark.parametrize(("count", "train", "test"), [(49_963, 48_400, 1_563), (48_400, 48_400, 0), (7, 7, 0)])
    def test_too_few_scenes_are_logged(self, caplog, count, train, test):
        expected = {"train_first": 0, "train_count": train, "test_first": train, "test_count": test}
        assert clevr_split(count) == expected
        assert (
            f"{count:,} scenes are fewer than the 50,000 of the paper: {train:,} train and {test:,} test" in caplog.text
        )

    def test_the_split_is_recorded(self, tmp_path, records, monkeypatch):
        monkeypatch.setattr(deepmind, "NUM_TRAIN", 4)
        monkeypatch.setattr(deepmind, "NUM_TEST", 2)
        convert_clevr(written(tmp_path, records), tmp_path / "clevr.h5", progress=False)
        attributes = SceneStore(tmp_path / "clevr.h5").attributes
        recorded = {name: value for name, value in attributes.items() if name.startswith(("train_", "test_"))}
        assert recorded == {"train_first": 0, "train_count": 4, "test_first": 4, "test_count": 2}


class TestOtherFiles:
    def test_multi_dsprites(self, tmp_path, framed, example):
        scene = {"image": np.zeros((64, 64, 3), np.uint8), "mask": np.zeros((64, 64, 6, 1), np.uint8)}
        scene.update({name: np.zeros(6, np.float32) for name in ("x", "y", "shape", "visibility", "orientation")})
        scene |= {"scale": np.zeros(6, np.float32), "color": np.zeros((6, 3), np.float32)}
        path = written(tmp_path, [framed(example(scene))])
        with pytest.raises(DataError) as caught:
            convert_clevr(path, tmp_path / "clevr.h5", skip_damaged=True, progress=False)
        for part in (
            "record 0 at byte 0",
            "'image' is 12,288 x uint8, not 230,400 x uint8",
            "'size' is missing",
            "'shape' is 6 x float32, not 11 x uint8",
            "looks like multi_dsprites_colored_on_grayscale.tfrecords",
            f"Give {NAME} instead",
        ):
            assert part in str(caught.value)
        assert names(tmp_path) == [NAME]

    def test_multi_dsprites_names_a_clevr_file(self, tmp_path, records):
        with pytest.raises(DataError, match=f"looks like {NAME}"):
            convert("multi_dsprites", [written(tmp_path, records[:1])], tmp_path / "a.h5", progress=False)

    def test_a_missing_feature_is_named(self, tmp_path, framed, example):
        scene = scene_of(3)
        del scene["pixel_coords"]
        with pytest.raises(DataError, match=r"'pixel_coords' is missing\. Its features are color, image, mask"):
            convert_clevr(written(tmp_path, [framed(example(scene))]), tmp_path / "clevr.h5", progress=False)

    def test_a_missing_file_leaves_nothing(self, tmp_path):
        with pytest.raises(DataError, match="No such file"):
            convert_clevr(tmp_path / NAME, tmp_path / "clevr.h5")
        assert names(tmp_path) == []

    def test_an_existing_output_stays(self, tmp_path, records):
        out = tmp_path / "clevr.h5"
        out.write_text("mine")
        with pytest.raises(DataError, match="already there"):
            convert_clevr(written(tmp_path, records), out, progress=False)
        assert out.read_text() == "mine"


def flipped(records: list[bytes], index: int, position: int = 500_000) -> list[bytes]:
    changed = bytearray(records[index])
    changed[position] ^= 0x40
    return [*records[:index], bytes(changed), *records[index + 1 :]]


class TestDamage:
    def test_a_flipped_bit_is_found_and_leaves_nothing(self, tmp_path, records):
        path = written(tmp_path, flipped(records, 2))
        offset = len(records[0]) + len(records[1])
        with pytest.raises(DataError, match=f"record 2 at byte {offset:,} .* has damaged data.*--skip-damaged"):
            convert_clevr(path, tmp_path / "clevr.h5", progress=False)
        assert names(tmp_path) == [NAME]

    def test_damaged_records_are_left_out(self, tmp_path, records, framed, caplog):
        parts = flipped(records, 2)
        parts[4] = framed(b"\x0a\x05")  # the checksums are right, the example is not
        out = tmp_path / "clevr.h5"
        assert convert_clevr(written(tmp_path, parts), out, skip_damaged=True, progress=False) == 5
        assert numbers(out) == [0, 6, 7, 8, 9]
        attributes = SceneStore(out).attributes
        assert (attributes["records_read"], attributes["damaged_left_out"]) == (8, 2)
        assert "2 damaged records left out, 5 kept" in caplog.text

    def test_a_download_that_broke_off(self, tmp_path, records):
        path = written(tmp_path, records)
        path.write_bytes(path.read_bytes()[:-3000])
        with pytest.raises(DataError, match="is cut short"):
            convert_clevr(path, tmp_path / "clevr.h5", progress=False)
        assert names(tmp_path) == [NAME]

    def test_parts_before_the_damage_are_continued(self, tmp_path, records, small_parts):
        path, out = written(tmp_path, flipped(records, 8)), tmp_path / "clevr.h5"
        with pytest.raises(DataError, match=r"record 8 .*--skip-damaged"):
            convert_clevr(path, out, progress=False)
        assert names(tmp_path) == [".clevr.h5.parts", NAME]
        assert convert_clevr(path, out, skip_damaged=True, progress=False) == 6
        assert numbers(out) == [0, 2, 4, 6, 7, 9]
        assert SceneStore(out).attributes["damaged_left_out"] == 1


class TestResuming:
    def stop_before(self, monkeypatch, number: int, error: BaseException) -> None:
        read = tfrecord.read_records

        def stopping(*arguments):
            for record in read(*arguments):
                if record.index == number:
                    raise error
                yield record

        monkeypatch.setattr(tfrecord, "read_records", stopping)

    @pytest.mark.parametrize("skip_damaged", [False, True])
    def test_a_resumed_file_equals_an_unbroken_one(self, tmp_path, records, small_parts, monkeypatch, skip_damaged):
        parts = flipped(flipped(records, 1), 7) if skip_damaged else records
        path, whole, out = written(tmp_path, parts), tmp_path / "whole.h5", tmp_path / "clevr.h5"
        convert_clevr(path, whole, skip_damaged, progress=False)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="4 scenes are kept in"):
            self.stop_before(patch, 8, KeyboardInterrupt())
            convert_clevr(path, out, skip_damaged, progress=False)
        assert names(tmp_path) == [".clevr.h5.parts", NAME, "whole.h5"]

        parsed = []
        parse = deepmind.parse_example
        monkeypatch.setattr(deepmind, "parse_example", lambda *given: parsed.append(given[1]) or parse(*given))
        assert convert_clevr(path, out, skip_damaged, progress=False) == (6 if skip_damaged else 7)
        assert len(parsed) == (2 if skip_damaged else 3)  # only what follows record 6, where the second part ended
        assert names(tmp_path) == ["clevr.h5", NAME, "whole.h5"]
        with h5py.File(whole) as first, h5py.File(out) as second:
            assert set(first) == set(second)
            assert all(np.array_equal(first[name], second[name]) for name in first)
            assert dict(first.attrs) == dict(second.attrs)

    def test_other_settings_start_anew(self, tmp_path, records, small_parts, monkeypatch, caplog):
        path, out = written(tmp_path, records), tmp_path / "clevr.h5"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            self.stop_before(patch, 8, KeyboardInterrupt())
            convert_clevr(path, out, progress=False)
        convert_clevr(path, out, progress=False, min_objects=0, max_objects=10)
        assert "a part of another conversion" in caplog.text
        assert numbers(out) == list(range(10))

    def test_a_smaller_count_takes_the_parts_that_fit(self, tmp_path, records, small_parts, monkeypatch):
        path, out = written(tmp_path, records), tmp_path / "clevr.h5"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            self.stop_before(patch, 8, KeyboardInterrupt())
            convert_clevr(path, out, progress=False)
        assert convert_clevr(path, out, progress=False, count=5) == 3
        assert numbers(out) == [0, 2, 4]


# Converts, a part for every two scenes, and stops for good before record 8.
STOPS_HALFWAY = """
import sys, time
from unscene.data.hdf5 import resumable_writer
from unscene.data.published import conversion
from unscene.data.tfrecord import records as tfrecord
conversion._BATCH, resumable_writer._BATCHES_A_PART = 1, 2
read = tfrecord.read_records
def halfway(*arguments):
    for record in read(*arguments):
        if record.index == 8:
            print("halfway", flush=True)
            time.sleep(60)
        yield record
tfrecord.read_records = halfway
conversion.convert("clevr", [sys.argv[1]], sys.argv[2], progress=False)
"""


def test_a_killed_conversion_is_resumed(tmp_path, records, small_parts):
    path, out = written(tmp_path, records), tmp_path / "clevr.h5"
    process = subprocess.Popen([sys.executable, "-c", STOPS_HALFWAY, path, out], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "halfway\n"
        with pytest.raises(RunError, match=f"is in use by process {process.pid} "):
            convert_clevr(path, out, progress=False)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not out.exists()
    left = names(tmp_path / ".clevr.h5.parts")
    assert [name for name in left if name.endswith(".h5")] == ["000000.h5", "000001.h5"]
    assert any(name.endswith(".part") for name in left)  # the third part, in which the kill fell
    assert convert_clevr(path, out, progress=False) == 7
    assert numbers(out) == KEPT
    assert names(tmp_path) == ["clevr.h5", NAME]


# Converts, a part for every scene, on a disk on which no file can be larger than so many bytes.
FULL_DISK = """
import resource, sys
from unscene.data.hdf5 import resumable_writer
from unscene.data.published import conversion
from unscene.data.tfrecord import records as tfrecord
conversion._BATCH, resumable_writer._BATCHES_A_PART = 1, 1
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
conversion.convert("clevr", [sys.argv[1]], sys.argv[2], progress=False)
"""


def test_a_full_disk_is_an_error_with_a_hint_and_the_parts_stay(tmp_path, framed, example):
    pytest.importorskip("resource", reason="the test fills a disk by limiting the size of files")
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    path, out = written(tmp_path, [framed(example(scene_of(3) | {"image": noise}))] * 4), tmp_path / "clevr.h5"
    convert_clevr(path, tmp_path / "one.h5", progress=False, count=1)
    limit = str((tmp_path / "one.h5").stat().st_size * 2)  # enough for a part, too little for all
    command = [sys.executable, "-c", FULL_DISK, path, out, limit]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert "DataError" in last
    assert f"{out} could not be finished" in last
    assert "of 4 scenes. It needs about" in last
    assert "Free some space" in last
    assert "4 scenes are kept in" in run.stderr
    assert names(tmp_path) == [".clevr.h5.parts", NAME, "one.h5"]
    assert convert_clevr(path, out, progress=False) == 4
    assert names(tmp_path) == ["clevr.h5", NAME, "one.h5"]


def test_memory_does_not_grow_with_the_file(tmp_path, records, small_parts, monkeypatch):
    """The reader is a stream: with ten times as many records the peak is the same."""

    def peak(times: int) -> int:
        monkeypatch.setattr(tfrecord, "read_records", repeated(times))
        out = tmp_path / f"{times}.h5"
        tracemalloc.start()
        try:
            convert_clevr(path, out, progress=False)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    read = tfrecord.read_records

    def repeated(times: int) -> Callable[..., Iterator]:
        return lambda *arguments: (record for _ in range(times) for record in read(*arguments))

    path = written(tmp_path, records[:2])
    peak(1)  # memory of imports and caches
    assert peak(20) < peak(2) + 2_000_000  # a record has 3.2 MB


def test_three_pixels_become_two():  # (3 a + b) / 4 and (b + 3 c) / 4 along both axes: 16ths, halves up
    image = np.array([[0, 16, 32], [64, 64, 64], [255, 255, 8]], np.uint8)[..., None]
    rows = [(0 * 3 + 64) / 4, (16 * 3 + 64) / 4, (32 * 3 + 64) / 4], [(64 + 765) / 4, (64 + 765) / 4, (64 + 24) / 4]
    assert rows == ([16, 28, 40], [207.25, 207.25, 22])
    # 19, 37; 207.25, 68.3125
    assert _resized(image, 2)[..., 0].tolist() == [[19, 37], [207, 68]]


def test_a_half_is_rounded_up():
    image = np.zeros((3, 3, 1), np.uint8)
    image[0, 1] = 200  # 3 * 1 sixteenths of 200 are 37.5
    assert _resized(image, 2)[..., 0].tolist() == [[38, 38], [0, 0]]


@pytest.mark.parametrize("low_pass", [False, True])
def test_the_extremes_and_the_channels_stay(low_pass):
    image = np.zeros((6, 6, 3), np.uint8)
    image[..., 1], image[..., 2] = 255, 7
    found = _resized(image, 4, low_pass)
    assert found.shape == (4, 4, 3)
    assert found.dtype == np.uint8
    assert (found == [0, 255, 7]).all()


def test_labels_are_those_of_the_nearest_pixel():
    assert _resized(np.arange(9, dtype=np.uint8).reshape(3, 3), 2).tolist() == [[0, 2], [6, 8]]


def test_a_smoothed_image_equals_pillows():
    image = np.random.default_rng(0).integers(0, 256, (192, 192, 3), np.uint8)
    expected = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(_resized(image, 128, low_pass=True) - expected).max() <= 1
