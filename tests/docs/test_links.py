"""Documents: links have their targets, pages are in the navigation, commands and recipes exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import unscene
from unscene.cli.commands import COMMANDS
from unscene.recipes import recipe_names

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "benchmarks" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
GENERATED = re.compile(r"notebooks/(\w+)\.md$")  # a page of a notebook, by tools/site_hooks.py


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def links(path: Path) -> Iterator[str]:
    for match in LINK.finditer(prose(path)):
        yield match[1] or match[2]


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs name them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def nav_pages(entries: list) -> Iterator[str]:
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from nav_pages(value) if isinstance(value, list) else [value]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_internal_links_have_their_targets(page):
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert not broken


def test_links_of_the_site_stay_in_it():
    outside = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in sorted((ROOT / "docs").rglob("*.md"))
        for link in links(page)
        if "://" not in link and not (page.parent / link.partition("#")[0]).resolve().is_relative_to(ROOT / "docs")
    ]
    assert not outside, "a page of the site can only link to files below docs/; name other files as code"


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = set(nav_pages(yaml.safe_load(text)["nav"]))
    expected = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}
    assert pages == expected | notebooks


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_and_recipes_exist(page):
    text = page.read_text(encoding="utf-8")
    words = re.findall(r"(?:^|`|run |-m )unscene ([a-z]+)(?= |`|$)", text, re.MULTILINE)
    assert set(words) <= set(COMMANDS)
    models = {name.partition("/")[0] for name in recipe_names()}
    named = re.findall(r"`(\w+/\w+)`", text)
    assert {name for name in named if name.partition("/")[0] in models} <= set(recipe_names())


def test_citation_and_changelog_name_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == unscene.__version__
    assert f"## {unscene.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert all({"title", "authors", "year"} <= set(paper) for paper in citation["references"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_a_page_names_exist(page):
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    paths = [span for span in spans if re.fullmatch(r"(src|tests|docs|tools|benchmarks|requirements)/[\w./-]+", span)]
    assert [path for path in paths if not re.search("[A-Z]{4}", path) and not (ROOT / path).exists()] == []
    modules = {path.name for folder in ("src", "tests", "tools", "docs") for path in (ROOT / folder).rglob("*.py")}
    assert [span for span in spans if re.fullmatch(r"\w+\.py", span) and span not in modules] == []


def test_verdicts_of_the_documents_are_those_of_the_code():
    code = (ROOT / "src" / "unscene" / "metrics" / "health.py").read_text(encoding="utf-8")
    starts = {text.partition(":")[0] for text in re.findall(r'finding = "([^"{]+)"', code)}
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert [start for start in starts if start not in text] == []
