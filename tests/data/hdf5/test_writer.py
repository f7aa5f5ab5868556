"""writer: an interrupted write leaves no file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from unscene.data.hdf5.reader import SceneStore
from unscene.data.hdf5.writer import write_scenes
from unscene.errors import DataError, RunError
from unscene.files import whole_file

COUNT = 30
SCENES = {
    "image": np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8),
    "boxes": np.sort(np.random.default_rng(1).uniform(0, 8, (COUNT, 2, 4)).astype(np.float32)),
}


def batches(size: int = 7) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, COUNT, size):
        yield {name: values[start : start + size] for name, values in SCENES.items()}


def assert_whole(path: Path) -> None:
    with h5py.File(path) as file:
        assert set(file) == set(SCENES)
        assert all(np.array_equal(file[name][()], values) for name, values in SCENES.items())
        assert file.attrs["complete"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scenes.h5"


def test_without_a_count_the_end_of_the_batches_tells(path):
    assert write_scenes(path, batches(), None, {}, progress=False) == COUNT
    assert_whole(path)


def test_the_file_is_synced_before_it_has_its_name(path, monkeypatch):
    monkeypatch.delenv("UNSCENE_SYNC", raising=False)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append((os.fstat(handle).st_ino, path.exists())))
    write_scenes(path, batches(), COUNT, {}, progress=False)
    assert synced == [(path.stat().st_ino, False), (path.parent.stat().st_ino, True)]


def test_a_thread_may_write(path):
    thread = threading.Thread(target=write_scenes, args=(path, batches(), COUNT, {}, False))
    thread.start()
    thread.join()
    assert_whole(path)


def test_missing_folders_are_created(tmp_path):
    write_scenes(tmp_path / "a" / "b" / "scenes.h5", batches(), COUNT, {}, progress=False)
    assert_whole(tmp_path / "a" / "b" / "scenes.h5")


def test_progress_goes_to_stderr(path, capsys):
    write_scenes(path, batches(), COUNT, {})
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "30/30" in printed.err


def test_a_file_is_not_overwritten(path):
    path.write_text("precious")
    with pytest.raises(DataError, match=r"scenes\.h5 is already there .* Give another name"):
        write_scenes(path, batches(), COUNT, {}, progress=False)
    assert path.read_text() == "precious"
    assert names(path.parent) == ["scenes.h5"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError, DataError])
def test_an_error_of_the_source_passes_and_leaves_nothing(path, error):
    def breaks() -> Iterator[dict[str, np.ndarray]]:
        yield next(batches())
        raise error("stop")

    with pytest.raises(error, match="stop"):
        write_scenes(path, breaks(), COUNT, {}, progress=False)
    assert names(path.parent) == []


@pytest.fixture
def _heeds_signals():
    """A shell starts what it puts in the background so that it does not heed Ctrl-C; the commands heed SIGTERM."""
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("_heeds_signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_waits_for_hdf5_and_leaves_nothing(path, number):
    reached = []

    class Interrupted(dict):
        def items(self):
            signal.raise_signal(number)
            reached.append(len(self))  # the handler has not raised here, where it would break HDF5
            return super().items()

    with pytest.raises(KeyboardInterrupt):
        write_scenes(path, map(Interrupted, batches()), COUNT, {}, progress=False)
    assert reached
    assert names(path.parent) == []
    assert signal.getsignal(number) is signal.default_int_handler


def test_no_scene_is_no_file(path):
    with pytest.raises(DataError, match="no scene"):
        write_scenes(path, [], None, {}, progress=False)
    assert names(path.parent) == []


def test_an_error_leaves_no_folder_that_was_not_there(path):
    far = path.parent / "new" / "newer" / "scenes.h5"
    with pytest.raises(DataError, match="no scene"):
        write_scenes(far, [], None, {}, progress=False)
    assert names(path.parent) == []
    (path.parent / "old").mkdir()
    with pytest.raises(DataError, match="no scene"):
        write_scenes(path.parent / "old" / "scenes.h5", [], None, {}, progress=False)
    assert names(path.parent) == ["old"]  # which was empty before


def test_a_folder_that_another_wrote_into_meanwhile_stays(path):
    far = path.parent / "new" / "newer" / "scenes.h5"

    def interrupted():
        (far.parent.parent / "other.txt").write_text("of another program")
        yield from ()

    with pytest.raises(DataError, match="no scene"):
        write_scenes(far, interrupted(), None, {}, progress=False)
    assert names(path.parent) == ["new"]
    assert names(path.parent / "new") == ["other.txt"]


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_scenes(tmp_path / "file" / "scenes.h5", batches(), COUNT, {}, progress=False)


def test_a_full_disk_is_an_error_with_a_hint_not_a_crash(path):
    resource = pytest.importorskip("resource", reason="the test fills a disk by limiting the size of files")
    del resource
    program = """
import resource, sys
import numpy as np
from unscene.data.hdf5.writer import write_scenes
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
noise = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), np.uint8)
write_scenes(sys.argv[1], ({"image": noise} for _ in range(20)), 1000, {}, progress=False)
"""
    # in a process of its own: HDF5 ends in a segmentation fault when it sees the failed write
    run = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert "DataError" in last
    assert "of 1,000 scenes. It needs about" in last
    assert f"free on the disk of {path.parent.resolve()}. Free some space" in last
    assert names(path.parent) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_the_file_of_a_killed_process_is_replaced(path):
    path.with_name(".scenes.h5.part").write_bytes(b"half" * 100_000)
    path.with_name(".other.h5.part").write_text("of another file")
    write_scenes(path, batches(), COUNT, {}, progress=False)
    assert names(path.parent) == [".other.h5.part", "scenes.h5"]
    assert len(SceneStore(path)) == COUNT


def test_a_second_writer_of_the_same_file_is_refused(path):
    pytest.importorskip("fcntl")
    with whole_file(path) as first:  # stands for another process: it holds its lock
        first.write_text("half")
        with pytest.raises(RunError, match=r"scenes\.h5 is in use by process"):
            write_scenes(path, batches(), COUNT, {}, progress=False)
        assert first.read_text() == "half"
