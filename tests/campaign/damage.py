"""Ways to damage bytes, and what may stand where a file should be."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.campaign.judge import Change


def _at(data: bytes, rng: random.Random) -> int:
    """A position; in a large file often near its beginning or end, where its structure is described."""
    near = max(min(len(data), 2048), 1)
    return rng.choice([rng.randrange(max(len(data), 1)), rng.randrange(near), len(data) - 1 - rng.randrange(near)])


def _flipped(data: bytes, rng: random.Random, number: int) -> bytes:
    changed = bytearray(data)
    for _ in range(number):
        changed[_at(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _block(data: bytes, rng: random.Random, filler: bytes | None) -> bytes:
    at, size = _at(data, rng), rng.choice([1, 4, 64, 512])
    block = data[at : at + size] * 2 if filler is None else filler * len(data[at : at + size])
    return data[:at] + block + data[at + size :]


def _swapped(data: bytes, rng: random.Random) -> bytes:
    a, b = sorted((_at(data, rng), _at(data, rng)))
    size = min(64, b - a)
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


WAYS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "a bit": lambda data, rng: _flipped(data, rng, 1),
    "cut": lambda data, rng: data[: _at(data, rng)],
    "8 bits": lambda data, rng: _flipped(data, rng, 8),
    "zeros": lambda data, rng: _block(data, rng, b"\0"),
    "ones": lambda data, rng: _block(data, rng, b"\xff"),
    "gap": lambda data, rng: _block(data, rng, b""),
    "twice": lambda data, rng: _block(data, rng, None),
    "swap": _swapped,
    "append": lambda data, rng: data + rng.randbytes(99),
    "noise": lambda data, rng: rng.randbytes(len(data)),
    "all zeros": lambda data, rng: bytes(len(data)),
    "empty": lambda data, rng: b"",
    "text": lambda data, rng: b"<html><body>404 Not Found</body></html>\n",
    "half twice": lambda data, rng: data[: len(data) // 2] * 2,
}


def rewritten(name: str, change: Callable[[bytes], bytes]) -> Change:
    """A change of a file's bytes."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def damaged(name: str, way: str, seed: int) -> Change:
    """A change of a file by one of the `WAYS`."""
    return rewritten(name, lambda data: WAYS[way](data, random.Random(seed)))


def _replaced(make: Callable[[Path], object]) -> Callable[[str], Change]:
    def change(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return lambda name: lambda folder: change(folder / name)


def _linked(path: Path) -> None:
    path.rename(f"{path}.real")
    path.symlink_to(f"{path.name}.real")


INSTEAD: dict[str, Callable[[str], Change]] = {
    "nothing": _replaced(lambda path: None),
    "a folder": _replaced(Path.mkdir),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nothing")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a pipe": _replaced(os.mkfifo),
    "the null device": _replaced(lambda path: path.symlink_to("/dev/null")),
    "endless zeros": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link": lambda name: lambda folder: _linked(folder / name),
}
