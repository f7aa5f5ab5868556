"""Writes scenes to a new HDF5 file as `reader` describes it, complete or not at all."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray
from tqdm import tqdm

from unscene.errors import DataError, RunError
from unscene.files import DISK_FULL, removed_if_empty, whole_file

_GZIP_LEVEL = 3
_ROWS_A_CHUNK = 1024  # of boxes and factors, which are read whole; images and masks have one


def write_scenes(
    path: str | Path,
    batches: Iterable[Mapping[str, NDArray]],
    count: int | None,
    attributes: Mapping[str, Any],
    progress: bool = True,
) -> int:
    """Write scenes to a new HDF5 file, which appears under its name only when it is complete; return their number.

    `batches` all have the same arrays [B, ...], `image` among them; `labels` is stored as `mask`, the name that
    published files have for it. `count` is the number of all samples, for the bar and messages; None if it is unknown.
    `attributes` are read after the last batch; a mapping or list (`settings`) is stored as JSON. `unscene_version`,
    `arrays` (all names) and `complete` are added. Every chunk has a checksum. DataError: the file already exists or
    cannot be written, the disk is full, or there is no sample. Whatever stops the writing, Ctrl-C too, the unfinished
    file and its new folders are removed; the next process that writes the same file replaces what a killed one left.
    RunError: another process writes the same file.
    """
    path = Path(path)
    refuse_existing(path)
    bar = tqdm(total=count, unit=" scenes", desc=path.name, file=sys.stderr, disable=not progress)
    with bar, removed_if_empty(path.parent), ExitStack() as stack:
        with explained(path, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(whole_file(path))
            refuse_existing(path)  # by a process that has ended since
            target = _ErrorKeepingFile(partial, "w+")
        written = 0
        with target:
            with _new_file(target) as file:
                for batch in batches:
                    with _interrupt_waits():
                        _append(file, batch, written)
                    written += len(batch["image"])
                    with explained(path, partial, written, count):
                        target.raise_kept()
                    bar.update(written - bar.n)
                if not written:
                    raise DataError("the source has no scene that could be written.")
                with _interrupt_waits():
                    ours = {"unscene_version": version("unscene"), "arrays": list(file), "complete": True}
                    for key, value in {**attributes, **ours}.items():
                        file.attrs[key] = json.dumps(value) if isinstance(value, Mapping | list) else value
            with explained(path, partial, written, count):
                target.raise_kept()
        with explained(path, partial):
            stack.close()  # renames the file
        return written


def refuse_existing(path: Path) -> None:
    """Raise DataError if there is a file of this name."""
    if path.exists():
        raise DataError(f"{path} is already there and is not overwritten. Give another name, or remove it first.")


class _ErrorKeepingFile(io.FileIO):
    """A file whose writes never fail; the first error is kept, to be raised between two batches.

    HDF5 must not see the error: when a write from its cache fails (the disk is full), closing the file fails as well,
    and the process ends in a segmentation fault.
    """

    _kept: BaseException | None = None

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left and self._kept is None:
                left = left[super().write(left) :]  # a nearly full disk takes a part
        except BaseException as error:  # Ctrl-C too
            self._kept = error
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except BaseException as error:
            self._kept = self._kept or error
            return self.tell() if size is None else size

    def raise_kept(self) -> None:
        if self._kept is not None:
            raise self._kept


@contextmanager
def _new_file(target: _ErrorKeepingFile) -> Iterator[h5py.File]:
    file = None
    try:
        with _interrupt_waits():
            file = h5py.File(target, "w", libver="latest")
        yield file
    finally:
        with _interrupt_waits():
            if file is not None:
                file.close()


@contextmanager
def _interrupt_waits() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until HDF5 returns: it calls `_ErrorKeepingFile`, which a KeyboardInterrupt breaks."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals go to the main thread alone
        return
    signals: list[int] = []
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(number, lambda number, frame: signals.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if signals:
            signal.raise_signal(signals[0])


def _append(file: h5py.File, batch: Mapping[str, NDArray], start: int) -> None:
    """Write a batch as the rows from `start` on. An image or a mask is a chunk, so reading one at random costs one."""
    for name, values in batch.items():
        name = "mask" if name == "labels" else name
        if start == 0:
            rows = 1 if name in ("image", "mask") else _ROWS_A_CHUNK
            file.create_dataset(
                name,
                shape=(0, *values.shape[1:]),
                maxshape=(None, *values.shape[1:]),
                dtype=values.dtype,
                chunks=(rows, *values.shape[1:]),
                compression="gzip",
                compression_opts=_GZIP_LEVEL,
                fletcher32=True,
            )
        file[name].resize(start + len(values), axis=0)
        file[name][start:] = values


@contextmanager
def explained(path: Path, partial: Path, written: int = 0, count: int | None = None) -> Iterator[None]:
    """Turn the system's error into a DataError with a hint."""
    try:
        yield
    except RunError:  # another process writes the same file
        raise
    except OSError as error:
        if error.errno not in DISK_FULL:
            hint = "Check the folder's name and permissions, or give another one."
            raise DataError(f"{path} cannot be written: {error}. {hint}") from error
        size = partial.stat().st_size / 1e6 if partial.exists() else 0.0
        needed = f"about {size / written * count:,.1f} MB" if written and count else "more"
        scenes = f"{written:,}{f' of {count:,}' if count else ''} scenes"
        free = shutil.disk_usage(path.parent).free / 1e6 + size  # what the unfinished file held is given back
        raise DataError(
            f"{path} could not be finished: {error.strerror}, after {scenes}. It needs {needed}, "
            f"and {free:,.1f} MB are free on the disk of {path.resolve().parent}. Free some space, write to another "
            "disk, or ask for fewer scenes."
        ) from error
