"""Reads TFRecord files without TensorFlow, in constant memory, and names the record and byte of any damage.

A TFRecord file is a row of records, plain or inside gzip or zlib, every number little endian:

    length uint64 | masked CRC-32C of the length uint32 | data | masked CRC-32C of the data uint32

and the data is usually a `tf.train.Example` (`parse_example`). Offsets are of the uncompressed stream, from 0.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import google_crc32c

from unscene.errors import DataError

_HEADER = struct.Struct("<QI")  # length and its checksum
_MAX_BYTES = 2**31  # of a record: protobuf's own limit for a message


@dataclass(frozen=True)
class Record:
    """One record whose checksums are right."""

    index: int  # 0 for the file's first record
    data: bytes
    where: str  # file name, index and offset in words, for messages
    file_bytes: int  # of the file, as it is stored, that have been read so far


class _ZlibFile:
    """A zlib stream as a file. Like `GzipFile` it raises EOFError where the stream is cut."""

    def __init__(self, stored: BinaryIO) -> None:
        self._stored, self._stream, self._ahead = stored, zlib.decompressobj(), bytearray()

    def read(self, size: int) -> bytes:
        while len(self._ahead) < size and not self._stream.eof:
            chunk = self._stream.unconsumed_tail or self._stored.read(2**16)
            if not chunk:
                raise EOFError
            self._ahead += self._stream.decompress(chunk, 2**20)
        if self._stream.eof and not self._ahead and (self._stream.unused_data or self._stored.read(1)):
            raise zlib.error("other bytes follow its end")
        found = bytes(self._ahead[:size])
        del self._ahead[:size]
        return found


def read_records(path: Path, on_damage: Callable[[DataError], None] | None = None, kept: int = 0) -> Iterator[Record]:
    """Yield the records of a plain, gzip or zlib TFRecord file one at a time, with verified checksums.

    A damaged or cut record raises; with `on_damage` that is called instead, and reading continues with the next record.
    Where the start of the next record is unknown (a wrong length, a broken gzip stream) the error is always raised, and
    states how many records can be kept; `kept` is their number in earlier files. DataError: the file is missing, empty,
    no TFRecord file, or damaged.
    """
    try:
        stored = path.open("rb")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). Name a .tfrecords file.") from None
    with stored:
        container = _container(stored, path.name)
        opened = {"gzip": lambda: gzip.GzipFile(fileobj=stored), "zlib": lambda: _ZlibFile(stored)}
        file = cast(BinaryIO, opened[container]()) if container else stored
        index = offset = 0
        while True:
            compressed = f" (byte {stored.tell():,} of the compressed file)" if container else ""
            where = f"{path.name}: record {index:,} at byte {offset:,}{compressed}"
            try:
                data = _next_record(file, stored, offset, container)
            except _DamageError as damage:
                hint = f", or pass --count {kept} to keep the {kept:,} sound records before it" if kept else ""
                hint = hint if damage.size is None else ", or pass --skip-damaged to leave such records out"
                message = DataError(f"{where} {damage}. Download the file again{hint}.")
                if on_damage is None or damage.size is None:
                    raise message from None
                on_damage(message)
                if not damage.size:
                    return
                offset += damage.size
            except OSError as error:
                raise DataError(f"{where} cannot be read ({error.strerror}). Copy the file to another disk.") from None
            else:
                if data is None:
                    break
                yield Record(index, data, where, stored.tell())
                kept += 1
                offset += _HEADER.size + len(data) + 4
            index += 1
    if index == 0:
        raise DataError(f"{path.name} holds no record. Download the file again.")


class _DamageError(Exception):
    """A record cannot be read: `size` bytes are left out, 0 to the end; None if the next record cannot be found."""

    def __init__(self, text: str, size: int | None = None) -> None:
        super().__init__(text)
        self.size = size


def _next_record(file: BinaryIO, stored: BinaryIO, offset: int, container: str) -> bytes | None:
    """The data of the next record, or None at the end of the file."""
    expected, data, checksum = _HEADER.size, b"", b""
    try:
        header = file.read(_HEADER.size)
        if not header:
            return None
        if len(header) == _HEADER.size:
            length, length_checksum = _HEADER.unpack(header)
            if _masked_crc(header[:8]) != length_checksum:
                doubt = "" if offset else "; is it a TFRecord file at all?"
                raise _DamageError(f"has a damaged length ({_checksums(length_checksum, header[:8])}{doubt})")
            if length > _MAX_BYTES:
                raise _DamageError(f"states a length of {length:,} bytes, but the limit is {_MAX_BYTES:,}")
            expected += length + 4
            data, checksum = file.read(length), file.read(4)
    except EOFError:
        text = f"is cut short: the file ends inside its {container} stream, at byte {stored.tell():,}"
        raise _DamageError(text, size=0) from None
    except (zlib.error, gzip.BadGzipFile) as error:  # gzip decodes ahead: the fault may be of a later record
        at = f"at byte {stored.tell():,} of the compressed file or before"
        raise _DamageError(f"cannot be read: the {container} stream is broken {at} ({error})") from None
    found = len(header) + len(data) + len(checksum)
    if found < expected:
        raise _DamageError(f"is cut short (expected {expected:,} bytes, found {found:,})", size=0)
    stored_checksum = int.from_bytes(checksum, "little")
    if _masked_crc(data) != stored_checksum:
        text = f"has damaged data of {length:,} bytes ({_checksums(stored_checksum, data)})"
        raise _DamageError(text, size=expected)
    return data


def _checksums(expected: int, data: bytes) -> str:
    return f"the checksum should be {expected:#010x}, is {_masked_crc(data):#010x}"


def _masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _container(file: BinaryIO, name: str) -> str:
    """`gzip`, `zlib`, or nothing for a plain file."""
    start = file.read(_HEADER.size)
    file.seek(0)
    if not start:
        raise DataError(f"{name} is empty (0 bytes). Download the file again.")
    # A plain file may start with gzip's two bytes (a length of 35,615); then its checksum is right as well.
    if len(start) == _HEADER.size and _masked_crc(start[:8]) == int.from_bytes(start[8:], "little"):
        return ""
    if start.startswith(b"\x1f\x8b"):
        return "gzip"
    if start[0] & 15 == 8 and int.from_bytes(start[:2]) % 31 == 0:  # RFC 1950
        return "zlib"
    raise DataError(
        f"{name} is no TFRecord file, or record 0 at byte 0 has a damaged length: it should start with gzip's 1f 8b, "
        f"zlib's 78, or a length and its checksum, but starts with {start!r}. Download the file again."
    )
