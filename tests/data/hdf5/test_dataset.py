"""dataset: a range of a file is a source of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unscene.data.hdf5.dataset import SceneFile, SceneFileSettings
from unscene.data.hdf5.writer import write_scenes
from unscene.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> str:
    image = np.zeros((10, 4, 4, 3), np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None]
    labels = np.zeros((10, 4, 4), np.uint8)
    labels[:, 1:3, 1] = 1
    write_scenes(tmp_path / "scenes.h5", [{"image": image, "labels": labels}], 10, {}, progress=False)
    return str(tmp_path / "scenes.h5")


@pytest.mark.parametrize(("first", "count", "numbers"), [(0, 0, range(10)), (4, 3, range(4, 7)), (-2, 0, range(8, 10))])
def test_scenes_are_counted_from_the_first(path, first, count, numbers):
    scenes = SceneFile(SceneFileSettings(path, first=first, count=count, size=4))
    assert len(scenes) == len(numbers)
    batch = scenes.batch(range(len(scenes)))
    assert batch["image"][:, 0, 0, 0].tolist() == list(numbers)
    assert batch["boxes"].tolist() == [[[1, 1, 2, 3]]] * len(numbers)
    with pytest.raises(DataError, match=f"there are {len(numbers)}"):
        scenes.batch([len(numbers)])


def test_too_few_scenes_and_another_size_are_refused(path):
    with pytest.raises(DataError, match=r"scenes\.h5 has 10 scenes, too few for first 8 and count 3"):
        SceneFile(SceneFileSettings(path, first=8, count=3, size=4))
    with pytest.raises(DataError, match=r"images of 4 x 4 pixels, but the recipe's size is 64: set --data\.size 4"):
        SceneFile(SceneFileSettings(path))
    assert len(SceneFile(SceneFileSettings(path, size=0))) == 10
