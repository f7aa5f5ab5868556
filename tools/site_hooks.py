"""Hooks of mkdocs.yml: equations as MathML, settings tables from the classes, notebooks as pages.

An equation, `$...$` or `$$...$$`, becomes MathML, which browsers draw without any script. The comment
`<!-- settings: unscene.models.monet.model.MONetSettings -->` becomes the table of that class's settings.
"""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).resolve().parent))
from settings_table import MARKER, settings_table

ROOT = Path(__file__).resolve().parents[1]
MATH = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook."""
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        page = notebook_page(json.loads(path.read_text(encoding="utf-8")), path.name)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=page))
    return files


def on_page_markdown(markdown: str, **more: Any) -> str:
    """Fill in the settings tables."""
    return MARKER.sub(lambda match: settings_table(match[1]), markdown)


def on_page_content(content: str, **more: Any) -> str:
    """Replace equations by MathML."""

    def mathml(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        equation = convert(html.unescape(match[3]).strip(), display=display)
        return f'<div class="equation">{equation}</div>' if display == "block" else equation

    return MATH.sub(mathml, content)


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
