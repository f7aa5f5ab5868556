"""Tetrominoes, Objects Room, the variants of Multi-dSprites and CATER, in files of the published schema."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

from unscene.data.hdf5 import resumable_writer
from unscene.data.hdf5.reader import SceneStore
from unscene.data.published import conversion
from unscene.data.published.conversion import convert
from unscene.data.tfrecord import records as tfrecord
from unscene.errors import DataError

rng = np.random.default_rng(0)


def masks_of(labels: np.ndarray, entries: int, axis: int = 0) -> np.ndarray:
    """One mask an entry, 0 or 255, with a last axis of 1."""
    return np.stack([255 * (labels == entry) for entry in range(entries)], axis=axis).astype(np.uint8)[..., None]


def random_labels(size: int, entries: int) -> np.ndarray:
    """Blocks of every entry below `entries`."""
    return np.kron(rng.permutation(np.arange(25) % entries).reshape(5, 5), np.ones((size // 5 + 1,) * 2, int))[
        :size, :size
    ]


def tetromino(entries: int = 4) -> dict[str, np.ndarray]:
    labels = random_labels(35, entries)
    scene = {"image": rng.integers(0, 256, (35, 35, 3), np.uint8), "mask": masks_of(labels, entries)}
    scene |= {name: rng.random(entries).astype(np.float32) for name in ("x", "y")}
    scene |= {"shape": np.array([0, 3, 17, 1], np.float32), "visibility": np.ones(entries, np.float32)}
    return scene | {"color": rng.random((entries, 3)).astype(np.float32), "labels": labels}


def room(entries: int, present: int) -> dict[str, np.ndarray]:
    labels = random_labels(64, present)
    return {
        "image": rng.integers(0, 256, (64, 64, 3), np.uint8),
        "mask": masks_of(labels, entries),
        "labels": labels,
    }


def sprites(entries: int, channels: int) -> dict[str, np.ndarray]:
    labels = random_labels(64, entries)
    scene = {"image": rng.integers(0, 256, (64, 64, channels), np.uint8), "mask": masks_of(labels, entries, axis=2)}
    names = ("x", "y", "shape", "visibility", "orientation", "scale")
    scene |= {name: np.ones(entries, np.float32) for name in names}
    return scene | {"color": rng.random((entries, channels)).astype(np.float32), "labels": labels}


def video() -> dict[str, np.ndarray]:
    labels = np.stack([random_labels(64, 4) for _ in range(33)])
    return {
        "image": rng.integers(0, 256, (33, 64, 64, 3), np.uint8),
        "mask": masks_of(labels, 11, axis=1),
        "camera_matrix": rng.random((33, 4, 4)).astype(np.float32),
        "object_positions": rng.random((11, 33, 3)).astype(np.float32),
        "labels": labels,
    }


@pytest.fixture
def write(framed, example):
    """`write(path, scenes, compress, one_blob)`: a TFRecord file without the `labels` that its scenes also hold."""

    def written(path: Path, scenes: list[dict], compress=gzip.compress, one_blob=False) -> Path:
        features = [{name: values for name, values in scene.items() if name != "labels"} for scene in scenes]
        path.write_bytes(compress(b"".join(framed(example(each, one_blob)) for each in features)))
        return path

    return written


def converted(name: str, path: Path, **settings) -> tuple[dict[str, np.ndarray], dict]:
    out = path.with_suffix(".h5")
    count = convert(name, [path], out, settings, progress=False)
    store = SceneStore(out)
    assert len(store) == count
    return store.batch(range(count)), store.attributes


def test_tetrominoes(tmp_path, write):
    scenes = [tetromino() for _ in range(3)]
    sample, attributes = converted("tetrominoes", write(tmp_path / "tetrominoes_train.tfrecords", scenes))
    for index, scene in enumerate(scenes):
        np.testing.assert_array_equal(sample["image"][index], scene["image"])
        np.testing.assert_array_equal(sample["labels"][index], scene["labels"])
        for name in ("x", "y", "color"):
            np.testing.assert_array_equal(sample[name][index], scene[name][1:])
    assert sample["shape"].tolist() == [[3, 17, 1]] * 3
    assert sample["boxes"].shape == (3, 3, 4)
    assert attributes["source"] == "tetrominoes, converted from tetrominoes_train.tfrecords"


@pytest.mark.parametrize(("entries", "present"), [(7, 6), (10, 10), (10, 8), (4, 4)])
def test_objects_room_has_four_entries_of_background(tmp_path, write, entries, present):
    scene = room(entries, present)
    sample, _ = converted("objects_room", write(tmp_path / "room.tfrecords", [scene]))
    np.testing.assert_array_equal(sample["labels"][0], np.maximum(scene["labels"].astype(int) - 3, 0))
    rows = max(entries - 4, 1)
    assert sample["visibility"][0].tolist() == [1] * (present - 4) + [0] * (rows - (present - 4))
    assert sample["boxes"].shape == (1, rows, 4)


def test_walls_and_floor_are_objects_by_a_setting(tmp_path, write):
    scene = room(7, 5)
    sample, _ = converted("objects_room", write(tmp_path / "room.tfrecords", [scene]), background=1)
    np.testing.assert_array_equal(sample["labels"][0], scene["labels"])
    assert sample["visibility"][0].tolist() == [1, 1, 1, 1, 0, 0]


def test_rooms_with_another_number_of_entries_are_a_file_of_their_own(tmp_path, write):
    first, second = (write(tmp_path / f"{n}.tfrecords", [room(n, 4)] * 2) for n in (7, 10))
    with pytest.raises(DataError, match=r"is \[6\], and in scenes before it \[3\]\. Convert files of different"):
        convert("objects_room", [first, second], tmp_path / "out.h5", progress=False)
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(("variant", "entries", "channels"), [("binarized", 4, 1), ("colored_on_colored", 5, 3)])
def test_variants_of_multi_dsprites(tmp_path, write, variant, entries, channels):
    scene = sprites(entries, channels)
    name = f"multi_dsprites_{variant}"
    sample, _ = converted(name, write(tmp_path / f"{name}.tfrecords", [scene]))
    for channel in range(3):
        expected = scene["image"][..., min(channel, channels - 1)]
        np.testing.assert_array_equal(sample["image"][0, ..., channel], expected)
    np.testing.assert_array_equal(sample["labels"][0], scene["labels"])
    np.testing.assert_array_equal(sample["color"][0], scene["color"][1:])


def test_cater_becomes_frames(tmp_path, write):
    videos = [video(), video()]
    for number, scene in enumerate(videos):
        write(tmp_path / f"cater_train-{number:05d}.tfrecords", [scene], zlib.compress, one_blob=True)
    write(tmp_path / "cater_test-00000.tfrecords", [video()], zlib.compress, one_blob=True)
    out = tmp_path / "cater.h5"
    assert convert("cater", [tmp_path], out, {"split": "train"}, progress=False) == 66
    sample = SceneStore(out).batch(range(66))
    for number, scene in enumerate(videos):
        rows = slice(33 * number, 33 * number + 33)
        np.testing.assert_array_equal(sample["image"][rows], scene["image"])
        np.testing.assert_array_equal(sample["labels"][rows], scene["labels"])
        np.testing.assert_array_equal(sample["camera_matrix"][rows], scene["camera_matrix"])
        np.testing.assert_array_equal(sample["position"][rows, :3], scene["object_positions"].swapaxes(0, 1)[:, 1:4])
    assert not sample["position"][:, 3:].any()  # entries 4 to 10 show nowhere
    assert sample["video"].tolist() == [0] * 33 + [1] * 33
    assert sample["frame"].tolist() == [*range(33)] * 2


@pytest.mark.parametrize(
    ("name", "scene", "compress"),
    [
        ("tetrominoes", tetromino, lambda data: data),
        ("objects_room", lambda: room(7, 6), gzip.compress),
        ("multi_dsprites_binarized", lambda: sprites(4, 1), gzip.compress),
        ("cater", video, zlib.compress),
    ],
)
def test_a_flipped_byte_is_named_or_changes_nothing(tmp_path, write, name, scene, compress):
    path = write(tmp_path / "some.tfrecords", [scene(), scene()], compress)
    content = path.read_bytes()
    before, _ = converted(name, path)
    for position in rng.integers(0, len(content), 6).tolist():
        (tmp_path / "some.h5").unlink(missing_ok=True)
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        message = ""
        try:
            after, _ = converted(name, path)
            assert all(np.array_equal(before[key], after[key]) for key in before)  # a byte that means nothing
        except DataError as error:
            message = str(error)
        assert not message or re.search("some.tfrecords(: record [01]| is no TFRecord file)", message)


def test_a_cut_zlib_file_and_bytes_behind_it(tmp_path, write):
    path = write(tmp_path / "some.tfrecords", [tetromino() for _ in range(3)], zlib.compress)
    content = path.read_bytes()
    path.write_bytes(content[:-2000])
    with pytest.raises(DataError, match="the file ends inside its zlib stream, at byte"):
        converted("tetrominoes", path)
    path.write_bytes(content + b"more")
    with pytest.raises(DataError, match=r"record 3 .* zlib stream is broken .*other bytes follow.*--count 3 to keep"):
        converted("tetrominoes", path)


def test_a_file_that_is_named_twice_is_read_once(tmp_path, write):
    path = write(tmp_path / "tetrominoes.tfrecords", [tetromino()])
    assert convert("tetrominoes", [tmp_path, path], tmp_path / "out.h5", progress=False) == 1


def test_a_folder_without_such_files(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no \*tfrecord\*\. Name the folder"):
        convert("cater", [tmp_path / "empty"], tmp_path / "out.h5", progress=False)
    with pytest.raises(DataError, match="no such place cannot be read"):
        convert("cater", [tmp_path / "no such place"], tmp_path / "out.h5", progress=False)


def test_an_interrupted_conversion_of_many_files_is_resumed(tmp_path, write, monkeypatch):
    monkeypatch.setattr(conversion, "_BATCH", 1)
    monkeypatch.setattr(resumable_writer, "_BATCHES_A_PART", 2)
    shards, scenes, whole, out = [], [tetromino() for _ in range(8)], tmp_path / "whole.h5", tmp_path / "out.h5"
    for number in range(4):
        shards.append(write(tmp_path / f"{number}.tfrecords", scenes[2 * number : 2 * number + 2], lambda data: data))
    content = bytearray(shards[1].read_bytes())
    content[-30] ^= 1  # in the data of the fourth record
    shards[1].write_bytes(content)
    assert convert("tetrominoes", shards, whole, {}, True, False) == 7
    read = tfrecord.read_records

    def interrupted(path, *arguments):
        for record in read(path, *arguments):
            if path == shards[3]:
                raise KeyboardInterrupt
            yield record

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="4 scenes are kept in"):
        patch.setattr(tfrecord, "read_records", interrupted)
        convert("tetrominoes", shards, out, {}, True, False)
    assert convert("tetrominoes", shards, out, {}, True, False) == 7
    first, second = SceneStore(whole), SceneStore(out)
    assert first.attributes == second.attributes
    assert first.attributes["damaged_left_out"] == 1
    np.testing.assert_array_equal(first.batch(range(7))["image"], second.batch(range(7))["image"])
    expected = [scene["image"] for number, scene in enumerate(scenes) if number != 3]
    np.testing.assert_array_equal(second.batch(range(7))["image"], expected)
