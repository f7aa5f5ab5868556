"""Which package may import which, and what `import unscene` and a help page must not import."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import unscene

PACKAGE = Path(unscene.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# The rooms from bottom to top, each with the rooms that it may import from besides itself. A paper's model is a room.
FIRST = {"errors", "scene", "files", "plain_yaml", "settings", "ops", "distributed"}
PARTS = FIRST | {"models.common"}
PAPERS = {f"models.{name}" for name in ("rmonet", "monet", "iodine", "space", "redo", "explicit_localization")}
RUNS = PARTS | {"models", "data", "metrics", "runs", "recipes"}
MAY_IMPORT = {
    "errors": set(),
    "views": set(),
    "scene": {"errors", "views"},
    "files": {"errors"},
    "plain_yaml": {"errors"},
    "settings": {"errors", "plain_yaml"},
    "ops": {"errors", "scene"},
    "distributed": {"errors", "ops"},
    "models.common": FIRST,
    **dict.fromkeys(PAPERS, PARTS),
    "models.monet": PARTS | {"models.rmonet"},  # the R-MONet paper's MONet with R-MONet's backbone and heads
    "models": FIRST | PAPERS,  # the registry, which imports a model when it is asked for
    "data": FIRST,
    "metrics": FIRST,
    "runs": RUNS,
    "recipes": RUNS,
    "report": RUNS | {"report"},
    "training": RUNS | {"report", "training"},
    "inference": RUNS | {"report", "inference"},
    "evaluation": RUNS | {"report", "training", "inference", "evaluation"},
    "api": RUNS | {"report", "training", "inference", "evaluation"},
    "cli": RUNS | {"report", "training", "inference", "evaluation", "api", "unscene"},
    "__main__": {"cli"},
    "unscene": RUNS | {"api", "report", "inference", "views"},  # the package's own __init__: what users import from it
}


def room(parts: Sequence[str]) -> str:
    """`training.train` is in `training`, `models.monet.model` in `models.monet`, the package itself in `unscene`."""
    if not parts or parts[0] == "__init__":
        return "unscene"
    nested = parts[0] == "models" and len(parts) > 1 and f"models.{parts[1]}" in MAY_IMPORT
    return f"models.{parts[1]}" if nested else parts[0]


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    """The rooms that a module imports anywhere, in functions and `if TYPE_CHECKING` too, or names as "module:name"."""
    package = ["unscene", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "unscene" else [module]
        elif isinstance(node, ast.Constant) and re.fullmatch(r"unscene(\.\w+)+(:\w+)?", str(node.value)):
            names = [str(node.value).partition(":")[0]]
        for name in names:
            top, *parts = name.split(".")
            if top == "unscene":
                inside = parts and ((PACKAGE / parts[0]).is_dir() or (PACKAGE / f"{parts[0]}.py").is_file())
                yield node.lineno, room(parts) if inside else "unscene"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_its_left_only(path):
    here = room(path.relative_to(PACKAGE).with_suffix("").parts)
    assert here in MAY_IMPORT, f"{here} is a new room: say in MAY_IMPORT (and CONTRIBUTING.md) what it may import"
    allowed = MAY_IMPORT[here] | {here}
    wrong = [f"line {line}: {name}" for line, name in imported_rooms(path) if name not in allowed]
    assert not wrong, f"{here} may import {sorted(allowed)} only"


def test_every_room_is_seen():
    rooms = {room(path.relative_to(PACKAGE).with_suffix("").parts) for path in MODULES}
    assert rooms == set(MAY_IMPORT)


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after some code in a fresh process."""
    script = f"import sys\n{code}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(ran.stderr.splitlines()[-1].split())


def running(arguments: list[str], status: int) -> str:
    """Code that runs a command."""
    called = f"from unscene.cli.main import main\ntry:\n    status = main({arguments!r})\nexcept SystemExit as end:\n"
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
    "pydantic",
    "pycocotools",
}
COMMANDS = (
    "recipes",
    "train",
    "evaluate",
    "compare",
    "reproduce",
    "decompose",
    "export",
    "push",
    "explore",
    "play",
    "generate",
    "convert",
    "data",
    "demo",
)


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
    assert not {"lightning", "matplotlib"} & loaded("\n".join(f"import unscene.{room}.{module}" for module in modules))
