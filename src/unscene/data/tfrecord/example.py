"""Parses `tf.train.Example`, the protobuf message that TFRecord files usually hold, from its wire format.

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }                 an entry is { string key = 1; Feature value = 2; }
    Feature   { oneof { BytesList = 1; FloatList = 2; Int64List = 3; } }    a list is { repeated ... value = 1; }

Unknown fields are ignored, as protobuf asks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError

Feature = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64] | list[bytes]

_VARINT, _LENGTH = 0, 2  # wire types
_FIXED_SIZE = {1: 8, 5: 4}

# An array written as 12,288 entries of one byte is 12,288 times 0x0a 0x01 value: NumPy reads that at once.
_ONE_BYTE_ENTRY = np.dtype([("tag and length", "<u2"), ("value", "u1")])


def parse_example(data: bytes, where: str = "a record") -> dict[str, Feature]:
    """Return each feature's list of a `tf.train.Example` by name; `where` names its record in messages.

    Numbers are float32 or int64 arrays [N]. Bytes are a uint8 array [N] when every entry is one byte long (as
    TensorFlow's users often write arrays), else the list of entries. DataError: the message is not well formed.
    """
    features: dict[str, Feature] = {}
    inside = ""
    try:
        for example in _values(memoryview(data), 1):
            for entry in _values(example, 1):
                name = str(_merged(list(_values(entry, 1))), "utf-8")
                inside = f" in feature '{name}'"
                features[name] = _feature(_merged(list(_values(entry, 2))))
                inside = ""
    except ValueError as error:
        raise DataError(
            f"{where} holds no well-formed tf.train.Example: {error}{inside}. Its checksum is right, so it was written "
            "so: check which file this is, or pass --skip-damaged to leave such records out."
        ) from None
    return features


def _feature(message: memoryview) -> Feature:
    """The one list of a `Feature`; of several kinds the last counts, and pieces of it are joined."""
    lists = [(number, value) for number, value in _fields(message) if number <= 3]
    if not lists:
        return []
    kind = lists[-1][0]
    content = _merged([value for number, value in lists if number == kind])
    if kind == 1:
        if len(content) % _ONE_BYTE_ENTRY.itemsize == 0:
            entries = np.frombuffer(content, _ONE_BYTE_ENTRY)
            if (entries["tag and length"] == 0x010A).all():
                return entries["value"].copy()
        return [bytes(entry) for entry in _values(content, 1)]
    numbers = _merged(list(_values(content, 1)))  # packed, or a field each
    if kind == 2:
        if len(numbers) % 4:
            raise ValueError(f"a list of floats has {len(numbers)} bytes, no multiple of 4")
        return np.frombuffer(numbers, "<f4").astype(np.float32)
    integers, at = [], 0
    while at < len(numbers):
        value, at = _varint(numbers, at)
        integers.append(value)
    return np.array(integers, np.uint64).view(np.int64)  # a negative one is stored as its two's complement


def _merged(pieces: list[memoryview]) -> memoryview:
    """A message in pieces (nearly always one): appending their bytes merges them."""
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _values(message: memoryview, number: int) -> Iterator[memoryview]:
    return (value for field, value in _fields(message) if field == number)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and bytes of each field of a message."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == _LENGTH:
            size, at = _varint(message, at)
        elif wire == _VARINT:
            size = _varint(message, at)[1] - at
        elif wire in _FIXED_SIZE:
            size = _FIXED_SIZE[wire]
        else:
            raise ValueError(f"wire type {wire} at byte {at - 1:,} of a message of {end:,}")
        if number == 0 or at + size > end:
            raise ValueError(f"field {number} reaches to byte {at + size:,} of a message of {end:,}")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number, low digits first, and where it ends."""
    value = 0
    for position, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return value & (2**64 - 1), at + position + 1
    raise ValueError(f"a number without an end at byte {at:,} of a message of {len(message):,}")
