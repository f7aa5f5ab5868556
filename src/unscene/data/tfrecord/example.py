"""Parses `tf.train.Example`, the protobuf message that TFRecord files usually hold, from its wire format.

    Example   { Features features = 1; }
    Features  { map<string, Feature> feature = 1; }                 an entry is { string key = 1; Feature value = 2; }
    Feature   { oneof { BytesList = 1; FloatList = 2; Int64List = 3; } }    each is { repeated ... value = 1; }

Fields of other numbers or wire types are unknown to us and passed over, as protobuf asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from unscene.errors import DataError

Feature = NDArray[np.uint8] | NDArray[np.float32] | NDArray[np.int64] | list[bytes]

# An array written as 12,288 entries of one byte is 12,288 times 0x0a 0x01 value: NumPy reads that at once.
_ONE_BYTE_ENTRY = np.dtype([("tag and length", "<u2"), ("value", "u1")])


class _MalformedError(Exception):
    """A protobuf message is not well formed."""


def parse_example(data: bytes, where: str = "a record") -> dict[str, Feature]:
    """Parse a `tf.train.Example` from its wire format.

    Args:
        data: the payload of a record.
        where: how messages name the record (`Record.where`).

    Returns:
        Each feature's list by name: float32 or int64 arrays [N]; for bytes a uint8 array [N] when every entry is one
        byte long (as TensorFlow's users often write arrays), else the list of entries; an empty list without a kind.

    Raises:
        DataError: the message is not well formed.
    """
    features: dict[str, Feature] = {}
    name = ""
    try:
        for entry in _messages(_messages([memoryview(data)], 1), 1):
            lists = []
            for number, wire, value in _fields(entry):
                if (number, wire) == (1, 2):
                    name = bytes(value).decode("utf-8")
                elif (number, wire) == (2, 2):
                    lists.append(value)
            features[name] = _feature(_merged(lists))
            name = ""
    except (_MalformedError, UnicodeDecodeError) as error:
        inside = f" in feature '{name}'" if name else ""
        raise DataError(
            f"{where} holds no well-formed tf.train.Example: {error}{inside}. Its checksum is right, so it was written "
            "so: check which file this is, or pass --skip-damaged to leave such records out."
        ) from None
    return features


def _fields(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Number, wire type and bytes of each field of a message."""
    at, end = 0, len(message)
    while at < end:
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            stop = _varint(message, at)[1]
        elif wire in (1, 5):
            stop = at + (8 if wire == 1 else 4)
        elif wire == 2:
            size, at = _varint(message, at)
            stop = at + size
        else:
            raise _MalformedError(f"wire type {wire} at byte {at - 1:,} of a message of {end:,}")
        if number == 0 or stop > end:
            raise _MalformedError(f"field {number} reaches to byte {stop:,} of a message of {end:,}")
        yield number, wire, message[at:stop]
        at = stop


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A base-128 number, low digits first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), at
    raise _MalformedError(f"a number without an end at byte {at:,} of a message of {len(message):,}")


def _messages(parents: Iterable[memoryview], wanted: int) -> Iterator[memoryview]:
    """The length-delimited fields of one number."""
    for parent in parents:
        for number, wire, value in _fields(parent):
            if number == wanted and wire == 2:
                yield value


def _merged(pieces: list[memoryview]) -> memoryview:
    """A message that comes in any number of pieces (nearly always one); to append their bytes is to merge them."""
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _feature(message: memoryview) -> Feature:
    """The one list of a `Feature`; of several kinds the last counts."""
    lists = [(number, value) for number, wire, value in _fields(message) if wire == 2 and number in _KINDS]
    if not lists:
        return []
    kind = lists[-1][0]
    return _KINDS[kind](_merged([value for number, value in lists if number == kind]))


def _bytes_list(message: memoryview) -> NDArray[np.uint8] | list[bytes]:
    if len(message) % _ONE_BYTE_ENTRY.itemsize == 0:
        entries = np.frombuffer(message, _ONE_BYTE_ENTRY)
        if (entries["tag and length"] == 0x010A).all():
            return entries["value"].copy()
    return [bytes(entry) for entry in _messages([message], 1)]


def _float_list(message: memoryview) -> NDArray[np.float32]:
    """Packed (one block) and unpacked (a field each) floats."""
    blocks = [value for number, wire, value in _fields(message) if number == 1 and wire in (2, 5)]
    if any(len(block) % 4 for block in blocks):
        raise _MalformedError(f"a list of floats has {[len(block) for block in blocks]} bytes, no multiple of 4")
    return np.frombuffer(b"".join(blocks), "<f4").astype(np.float32)


def _int64_list(message: memoryview) -> NDArray[np.int64]:
    """Packed (one block) and unpacked (a field each) integers; a negative one is stored as its two's complement."""
    packed = memoryview(b"".join(value for number, wire, value in _fields(message) if number == 1 and wire in (0, 2)))
    values, at = [], 0
    while at < len(packed):
        value, at = _varint(packed, at)
        values.append(value)
    return np.array(values, np.uint64).view(np.int64)


_KINDS: dict[int, Callable[[memoryview], Feature]] = {1: _bytes_list, 2: _float_list, 3: _int64_list}
