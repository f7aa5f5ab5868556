"""reader: written scenes are read in any order and process; other programs' files too; errors name damaged files."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from unscene.data.generate import generate
from unscene.data.hdf5.reader import SceneFile, SceneFileSettings, SceneStore
from unscene.data.hdf5.writer import write_scenes
from unscene.data.multi_dsprites import VERSION, MultiDSprites, MultiDSpritesSettings
from unscene.errors import DataError, ShapeError
from unscene.scene import Scene

COUNT = 30
SETTINGS = MultiDSpritesSettings(count=COUNT, size=32)
SCENES = MultiDSprites(SETTINGS).batch(range(COUNT))
ATTRIBUTES = {
    "source": "multi_dsprites",
    "seed": 0,
    "generator_version": VERSION,
    "settings": dataclasses.asdict(SETTINGS),
}


def batches(size: int = 7) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, COUNT, size):
        yield {name: values[start : start + size] for name, values in SCENES.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scenes.h5"


@pytest.fixture
def written(path: Path) -> Path:
    write_scenes(path, batches(), COUNT, ATTRIBUTES, progress=False)
    return path


def foreign(path: Path, **arrays: np.ndarray) -> Path:
    """A file that another program wrote."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


class TestRoundTrip:
    def test_samples_come_back_in_any_order_and_again(self, written):
        indices = np.array([29, 0, 7, 7, 3])
        found = SceneStore(written).batch(indices)
        assert found.keys() == SCENES.keys()
        for name, values in found.items():
            assert values.dtype == SCENES[name].dtype
            assert np.array_equal(values, SCENES[name][indices]), name

    def test_no_index_gives_empty_arrays(self, written):
        found = SceneStore(written).batch([])
        assert {name: values.shape for name, values in found.items()} == {
            name: (0, *values.shape[1:]) for name, values in SCENES.items()
        }

    def test_attributes_state_source_seed_and_settings(self, written):
        attributes = SceneStore(written).attributes
        assert attributes.pop("unscene_version")
        assert attributes.pop("complete") is True
        assert set(attributes.pop("arrays")) == {"mask" if name == "labels" else name for name in SCENES}
        settings = attributes.pop("settings")
        assert MultiDSpritesSettings(**{**settings, "shapes": tuple(settings["shapes"])}) == SETTINGS
        assert attributes == {"source": "multi_dsprites", "seed": 0, "generator_version": VERSION}

    def test_the_sizes_are_known(self, written):
        store = SceneStore(written)
        assert (len(store), store.image_size) == (COUNT, (32, 32))

    def test_an_image_is_one_compressed_chunk(self, written):
        with h5py.File(written) as file:
            for name, values in (("image", SCENES["image"]), ("mask", SCENES["labels"])):  # the field's name in a file
                assert file[name].chunks == (1, *values.shape[1:])
                assert (file[name].compression, file[name].compression_opts) == ("gzip", 3)
            assert all(dataset.fletcher32 for dataset in file.values())

    @pytest.mark.parametrize("index", [-1, COUNT])
    def test_an_index_outside_is_refused(self, written, index):
        with pytest.raises(DataError, match="there are 30: give indices 0 to 29"):
            SceneStore(written).batch([index])

    def test_an_index_is_not_a_batch(self, written):
        with pytest.raises(ShapeError, match="indices must have the axes"):
            SceneStore(written).batch(3)  # type: ignore[arg-type]


class TestProcesses:
    def test_a_store_is_pickled_without_its_open_file(self, written):
        store = SceneStore(written)
        store.batch([0])
        again = pickle.loads(pickle.dumps(store))
        assert np.array_equal(again.batch([4])["image"], SCENES["image"][[4]])
        assert again.attributes == store.attributes

    def test_a_relative_path_survives_a_change_of_folder(self, written, monkeypatch, tmp_path):
        monkeypatch.chdir(written.parent)
        store = SceneStore(written.name)
        monkeypatch.chdir("/")
        assert np.array_equal(store.batch([4])["image"], SCENES["image"][[4]])

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    def test_forked_workers_and_their_parent_read_at_once(self, written):
        store = SceneStore(written)
        store.batch([0])  # the parent's file is open when the workers start
        with multiprocessing.get_context("fork").Pool(2) as pool:
            pending = [pool.apply_async(store.batch, ([index],)) for index in range(COUNT)]
            assert np.array_equal(store.batch(range(COUNT))["image"], SCENES["image"])
            found = np.concatenate([answer.get(timeout=30)["image"] for answer in pending])
        assert np.array_equal(found, SCENES["image"])

    def test_a_closed_store_opens_again(self, written):
        store = SceneStore(written)
        store.batch([0])
        store.close()
        assert np.array_equal(store.batch([1])["labels"], SCENES["labels"][[1]])


class TestForeignFiles:
    def test_unlabelled_images_are_enough(self, path):
        store = SceneStore(foreign(path, image=SCENES["image"]))
        found = store.batch([2])
        assert list(found) == ["image"]
        assert np.array_equal(found["image"], SCENES["image"][[2]])

    @pytest.mark.parametrize("kind", [np.uint8, np.int64])
    def test_published_masks_are_read_and_give_boxes(self, path, kind):
        masks = SCENES["labels"][..., None].astype(kind)
        store = SceneStore(foreign(path, image=SCENES["image"], mask=masks))
        found = store.batch([5, 1])
        assert found["labels"].dtype == np.uint8
        assert np.array_equal(found["labels"], SCENES["labels"][[5, 1]])
        assert np.array_equal(found["boxes"], SCENES["boxes"][[5, 1], : found["labels"].max()])

    @pytest.mark.parametrize(("on", "order"), [(255, (0, 3, 1, 2)), (1, (0, 1, 2, 3))])
    def test_masks_of_entries_are_read_and_give_boxes(self, path, on, order):
        """As converters of DeepMind's files leave them: [N, K, H, W, 1] or [N, H, W, K, 1], the background first."""
        entries = (SCENES["labels"][..., None] == np.arange(6)).astype(np.uint8) * on  # [N, H, W, K]
        store = SceneStore(foreign(path, image=SCENES["image"], mask=entries.transpose(order)[..., None]))
        found = store.batch([5, 1])
        assert found["labels"].dtype == np.uint8
        assert np.array_equal(found["labels"], SCENES["labels"][[5, 1]])
        assert np.array_equal(found["boxes"], SCENES["boxes"][[5, 1], : found["labels"].max()])

    def test_a_pixel_of_no_entry_is_background(self, path):
        store = SceneStore(foreign(path, image=np.zeros((1, 4, 6, 3), np.uint8), mask=np.zeros((1, 3, 4, 6, 1), int)))
        assert not store.batch([0])["labels"].any()
        assert store.batch([0])["boxes"].shape == (1, 0, 4)

    def test_boxes_have_a_row_for_every_label_of_the_batch(self, path):
        masks = np.zeros((3, 4, 4), np.uint8)
        masks[2] = 4
        store = SceneStore(foreign(path, image=np.zeros((3, 4, 4, 3), np.uint8), mask=masks))
        assert store.batch([0])["boxes"].shape == (1, 0, 4)
        assert store.batch([0, 2])["boxes"][1].tolist() == [[0] * 4, [0] * 4, [0] * 4, [0, 0, 4, 4]]

    def test_masks_of_background_alone_give_no_box(self, path):
        images, masks = np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 4, 4), np.uint8)
        assert SceneStore(foreign(path, image=images, mask=masks)).batch([1])["boxes"].shape == (1, 0, 4)

    def test_only_numbers_with_a_row_a_sample_are_factors(self, path):
        store = SceneStore(
            foreign(
                path,
                image=SCENES["image"],
                size=np.arange(COUNT),
                names=np.array([b"a"] * COUNT),
                palette=np.zeros((9, 3)),
                raw=np.zeros((COUNT, 8192), np.uint8),
            )
        )
        assert store.batch([3, 2])["size"].tolist() == [3, 2]
        assert set(store.batch([0])) == {"image", "size"}

    def test_other_settings_stay_text(self, path):
        foreign(path, image=SCENES["image"])
        with h5py.File(path, "a") as file:
            file.attrs["settings"] = "--size 32"
        assert SceneStore(path).attributes["settings"] == "--size 32"


IMAGES = np.zeros((3, 4, 5, 3), np.uint8)


class TestDamage:
    def test_a_missing_file(self, path):
        with pytest.raises(DataError, match="does not exist"):
            SceneStore(path)

    def test_another_kind_of_file(self, path):
        path.write_text("not HDF5" * 100)
        with pytest.raises(DataError, match=r"is no HDF5 file.* generate it again"):
            SceneStore(path)

    def test_a_file_cut_short(self, written):
        whole = written.read_bytes()
        written.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="again"):
            SceneStore(written).batch(range(COUNT))

    def test_a_flipped_bit_names_the_sample(self, written):
        with h5py.File(written) as file:
            chunk = file["image"].id.get_chunk_info(12)
        whole = bytearray(written.read_bytes())
        whole[chunk.byte_offset + chunk.size // 2] ^= 16
        written.write_bytes(whole)
        store = SceneStore(written)
        assert np.array_equal(store.batch([11])["image"], SCENES["image"][[11]])
        with pytest.raises(DataError, match=r"'image' of sample 12 cannot be read .* damaged"):
            store.batch([11, 12])

    def test_a_file_removed_while_it_is_used(self, written):
        store = SceneStore(written)
        written.unlink()
        with pytest.raises(DataError, match="does not exist"):
            store.batch([0])

    def test_a_file_that_was_never_completed(self, path):
        foreign(path, image=IMAGES)
        with h5py.File(path, "a") as file:
            file.attrs["complete"] = False
        with pytest.raises(DataError, match="never completed"):
            SceneStore(path)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"images": IMAGES}, "no data set 'image', only: 'images'"),
            ({}, "no data set 'image', only: nothing"),
            ({"image": IMAGES.astype(np.float32)}, r"'image' must be \[N, H, W, 3\] uint8, .* \[3, 4, 5, 3\] float32"),
            ({"image": IMAGES.transpose(0, 3, 1, 2)}, r"\[3, 3, 4, 5\] uint8. Convert the images .* channels last"),
            ({"image": IMAGES[:0]}, "'image' must be"),
            ({"image": IMAGES, "mask": np.zeros((3, 4, 5), np.float32)}, r"'mask' must be \[3, 4, 5\] uint8"),
            ({"image": IMAGES, "mask": np.zeros((3, 6, 4, 5), np.uint8)}, "Store a label map"),
            ({"image": IMAGES, "mask": np.zeros((2, 4, 5), np.uint8)}, r"but is \[2, 4, 5\]"),
            ({"image": IMAGES, "mask": np.zeros((3, 6, 1, 4, 5), np.uint8)}, r"but is \[3, 6, 1, 4, 5\]"),
            ({"image": IMAGES, "mask": np.zeros((2, 6, 4, 5, 1), np.uint8)}, r"but is \[2, 6, 4, 5, 1\]"),
            ({"image": IMAGES, "mask": np.zeros((3, 0, 4, 5, 1), np.uint8)}, r"but is \[3, 0, 4, 5, 1\]"),
            ({"image": IMAGES, "boxes": np.zeros((3, 2, 5), np.float32)}, r"'boxes' must be \[3, M, 4\] float32"),
            ({"image": IMAGES, "boxes": np.zeros((3, 2, 4))}, r"but is \[3, 2, 4\] float64"),
        ],
    )
    def test_arrays_of_another_kind_are_refused(self, path, arrays, message):
        with pytest.raises(DataError, match=message):
            SceneStore(foreign(path, **arrays))

    def test_masks_in_a_group_are_refused(self, path):
        with pytest.raises(DataError, match="'mask' must be one data set, but is a group"):
            SceneStore(foreign(path, image=IMAGES, **{"mask/first": IMAGES[..., 0]}))

    @pytest.mark.parametrize("label", [-1, 256])
    def test_labels_that_are_no_bytes_are_refused(self, path, label):
        masks = np.full((3, 4, 5), label, np.int16)
        store = SceneStore(foreign(path, image=IMAGES, mask=masks, boxes=np.zeros((3, 2, 4), np.float32)))
        with pytest.raises(DataError, match=f"labels from {label} to {label}"):
            store.batch([0])


class TestCauses:
    """An error that is no damage is named as what it is."""

    def test_a_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"is a folder\. Name an HDF5 file"):
            SceneStore(tmp_path)

    def test_another_error_of_the_system_is_no_damage(self, written):
        with pytest.raises(DataError, match=r"scenes\.h5 does not exist\. Check its name"):
            SceneStore(written / "scenes.h5")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
    def test_a_pipe_is_not_waited_for(self, path):
        os.mkfifo(path)
        with pytest.raises(DataError, match="is no regular file"):
            SceneStore(path)

    def test_a_file_that_another_program_writes(self, written):
        writer = "import h5py, sys; file = h5py.File(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
        command = [sys.executable, "-c", writer, written]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            with pytest.raises(DataError, match=r"is locked by another program\. Close that"):
                SceneStore(written)
            process.stdin.close()

    def test_too_many_open_files(self, written):
        resource = pytest.importorskip("resource")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with ExitStack() as stack, pytest.raises(DataError, match=r"too many files are open\. Close some, or raise"):
            stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
            with suppress(OSError):
                while True:
                    stack.enter_context(Path(os.devnull).open())
            SceneStore(written)

    def test_a_missing_filter_is_named_with_its_package(self, path):
        foreign(path, image=IMAGES)
        with h5py.File(path, "a") as file:
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk((3, 4, 5))
            properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
            space = h5py.h5s.create_simple((3, 4, 5))
            h5py.h5d.create(file.id, b"mask", h5py.h5t.STD_U8LE, space, dcpl=properties)
        with pytest.raises(DataError, match=r"'mask' is compressed with .* \(number 32001\).* package hdf5plugin"):
            SceneStore(path)

    def test_a_file_cut_at_its_start_and_one_from_before_its_end(self, written):
        content = written.read_bytes()
        written.write_bytes(content[:-100])
        with pytest.raises(DataError, match=r"is cut short\. Download"):
            SceneStore(written)


class TestOtherFiles:
    """What comes from a file stays in it."""

    @pytest.mark.parametrize("link", [h5py.ExternalLink("other.h5", "/image"), h5py.SoftLink("/image")])
    @pytest.mark.parametrize("name", ["mask", "size", "unrelated"])
    def test_links_are_refused(self, path, link, name):
        foreign(path.with_name("other.h5"), image=IMAGES)
        with h5py.File(foreign(path, image=IMAGES), "a") as file:
            file[name] = link
        with pytest.raises(DataError, match=f"'{name}' is a link to '/image' of"):
            SceneStore(path)

    def test_external_storage_is_refused(self, path):
        secret = path.with_name("secret")
        secret.write_bytes(bytes(IMAGES.size))
        with h5py.File(path, "w") as file:
            file.create_dataset("image", IMAGES.shape, np.uint8, external=[(str(secret), 0, IMAGES.size)])
        with pytest.raises(DataError, match="the values of 'image' are in other files"):
            SceneStore(path)

    def test_virtual_data_sets_are_refused(self, path):
        other = foreign(path.with_name("other.h5"), image=IMAGES)
        layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
        layout[:] = h5py.VirtualSource(other, "image", IMAGES.shape)
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("image", layout)
        with pytest.raises(DataError, match="the values of 'image' are in other files"):
            SceneStore(path)


class TestBounds:
    """A small file that announces much is refused before anything is allocated."""

    @pytest.mark.parametrize("chunks", [None, (1, 8, 8, 3)])
    def test_images_that_were_never_written(self, path, chunks):
        with h5py.File(path, "w") as file:
            file.create_dataset("image", (10**6, 8, 8, 3), np.uint8, chunks=chunks, maxshape=chunks and (None, 8, 8, 3))
        with pytest.raises(DataError, match=r"'image' of shape \[1000000, 8, 8, 3\] was not written to its end"):
            SceneStore(path)

    def test_factors_that_were_written_in_part(self, path):
        with h5py.File(foreign(path, image=SCENES["image"]), "a") as file:
            file.create_dataset("x", (COUNT,), np.float32, chunks=(1,))[:7] = 1
        with pytest.raises(DataError, match=r"'x' of shape \[30\] .* 7 of 30 chunks"):
            SceneStore(path)

    @pytest.mark.parametrize("chunks", [None, (1, 1, 1, 3), (1, 2**14, 2**14, 3)])
    def test_a_sample_of_too_many_bytes(self, path, chunks):
        with h5py.File(path, "w") as file:
            file.create_dataset("image", (1, 2**14, 2**14, 3), np.uint8, chunks=chunks)
        with pytest.raises(DataError, match="take 768 MiB at once, but the limit is 256"):
            SceneStore(path)


class TestChecks:
    def test_every_flipped_bit_of_a_new_file_is_found_or_changes_nothing(self, tmp_path):
        path = tmp_path / "scenes.h5"
        scenes = {name: values[:3] for name, values in MultiDSprites(SETTINGS).batch(range(3)).items()}
        write_scenes(path, [scenes], None, ATTRIBUTES, progress=False)
        whole, random = path.read_bytes(), np.random.default_rng(0)
        found = 0
        for position in random.integers(0, len(whole), 300).tolist():
            changed = bytearray(whole)
            changed[position] ^= 1 << int(random.integers(8))
            path.write_bytes(changed)
            try:
                sample = SceneStore(path).batch(range(3))
            except DataError:
                found += 1
            else:
                assert sample.keys() == scenes.keys()
                assert all(np.array_equal(sample[name], values) for name, values in scenes.items())
        assert found > 100

    def test_a_chunk_that_the_index_has_lost_is_missed(self, path):
        images = np.random.default_rng(0).integers(1, 256, (3, 4, 5, 3), np.uint8)
        with h5py.File(path, "w", libver="earliest") as file:  # its index has no checksum
            file.create_dataset("image", data=images, chunks=(1, *images.shape[1:]), compression="gzip")
        assert len(SceneStore(path)) == len(images)
        whole = path.read_bytes()
        at = whole.index(b"TREE\x01")
        found = 0
        for position in range(at, at + 200):
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
            try:
                store = SceneStore(path)
                same = np.array_equal(store.batch(range(len(store)))["image"], images)
            except DataError as error:
                found += "cannot be read" in str(error)
            else:
                assert same
        assert found > 10

    def test_an_array_that_vanished_is_missed(self, written):
        with h5py.File(written, "a") as file:
            del file["shape"]
        with pytest.raises(DataError, match=r"has lost \['shape'\]: it is damaged"):
            SceneStore(written)

    def test_a_flipped_name_is_damage(self, path):
        with h5py.File(path, "w", libver="earliest") as file:
            file["image"], file["qqqq"] = IMAGES, np.arange(3)
        path.write_bytes(path.read_bytes().replace(b"qqqq", b"aqqq"))  # no longer in its order: found by no search
        with pytest.raises(DataError, match="is damaged"):
            SceneStore(path)

    def test_files_without_checksums_are_read_and_told(self, path, written, caplog):
        SceneStore(written)
        assert not caplog.text
        SceneStore(foreign(path.with_name("other.h5"), image=IMAGES, size=np.arange(3), palette=np.zeros((9, 3))))
        assert "other.h5 has no checksums" in caplog.text
        assert "has ['palette'], which is not read" in caplog.text

    @pytest.mark.parametrize(("divisor", "warned"), [(1, False), (255, True)])
    def test_images_of_zeros_and_ones_are_told(self, path, divisor, warned, caplog):
        images = np.tile(np.array([0, 255], np.uint8), (2, 8, 10, 3))[..., :3] // np.uint8(divisor)
        SceneStore(foreign(path, image=images))
        assert ("values 0 and 1" in caplog.text) == warned


class TestContradictions:
    @pytest.fixture
    def masks(self) -> np.ndarray:
        masks = np.zeros((2, 8, 10), np.uint8)
        masks[:, 1:4, 2:9] = 1
        masks[1, 5:7, 1:3] = 2
        return masks

    EXACT = np.array([[[2, 1, 9, 4], [0] * 4], [[2, 1, 9, 4], [1, 5, 3, 7]]], np.float32)

    @pytest.mark.parametrize(
        ("boxes", "words"),
        [
            (EXACT, ""),
            (EXACT + 0.25, ""),  # rounded otherwise
            (np.concatenate([EXACT[..., :2], EXACT[..., 2:] - EXACT[..., :2]], axis=2), "look like x y width height"),
            (EXACT - np.array([0, 0, 1, 1], np.float32) * (EXACT[..., 2:3] > 0), "Their ends look inclusive"),
            (EXACT[..., [1, 0, 3, 2]], "contradict 'mask'"),
            (EXACT / 10, "contradict 'mask'"),
            (EXACT[:, :1], "contradict 'mask'"),
            (EXACT * np.nan, "contradict 'mask'"),
        ],
    )
    def test_boxes_are_those_of_the_masks(self, path, masks, boxes, words, caplog):
        images = np.zeros((2, 8, 10, 3), np.uint8)
        store = SceneStore(foreign(path, image=images, mask=masks, boxes=boxes.astype(np.float32)))
        assert np.array_equal(store.batch([0, 1, 0])["boxes"], self.EXACT[[0, 1, 0]])
        store.batch([1])
        assert caplog.text.count("contradict") == bool(words)
        assert words in caplog.text

    def test_boxes_alone_must_be_ordered(self, path):
        boxes = np.array([[[2, 1, 9, 4]], [[8, 1, 2, 4]]], np.float32)
        with pytest.raises(DataError, match=r"x1 y1 x2 y2, but sample 1 has \[8.0, 1.0, 2.0, 4.0\]"):
            SceneStore(foreign(path, image=np.zeros((2, 8, 10, 3), np.uint8), boxes=boxes))

    def test_a_label_can_be_ignored(self, path, masks, caplog):
        masks[0, 0] = 255
        foreign(path, image=np.zeros((2, 8, 10, 3), np.uint8), mask=masks)
        assert SceneStore(path).batch([0])["boxes"].shape == (1, 255, 4)
        assert caplog.text.count("counts label 255") == 1
        source = SceneFile(SceneFileSettings(str(path), size=0, ignore_label=255))
        sample = source.batch([0, 1])
        assert np.array_equal(sample["labels"], np.where(masks == 255, -1, masks.astype(int)))
        assert np.array_equal(sample["boxes"], self.EXACT)
        assert Scene.from_batch(sample).labels.min() == -1


@pytest.fixture
def ten_scenes(tmp_path: Path) -> str:
    image = np.zeros((10, 4, 4, 3), np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    labels = np.zeros((10, 4, 4), np.uint8)
    labels[:, 1:3, 1] = 1
    write_scenes(tmp_path / "scenes.h5", [{"image": image, "labels": labels}], 10, {}, progress=False)
    return str(tmp_path / "scenes.h5")


@pytest.mark.parametrize(("first", "count", "numbers"), [(0, 0, range(10)), (4, 3, range(4, 7)), (-2, 0, range(8, 10))])
def test_scenes_are_counted_from_the_first(ten_scenes, first, count, numbers):
    scenes = SceneFile(SceneFileSettings(ten_scenes, first=first, count=count, size=4))
    assert len(scenes) == len(numbers)
    batch = scenes.batch(range(len(scenes)))
    assert batch["image"][:, 0, 0, 0].tolist() == list(numbers)
    assert batch["boxes"].tolist() == [[[1, 1, 2, 3]]] * len(numbers)
    with pytest.raises(DataError, match=f"there are {len(numbers)}"):
        scenes.batch([len(numbers)])


def test_too_few_scenes_and_another_size_are_refused(ten_scenes):
    with pytest.raises(DataError, match=r"scenes\.h5 has 10 scenes, too few for first 8 and count 3"):
        SceneFile(SceneFileSettings(ten_scenes, first=8, count=3, size=4))
    with pytest.raises(DataError, match=r"images of 4 x 4 pixels, but the recipe's size is 64: resize them"):
        SceneFile(SceneFileSettings(ten_scenes))
    assert len(SceneFile(SceneFileSettings(ten_scenes, size=0))) == 10


def test_a_file_of_clips_says_how_long_they_are_unless_the_range_begins_within_one(path):
    generate("multi_dsprites", path, {"count": 12, "clip_length": 4, "size": 32}, progress=False)
    lengths = {first: SceneFile(SceneFileSettings(str(path), first, size=32)).clip_length for first in (0, 8, 9)}
    assert lengths == {0: 4, 8: 4, 9: 1}


def test_a_file_of_scenes_that_do_not_belong_together_has_no_clips(written):
    assert SceneFile(SceneFileSettings(str(written), size=32)).clip_length == 1
