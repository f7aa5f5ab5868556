"""Atomic writes: a file is written under a temporary name, synced and renamed; locks; what may be overwritten; CSV.

Every writer uses these. A temporary file is `.NAME.part`, and the folder of unfinished results `.unscene-unfinished`.
Their process locks them, and the system frees a lock however its process ends. So the next command tells what a dead
process left behind, and removes it. A file is synced to the disk before it is renamed, and so is its folder; with
UNSCENE_SYNC=0 that is left to the system.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from unscene.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has no `fcntl`: two processes can write to one folder
    fcntl = None  # type: ignore[assignment]

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESULT_KINDS = {  # of results, each with an index.html, by the file that the others do not have
    "metrics.json": "an evaluation",
    "shifts.json": "an evaluation under shifts",
    "slots.json": "an evaluation with several numbers of slots",
    "compare.json": "a comparison",
    "objects.json": "decomposed images",
}
_UNFINISHED, _PUBLISHING = ".unscene-unfinished", ".unscene-publishing"


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of a text, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all. RunError: it cannot be written, or another process writes it."""
    with writing(path), whole_file(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary name; the file written there replaces `path` when the block ends without an error.

    RunError: another process writes the same file. OSError: any failure of the system; see `writing`.
    """
    temporary = path.with_name(f".{path.name}.part")
    with lock(temporary, path):
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's error of a failed write into a RunError that says what to do."""
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        if error.errno in DISK_FULL:
            raise RunError(f"{path}: the disk is full. Free some space, or name a folder on another disk.") from error
        raise RunError(f"{path} cannot be written ({error.strerror or error}).") from error


@contextmanager
def lock(path: Path, shown: Path | None = None) -> Iterator[None]:
    """Lock a folder or a file, created if it is missing, against other processes. A disk without locks locks nothing.

    RunError: another process has it; the message names that process, and `shown` instead of `path`.
    """
    if fcntl is None:
        yield
        return
    while True:
        handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(handle):
                raise RunError(
                    f"{shown or path} is in use by {_holder(handle)}. Wait until it ends, stop it (Ctrl-C ends a "
                    "training with a checkpoint), or name another folder with --out."
                )
            if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:  # not replaced before it was locked
                yield
                return
        finally:
            os.close(handle)


def remove_litter(folder: Path, pattern: str = ".*.part") -> list[Path]:
    """Remove the temporary files of processes that have ended, and return them."""
    removed = []
    for part in folder.glob(pattern):
        with suppress(OSError), part.open("r+b") as file:
            if fcntl is not None and _locked(file):
                part.unlink()
                removed.append(part)
    return removed


@contextmanager
def removed_if_empty(folder: Path) -> Iterator[None]:
    """Remove a folder at the end, and those above it, if they did not exist before and are empty."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        yield
    finally:
        for parent in missing:
            with suppress(OSError):  # it does not exist, or holds something
                parent.rmdir()


@contextmanager
def output_folder(out: Path, names: Sequence[str], overwrite: bool | Callable[[], bool]) -> Iterator[Path]:
    """Yield a folder for results. They move to `out`, and replace earlier ones, when the block ends without an error.

    `out` is locked until then. After an error or Ctrl-C in the block it is unchanged. Complete results move to
    `.unscene-publishing` at once, and from there one by one. Whatever stops that, this process moves the others, or the
    next command does. The first of `names` tells the kind (`RESULT_KINDS`) and moves last: if it exists, all do.
    RunError: `out` is in use, cannot be written, or holds another kind's page or, without `overwrite`, such files.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file. Name a folder for the results with --out.")
    unfinished, complete = out / _UNFINISHED, out / _PUBLISHING
    with ExitStack() as stack:
        with writing(out):
            stack.enter_context(removed_if_empty(out))
            out.mkdir(parents=True, exist_ok=True)
            stack.enter_context(lock(out))
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that has ended, as the others
            remove_litter(out)
            recovered = complete.exists()
            _publish(complete, out, names)
            for name, kind in RESULT_KINDS.items():
                if name != names[0] and "index.html" in names and (out / name).exists():
                    raise RunError(
                        f"{out / name} is of {kind}, and {RESULT_KINDS[names[0]]} would replace only its page, even "
                        "with --overwrite. Name another folder with --out."
                    )
            there = [name for name in names if (out / name).exists()]
            if there and not (overwrite() if callable(overwrite) else overwrite):
                more = f" and {len(there) - 1} more" if len(there) > 1 else ""
                found = f"{out} now holds the complete results of a command that was interrupted at its end. "
                raise RunError(
                    f"{found if recovered else ''}{out / there[0]}{more} would be overwritten. Name another folder "
                    "with --out, or replace the results with --overwrite."
                )
            unfinished.mkdir()
        try:
            yield unfinished
            with writing(out):
                try:
                    unfinished.replace(complete)
                    with suppress(OSError):
                        _publish(complete, out, names)
                finally:  # what Ctrl-C or an error has kept from moving
                    _publish(complete, out, names)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _publish(complete: Path, out: Path, names: Sequence[str]) -> None:
    """Move complete results to `out`, the file of their kind last. What has moved already is not touched."""
    files = sorted(file.relative_to(complete) for file in complete.rglob("*") if file.is_file())
    kind = next((file for file in files if file.as_posix() in RESULT_KINDS), None)
    if kind and (out / kind).exists():  # of earlier results, and nothing has moved yet
        for name in names:
            if names[0] == kind.as_posix() and Path(name) not in files:
                (out / name).unlink(missing_ok=True)
        (out / kind).unlink()  # while it is missing, the results count as incomplete
    for file in sorted(files, key=lambda file: file == kind):
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (complete / file).replace(out / file)
    if complete.exists():
        shutil.rmtree(complete)


def _locked(file: int | IO[bytes]) -> bool:
    """Lock an open file; False if another process has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        pass
    return True


def _holder(handle: int) -> str:
    """The process that has locked a file, where Linux tells."""
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, file, *_ = line.split()
            if kind == "FLOCK" and file.endswith(f":{os.fstat(handle).st_ino}") and int(process) > 0:
                command = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                return f"process {process} ({' '.join(command.split())[:100]})"
    return "another process"


def _sync(path: Path) -> None:
    if os.environ.get("UNSCENE_SYNC") == "0" or (os.name == "nt" and path.is_dir()):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in (*DISK_FULL, errno.EIO):  # others: the disk cannot sync
            raise
    finally:
        os.close(handle)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows of cells as CSV. A text that a spreadsheet would run as a formula gets an apostrophe before it."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(
            f"'{cell}" if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell
            for cell in row
        )
    return file.getvalue()
