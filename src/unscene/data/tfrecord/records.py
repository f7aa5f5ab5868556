"""Reads TFRecord files without TensorFlow, in constant memory, and names the record and byte of any damage.

A TFRecord file is a row of records, plain or inside gzip, every number little endian:

    length uint64 | masked CRC-32C of the length uint32 | data | masked CRC-32C of the data uint32

and the data is usually a `tf.train.Example` (`parse_example`). Offsets are of the uncompressed stream, from 0.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from unscene.errors import DataError

_HEADER = struct.Struct("<QI")  # length and its checksum
_MAX_BYTES = 2**31  # of a record: protobuf's own limit for a message
_CHUNK = 2**14  # bytes of a gzip file read at a time
_GZIP = 31  # zlib's wbits: with gzip's header and checksum
_OTHER_FORMATS = {
    b"\x89HDF": "an HDF5 file",
    b"\x89PNG": "a PNG image",
    b"PK": "a zip archive",
    b"<": "a web page, perhaps an error message that was saved in the file's place",
}


@dataclass(frozen=True)
class Record:
    """One record whose checksums are right."""

    index: int  # 0 for the file's first record
    offset: int  # of its first byte in the uncompressed stream
    data: bytes
    where: str  # file name, index and offset in words, for messages
    file_bytes: int  # of the file, as it is stored, that have been read so far


def read_records(path: Path, on_damage: Callable[[DataError], None] | None = None) -> Iterator[Record]:
    """Yield the records of a plain or gzip TFRecord file one at a time, with verified checksums.

    A damaged or cut record raises; with `on_damage` that is called instead, and reading continues with the next record.
    Where the start of the next record is unknown (a wrong length, a broken gzip stream) the error is always raised, and
    states how many records can be kept.

    Raises:
        DataError: the file is missing, empty, no TFRecord file, or damaged.
    """
    with _open(path) as file:
        stream = _ByteStream(file, gzip=_is_gzip(file, path.name))
        index = kept = 0
        while True:
            offset, where = stream.offset, f"{path.name}: record {index:,} {stream.location}"
            try:
                data = _next_record(stream)
            except _DamageError as damage:
                hint = f", or pass --count {kept} to keep the {kept:,} sound records before it" if kept else ""
                hint = ", or pass --skip-damaged to leave such records out" if damage.skippable else hint
                error = DataError(f"{where} {damage}. Download the file again{hint}.")
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


class _DamageError(Exception):
    """A record cannot be read: `skippable` if reading can continue after it, `harmless` if no record is lost."""

    def __init__(self, text: str, skippable: bool = False, harmless: bool = False) -> None:
        super().__init__(text)
        self.skippable, self.harmless = skippable, harmless


class _ByteStream:
    """A file's bytes; of a gzip file, what its members unpack to. Every byte before a fault of the gzip stream is read.

    Attributes:
        offset: bytes read so far, uncompressed.
        fault: why the gzip stream gives no more bytes, None before that and at its sound end.
    """

    def __init__(self, file: BinaryIO, gzip: bool) -> None:
        self._file, self._gzip, self.offset = file, gzip, 0
        self.fault: _DamageError | None = None
        self._inflater, self._step = zlib.decompressobj(_GZIP), _CHUNK
        self._compressed = b""  # read from the file and not yet decoded

    @property
    def file_bytes(self) -> int:
        """Bytes of the file, as it is stored, used so far."""
        return self._file.tell() - len(self._compressed)

    @property
    def location(self) -> str:
        """The next byte's offset, in words."""
        compressed = f" (byte {self.file_bytes:,} of the compressed file)" if self._gzip else ""
        return f"at byte {self.offset:,}{compressed}"

    def read(self, count: int) -> bytes:
        """The next `count` bytes, fewer only at the end of the file or before a fault."""
        data = bytearray() if self._gzip else self._file.read(count)
        while self._gzip and len(data) < count and self.fault is None:
            self._compressed = self._compressed or self._file.read(_CHUNK)
            at_end = not self._compressed
            if not self._inflater.eof:
                part = self._inflate(count - len(data))
                data += part
                if at_end and not part:
                    text = f"the file ends inside its gzip stream, at byte {self.file_bytes:,}"
                    self.fault = _DamageError(text, skippable=True)
            elif at_end:
                break
            else:  # zeros, then perhaps another member
                self._compressed = self._compressed.lstrip(b"\0")
                self._inflater = zlib.decompressobj(_GZIP) if self._compressed else self._inflater
        self.offset += len(data)
        return bytes(data)

    def _inflate(self, most: int) -> bytes:
        """Decode up to `most` bytes. An error of zlib discards what it decoded: then it is decoded byte by byte."""
        before, rest = self._inflater.copy(), self._compressed[self._step :]
        try:
            part = self._inflater.decompress(self._compressed[: self._step], most)
        except zlib.error as error:
            if self._step == 1:
                self.fault = self._fault(str(error).removeprefix("Error -3 while decompressing data: "), rest)
            self._inflater, self._step = before, 1
            return b""
        self._compressed = (self._inflater.unconsumed_tail or self._inflater.unused_data) + rest
        return part

    def _fault(self, reason: str, rest: bytes) -> _DamageError:
        at = f"at byte {self.file_bytes:,} of the compressed file"
        ends = len(rest) <= 4 and not self._file.read(1)  # the length, last of a gzip file, may be unread
        if ends and reason in ("incorrect data check", "incorrect length check"):
            return _DamageError(f"the gzip stream ends with a wrong checksum ({reason})", skippable=True, harmless=True)
        return _DamageError(f"the gzip stream is broken {at} ({reason})")


def _next_record(stream: _ByteStream) -> bytes | None:
    """The data of the next record, or None at the end of the file."""
    doubt = "" if stream.offset else "; is it a TFRecord file at all?"
    header = stream.read(_HEADER.size)
    if not header and stream.fault is None:
        return None
    if len(header) < _HEADER.size:
        raise _incomplete(stream.fault, _HEADER.size, len(header))
    length, expected = _HEADER.unpack(header)
    found = _masked_crc(header[:8])
    if found != expected:
        raise _DamageError(f"has a damaged length (its checksum should be {expected:#010x}, is {found:#010x}{doubt})")
    if length > _MAX_BYTES:
        raise _DamageError(f"states a length of {length:,} bytes (a tf.train.Example has at most {_MAX_BYTES:,})")
    data, checksum = stream.read(length), stream.read(4)
    if len(checksum) < 4:
        raise _incomplete(stream.fault, _HEADER.size + length + 4, _HEADER.size + len(data) + len(checksum))
    expected, found = int.from_bytes(checksum, "little"), _masked_crc(data)
    if found != expected:
        text = f"has damaged data (the checksum of its {length:,} bytes should be {expected:#010x}, is {found:#010x})"
        raise _DamageError(text, skippable=True)
    return data


def _incomplete(fault: _DamageError | None, expected: int, found: int) -> _DamageError:
    sizes = f"expected {expected:,} bytes, found {found:,}"
    if fault is None:
        return _DamageError(f"is cut short ({sizes})", skippable=True)
    if found == 0 and fault.skippable:
        return _DamageError(f"does not follow: {fault}", skippable=True, harmless=fault.harmless)
    return _DamageError(f"is cut short ({sizes}): {fault}", fault.skippable)


def _masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated right by 15 bits, plus a constant."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"There is no file {path}. Check its name.") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder. Name the .tfrecords file in it.") from None
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
