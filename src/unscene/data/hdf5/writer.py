"""Writes scenes to a new HDF5 file as `reader` describes it, complete or not at all."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
import threading
import zlib
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

_GZIP_LEVEL = 3  # 4 is a tenth smaller, and writes 4,700 scenes/s instead of 6,800
_ROWS_A_CHUNK = 1024  # of boxes and factors, which are read whole; images and masks have one


def write_scenes(
    path: str | Path,
    batches: Iterable[Mapping[str, NDArray]],
    count: int | None,
    attributes: Mapping[str, Any],
    progress: bool = True,
) -> int:
    """Write scenes to a new HDF5 file, which appears under its name only when it is complete; return their number.

    `batches` are `count` samples in all (None: as many as they are), all with the same arrays [B, ...], `image` among
    them; `labels` is stored as `mask`, the name that published files have for it. `attributes` are read after the last
    batch; a mapping or list (`settings`) is stored as JSON. `unscene_version` and `complete` are added.

    Raises:
        DataError: the file already exists or cannot be written, the disk is full, or the batches are not `count`
            samples. Whatever stops the writing, Ctrl-C too, the unfinished file and its new folders are removed; the
            next process that writes the same file replaces what a killed one left.
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
        with target:
            with _new_file(target) as file:
                for written in _write_batches(file, batches, count):
                    with explained(path, partial, written, count):
                        target.raise_kept()
                    bar.update(written - bar.n)
                with _interrupt_waits():
                    for key, value in {**attributes, "unscene_version": version("unscene"), "complete": True}.items():
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
    """Delay Ctrl-C until HDF5 returns: it calls `_ErrorKeepingFile`, and a KeyboardInterrupt there breaks it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Ctrl-C goes to the main thread alone
        return
    signals: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if signals:
            signal.raise_signal(signal.SIGINT)


def _write_batches(file: h5py.File, batches: Iterable[Mapping[str, NDArray]], count: int | None) -> Iterator[int]:
    """Write batch after batch, and yield the number of scenes written so far."""
    written = 0
    for batch in batches:
        start, written = written, written + len(batch["image"])
        if count is not None and written > count:
            raise DataError(f"{count} scenes were announced, but the source gives more. Set count to what it holds.")
        with _interrupt_waits():
            stored = {"mask" if name == "labels" else name: values for name, values in batch.items()}
            if start == 0:
                _create_datasets(file, stored, count)
            if set(stored) != set(file):
                raise DataError(f"a batch has the arrays {sorted(stored)}, but the first one had {sorted(file)}.")
            for name, values in stored.items():
                if count is None:
                    file[name].resize(written, axis=0)
                _write_rows(file[name], start, values)
        yield written
    if written == 0:
        raise DataError("the source has no scene that could be written.")
    if count is not None and written < count:
        raise DataError(f"{count} scenes were announced, but the source ended after {written}. Set count to {written}.")


def _write_rows(dataset: h5py.Dataset, start: int, values: NDArray) -> None:
    """Write rows from `start` on. Chunks of one sample are compressed here, a tenth faster than HDF5 does it."""
    if dataset.chunks[0] > 1:
        dataset[start : start + len(values)] = values
        return
    for row, sample in enumerate(values, start):
        dataset.id.write_direct_chunk((row, *[0] * sample.ndim), zlib.compress(sample.tobytes(), _GZIP_LEVEL))


def _create_datasets(file: h5py.File, batch: Mapping[str, NDArray], count: int | None) -> None:
    for name, values in batch.items():
        rows = 1 if name in ("image", "mask") else min(_ROWS_A_CHUNK, count or _ROWS_A_CHUNK)
        file.create_dataset(
            name,
            shape=(count or 0, *values.shape[1:]),
            maxshape=(count, *values.shape[1:]),
            dtype=values.dtype,
            chunks=(rows, *values.shape[1:]),
            compression="gzip",
            compression_opts=_GZIP_LEVEL,
        )


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
