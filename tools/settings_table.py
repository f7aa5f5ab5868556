"""The table of a settings class in Markdown, from its source: setting, default, meaning.

The meaning of a setting is its entry in the docstring's section `Attributes`, or the comment above it or behind it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARKER = re.compile(r"<!-- settings: ([\w.]+) -->")


def settings_table(name: str) -> str:
    """The table of a class, for instance `unscene.models.monet.model.MONetSettings`.

    Raises:
        ValueError: there is no such class.
    """
    module, _, class_name = name.rpartition(".")
    source = (ROOT / "src" / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name]
    if not found:
        raise ValueError(f"{module} has no class {class_name}.")
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    described = dict(described_attributes(ast.get_docstring(found[0]) or ""))
    rows = []
    for field in found[0].body:
        if not isinstance(field, ast.AnnAssign) or "ClassVar" in ast.unparse(field.annotation):
            continue
        if isinstance(field.target, ast.Name):
            meaning = described.get(field.target.id) or comment_of(source, field)
            rows.append(f"| `{field.target.id}` | {default(field.value, constants)} | {meaning} |")
    return "\n".join(["| Setting | Default | Meaning |", "|---|---|---|", *rows])


def described_attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and description of each setting in a docstring's section `Attributes`."""
    section = docstring.partition("Attributes:\n")[2].partition("\n\n")[0]
    for entry in re.split(r"\n(?= {4}\w)", f"\n{section}")[1:]:
        names, _, text = entry.strip().partition(": ")
        for name in names.split(","):
            yield name.strip(), " ".join(text.split()).replace("|", "\\|")


def comment_of(source: str, field: ast.AnnAssign) -> str:
    """The comment on the lines above a setting, or at the end of its line."""
    lines = source.splitlines()
    behind = lines[(field.end_lineno or field.lineno) - 1][field.end_col_offset or 0 :].partition("#")[2]
    above: list[str] = []
    for line in reversed(lines[: field.lineno - 1]):
        if not line.strip().startswith("#"):
            break
        above.insert(0, line.partition("#")[2])
    return " ".join(" ".join([*above, behind]).split()).replace("|", "\\|")


def default(value: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    """A default as a recipe writes it."""
    if value is None:
        return "required"
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        value = value.keywords[0].value
        value = value.body if isinstance(value, ast.Lambda) else value
        if isinstance(value, ast.Name):
            return "its own" if value.id[0].isupper() else "none"
    if isinstance(value, ast.Name):
        value = constants.get(value.id, value)
    if isinstance(value, ast.Call):
        arguments = [ast.unparse(argument) for argument in value.args]
        if ast.unparse(value.func) == "Annealed":
            start, end, first, last = arguments
            return f"`{first}`" if first == last else f"`{first}` to `{last}` from step {start} to {end}"
        return "its own"
    try:
        return f"`{plain(ast.literal_eval(value))}`"
    except ValueError:
        return f"`{ast.unparse(value)}`"


def plain(value: object) -> str:
    """A Python value as YAML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(plain, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value) or '""'
