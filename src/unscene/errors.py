"""What can go wrong, as exceptions below `UnsceneError`, and the check of a tensor's shape.

Every message says what was wrong, what was expected and what to do. The command line prints the message alone.
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Collection, Iterable
from importlib import import_module
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


class ExtraError(UnsceneError, ImportError):
    """A package of an extra is not installed."""


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


def import_extra(package: str, extra: str) -> Any:
    """Import a package that an extra of unscene installs. ExtraError: it is not installed; the message says how."""
    try:
        return import_module(package)
    except ImportError as missing:
        if missing.name != package:  # it is there, and lacks something itself
            raise
        raise ExtraError(f"{package} is not installed, which this needs: pip install 'unscene[{extra}]'.") from None


_REASONS = (  # of the system to refuse a file that is no damage: numbers, what was wrong, what to do
    ((errno.ENOENT, errno.ENOTDIR), "does not exist", "Check its name."),
    ((errno.EISDIR,), "is a folder", "Name a file in it."),
    ((errno.EACCES, errno.EPERM), "may not be read", "Change its permissions, or ask its owner."),
    ((errno.EMFILE, errno.ENFILE), "cannot be opened, too many files are open", "Close some, or raise `ulimit -n`."),
    ((errno.EAGAIN, errno.EBUSY, errno.EDEADLK, errno.ETXTBSY), "is locked by another program", "Close that."),
    ((errno.ELOOP,), "is a link that leads to itself", "Link it to the file."),
    ((errno.ENAMETOOLONG,), "has a longer name than the system allows", "Rename it."),
    ((errno.ENXIO, errno.ENODEV), "is not a regular file", "Name a file that holds the data."),
    ((errno.EIO, errno.ESTALE, errno.ETIMEDOUT), "cannot be read from its disk", "Check the disk or the connection."),
)


def refusal(error: OSError) -> str | None:
    """Why the system refused a file, and what to do, to follow its name in a message; None if it may be damage."""
    for numbers, what, hint in _REASONS:
        if error.errno in numbers:
            return f"{what}. {hint}"
    return None


def check_options(given: Iterable[str], known: Collection[str], owner: str) -> None:
    """Raise a RecipeError for the first of the `given` options that `owner` does not know."""
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise RecipeError(f"{owner} has no option '{name}'.{hint} Its options are {', '.join(known)}.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean '...'?` with the nearest known word, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
