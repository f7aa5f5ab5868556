"""Metadata of images that are wrong, and that the pixels do not need."""

from __future__ import annotations

import random
import struct
import zlib

_EXIF = b"Exif\0\0II*\0\x08\0\0\0"


def payloads(rng: random.Random) -> list[bytes]:
    """Contents of metadata: none, short, noise, half right, very long."""
    return [
        b"",
        b"\0",
        rng.randbytes(3),
        rng.randbytes(60),
        _EXIF + rng.randbytes(40),
        _EXIF + struct.pack("<H", 9) + _entry(0x010F, 5, 1, 10_000) + _entry(0x011A, 2, 2**31, 8) + rng.randbytes(20),
        _EXIF + struct.pack("<H", 1) + _entry(0x8769, 4, 1, 8) + struct.pack("<I", 8),  # a loop
        b"ICC_PROFILE\0\x01\x01" + rng.randbytes(9),
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta" + rng.randbytes(30),
        b"Title\0" + "café ".encode("latin-1") * 9_000,
        b"name\0\0" + zlib.compress(bytes(2_000_000)),
    ]


def odd_exif(orientation: int, rng: random.Random) -> bytes:
    """EXIF with a right orientation among entries of wrong types, counts and offsets."""
    entries = [_entry(0x0112, 3, 1, orientation)]
    for count in rng.choices([0, 1, 2, 9, 2**31], k=rng.randrange(4)):
        name = rng.choice([0x010F, 0x011A, 0x8769, 0x8825, 0x9286, 0xA005])
        entries.append(_entry(name, rng.randrange(14), count, rng.randrange(2**31)))
    return _EXIF + struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(64)


def _entry(name: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack("<HHII", name, kind, count, value)


def with_png_chunk(data: bytes, name: str, content: bytes, sound: bool, last: bool) -> bytes:
    """A PNG with one more chunk, after its header or before its end."""
    check = zlib.crc32(name.encode() + content) ^ (not sound)
    chunk = struct.pack(">I", len(content)) + name.encode() + content + struct.pack(">I", check)
    at = len(data) - 12 if last else 33
    return data[:at] + chunk + data[at:]


def with_jpeg_segment(data: bytes, marker: int, content: bytes) -> bytes:
    """A JPEG with one more segment after its start."""
    content = content[:65_533]
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def without_exif(data: bytes) -> bytes:
    """A JPEG without its EXIF."""
    at = data.index(b"\xff\xe1")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
