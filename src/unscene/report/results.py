"""The result of an evaluation: numbers, their provenance, and example scenes; and its parts of a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from unscene.report.page import Picture
from unscene.report.table import Row, Table, description_of, shown

if TYPE_CHECKING:
    from unscene.metrics.object_locations import LocatedObject

SCHEMA = 1  # of metrics.json; raised whenever a name in it changes its meaning

Rank = Literal["best", "median", "worst"]


@dataclass(frozen=True)
class ExampleScene:
    index: int  # of the scene in its source
    rank: Rank  # of its score among all scenes
    score: float | None  # what it is ranked by; None where nothing is known of it
    picture: Picture  # see `unscene.report.figures.scene_rows`


@dataclass(frozen=True)
class Curves:
    """The curves of a training, as PNG files for light and for dark pages."""

    light: bytes
    dark: bytes
    alt: str


@dataclass(frozen=True)
class ModelResult:
    name: str  # of the recipe
    metrics: dict[str, float | int | None]  # by name; None is not applicable. `ms_per_image` is among them
    health: dict[str, float]  # numbers that need no truth, by name; empty for label maps
    verdict: str  # what they show, in words
    provenance: dict[str, dict[str, Any]]  # sections `evaluation`, `data`, `weights` or `predictions`, ready for JSON
    recipe: dict[str, Any] = field(default_factory=dict)  # every setting
    ranked_by: str = "ari_fg"  # the metric by which the scenes are ranked
    scenes: tuple[ExampleScene, ...] = ()  # best, median and worst
    curves: Curves | None = None  # of the training, where its metrics.csv is known
    located: dict[str, LocatedObject] = field(default_factory=dict)  # by the object's name

    @property
    def reported(self) -> dict[str, float]:
        """The paper's numbers by our metrics' names, from the recipe."""
        about = self.recipe.get("about") or {}
        return dict(about.get("reported") or {})

    def as_json(self) -> dict[str, Any]:
        """The content of metrics.json: each metric under its own name, and all else but the pictures."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            **self.metrics,
            "reported": self.reported,
            "health": self.health,
            "verdict": self.verdict,
            "located_objects": {name: asdict(located) for name, located in self.located.items()},
            "ranked_by": self.ranked_by,
            "scenes": [{"index": scene.index, "rank": scene.rank, "score": scene.score} for scene in self.scenes],
            "provenance": self.provenance,
            "recipe": self.recipe,
        }


def page_values(results: Sequence[ModelResult]) -> dict[str, Any]:
    """What the templates show of results of different names, for `write_page`."""
    return {
        "results": results,
        "metrics": _table([(result, result.metrics) for result in results]),
        "health": _table([(result, result.health) for result in results]),
        "provenance": _provenance([result.provenance for result in results]),
        "recipes": [json.dumps(result.recipe, indent=2, ensure_ascii=False, default=str) for result in results],
        "shown": shown,
        "description_of": description_of,
        "scenes_in_words": scenes_in_words,
    }


def scenes_in_words(data: dict[str, Any]) -> str:
    source = data.get("source") or data.get("name") or "the data"
    return f"{data['scenes']:,} scenes of {source}" + (f", seed {data['seed']}" if "seed" in data else "")


def _table(numbers: Sequence[tuple[ModelResult, dict[str, Any]]]) -> Table:
    """A row for each model; the page shows it as a column."""
    columns = tuple(dict.fromkeys(name for _, values in numbers for name in values))
    return Table("model", columns, tuple(Row(result.name, values, result.reported) for result, values in numbers))


def _provenance(results: Sequence[dict[str, dict[str, Any]]]) -> dict[str, dict[str, list[str]]]:
    """By section and field one text for each model, empty where it has no such field."""
    sections = dict.fromkeys(section for result in results for section in result)
    flat = {section: [dict(_flat(result.get(section, {}))) for result in results] for section in sections}
    return {
        section: {name: [other.get(name, "") for other in columns] for fields in columns for name in fields}
        for section, columns in flat.items()
    }


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested fields as dotted names and texts."""
    if isinstance(value, list | tuple):
        if any(isinstance(item, dict | list | tuple) for item in value):
            value = dict(enumerate(value, start=1))
        else:
            value = ", ".join(map(str, value))
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, "none" if value is None else str(value)
