"""files: whole or not at all, one writer at a time, nothing replaced unasked, and what a dead process left goes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unscene import files
from unscene.errors import RunError
from unscene.files import (
    lock,
    output_folder,
    remove_litter,
    removed_if_empty,
    whole_file,
    write_bytes,
    write_text,
    writing,
)

NAMES = ("compare.json", "index.html", "curves.png")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "före")
    assert path.read_bytes() == "före".encode()

    def half(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(RunError, match=r"a\.txt: the disk is full\. Free some space"):
        write_bytes(path, b"after" * 100)
    assert path.read_bytes() == "före".encode()
    assert names(tmp_path) == ["a.txt"]


def test_a_file_and_its_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").resolve().name))
    write_text(tmp_path / "a.txt", "a")
    monkeypatch.setenv("UNSCENE_SYNC", "0")
    write_text(tmp_path / "b.txt", "b")
    assert synced == [".a.txt.part", tmp_path.name]


def test_a_disk_that_fails_at_the_sync_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "before")

    def fails(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(RunError, match="the disk is full"):
        write_text(tmp_path / "a.txt", "after")
    assert (tmp_path / "a.txt").read_text() == "before"
    assert names(tmp_path) == ["a.txt"]


def test_writing_passes_its_own_errors_on():
    with pytest.raises(RunError, match=r"^once$"), writing(Path("a")):
        raise RunError("once")


# Locks, and what dead processes left

HOLDS = """
import sys
from pathlib import Path
from unscene.files import lock, output_folder, whole_file
kind, path = sys.argv[1], Path(sys.argv[2])
enter = {"lock": lock, "file": whole_file, "output": lambda out: output_folder(out, ("compare.json",), False)}[kind]
with enter(path) as it:
    if kind == "output":
        (it / "compare.json").write_text("half")
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """Another process that holds a lock until it is killed."""
    started = []

    def start(kind: str, path: Path) -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, "-c", HOLDS, kind, path], text=True, **pipes))
        assert started[-1].stdout.readline() == "locked\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(files.fcntl is None, reason="needs file locks")
@pytest.mark.parametrize("kind", ["lock", "file", "output"])
def test_lock_names_the_process_that_has_it_and_ends_with_that_process(tmp_path, holder, kind):
    path = tmp_path / "place"
    if kind == "lock":
        path.mkdir()
    process = holder(kind, path)
    enter = {"lock": lock, "file": whole_file, "output": lambda out: output_folder(out, ("compare.json",), False)}[kind]
    expected = rf"place is in use by process {process.pid} \(.*python" if sys.platform == "linux" else "is in use by"
    with pytest.raises(RunError, match=expected), enter(path):
        raise AssertionError("entered twice")
    process.send_signal(signal.SIGKILL)
    process.wait()
    with enter(path) as inside:
        if kind != "lock":
            (inside / "compare.json" if kind == "output" else inside).write_text("whole")
    assert names(tmp_path) == (["place", "place/compare.json"] if kind == "output" else ["place"])


@pytest.mark.skipif(files.fcntl is None, reason="needs file locks")
def test_only_temporary_files_of_ended_processes_are_removed(tmp_path):
    (tmp_path / ".old.txt.part").write_text("half")
    (tmp_path / "mine.part").write_text("not ours")
    with whole_file(tmp_path / "new.txt") as temporary:
        temporary.write_text("new")
        assert remove_litter(tmp_path) == [tmp_path / ".old.txt.part"]
    assert names(tmp_path) == ["mine.part", "new.txt"]


# Folders of results


def test_new_folders_of_failed_results_are_removed(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), output_folder(tmp_path / "mine" / "deep" / "out", NAMES, False) as folder:
        (folder / "half.json").write_text("{")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["mine"]


def test_files_of_others_in_a_new_folder_are_kept(tmp_path):
    with pytest.raises(KeyboardInterrupt), removed_if_empty(tmp_path / "deep" / "out"):
        (tmp_path / "deep" / "out").mkdir(parents=True)
        (tmp_path / "deep" / "another.txt").write_text("of somebody else")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["deep", "deep/another.txt"]


def test_results_appear_at_the_end_and_replace_only_when_asked(tmp_path):
    out = tmp_path / "deep" / "out"
    with output_folder(out, NAMES, False) as folder:
        for name in (*NAMES, "below/more.png"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("1")
        assert not (out / "index.html").exists()
    (out / "mine.txt").write_text("mine")
    expected = r"compare\.json and 2 more would be overwritten\. .* --overwrite"
    with pytest.raises(RunError, match=expected), output_folder(out, NAMES, False):
        raise AssertionError("entered")
    with output_folder(out, NAMES, True) as folder:
        (folder / "compare.json").write_text("2")
    # what the new results do not have is not left beside them
    assert names(out) == ["below", "below/more.png", "compare.json", "mine.txt"]
    assert (out / "compare.json").read_text() == "2"


KILLED = """
import os, sys
from pathlib import Path
from unscene.files import output_folder
out, moves, replace = Path(sys.argv[1]), int(sys.argv[2]), Path.replace
def last_moves(self, target):
    global moves
    if moves == 0:
        os._exit(9)
    moves -= 1
    return replace(self, target)
Path.replace = last_moves
with output_folder(out, ("compare.json", "index.html", "curves.png"), True) as folder:
    for name in ("compare.json", "index.html", "below/more.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("new")
"""


def write_earlier(out: Path) -> None:
    with output_folder(out, NAMES, False) as folder:
        for name in NAMES:
            (folder / name).write_text("old")


def contents(out: Path) -> dict[str, str]:
    return {name: (out / name).read_text() for name in names(out) if (out / name).is_file()}


OLD = dict.fromkeys(NAMES, "old")
NEW = dict.fromkeys(("compare.json", "index.html", "below/more.png"), "new")  # no curves.png


@pytest.mark.parametrize("moves", range(5))
def test_results_that_a_kill_kept_from_moving_are_moved_by_the_next_command(tmp_path, moves):
    write_earlier(tmp_path)
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, str(moves)], check=moves == 4)
    assert moves in (0, 4) or not (tmp_path / "compare.json").exists(), "results that are not complete show it"
    with pytest.raises(RunError, match=r"compare\.json.* would be overwritten"), output_folder(tmp_path, NAMES, False):
        raise AssertionError("entered")
    assert contents(tmp_path) == (OLD if moves == 0 else NEW)
    assert not [name for name in names(tmp_path) if ".unscene" in name]


def test_results_of_a_kill_belong_to_their_kind_whatever_command_comes_next(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, "2"], check=False)
    expected = r"compare\.json is of a comparison"
    with pytest.raises(RunError, match=expected), output_folder(tmp_path, ("metrics.json", "index.html"), True):
        raise AssertionError("entered")
    assert contents(tmp_path) == NEW


def test_what_may_be_overwritten_is_asked_when_the_results_of_a_kill_have_moved(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path, "2"], check=False)
    with output_folder(tmp_path, NAMES, lambda: (tmp_path / "compare.json").read_text() == "new") as folder:
        (folder / "compare.json").write_text("newer")
    assert (tmp_path / "compare.json").read_text() == "newer"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("operation", ["replace", "unlink", "mkdir"])
@pytest.mark.parametrize("number", range(4))
def test_interrupt_or_error_between_two_moves_leaves_complete_results(tmp_path, monkeypatch, error, operation, number):
    write_earlier(tmp_path)
    original, count = getattr(Path, operation), 0

    def fails(self: Path, *args, **options):
        nonlocal count
        count += 1
        if count == number + 1:
            raise error
        return original(self, *args, **options)

    stopped = False
    try:
        with output_folder(tmp_path, NAMES, True) as folder:
            for name in NEW:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("new")
            monkeypatch.setattr(Path, operation, fails)
    except (KeyboardInterrupt, RunError):
        stopped = True
    monkeypatch.undo()
    unchanged = operation == "replace" and number == 0  # the move of all
    assert contents(tmp_path) == (OLD if unchanged else NEW)
    assert stopped or error is not KeyboardInterrupt or count <= number
    assert not [name for name in names(tmp_path) if ".unscene" in name]


def test_results_that_cannot_be_moved_at_all_wait_for_the_next_command(tmp_path, monkeypatch):
    replace = Path.replace

    def fails(self: Path, target: Path) -> Path:
        if self.name == "index.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(RunError, match="the disk is full"):
        patch.setattr(Path, "replace", fails)
        with output_folder(tmp_path, NAMES, False) as folder:
            for name in NEW:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("new")
    with pytest.raises(RunError, match="would be overwritten"), output_folder(tmp_path, NAMES, False):
        raise AssertionError("entered")
    assert contents(tmp_path) == NEW


def test_refusal_removes_litter_of_a_killed_writer(tmp_path):
    (tmp_path / "compare.json").write_text("complete")
    (tmp_path / ".unscene-unfinished").mkdir()
    (tmp_path / ".compare.csv.part").touch()
    with pytest.raises(RunError, match="would be overwritten"), output_folder(tmp_path, NAMES, False):
        raise AssertionError("entered")
    assert names(tmp_path) == ["compare.json"]


def test_folder_that_cannot_be_created_is_a_run_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"), output_folder(tmp_path / "file" / "out", NAMES, False):
        raise AssertionError("entered")
    with pytest.raises(RunError, match="is a file"), output_folder(tmp_path / "file", NAMES, False):
        raise AssertionError("entered")


def test_an_error_of_the_work_is_not_taken_for_one_of_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError), output_folder(tmp_path, NAMES, False):
        (tmp_path / "nothing").read_text()


@pytest.mark.parametrize("there", files.RESULT_KINDS)
@pytest.mark.parametrize("own", files.RESULT_KINDS)
def test_results_of_another_kind_are_never_replaced(tmp_path, there, own):
    (tmp_path / there).touch()
    for overwrite in (False, True):
        if there == own and overwrite:
            with output_folder(tmp_path, (own, "index.html"), overwrite):
                pass
            continue
        message = "would be overwritten" if there == own else rf"{there} is of .* Name another folder with --out\."
        with pytest.raises(RunError, match=message), output_folder(tmp_path, (own, "index.html"), overwrite):
            raise AssertionError("entered")
