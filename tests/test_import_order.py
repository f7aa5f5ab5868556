"""The rooms of the house: who may import whom, and what `import unscene` and a help page must not wait for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unscene

PACKAGE = Path(unscene.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# room -> the rooms that it may import from besides itself, as DESIGN.md draws them from left to right
FIRST = {"errors", "scene", "compilation", "cpu_threads"}
BLOCKS = FIRST | {"blocks", "regions", "localization"}
MODELS = BLOCKS | {"models"}
TRAINING = MODELS | {"training", "data", "metrics"}
REPORT = TRAINING | {"report"}
RECIPES = REPORT | {"recipes"}
DEMO = RECIPES | {"demo"}
MAY_IMPORT = {
    "errors": set(),
    "compilation": set(),
    "cpu_threads": set(),
    "scene": {"errors"},
    "data": FIRST,
    "metrics": FIRST,
    "blocks": FIRST,
    "regions": FIRST | {"blocks"},
    "localization": BLOCKS,
    "models": BLOCKS,
    "training": TRAINING,
    "report": TRAINING,
    "recipes": REPORT,
    "demo": RECIPES,
    "command_line": {"errors", "unscene"},
    "cli": DEMO | {"command_line", "unscene"},
    "__main__": {"cli"},
    "unscene": DEMO,  # the package's own __init__: what a user imports from it
}


def room(path: Path) -> str:
    """`unscene/training/train.py` is in `training`, `unscene/cli.py` in `cli`, `unscene/__init__.py` in `unscene`."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "unscene" if first == "__init__" else first


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """The rooms that a module imports anywhere, inside functions and `if TYPE_CHECKING` as well."""
    package = ["unscene", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{each.name}" for each in node.names] if module == "unscene" else [module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "unscene":
                inside = len(parts) > 1 and ((PACKAGE / parts[1]).is_dir() or (PACKAGE / f"{parts[1]}.py").is_file())
                yield node.lineno, parts[1] if inside else "unscene"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_its_left_only(path):
    here = room(path)
    assert here in MAY_IMPORT, f"{here} is a new room: say in MAY_IMPORT (and CONTRIBUTING.md) what it may import"
    allowed = MAY_IMPORT[here] | {here}
    wrong = [f"line {line}: {name}" for line, name in imported_rooms(path) if name not in allowed]
    assert not wrong, f"{here} may import {sorted(allowed)} only"


def test_every_room_is_seen():
    seen = {name for path in MODULES for _, name in imported_rooms(path)}
    assert {
        "errors",
        "scene",
        "data",
        "metrics",
        "blocks",
        "regions",
        "models",
        "training",
        "report",
        "recipes",
    } <= seen


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after some code in a fresh process."""
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ran.stderr.splitlines()[-1].split())


def running(arguments: list[str], status: int) -> str:
    """Code that runs a command."""
    called = f"from unscene.cli import main\ntry:\n    status = main({arguments!r})\nexcept SystemExit as end:\n"
    return f"{called}    status = end.code\nassert status == {status}"


HEAVY = {
    "torch",
    "torchvision",
    "lightning",
    "matplotlib",
    "numpy",
    "scipy",
    "sklearn",
    "h5py",
    "jsonargparse",
    "pycocotools",
}
COMMANDS = ("recipes", "train", "evaluate", "compare", "decompose", "generate", "convert", "demo")


def test_importing_the_package_waits_for_nothing():
    assert not HEAVY & loaded("import unscene")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["recipes"],
        ["recipes", "rmonet_unet/images"],
        *([name, "--help"] for name in COMMANDS),
    ],
)
def test_help_and_lists_wait_for_nothing(arguments):
    assert not HEAVY & loaded(running(arguments, 0))


def test_a_wrong_word_waits_for_nothing():
    assert not HEAVY & loaded(running(["trian"], 2))


@pytest.mark.parametrize("room", ["data", "metrics"])
def test_data_and_metrics_need_no_trainer(room):
    modules = [path.stem for path in sorted((PACKAGE / room).glob("*.py")) if path.stem != "__init__"]
    assert not {"lightning", "matplotlib", "jsonargparse"} & loaded(
        "\n".join(f"import unscene.{room}.{each}" for each in modules)
    )
