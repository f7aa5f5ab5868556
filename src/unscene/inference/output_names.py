"""Which images a command line names, and the names of their results: folders are mirrored, no two names clash."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from unscene.data.image_folder import ImageFolder, ImageFolderSettings
from unscene.errors import DataError

_RESULTS = (".overlay.png", ".masks.png")  # of `decompose_paths`: no images to decompose


class NamedImage(NamedTuple):
    """An image file, its name below the inputs' common folder, and the beginning of its results' names."""

    path: Path
    file_name: str
    stem: str


def named_images(paths: Sequence[Path]) -> tuple[Path, list[NamedImage]]:
    """Find the images of files and folders, folders with everything below them, every image once.

    Args:
        paths: image files and folders. In folders, names that begin with a dot and results of an earlier run
            (`*.overlay.png`, `*.masks.png`) are ignored.

    Returns:
        The folder that all have in common, and the images in their order. Results are named like the image, without
        its suffix, in the same folders below the common one: `a/1.jpg` and `b/1.jpg` give `a/1` and `b/1`. Where this
        would give two images one name (`1.jpg` and `1.png`), the suffix stays.

    Raises:
        DataError: a path does not exist, a folder holds no image, a name is not UTF-8, or nothing is given.
    """
    if not paths:
        raise DataError("no image was named. Give image files or folders.")
    files: dict[Path, None] = {}
    roots = []
    for path in map(_absolute, paths):
        roots.append(path if path.is_dir() else path.parent)
        files.update(dict.fromkeys(_images_of(path)))
    try:
        common = Path(os.path.commonpath(roots))
    except ValueError as error:  # Windows
        raise DataError("the images are on different drives. Decompose those of each drive by themselves.") from error
    names = [PurePosixPath(file.relative_to(common).as_posix()) for file in files]
    for name in names:
        _check_text(name)
    # some file systems treat A.png and a.png as one file
    taken = Counter(str(name.with_suffix("")).casefold() for name in names)
    stems = [str(name if taken[str(name.with_suffix("")).casefold()] > 1 else name.with_suffix("")) for name in names]
    return common, [NamedImage(*parts) for parts in zip(files, map(str, names), stems, strict=True)]


def _images_of(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"There is no image or folder {path}. Check its name.")
        return [path]
    found = ImageFolder(ImageFolderSettings(str(path))).paths
    images = [_absolute(file) for file in found if not file.name.endswith(_RESULTS)]
    if not images:
        raise DataError(f"{path} holds only results of unscene ({', '.join(_RESULTS)}). Name the folder of the images.")
    return images


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 (links stay: a link's own name is the image's)


def _check_text(name: PurePosixPath) -> None:
    try:
        str(name).encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"the name of {str(name)!r} is not UTF-8, and cannot stand in a file. Rename it.") from None
