"""What can go wrong, as exceptions below `UnsceneError`, and the check of a tensor's shape.

Every message says what was wrong, what was expected and what to do. The command line prints the message alone.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UnsceneError(Exception):
    """The root of all errors that unscene raises on purpose."""


class ShapeError(UnsceneError, ValueError):
    """An array has other axes than the function's docstring states."""


class RecipeError(UnsceneError, ValueError):
    """A recipe or a setting is unknown, or its value is impossible."""


class DataError(UnsceneError, ValueError):
    """A data file, folder or image is missing, damaged or of another kind."""


class CheckpointError(UnsceneError, ValueError):
    """A checkpoint or a weights file is missing, damaged or belongs to another model."""


class RunError(UnsceneError, OSError):
    """A run folder cannot be written, or something in it would be overwritten."""


class TrainingError(UnsceneError, RuntimeError):
    """Training cannot continue, for instance since a loss is not finite."""


def check_shape(array: Any, axes: str, name: str = "tensor") -> dict[str, int]:
    """Check the axes of an array against a pattern and return the sizes by name: `{"B": 2, "K": 6, "H": 64, "W": 64}`.

    Args:
        array: anything with `.shape`.
        axes: one word an axis, as in `"B K 1 H W"`: a number is the axis's size, equal letters are equal sizes.
        name: name of the array, for the message.

    Raises:
        ShapeError: the number of axes or a size differs; the message shows expected and found.
    """
    expected, found = axes.split(), tuple(map(int, array.shape))
    sizes: dict[str, int] = {}
    fits = len(expected) == len(found)
    for word, size in zip(expected, found, strict=False):
        fits = fits and size == (int(word) if word.isdigit() else sizes.setdefault(word, size))
    if not fits:
        raise ShapeError(f"{name} must have the axes [{', '.join(expected)}], but its shape is {list(found)}.")
    return sizes


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean '...'?` with the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
