"""A folder of results that is written whole or not at all, and over nothing that stands there unless that is asked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unscene.data.new_folders import without_empty_folders
from unscene.errors import RunError
from unscene.runs.run_folder import writing

_KINDS = {  # of results, each with an index.html, by the file that the others do not have
    "metrics.json": "an evaluation",
    "shifts.json": "an evaluation under shifts",
    "compare.json": "a comparison",
    "objects.json": "decomposed images",
}


def check_same_kind(out: Path, own: str) -> None:
    """Check that a folder has no results of another kind: their page would be replaced, their numbers left beside it.

    Args:
        out: the folder, which need not exist.
        own: the file that tells the kind, of `_KINDS`.

    Raises:
        RunError: `out` is a file, or holds results of another kind.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file. Name a folder for the results with --out.")
    for name, kind in _KINDS.items():
        if name != own and (out / name).exists():
            raise RunError(
                f"{out / name} is of {kind}, and {_KINDS[own]} would replace only its page, even with --overwrite. "
                "Name another folder with --out."
            )


def check_nothing_replaced(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """Check that no result would be overwritten.

    Args:
        out: the folder, which need not exist.
        names: of the results in it, the one that tells their kind first.
        overwrite: whether that was asked for.

    Raises:
        RunError: `out` is a file, or holds results of another kind or one of these.
    """
    check_same_kind(out, names[0])
    there = [] if overwrite else [name for name in names if (out / name).exists()]
    if there:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise RunError(
            f"{out / there[0]}{more} would be overwritten. Name another folder with --out, or replace the results "
            "with --overwrite."
        )


@contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """A folder inside `out`, so on the same disk, for results that are not complete; it goes when it is left.

    Where nothing was published, so do the folders that were made for it.

    Raises:
        RunError: `out` cannot be made or written.
    """
    with without_empty_folders(out):
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
            place = tempfile.TemporaryDirectory(prefix=".unscene-", dir=out)
        with place as folder:
            yield Path(folder)


def publish(unfinished: Path, out: Path, last: str) -> None:
    """Move all files to their places in `out`; the one named `last` comes last, so where it is, all is.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    files = sorted(
        (file.relative_to(unfinished) for file in unfinished.rglob("*") if file.is_file()),
        key=lambda file: (file.as_posix() == last, file.as_posix()),
    )
    with writing(out):
        for file in files:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (unfinished / file).replace(out / file)
