"""Opens HDF5 files of any origin: an error names its cause, and no other file is read."""

from __future__ import annotations

import errno
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from unscene.errors import DataError, UnsceneError, refusal

_MAX_BYTES = 2**28  # of a sample or a chunk, the least that is read at once
_CAUSES = {  # by HDF5's words; `refusal` knows the system's errors
    "already open for": "is open for writing in another program, or its writer was killed. Wait, or write it again.",
    "file signature not found": "is no HDF5 file. Check the name, or download or generate it again.",
    "truncated file": "is cut short. Download or generate it again.",
}


@contextmanager
def reading(path: Path, what: str = "") -> Iterator[None]:
    """Turn an error of HDF5 or the system into a DataError that names its cause; `what` is the part that is read."""
    try:
        yield
    except UnsceneError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, ArithmeticError, MemoryError) as error:
        text = " ".join(str(error).split())[:300]
        number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
        cause = f"cannot be read ({text}). It is damaged: download or generate it again."
        if number and "synchronously" not in text:  # of the system, not of HDF5, which also fails at wrong offsets
            cause = f"cannot be read ({os.strerror(number)}). Check its name and its disk."
        cause = next((cause for words, cause in _CAUSES.items() if words in text), cause)
        raise DataError(f"{path}{what} {refusal(OSError(number, text)) or cause}") from error


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading.

    DataError: the file is missing, is no regular or no HDF5 file, cannot be opened, or is damaged.
    """
    with reading(path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}. Name an HDF5 file.")
        with h5py.File(path, "r") as file:
            yield file


def local_dataset(file: h5py.File, name: str) -> h5py.Dataset | None:
    """A data set of the file itself; None for a group.

    DataError: it is a link, or its values are in other files. KeyError: it is damaged.
    """
    link = file.get(name, getlink=True)
    if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
        target = getattr(link, "filename", "the same file")
        raise DataError(f"{file.filename}: {name!r} is a link to {link.path!r} of {target!r}. Store the array itself.")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        return None
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{file.filename}: the values of {name!r} are in other files. Store them in the file itself.")
    return dataset


def check_readable(dataset: h5py.Dataset) -> None:
    """Check, without reading a value, that all of a data set was written and can be read.

    DataError: a filter is missing, a sample is too large, or a part was never written.
    """
    where = f"{dataset.file.filename}: {dataset.name.lstrip('/')!r}"
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, label = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                import_module("hdf5plugin")  # registers its filters
        if not h5py.h5z.filter_avail(code):
            name = f"{label.decode(errors='replace')!r} (number {code})"
            raise DataError(
                f"{where} is compressed with the HDF5 filter {name}, which is not installed. Install the Python "
                "package hdf5plugin, or write the file with gzip."
            )
    at_once = max(math.prod(dataset.shape[1:]), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize
    if at_once > _MAX_BYTES:
        size = f"{at_once / 2**20:,.0f} MiB at once, but the limit is {_MAX_BYTES / 2**20:,.0f}"
        raise DataError(f"{where} has samples or chunks that take {size}. Write smaller images, and one in a chunk.")
    if dataset.chunks:
        expected = math.prod(math.ceil(size / chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
        written = dataset.id.get_num_chunks()
    else:
        expected, written = dataset.nbytes, dataset.id.get_storage_size()
    if written < expected:
        raise DataError(
            f"{where} of shape {list(dataset.shape)} was not written to its end: the file holds {written:,} of "
            f"{expected:,} {'chunks' if dataset.chunks else 'bytes'}. Write the file again."
        )


def read_rows(dataset: h5py.Dataset, start: int, stop: int) -> NDArray[Any]:
    """Read rows of the first axis. Where the index has lost a chunk, HDF5 gives fill values; this raises OSError."""
    values: NDArray[Any] = dataset[start:stop]
    version = h5py.h5i.get_file_id(dataset.id).get_create_plist().get_version()[0]  # before 3, no checksum in an index
    if version < 3 and dataset.chunks:
        first = start - start % dataset.chunks[0]
        grid = (range(0, size, chunk) for size, chunk in zip(dataset.shape[1:], dataset.chunks[1:], strict=True))
        for offset in product(range(first, stop, dataset.chunks[0]), *grid):
            ends = (at + chunk for at, chunk in zip(offset, dataset.chunks, strict=True))
            rows, *rest = map(slice, offset, ends)
            part = values[(slice(max(rows.start - start, 0), rows.stop - start), *rest)]
            if (part == dataset.fillvalue).all():
                dataset.id.read_direct_chunk(offset)  # raises it
    return values
