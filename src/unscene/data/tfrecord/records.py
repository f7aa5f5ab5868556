"""Reads TFRecord files without TensorFlow, in constant memory, and names the record and byte of any damage.

A TFRecord file is a row of records, plain or inside gzip, every number little endian:

    length uint64 | masked CRC-32C of the length uint32 | data | masked CRC-32C of the data uint32

and the data is usually a `tf.train.Example` (`parse_example`). Offsets count bytes of the uncompressed stream. Records
count from 0, so that record 12 has 12 before it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from unscene.data.tfrecord.gzip_stream import ByteStream
from unscene.errors import DataError

_HEADER = struct.Struct("<QI")  # length and its checksum
_MAX_BYTES = 2**31  # of a record: protobuf's own limit for a message
_OTHER_FORMATS = {
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"PK": "a zip archive",
    b"<": "a web page, perhaps an error message that was saved in the file's place",
}


@dataclass(frozen=True)
class Record:
    """One record whose checksums are right.

    Attributes:
        index: 0 for the file's first record.
        offset: of the record's first byte in the uncompressed stream.
        data: the payload.
        where: file name, index and offset in words, for messages.
        file_bytes: how many bytes of the file, as it is stored, have been used so far.
    """

    index: int
    offset: int
    data: bytes
    where: str
    file_bytes: int


class _DamageError(Exception):
    """What is wrong with a record: `skippable` if the next one can be read, `harmless` if no record is lost."""

    def __init__(self, text: str, skippable: bool = False, harmless: bool = False) -> None:
        super().__init__(text)
        self.skippable, self.harmless = skippable, harmless


def read_records(path: Path, on_damage: Callable[[DataError], None] | None = None) -> Iterator[Record]:
    """Yield the records of a plain or gzip TFRecord file one at a time, with verified checksums.

    Args:
        path: the file; its first bytes tell whether it is gzip.
        on_damage: is called for every record that is damaged or cut short, and reading continues with the next one.
            Without it such a record raises. Where the start of the next record is unknown (a wrong length, a broken
            gzip stream) the error is raised in either case, and states how many records can be kept.

    Raises:
        DataError: the file is missing, empty, no TFRecord file, or damaged.
    """
    with _open(path) as file:
        stream = ByteStream(file, gzip=_is_gzip(file, path.name))
        index = kept = 0
        while True:
            offset, where = stream.offset, f"{path.name}: record {index:,} {stream.location}"
            try:
                data = _next_record(stream)
            except _DamageError as damage:
                error = DataError(f"{where} {damage}. {_hint(kept, damage.skippable)}")
                if on_damage is None or not damage.skippable:
                    raise error from None
                if not damage.harmless:
                    on_damage(error)
                if stream.fault is not None:
                    return
            except OSError as error:
                raise DataError(f"{where} cannot be read ({error.strerror}). Copy the file to another disk.") from None
            else:
                if data is None:
                    break
                yield Record(index, offset, data, where, stream.file_bytes)
                kept += 1
            index += 1
    if index == 0:
        raise DataError(f"{path.name} holds no record. Download the file again.")


def _hint(kept: int, skippable: bool) -> str:
    if skippable:
        return "Download the file again, or pass --skip-damaged to leave such records out."
    if kept:
        return f"Download the file again, or pass --count {kept} to keep the {kept:,} whole records before it."
    return "Download the file again; no whole record comes before it."


def _next_record(stream: ByteStream) -> bytes | None:
    """The data of the next record, or None at the end of the file."""
    doubt = "" if stream.offset else "; is it a TFRecord file at all?"
    header = stream.read(_HEADER.size)
    if not header and stream.fault is None:
        return None
    if len(header) < _HEADER.size:
        raise _incomplete(stream, _HEADER.size, len(header))
    length, expected = _HEADER.unpack(header)
    found = _masked_crc(header[:8])
    if found != expected:
        raise _DamageError(f"has a damaged length (its checksum should be {expected:#010x}, is {found:#010x}{doubt})")
    if length > _MAX_BYTES:
        raise _DamageError(f"is said to have {length:,} bytes (a tf.train.Example has at most {_MAX_BYTES:,})")
    data, checksum = stream.read(length), stream.read(4)
    if len(checksum) < 4:
        raise _incomplete(stream, _HEADER.size + length + 4, _HEADER.size + len(data) + len(checksum))
    expected, found = int.from_bytes(checksum, "little"), _masked_crc(data)
    if found != expected:
        text = f"has damaged data (the checksum of its {length:,} bytes should be {expected:#010x}, is {found:#010x})"
        raise _DamageError(text, skippable=True)
    return data


def _incomplete(stream: ByteStream, expected: int, found: int) -> _DamageError:
    fault, sizes = stream.fault, f"expected {expected:,} bytes, found {found:,}"
    if fault is None:
        return _DamageError(f"is cut short ({sizes})", skippable=True)
    if fault.kind == "broken":
        return _DamageError(f"is damaged: {fault.text}; {sizes}")
    if found == 0:  # a wrong checksum of the whole loses nothing: every record has its own
        return _DamageError(f"does not follow: {fault.text}", skippable=True, harmless=fault.kind == "checksum")
    return _DamageError(f"is cut short ({sizes}): {fault.text}", skippable=True)


def _masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _open(path: Path) -> BinaryIO:
    if path.is_dir():
        raise DataError(f"{path} is a folder. Name the .tfrecords file in it.")
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check its name.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from None


def _is_gzip(file: BinaryIO, name: str) -> bool:
    start = file.read(_HEADER.size)
    file.seek(0)
    if not start:
        raise DataError(f"{name} is empty (0 bytes). Download the file again.")
    # A plain file may start with gzip's two bytes (a length of 35,615); then its checksum is right as well.
    if len(start) == _HEADER.size and _masked_crc(start[:8]) == int.from_bytes(start[8:], "little"):
        return False
    if start.startswith(b"\x1f\x8b"):
        return True
    other = next((f" It looks like {kind}." for magic, kind in _OTHER_FORMATS.items() if start.startswith(magic)), "")
    raise DataError(
        f"{name} is no TFRecord file, or record 0 at byte 0 has a damaged length: it should start with gzip's 1f 8b or "
        f"with a length and its checksum, and starts with {start.hex(' ')}.{other} Download the file again."
    )
