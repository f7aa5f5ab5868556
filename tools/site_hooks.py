"""Hooks of mkdocs.yml: equations as MathML, settings tables from docstrings, notebooks as pages.

An equation, `$...$` or `$$...$$`, becomes MathML, which browsers draw without any script. The comment
`<!-- settings: unscene.models.monet.model.MONetSettings -->` becomes the table of that class's settings.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
SETTINGS = re.compile(r"<!-- settings: ([\w.]+) -->")


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, **more: Any) -> str:
    """Fill in the settings tables."""
    return SETTINGS.sub(lambda match: settings_table(match[1]), markdown)


def on_page_content(content: str, **more: Any) -> str:
    """Replace equations by MathML."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        equation = convert(html.unescape(match[3]).strip(), display=display)
        return f'<div class="equation">{equation}</div>' if display == "block" else equation

    return MATH.sub(mathml, content)


@cache
def package() -> griffe.Object:
    """The package, read without importing it."""
    return griffe.load("unscene", search_paths=[ROOT / "src"])


def settings_table(name: str) -> str:
    """Setting, default and description of a settings class, from its source and docstring."""
    settings = package()[name.removeprefix("unscene.")]
    lines = ["| Setting | Default | Meaning |", "|---|---|---|"]
    for names, text in described_attributes(settings.docstring.value):
        defaults = [default_of(settings.members[name]) for name in names]
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {', '.join(defaults)} | {text} |")
    return "\n".join(lines)


def described_attributes(docstring: str) -> Iterator[tuple[list[str], str]]:
    """Names and description of each entry of a docstring's section `Attributes`."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    for entry in re.split(r"\n(?= {4}\w)", f"\n{section}")[1:]:
        names, _, text = entry.strip().partition(": ")
        yield [name.strip() for name in names.split(",")], " ".join(text.split()).replace("|", "\\|")


def default_of(attribute: Any) -> str:
    """The default as a recipe writes it; `parts` for a class of further settings."""
    text = str(attribute.value) if attribute.value is not None else "required"
    inner = re.match(r"field\(default_factory=(?:lambda: )?(.*)\)$", text)
    text = inner[1] if inner else text
    if re.fullmatch(r"\w+Settings|LossWeights|dict|list", text):
        return "own settings" if text[0].isupper() else "none"
    return f"`{text}`"


def notebook_page(notebook: dict[str, Any], name: str) -> str:
    """A notebook's cells and outputs as Markdown."""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        parts += [output_part(output) for output in cell["outputs"]]
    note = f"*This page is the notebook `docs/notebooks/{name}`.*"
    return "\n\n".join([parts[0], note, *filter(None, parts[1:])]) + "\n"


def output_part(output: dict[str, Any]) -> str:
    """One output of a cell: a picture, or text."""
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```" if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="Output of the cell above" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    return f"```text\n{''.join(data.get('text/plain', [])).rstrip()}\n```"
