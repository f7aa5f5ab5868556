"""What each number means, in one line, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml


@dataclass(frozen=True)
class Description:
    """How a number is shown.

    Attributes:
        label: its name in tables.
        explanation: one line.
        decimals: digits after the point.
        unit: behind the number.
        better: which way is better; empty for a mere count.
        headline: whether it stands at the top of the page.
        short: heading of its column in a table, two lines; the label, parted at its comma, if empty.
        signed: whether a number above 0 has a plus sign.
    """

    label: str
    explanation: str
    decimals: int = 3
    unit: str = ""
    better: Literal["higher", "lower", ""] = "higher"
    headline: bool = False
    short: tuple[str, str] = ("", "")
    signed: bool = False

    @property
    def heading(self) -> tuple[str, str]:
        """The two lines above its column in a table."""
        first, _, second = self.label.partition(", ")
        return self.short if any(self.short) else (first, second)


def _read(path: Path) -> dict[str, Description]:
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: Description(**{**fields, "short": tuple(fields.get("short", ("", "")))})
        for name, fields in values.items()
    }


DESCRIPTIONS = _read(Path(__file__).with_suffix(".yaml"))


def description_of(name: str) -> Description:
    """The description of a metric; one that is not described here goes by its own name."""
    return DESCRIPTIONS.get(name, Description(name.replace("_", " "), "", better=""))


def shown(name: str, value: float | int | None) -> str:
    """A value as it stands on the page; None is not applicable."""
    if value is None:
        return "not applicable"
    described = description_of(name)
    sign = "+" if described.signed else ""
    return f"{value:{sign},.{described.decimals}f}{' ' * bool(described.unit)}{described.unit}"
