"""settings_table: the tables of settings in the documents."""

from __future__ import annotations

import pytest

from tools import settings_table as tool

PAGES = sorted((tool.ROOT / "docs").rglob("*.md"))
NAMED = sorted({name for page in PAGES for name in tool.MARKER.findall(page.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("name", NAMED)
def test_every_class_that_a_page_names_has_a_table(name):
    rows = tool.settings_table(name).splitlines()
    assert len([row for row in rows if row.startswith("| `")]) > 1


def test_docstring_and_comments_by_hand(tmp_path, monkeypatch):
    (tmp_path / "src" / "there").mkdir(parents=True)
    (tmp_path / "src" / "there" / "parts.py").write_text(
        """SHAPES = ("square", "heart")


class First:
    \"\"\"Settings.

    Attributes:
        shapes: some of a,
            b | c.
        on, width: two at once.
    \"\"\"

    shapes: tuple = SHAPES
    on: bool = False
    width: int
    kind: ClassVar[int] = 1


class Second:
    \"\"\"Described by comments.\"\"\"

    first: int = 3  # of all
    # How it rises,
    # and when.
    rise: Annealed = field(default_factory=lambda: Annealed(0, 100, 0.1, 0.5))
    part: First = field(default_factory=First)
"""
    )
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    assert tool.settings_table("there.parts.First").splitlines()[2:] == [
        "| `shapes` | `[square, heart]` | some of a, b \\| c. |",
        "| `on` | `false` | two at once. |",
        "| `width` | required | two at once. |",
    ]
    assert tool.settings_table("there.parts.Second").splitlines() == [
        "| Setting | Default | Meaning |",
        "|---|---|---|",
        "| `first` | `3` | of all |",
        "| `rise` | `0.1` to `0.5` from step 0 to 100 | How it rises, and when. |",
        "| `part` | its own |  |",
    ]
    with pytest.raises(ValueError, match="no class Third"):
        tool.settings_table("there.parts.Third")
