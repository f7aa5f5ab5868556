"""HDF5 files in the schemas of object-centric-library and EfficientMORL; what lies beside them is never opened."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from unscene.data.hdf5.reader import SceneStore
from unscene.data.published.conversion import convert
from unscene.errors import DataError, RecipeError

rng = np.random.default_rng(0)


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def library(tmp_path) -> Path:
    path = tmp_path / "clevr_10-full.hdf5"
    mask = np.zeros((4, 16, 16, 1), np.uint8)
    mask[:, 2:5, 3:9] = 2
    visibility = np.zeros((4, 7, 1), np.float32)
    for scene in range(4):
        visibility[scene, : 3 + scene] = 1
    with h5py.File(path, "w") as file:
        file["image"] = rng.integers(0, 256, (4, 16, 16, 3), np.uint8)
        file["mask"], file["visibility"] = mask, visibility
        file["num_actual_objects"] = np.arange(2, 6, dtype=np.uint8)[:, None]
        file["x"] = np.arange(28, dtype=np.float32).reshape(4, 7, 1)
    (tmp_path / "clevr_10-metadata.npy").write_bytes(pickle.dumps(Trap(tmp_path / "unpickled")))
    return path


def store_of(name: str, path: Path, **settings) -> SceneStore:
    out = path.parent / "out.h5"
    out.unlink(missing_ok=True)
    convert(name, [path], out, settings, progress=False)
    assert not (path.parent / "unpickled").exists()
    return SceneStore(out)


def test_object_centric_library(library):
    sample = store_of("object_centric_library", library).batch(range(4))
    with h5py.File(library) as file:
        np.testing.assert_array_equal(sample["image"], file["image"])
        np.testing.assert_array_equal(sample["labels"], file["mask"][..., 0])
    assert sample["visibility"].sum(axis=1).tolist() == [2, 3, 4, 5]
    assert sample["x"][0].ravel().tolist() == [1, 2, 0, 0, 0, 0]
    assert sample["boxes"][0, :2].tolist() == [[0, 0, 0, 0], [3, 2, 9, 5]]
    assert sample["num_actual_objects"].ravel().tolist() == [2, 3, 4, 5]


def test_their_clevr6_is_a_setting(library):
    assert len(store_of("object_centric_library", library, max_objects=3)) == 2
    assert store_of("object_centric_library", library, background=4).batch([0])["visibility"].shape == (1, 3)


def test_a_library_names_no_parts_and_may_have_no_masks(library):
    with pytest.raises((DataError, RecipeError), match="names no parts"):
        store_of("object_centric_library", library, split="test")
    with h5py.File(library, "a") as file:
        del file["mask"]
    with pytest.raises(DataError, match="has no 'mask'"):
        store_of("object_centric_library", library)


@pytest.fixture
def morl(tmp_path) -> Path:
    path = tmp_path / "tetrominoes.h5"
    with h5py.File(path, "w") as file:
        for number, part in enumerate(("train", "val", "test")):
            labels = rng.integers(0, 3, (2, 35, 35))
            group = file.create_group(part)
            group["imgs"] = np.full((2, 35, 35, 3), 10 * number, np.float32)
            masks = 255.0 * (labels[:, None] == np.arange(4)[:, None, None])[..., None]
            group.create_dataset("masks", data=masks, compression="gzip", fletcher32=True)
            group["factors"] = np.full((2, 4, 5), number, np.float32)
    return path


def test_efficient_morl(morl):
    store = store_of("efficient_morl", morl)
    sample = store.batch(range(len(store)))
    assert sample["image"][:, 0, 0, 0].tolist() == [0, 0, 10, 10, 20, 20]
    with h5py.File(morl) as file:
        np.testing.assert_array_equal(sample["labels"][4:], file["test/masks"][..., 0].argmax(axis=1))
    assert sample["visibility"].tolist() == [[1, 1, 0]] * 6  # entry 3 shows nowhere
    assert sample["factors"].shape == (6, 3, 5)
    assert len(store_of("efficient_morl", morl, split="test")) == 2


def test_clevr_of_efficient_morl_is_cropped(tmp_path):
    path = tmp_path / "clevr6.h5"
    with h5py.File(path, "w") as file:
        file["train/imgs"] = np.zeros((1, 240, 320, 3), np.uint8)
        file["train/masks"] = np.zeros((1, 7, 240, 320, 1), np.uint8)
    assert store_of("efficient_morl", path, size=96).image_size == (96, 96)
    assert store_of("efficient_morl", path).image_size == (192, 192)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.full((2, 9, 9, 3), 0.5, np.float32), "sample 0 of 'train' has values from 0.5 to 0.5, expected 0 to 255"),
        (np.full((2, 9, 9, 3), np.nan, np.float32), "has values from nan to nan"),
        (np.full((2, 9, 9, 3), 300), "has values from 300 to 300"),
        (np.full((2, 9, 9, 3), b"x"), "'train' needs the numbers imgs"),
    ],
)
def test_images_of_other_values_are_refused(tmp_path, images, message):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["train/imgs"], file["train/masks"] = images, np.zeros((2, 4, 9, 9, 1), np.uint8)
    with pytest.raises(DataError, match=f"other.h5: .*{message}"):
        store_of("efficient_morl", path)


def test_a_damaged_name_of_a_part_is_named(morl):
    with h5py.File(morl, "a") as file:
        file.move("val", "vam")
    with pytest.raises(DataError, match=r"tetrominoes\.h5 has \['vam'\], expected only train, val and test"):
        store_of("efficient_morl", morl)


@pytest.mark.parametrize("name", ["object_centric_library", "efficient_morl"])
def test_links_to_other_files_are_refused(tmp_path, name, library, morl):
    path = library if name == "object_centric_library" else morl
    with h5py.File(path, "a") as file:
        target = "mask" if name == "object_centric_library" else "train"
        del file[target]
        file[target] = h5py.ExternalLink("/etc/passwd", "mask")
    with pytest.raises(DataError, match="is a link to"):
        store_of(name, path)


def test_a_flipped_byte_of_checked_data_is_named(morl):
    content = morl.read_bytes()
    with h5py.File(morl) as file:
        chunk = file["val/masks"].id.get_chunk_info(0)
    at = chunk.byte_offset + chunk.size // 2
    morl.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(DataError, match=r"tetrominoes\.h5: sample 0 of 'val' cannot be read"):
        store_of("efficient_morl", morl)


def test_any_flipped_byte_is_named_or_harmless(morl):
    """Without checksums a changed pixel is not noticed; any other change is an error of ours, or changes nothing."""
    content = morl.read_bytes()
    for position in rng.integers(0, len(content), 25).tolist():
        morl.write_bytes(content[:position] + bytes([content[position] ^ 0x20]) + content[position + 1 :])
        message = ""
        try:
            assert len(store_of("efficient_morl", morl)) == 6
        except DataError as error:
            message = str(error)
        assert not message or "tetrominoes.h5" in message
