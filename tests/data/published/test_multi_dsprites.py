import gzip
from pathlib import Path

import numpy as np
import pytest

from unscene.data.hdf5 import resumable_writer
from unscene.data.hdf5.reader import SceneStore
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.data.published import conversion
from unscene.data.published.conversion import convert
from unscene.data.tfrecord import records as tfrecord
from unscene.errors import DataError

NAME = "multi_dsprites_colored_on_grayscale.tfrecords"
FLOATS = ("x", "y", "shape", "visibility", "orientation", "scale", "color")


def convert_multi_dsprites(path: Path, out: Path, skip_damaged=False, progress=True, count=None) -> int:
    return convert("multi_dsprites", [path], out, {}, skip_damaged, progress, count)


def empty_scene() -> dict[str, np.ndarray]:
    scene = {"image": np.full((64, 64, 3), 100, np.uint8), "mask": np.zeros((64, 64, 6, 1), np.uint8)}
    scene["mask"][:, :, 0] = 255
    scene.update({name: np.zeros((6, 3) if name == "color" else 6, np.float32) for name in FLOATS})
    scene["visibility"][0] = 1
    return scene


def scene_of(sample: dict[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """A generated scene in DeepMind's schema: six entries, the background first, and masks in the last axis but one."""
    scene = empty_scene()
    scene["image"] = sample["image"][index]
    scene["mask"] = (sample["labels"][index][..., None] == np.arange(6)).astype(np.uint8)[..., None] * 255
    for name in FLOATS:
        scene[name][1:] = sample["shape"][index] > 0 if name == "visibility" else sample[name][index]
    return scene


@pytest.fixture(scope="module")
def generated() -> dict[str, np.ndarray]:
    return MultiDSprites(MultiDSpritesSettings(count=70, seed=3)).batch(range(70))


@pytest.fixture(scope="module")
def records(generated, framed, example) -> list[bytes]:
    return [framed(example(scene_of(generated, index))) for index in range(70)]


def written(folder: Path, parts: list[bytes], plain: bool = False) -> Path:
    path = folder / NAME
    path.write_bytes(b"".join(parts) if plain else gzip.compress(b"".join(parts), compresslevel=1))
    return path


def only_file(folder: Path) -> bool:
    """Whether nothing but the TFRecord file is in the folder: no output, no unfinished file."""
    return [path.name for path in folder.iterdir()] == [NAME]


class TestConversion:
    @pytest.mark.parametrize("plain", [False, True])
    def test_scenes_equal_the_generated_ones(self, tmp_path, generated, records, plain):
        out = tmp_path / "scenes.h5"
        assert convert_multi_dsprites(written(tmp_path, records, plain), out, progress=False) == 70
        store = SceneStore(out)
        sample = store.batch(range(70))
        assert set(sample) == set(generated)
        for name, values in generated.items():
            assert sample[name].dtype == values.dtype
            if name == "visibility":  # the file says only which sprites exist
                values = (generated["shape"] > 0).astype(np.float32)
            np.testing.assert_array_equal(sample[name], values)
        assert store.attributes["source"] == f"multi_dsprites, converted from {NAME}"
        assert store.attributes["damaged_left_out"] == 0
        assert sample["boxes"].shape == (70, 5, 4)

    def test_by_hand(self, tmp_path, framed, example):
        scene = empty_scene()
        scene["image"][10:12, 20:23] = (255, 0, 9)
        for entry, (rows, columns) in {1: (slice(10, 12), slice(20, 23)), 3: (slice(40, 64), slice(0, 5))}.items():
            scene["mask"][rows, columns, 0] = 0
            scene["mask"][rows, columns, entry] = 255
        scene["visibility"][:4] = 1  # entry 2 exists, but is wholly hidden
        scene["shape"][:4] = (0, 3, 1, 2)
        scene["x"][:] = (0, 0.25, 0.5, 0.75, 0.9, np.nan)  # what entries 4 and 5 say means nothing
        scene["color"][1] = (1, 0, 9 / 255)
        out = tmp_path / "scenes.h5"
        assert convert_multi_dsprites(written(tmp_path, [framed(example(scene))]), out, progress=False) == 1
        sample = SceneStore(out).batch([0])
        assert sample["image"][0, 11, 22].tolist() == [255, 0, 9]
        assert sample["image"][0, 22, 11].tolist() == [100, 100, 100]
        labels = np.zeros((64, 64), np.uint8)
        labels[10:12, 20:23] = 1
        labels[40:, :5] = 3
        np.testing.assert_array_equal(sample["labels"][0], labels)
        assert sample["boxes"][0].tolist() == [[20, 10, 23, 12], [0] * 4, [0, 40, 5, 64], [0] * 4, [0] * 4]
        assert sample["shape"][0].tolist() == [3, 1, 2, 0, 0]
        assert sample["x"][0].tolist() == [0.25, 0.5, 0.75, 0, 0]
        assert sample["visibility"][0].tolist() == [1, 1, 1, 0, 0]
        assert sample["color"][0, 0].tolist() == pytest.approx([1, 0, 9 / 255])

    def test_a_scene_without_objects(self, tmp_path, framed, example):
        out = tmp_path / "scenes.h5"
        assert convert_multi_dsprites(written(tmp_path, [framed(example(empty_scene()))]), out, progress=False) == 1
        sample = SceneStore(out).batch([0])
        assert not sample["labels"].any()
        assert not sample["boxes"].any()

    def test_bytes_may_be_one_entry(self, tmp_path, generated, framed, example):
        part = framed(example(scene_of(generated, 5), one_blob=True))
        convert_multi_dsprites(written(tmp_path, [part]), tmp_path / "scenes.h5", progress=False)
        np.testing.assert_array_equal(
            SceneStore(tmp_path / "scenes.h5").batch([0])["labels"][0], generated["labels"][5]
        )

    def test_count_takes_the_first_ones(self, tmp_path, generated, records):
        out = tmp_path / "scenes.h5"
        assert convert_multi_dsprites(written(tmp_path, records), out, progress=False, count=66) == 66
        store = SceneStore(out)
        assert len(store) == 66
        np.testing.assert_array_equal(store.batch([65])["image"][0], generated["image"][65])

    def test_an_impossible_count(self, tmp_path, records):
        path, out = written(tmp_path, records), tmp_path / "scenes.h5"
        with pytest.raises(DataError, match="must be 1 or more"):
            convert_multi_dsprites(path, out, progress=False, count=0)
        assert only_file(tmp_path)
        with pytest.raises(DataError, match=r"70 records, fewer than the 71 asked for\. Set count to 70"):
            convert_multi_dsprites(path, out, progress=False, count=71)
        assert not out.exists()
        assert convert_multi_dsprites(path, out, progress=False, count=70) == 70

    def test_the_bar_counts_the_bytes_of_the_file(self, tmp_path, records, capfd):
        path = written(tmp_path, records)
        convert_multi_dsprites(path, tmp_path / "quiet.h5", progress=False)
        assert capfd.readouterr().err == ""
        convert_multi_dsprites(path, tmp_path / "scenes.h5")
        shown = capfd.readouterr().err
        assert f"{NAME}: 100%" in shown
        assert "B/s" in shown


class TestOtherFiles:
    def test_clevr(self, tmp_path, framed, example):
        clevr = {"image": np.zeros((240, 320, 3), np.uint8), "mask": np.zeros((11, 240, 320, 1), np.uint8)}
        clevr.update({name: np.zeros(11, np.uint8) for name in ("size", "material", "shape", "color")})
        clevr.update({name: np.zeros(11, np.float32) for name in ("x", "y", "z", "rotation", "visibility")})
        clevr["pixel_coords"] = np.zeros((11, 3), np.float32)
        with pytest.raises(DataError) as caught:
            convert_multi_dsprites(
                written(tmp_path, [framed(example(clevr))]), tmp_path / "scenes.h5", skip_damaged=True, progress=False
            )
        for part in (
            "record 0 at byte 0",
            "'image' is 230,400 x uint8, not 12,288 x uint8",
            "'mask' is 844,800 x uint8, not 24,576 x uint8",
            "'shape' is 11 x uint8, not 6 x float32",
            "'orientation' is missing",
            "'scale' is missing",
            "looks like clevr_with_masks_train.tfrecords",
            f"Give {NAME} instead",
        ):
            assert part in str(caught.value)
        assert only_file(tmp_path)

    @pytest.mark.parametrize(
        ("channels", "entries", "other"),
        [(1, 4, "multi_dsprites_binarized"), (3, 5, "multi_dsprites_colored_on_colored")],
    )
    def test_other_variants(self, tmp_path, channels, entries, other, framed, example):
        scene = {"image": np.zeros((64, 64, channels), np.uint8), "mask": np.zeros((64, 64, entries, 1), np.uint8)}
        scene.update({name: np.zeros(entries, np.float32) for name in FLOATS})
        with pytest.raises(DataError, match=f"looks like {other}.tfrecords"):
            convert_multi_dsprites(written(tmp_path, [framed(example(scene))]), tmp_path / "scenes.h5", progress=False)

    def test_a_missing_feature_and_the_present_ones_are_named(self, tmp_path, framed, example):
        scene = empty_scene()
        del scene["mask"]
        part = framed(example(scene))
        with pytest.raises(DataError, match=r"'mask' is missing\. Its features are color, image, orientation"):
            convert_multi_dsprites(written(tmp_path, [part]), tmp_path / "scenes.h5", progress=False)
        with pytest.raises(DataError, match=r"Its features are none"):
            convert_multi_dsprites(written(tmp_path, [framed(b"")]), tmp_path / "scenes.h5", progress=False)

    def test_a_missing_file_leaves_nothing(self, tmp_path):
        with pytest.raises(DataError, match="No such file"):
            convert_multi_dsprites(tmp_path / NAME, tmp_path / "scenes.h5")
        assert not list(tmp_path.iterdir())

    def test_an_existing_output_stays(self, tmp_path, records):
        out = tmp_path / "scenes.h5"
        out.write_text("mine")
        with pytest.raises(DataError, match="already there"):
            convert_multi_dsprites(written(tmp_path, records), out, progress=False)
        assert out.read_text() == "mine"


class TestDamage:
    def damaged(self, records: list[bytes], index: int, position: int) -> list[bytes]:
        changed = bytearray(records[index])
        changed[position] ^= 0x40
        return [*records[:index], bytes(changed), *records[index + 1 :]]

    def test_stops_at_damaged_data_and_leaves_nothing(self, tmp_path, records):
        path = written(tmp_path, self.damaged(records, 2, 5000))
        offset = len(records[0]) + len(records[1])
        with pytest.raises(DataError, match=f"record 2 at byte {offset:,} .* has damaged data.*--skip-damaged"):
            convert_multi_dsprites(path, tmp_path / "scenes.h5", progress=False)
        assert only_file(tmp_path)

    def test_leaves_damaged_records_out(self, tmp_path, generated, records, caplog, framed):
        parts = self.damaged(self.damaged(records, 2, 5000), 69, -1)
        parts[7] = framed(b"\x0a\x05")  # the checksums are right, the example is not
        out = tmp_path / "scenes.h5"
        assert convert_multi_dsprites(written(tmp_path, parts), out, skip_damaged=True, progress=False) == 67
        store = SceneStore(out)
        kept = [index for index in range(70) if index not in (2, 7, 69)]
        np.testing.assert_array_equal(store.batch(range(67))["image"], generated["image"][kept])
        assert store.attributes["damaged_left_out"] == 3
        assert "3 damaged records left out, 67 kept" in caplog.text
        assert "record 7 at byte" in caplog.text

    def test_a_download_that_broke_off(self, tmp_path, generated, records, caplog):
        path = written(tmp_path, records)
        path.write_bytes(path.read_bytes()[:-3000])
        with pytest.raises(DataError, match="is cut short"):
            convert_multi_dsprites(path, tmp_path / "scenes.h5", progress=False)
        assert only_file(tmp_path)
        number = convert_multi_dsprites(path, tmp_path / "scenes.h5", skip_damaged=True, progress=False)
        assert 0 < number < 70
        images = SceneStore(tmp_path / "scenes.h5").batch(range(number))["image"]
        np.testing.assert_array_equal(images, generated["image"][:number])
        assert "1 damaged records left out" in caplog.text

    def test_a_damaged_length_names_the_number_of_sound_records(self, tmp_path, records):
        path = written(tmp_path, self.damaged(records, 66, 0))
        with pytest.raises(DataError, match=r"record 66 .* has a damaged length .* pass --count 66 to keep"):
            convert_multi_dsprites(path, tmp_path / "scenes.h5", skip_damaged=True, progress=False)
        assert only_file(tmp_path)
        assert convert_multi_dsprites(path, tmp_path / "scenes.h5", progress=False, count=66) == 66

    def test_when_nothing_can_be_kept(self, tmp_path, records):
        path = written(tmp_path, self.damaged(records[:1], 0, 5000))
        with pytest.raises(DataError, match="has no sound record, and 1 damaged"):
            convert_multi_dsprites(path, tmp_path / "scenes.h5", skip_damaged=True, progress=False)
        assert only_file(tmp_path)


def test_an_interrupted_conversion_is_resumed(tmp_path, generated, records, monkeypatch):
    path, out = written(tmp_path, records), tmp_path / "scenes.h5"
    read = tfrecord.read_records

    def interrupted(*arguments):
        for record in read(*arguments):
            if record.index == 66:
                raise KeyboardInterrupt
            yield record

    monkeypatch.setattr(conversion, "_BATCH", 8)
    monkeypatch.setattr(resumable_writer, "_BATCHES_A_PART", 4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="64 scenes are kept"):
        patch.setattr(tfrecord, "read_records", interrupted)
        convert_multi_dsprites(path, out, progress=False)
    assert not out.exists()
    assert convert_multi_dsprites(path, out, progress=False) == 70
    assert sorted(file.name for file in tmp_path.iterdir()) == [NAME, "scenes.h5"]
    np.testing.assert_array_equal(SceneStore(out).batch(range(70))["image"], generated["image"])
