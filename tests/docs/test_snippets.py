"""Every command and Python snippet of README.md, the guide, the data pages and the reference runs, with small settings.

A page runs from top to bottom. A block after a comment `<!-- not run by the tests: REASON -->` is left out, and so is a
command that names a FILE or FOLDER that the reader must have. A block of `text` right after a block that runs holds
lines that it must print.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.docs.conftest import SMALL_TRAINING, small_settings
from unscene.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SLOW = [page for part in ("guide", "data", "reference") for page in sorted((ROOT / "docs" / part).glob("*.md"))]
PAGES = ["README.md", *(pytest.param(str(page.relative_to(ROOT)), marks=pytest.mark.slow) for page in SLOW)]
PART = re.compile(r"^(?P<skip><!-- not run by the tests: .*? -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`(unscene \w+ [^`]+)`")  # `unscene train` alone names the command
PLACEHOLDER = re.compile(r"\b[A-Z]{3,}\b|\.\.\.")  # FILE, NAME, `unscene ...`


@dataclass(frozen=True)
class Snippet:
    kind: str
    text: str
    line: int


def snippets(page: str) -> Iterator[Snippet]:
    """The snippets of a page in their order."""
    found = [(match.start(), match["kind"], match["body"]) for match in PART.finditer(page) if not match["skip"]]
    outside = PART.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), page)
    found += [(match.start(), "bash", match[1]) for match in INLINE.finditer(outside)]
    for start, kind, text in sorted(found):
        yield Snippet(kind, text, page.count("\n", 0, start) + 1)


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a block, without comments; a line that ends in a backslash continues."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and not PLACEHOLDER.search(line.partition("#")[0]):
            yield words


def small(words: list[str], folder: Path) -> list[str]:
    """A command with small settings behind its own; of two values of a setting the last one counts."""
    name = words[0]
    added: dict[str, Any] = {}
    if name == "train":
        added = SMALL_TRAINING | {"trainer.max_steps": 4} if "--resume" in words else small_settings(words[1])
    elif name in ("evaluate", "compare") and "--data" not in words:
        added = {"data.count": 2}
    elif name == "probe":
        added = {"data.count": 40}
    elif name in ("generate", "convert"):
        return [*words, "--count", "2"]
    elif name == "demo":
        return [*words, "--minutes", "0.02"]
    elif name == "reproduce":
        words = [name, str(small_table(words[1], folder)), *words[2:], "--minutes", "0.05", "--seeds", "0"]
    return [*words, *(f"--{key}={value}".replace(" ", "") for key, value in added.items())]


def small_table(name: str, folder: Path) -> Path:
    """A paper's table whose rows train two steps and are scored on two scenes."""
    from unscene.evaluation.paper_tables import find_table

    rows = {}
    for row, described in find_table(name).rows.items():
        changes = small_settings(described.recipe) | {"test.count": 2}
        rows[row] = {"title": described.title, "data": described.data, "recipe": described.recipe, "changes": changes}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({name: {"title": name, "metrics": ["ari_fg"], "rows": rows}}))
    return file


def run(snippet: Snippet, names: dict[str, Any], folder: Path) -> None:
    if snippet.kind == "python":
        exec(compile(snippet.text, f"line {snippet.line}", "exec"), names)
        return
    for words in commands(snippet.text):
        assert words[0] == "unscene", f"line {snippet.line}: mark what is no command of unscene as not run"
        words, file = (words[:-2], words[-1]) if ">" in words else (words, "")
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert main(small(words[1:], folder)) == 0, f"line {snippet.line}: {shlex.join(words)}"
        if file:
            Path(file).write_text(output.getvalue())
        else:
            print(output.getvalue(), end="")


def without_counts(text: str) -> str:
    """Rounding in bfloat16 may add an object or remove one, so the number of objects is not compared."""
    return re.sub(r"\d+ objects", "N objects", text)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page, reader, monkeypatch):
    module = ModuleType("snippets_of_a_page")  # a registry may name a class of it
    monkeypatch.setitem(sys.modules, module.__name__, module)
    printed = ""
    for snippet in snippets((ROOT / page).read_text(encoding="utf-8")):
        if snippet.kind in ("bash", "python"):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                run(snippet, vars(module), reader)
            printed = without_counts(output.getvalue())
        elif snippet.kind == "text" and printed:
            missing = [line for line in without_counts(snippet.text).splitlines() if line.strip() not in printed]
            assert not missing, f"line {snippet.line}: not printed: {missing}; but {printed}"
            printed = ""


def test_what_a_reader_must_have_is_not_run():
    page = (
        "`unscene recipes --all` `unscene train` `unscene evaluate ...`\n"
        "<!-- not run by the tests: it downloads -->\n```bash\nrm x\n```\n"
        "```bash\nunscene train a \\\n  --out b  # first\nunscene convert clevr FILE.h5\n```\n```text\nseen\n```\n"
    )
    found = list(snippets(page))
    assert [(snippet.kind, snippet.line) for snippet in found] == [("bash", 1), ("bash", 1), ("bash", 6), ("text", 11)]
    assert [words for snippet in found[:3] for words in commands(snippet.text)] == [
        ["unscene", "recipes", "--all"],
        ["unscene", "train", "a", "--out", "b"],
    ]
