"""What can go wrong, as one tree of exceptions, and the check of a tensor's shape.

    UnsceneError
    ├── ShapeError        an array has other axes than the function's docstring states
    ├── RecipeError       a recipe or a setting does not exist, or has an impossible value
    ├── DataError         a file, a folder or an image cannot be used
    ├── CheckpointError   a run or a weights file is missing, damaged or of another model
    ├── RunError          a run folder cannot be written, or would be overwritten
    └── TrainingError     training cannot continue (a loss that is not finite)

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
    """Check the axes of an array against a pattern and return the sizes by name.

    Args:
        array: anything with `.shape`.
        axes: one word an axis, as in `"B K 1 H W"`; a number is the axis's size, a letter names it, and the same letter
            twice is the same size.
        name: name of the array, for the message.

    Returns:
        The size of every lettered axis, for instance `{"B": 2, "K": 6, "H": 64, "W": 64}`.

    Raises:
        ShapeError: the number of axes or a size differs; the message shows expected and found.
    """
    expected = axes.split()
    found = tuple(int(size) for size in array.shape)
    sizes: dict[str, int] = {}
    fits = len(expected) == len(found)
    if fits:
        for word, size in zip(expected, found, strict=True):
            fits = fits and size == (int(word) if word.isdigit() else sizes.setdefault(word, size))
    if not fits:
        raise ShapeError(f"{name} must have the axes [{', '.join(expected)}], but its shape is {list(found)}.")
    return sizes


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean '...'?` with the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
