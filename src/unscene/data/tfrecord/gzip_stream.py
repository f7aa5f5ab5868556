"""The bytes of a plain or gzip file, read forward, and where in the file they stand."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import BinaryIO, Literal

_CHUNK = 2**14  # bytes of a gzip file read at a time
_GZIP_WITH_HEADER = 31  # zlib's wbits


@dataclass(frozen=True)
class StreamFault:
    """Why a gzip stream gives no more bytes.

    Attributes:
        kind: "early": the file ends before its stream does; "checksum": everything was decoded, and then the
            checksum at the file's end was wrong; "broken": decoding cannot go on.
        text: the same in words, with the byte of the file.
    """

    kind: Literal["early", "checksum", "broken"]
    text: str


class PlainStream:
    """The bytes of a file that is not compressed.

    Attributes:
        offset: bytes read so far.
    """

    fault: StreamFault | None = None  # a plain file simply ends

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.offset = file, 0

    @property
    def file_bytes(self) -> int:
        """Bytes of the file used so far."""
        return self.offset

    @property
    def place(self) -> str:
        """Where this is, in words."""
        return f"at byte {self.offset:,}"

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer only at the end."""
        data = self._file.read(count)
        self.offset += len(data)
        return data


class GzipStream:
    """What a gzip file of one or more members unpacks to.

    Nothing is decoded beyond the bytes that are asked for, so that a fault is met where it stands.

    Attributes:
        offset: bytes read so far, uncompressed.
        fault: why there are no more bytes, or None as long as there are, and at the end of a sound file.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.offset = file, 0
        self.fault: StreamFault | None = None
        self._inflater = zlib.decompressobj(_GZIP_WITH_HEADER)
        self._waiting = b""  # read from the file and not yet decoded
        self._from_file = 0

    @property
    def file_bytes(self) -> int:
        """Bytes of the file, as it is stored, used so far."""
        return self._from_file - len(self._waiting)

    @property
    def place(self) -> str:
        """Where this is, in words."""
        return f"at byte {self.offset:,} (byte {self.file_bytes:,} of the compressed file)"

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer only where the stream ends or is broken; `fault` then says which."""
        parts, missing = [], count
        while missing and self.fault is None and not (self._inflater.eof and not self._next_member()):
            more_input = self._refill()
            part = self._inflate(missing)
            if not part and not more_input:
                self.fault = StreamFault("early", f"the file ends inside its gzip stream, at byte {self._from_file:,}")
            parts.append(part)
            missing -= len(part)
        self.offset += count - missing
        return b"".join(parts)

    def _refill(self) -> bool:
        if not self._waiting:
            self._waiting = self._file.read(_CHUNK)
            self._from_file += len(self._waiting)
        return bool(self._waiting)

    def _next_member(self) -> bool:
        """Begin the gzip member that follows, if there is one; zeros between and after members are allowed."""
        while self._refill():
            self._waiting = self._waiting.lstrip(b"\0")
            if self._waiting:
                self._inflater = zlib.decompressobj(_GZIP_WITH_HEADER)
                return True
        return False

    def _inflate(self, most: int) -> bytes:
        """Decode up to `most` bytes of what is waiting."""
        before = self._inflater.copy()
        try:
            part = self._inflater.decompress(self._waiting, most)
        except zlib.error as error:
            self._inflater = before
            return self._inflate_up_to_fault(most, str(error))
        self._waiting = self._inflater.unconsumed_tail or self._inflater.unused_data
        return part

    def _inflate_up_to_fault(self, most: int, reason: str) -> bytes:
        """Decode byte by byte what zlib had decoded when it met the fault: its exception throws that away."""
        part = b""
        while len(part) < most:
            byte, self._waiting = self._waiting[:1], self._waiting[1:]
            try:
                part += self._inflater.decompress(byte, most - len(part))
            except zlib.error:
                self.fault = self._fault(reason.removeprefix("Error -3 while decompressing data: "))
                break
            self._waiting = self._inflater.unconsumed_tail + self._waiting
        return part

    def _fault(self, reason: str) -> StreamFault:
        at_end = len(self._waiting) <= 4 and not self._file.read(1)  # the length, last of a gzip file, may be unread
        if at_end and reason in ("incorrect data check", "incorrect length check"):
            return StreamFault("checksum", f"the gzip stream ends with a wrong checksum ({reason})")
        text = f"the gzip stream is broken at byte {self.file_bytes:,} of the compressed file ({reason})"
        return StreamFault("broken", text)
