"""TFRecord files in DeepMind's layout, byte by byte."""

from __future__ import annotations

import struct
from collections.abc import Callable

import google_crc32c
import numpy as np
import pytest


def _field(number: int, body: bytes) -> bytes:
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


def _feature(values: np.ndarray, one_blob: bool) -> bytes:
    if values.dtype != np.uint8:
        return _field(2, _field(1, values.astype("<f4").tobytes()))
    if one_blob:
        return _field(1, _field(1, values.tobytes()))
    ones = np.empty((values.size, 3), np.uint8)  # field 1 of one byte, again and again
    ones[:] = 0x0A, 0x01, 0x00
    ones[:, 2] = values.ravel()
    return _field(1, ones.tobytes())


@pytest.fixture(scope="session")
def example() -> Callable[..., bytes]:
    """`example(features)`: a `tf.train.Example`; bytes as one-byte entries, as in the published files."""

    def make(features: dict[str, np.ndarray], one_blob: bool = False) -> bytes:
        entries = (
            _field(1, _field(1, name.encode()) + _field(2, _feature(values, one_blob)))
            for name, values in features.items()
        )
        return _field(1, b"".join(entries))

    return make


@pytest.fixture(scope="session")
def framed() -> Callable[[bytes], bytes]:
    """`framed(data)`: a record, with its length and both checksums."""

    def checksum(part: bytes) -> bytes:
        crc = google_crc32c.value(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)

    def make(data: bytes) -> bytes:
        length = struct.pack("<Q", len(data))
        return length + checksum(length) + data + checksum(data)

    return make
