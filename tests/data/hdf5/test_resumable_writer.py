"""resumable_writer: finished parts survive an interruption; they are continued only if their settings match."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from unscene.data.hdf5 import resumable_writer
from unscene.data.hdf5.reader import SceneStore
from unscene.data.hdf5.resumable_writer import SceneParts, scene_parts
from unscene.errors import DataError, RunError

COUNT = 30
MADE_FROM = {"file": "a", "bytes": 3}
START = {"scenes": 0}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(resumable_writer, "_BATCHES_A_PART", 4)  # 8 scenes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scenes.h5"


class Source:
    """Batches of two scenes; scene n is all n. Its position counts them."""

    def __init__(self, position: dict[str, int]) -> None:
        self.position = position

    def batches(self, stop: int = COUNT, error: type[BaseException] | None = None) -> Iterator[dict[str, np.ndarray]]:
        while self.position["scenes"] < stop:
            first = self.position["scenes"]
            self.position["scenes"] = first + 2
            yield {"image": np.full((2, 4, 4, 3), [[[[first]]], [[[first + 1]]]], np.uint8)}
        if error:
            raise error("stop")


def write(path: Path, stop: int = COUNT, error: type[BaseException] | None = None, made_from=MADE_FROM) -> int:
    """Write the file; returns the first scene that this call wrote."""
    with scene_parts(path, made_from, START) as parts:
        began = parts.position["scenes"]
        source = Source(parts.position)
        parts.add(source.batches(stop, error))
        assert parts.join({"source": "test"}, progress=False) == COUNT
    return began


def assert_whole(path: Path) -> None:
    store = SceneStore(path)
    assert store.batch(range(COUNT))["image"][:, 0, 0, 0].tolist() == list(range(COUNT))
    assert (store.attributes["source"], store.attributes["complete"]) == ("test", True)
    assert [file.name for file in path.parent.iterdir()] == ["scenes.h5"]


def parts_of(path: Path) -> list[str]:
    return sorted(file.name for file in (path.parent / ".scenes.h5.parts").iterdir())


def test_parts_are_joined_and_removed(path):
    assert write(path) == 0
    assert_whole(path)


@pytest.mark.parametrize("error", [RuntimeError, OSError, DataError, KeyboardInterrupt])
def test_finished_parts_stay_and_are_continued(path, error, caplog):
    with pytest.raises(error) as caught:
        write(path, stop=20, error=error)
    assert not path.exists()
    assert parts_of(path) == ["000000.h5", "000001.h5"]  # 16 of the 20 scenes; no unfinished file
    message = str(caught.value) if error is KeyboardInterrupt else caplog.text
    assert "16 scenes are kept in" in message
    assert "the same command resumes" in message
    assert write(path) == 16
    assert_whole(path)


def test_an_error_before_the_first_part_leaves_nothing(path):
    with pytest.raises(RuntimeError):
        write(path, stop=6, error=RuntimeError)
    assert not list(path.parent.iterdir())


def test_new_folders_stay_only_with_a_finished_part(path):
    far = path.parent / "new" / "newer" / "scenes.h5"
    with pytest.raises(DataError, match="stop"):
        write(far, 6, DataError)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(DataError, match="stop"):
        write(far, 10, DataError)
    assert [file.name for file in far.parent.iterdir()] == [".scenes.h5.parts"]
    assert write(far) == 8
    assert_whole(far)


def test_a_last_part_that_is_not_full_is_kept(path):
    with pytest.raises(RuntimeError), scene_parts(path, MADE_FROM, START) as parts:
        source = Source(parts.position)
        parts.add(source.batches(20))
        raise RuntimeError
    assert write(path) == 20
    assert_whole(path)


def test_parts_of_something_else_are_removed(path, caplog):
    with pytest.raises(RuntimeError):
        write(path, stop=20, error=RuntimeError)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert write(path, made_from=MADE_FROM | {"bytes": 4}) == 0
    assert "000000.h5, a part of another conversion" in caplog.text
    assert_whole(path)


@pytest.mark.parametrize("older", [{"place": {"scenes": 8}}, {"position": {"records": 8}}, {"position": 8}, {}])
def test_parts_of_another_version_are_written_again(path, older, caplog):
    with pytest.raises(RuntimeError):
        write(path, stop=20, error=RuntimeError)
    with h5py.File(path.parent / ".scenes.h5.parts" / "000000.h5", "a") as file:
        file.attrs["settings"] = json.dumps({"made_from": MADE_FROM, **older})
    assert write(path) == 0
    assert "000000.h5, a part of another conversion" in caplog.text
    assert_whole(path)


def test_parts_that_do_not_fit_are_written_again(path):
    with pytest.raises(RuntimeError):
        write(path, stop=20, error=RuntimeError)
    with scene_parts(path, MADE_FROM, START, lambda position: position["scenes"] <= 8) as parts:
        assert (len(parts), parts.position) == (8, {"scenes": 8})
        source = Source(parts.position)
        parts.add(source.batches())
        parts.join({"source": "test"}, progress=False)
    assert_whole(path)


@pytest.mark.parametrize("damage", ["cut", "unfinished"])
def test_a_damaged_part_and_later_ones_are_written_again(path, damage):
    with pytest.raises(RuntimeError):
        write(path, stop=28, error=RuntimeError)
    part = path.parent / ".scenes.h5.parts" / "000001.h5"
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:1000])
    else:
        with h5py.File(part, "a") as file:
            file.attrs["complete"] = False
    assert write(path) == 8
    assert_whole(path)


def test_an_existing_file_stays(path):
    path.write_text("mine")
    with pytest.raises(DataError, match="already there"):
        write(path)
    assert path.read_text() == "mine"
    assert [file.name for file in path.parent.iterdir()] == ["scenes.h5"]


def test_parts_of_a_complete_file_are_removed(path):
    """A kill after the file got its name, and before its parts were removed."""
    with pytest.raises(RuntimeError):
        write(path, 16, RuntimeError)
    path.write_text("complete")
    with pytest.raises(DataError, match="already there"):
        write(path)
    assert [file.name for file in path.parent.iterdir()] == ["scenes.h5"]


def test_two_writers_of_one_file_are_refused(path):
    pytest.importorskip("fcntl")
    with scene_parts(path, MADE_FROM, START) as parts:
        assert isinstance(parts, SceneParts)
        with pytest.raises(RunError, match="is in use by process"):
            write(path)
        source = Source(parts.position)
        parts.add(source.batches())
        parts.join({"source": "test"}, progress=False)
    assert_whole(path)


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write(tmp_path / "file" / "scenes.h5")


def test_no_scene_gives_no_file(path):
    with pytest.raises(DataError, match="no scene"), scene_parts(path, MADE_FROM, START) as parts:
        parts.add([])
        parts.join({}, progress=False)
    assert not list(path.parent.iterdir())
