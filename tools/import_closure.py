"""Count the files that a reader of one job must know: its static imports, with one model and one data source.

python tools/import_closure.py [--list]
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path

import unscene

JOBS = {  # what each starts from; an entry of a registry is followed only where it is named here
    "train MONet on Multi-dSprites": (
        "unscene.training.train",
        "unscene.models.monet.model",
        "unscene.data.multi_dsprites",
    ),
    "decompose images with R-MONet": ("unscene.inference.decompose", "unscene.models.rmonet.model"),
}
PACKAGE = Path(unscene.__file__).parent


def file_of(module: str) -> Path | None:
    """The file of a module or a package of unscene; None for any other name."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((path for path in candidates if path.is_file()), None) if module.split(".")[0] == "unscene" else None


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports anywhere, within functions too, but for `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def closure(*modules: str) -> set[str]:
    """The files that some modules need, as paths within the package. Registries are followed by naming their entry."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = file_of(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += imported(path)
    return {path.relative_to(PACKAGE).as_posix() for path in found}


def main() -> None:
    """Print the number of files of each job, and with --list the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the files as well")
    with_files = parser.parse_args().list
    for job, modules in JOBS.items():
        files = sorted(closure(*modules))
        print(f"{job}: {len(files)}", *(files if with_files else ()), sep="\n  ")


if __name__ == "__main__":
    main()
