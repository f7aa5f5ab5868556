"""Many objects: samples by (seed, index), label maps that match the drawn shapes, objects that touch or keep apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, label

from unscene.data.generate import generate
from unscene.data.labelled_folder import LabelledFolder, LabelledFolderSettings
from unscene.data.many_objects import ManyObjects, ManyObjectsSettings
from unscene.errors import DataError, RecipeError

KINDS = ("discs", "ellipses", "parts")
SMALL = {"size": 128, "object_size": 12, "min_objects": 4, "max_objects": 9}
EIGHT = np.ones((3, 3), bool)


def scenes(count: int = 3, **settings) -> dict[str, np.ndarray]:
    return ManyObjects(ManyObjectsSettings(**SMALL | {"count": count} | settings)).batch(range(count))


def neighbours(labels: np.ndarray, number: int, distance: int = 1) -> set[int]:
    """The labels within a distance of an object in pixels, without its own."""
    near = labels[binary_dilation(labels == number, EIGHT, iterations=distance)]
    return set(near.tolist()) - {0, number}


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_is_the_same_in_any_batch_and_another_for_another_seed(kind):
    found = scenes(kind=kind)
    source = ManyObjects(ManyObjectsSettings(kind=kind, count=3, **SMALL))
    for indices in ([2], [1, 0, 1], []):
        for name, values in source.batch(np.array(indices, np.int64)).items():
            np.testing.assert_array_equal(values, found[name][indices])
    assert (scenes(kind=kind, seed=1)["labels"] != found["labels"]).any()
    assert len({labels.tobytes() for labels in found["labels"]}) == 3


def test_the_images_of_a_seed_never_change():
    # image 2 of seed 0, pasted from version 1 of the generator: raise VERSION when it changes on purpose
    found = scenes(kind="parts")
    assert found["boxes"][2, :3].tolist() == [[95, 46, 110, 61], [106, 41, 123, 58], [88, 21, 98, 32]]
    assert int(found["labels"][2].astype(int).sum()) == 2510


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_is_whole_and_has_the_area_of_its_size(kind):
    found = scenes(kind=kind)
    for labels, boxes in zip(found["labels"], found["boxes"], strict=True):
        number = int(labels.max())
        assert 4 <= number <= 9
        assert not boxes[number:].any()
        for m in range(1, number + 1):
            assert label(labels == m, EIGHT)[1] == 1
            diameter = np.sqrt(4 / np.pi * (labels == m).sum())
            assert 0.75 * 12 < diameter < 1.25 * 12
        border = np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])
        assert not border.any()


def test_the_picture_shows_what_the_labels_say():
    found = scenes()
    grey = found["image"][..., 0] / 255
    inside, outside = found["labels"] > 0, binary_dilation(found["labels"] > 0, EIGHT[None], iterations=2)
    assert grey[~outside].mean() == pytest.approx(0.12, abs=0.01)
    assert grey[~outside].std() == pytest.approx(0.03, abs=0.005)
    for labels, image in zip(found["labels"], grey, strict=True):
        assert all(0.4 < np.median(image[labels == m]) < 0.95 for m in range(1, labels.max() + 1))
    assert (grey[inside] > 0.3).mean() > 0.9


def test_ground_of_ellipses_rises_and_parts_have_two_colours():
    ellipses, parts = scenes(kind="ellipses"), scenes(kind="parts")
    ground = np.where(ellipses["labels"] > 0, np.nan, ellipses["image"][..., 0] / 255)
    quarters = [np.nanmean(ground[0, y : y + 64, x : x + 64]) for y in (0, 64) for x in (0, 64)]
    assert max(quarters) - min(quarters) > 0.1
    spread = [parts["image"][0][parts["labels"][0] == m].std(axis=0).max() for m in range(1, 4)]
    assert min(spread) > 10  # in grey levels; the noise has 8 at most


@pytest.mark.parametrize("kind", KINDS)
def test_touching_objects_touch_and_others_keep_apart(kind):
    together, apart = (scenes(kind=kind, touching=share)["labels"] for share in (1, 0))
    for labels in together:
        assert all(neighbours(labels, m) & set(range(1, m)) for m in range(2, labels.max() + 1))
    for labels in apart:
        assert not any(neighbours(labels, m) for m in range(1, labels.max() + 1))


def test_impossible_settings():
    with pytest.raises(DataError, match="found no room for an object"):
        scenes(size=32, min_objects=9)
    with pytest.raises(DataError, match="found no room for an object"):
        scenes(size=32, object_size=60)
    with pytest.raises(RecipeError, match="min_objects must be at most max_objects"):
        ManyObjectsSettings(min_objects=90)
    assert not scenes(min_objects=0, max_objects=1, count=8)["boxes"].all(axis=-1).all()


def test_a_folder_holds_images_and_their_labels(tmp_path):
    settings = SMALL | {"count": 2, "kind": "parts"}
    assert generate("many_objects", tmp_path / "parts", settings, progress=False) == 2
    source, expected = LabelledFolder(LabelledFolderSettings(str(tmp_path / "parts"))), scenes(2, kind="parts")
    assert source.names == ["00000", "00001"]
    found = source.batch([0, 1])
    np.testing.assert_array_equal(found["image"], expected["image"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    written = json.loads((tmp_path / "parts" / "scenes.json").read_text())
    assert (written["source"], written["settings"]["kind"]) == ("many_objects", "parts")
    assert Image.open(tmp_path / "parts" / "labels" / "00001.png").mode == "L"
    with pytest.raises(DataError, match="is already there and is not overwritten"):
        generate("many_objects", tmp_path / "parts", settings, progress=False)
    with pytest.raises(DataError, match="found no room"):
        generate("many_objects", tmp_path / "full", settings | {"size": 32, "min_objects": 9}, progress=False)
    assert not (tmp_path / "full").exists()
