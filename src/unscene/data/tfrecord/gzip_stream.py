"""The bytes of a plain or gzip file, read forward, and their offsets."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Literal, NamedTuple

_CHUNK = 2**14  # bytes of a gzip file read at a time
_GZIP_WITH_HEADER = 31  # zlib's wbits


class StreamFault(NamedTuple):
    """Why a gzip stream gives no more bytes.

    Attributes:
        kind: "early": the file ends inside its stream; "checksum": everything was decoded, and the checksum at the
            file's end is wrong; "broken": decoding cannot go on.
        text: the same in words, with the byte of the file.
    """

    kind: Literal["early", "checksum", "broken"]
    text: str


class ByteStream:
    """A file's bytes; of a gzip file, what its members unpack to.

    Nothing is decoded beyond the bytes that are asked for, so that every byte before a fault is read.

    Attributes:
        offset: bytes read so far, uncompressed.
        fault: why there are no more bytes; None before that, and at the end of a sound or a plain file.
    """

    def __init__(self, file: BinaryIO, gzip: bool) -> None:
        self._file, self._gzip, self.offset = file, gzip, 0
        self.fault: StreamFault | None = None
        self._inflater = zlib.decompressobj(_GZIP_WITH_HEADER)
        self._waiting = b""  # read from the file and not yet decoded

    @property
    def file_bytes(self) -> int:
        """Bytes of the file, as it is stored, used so far."""
        return self._file.tell() - len(self._waiting)

    @property
    def location(self) -> str:
        """The next byte's offset, in words."""
        compressed = f" (byte {self.file_bytes:,} of the compressed file)" if self._gzip else ""
        return f"at byte {self.offset:,}{compressed}"

    def read(self, count: int) -> bytes:
        """Return the next bytes, fewer only where the stream ends or is broken; `fault` then says which."""
        data = self._unpacked(count) if self._gzip else self._file.read(count)
        self.offset += len(data)
        return data

    def _unpacked(self, count: int) -> bytes:
        parts, missing = [], count
        while missing and self.fault is None:
            self._waiting = self._waiting or self._file.read(_CHUNK)
            ended = not self._waiting
            if self._inflater.eof:  # another member may follow, zeros may stand before it
                if ended:
                    break
                self._waiting = self._waiting.lstrip(b"\0")
                if self._waiting:
                    self._inflater = zlib.decompressobj(_GZIP_WITH_HEADER)
                continue
            part = self._inflate(missing)
            parts.append(part)
            missing -= len(part)
            if ended and not part:
                size = self._file.tell()
                self.fault = StreamFault("early", f"the file ends inside its gzip stream, at byte {size:,}")
        return b"".join(parts)

    def _inflate(self, most: int) -> bytes:
        """Decode up to `most` bytes. zlib's exception discards what it decoded, so that is decoded again bytewise."""
        before = self._inflater.copy()
        try:
            part = self._inflater.decompress(self._waiting, most)
            self._waiting = self._inflater.unconsumed_tail or self._inflater.unused_data
            return part
        except zlib.error as error:
            reason = str(error).removeprefix("Error -3 while decompressing data: ")
        self._inflater, part = before, b""
        while len(part) < most and self.fault is None:
            byte, self._waiting = self._waiting[:1], self._waiting[1:]
            try:
                part += before.decompress(byte, most - len(part))
                self._waiting = before.unconsumed_tail + self._waiting
            except zlib.error:
                self.fault = self._fault(reason)
        return part

    def _fault(self, reason: str) -> StreamFault:
        at_end = len(self._waiting) <= 4 and not self._file.read(1)  # the length, last of a gzip file, may be unread
        if at_end and reason in ("incorrect data check", "incorrect length check"):
            return StreamFault("checksum", f"the gzip stream ends with a wrong checksum ({reason})")
        at = f"at byte {self.file_bytes:,} of the compressed file"
        return StreamFault("broken", f"the gzip stream is broken {at} ({reason})")
