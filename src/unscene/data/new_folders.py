"""The folders of a new file, which go again when it never comes to be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def without_empty_folders(folder: Path) -> Iterator[None]:
    """What is done within may make a folder, and those above it; at the end those of them that are empty are removed.

    Args:
        folder: one that was there before stays, and so do the folders above it.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        yield
    finally:
        for each in missing:
            with suppress(OSError):  # it was not made, or holds something
                each.rmdir()
