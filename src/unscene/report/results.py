"""The result of an evaluation: numbers, their provenance, and example scenes; and its parts of a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from unscene.report.page import Picture
from unscene.report.table import Row, Table, description_of, shown

if TYPE_CHECKING:
    from unscene.metrics.object_locations import LocatedObject

SCHEMA = 1  # of metrics.json; raised whenever a name in it changes its meaning

Rank = Literal["best", "median", "worst"]


@dataclass(frozen=True)
class ExampleScene:
    """A scene of the evaluation."""

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
    """One evaluation of one model."""

    name: str  # of the recipe
    metrics: dict[str, float | int | None]  # by name; None is not applicable. `ms_per_image` is among them
    health: dict[str, float]  # numbers that need no truth, by name
    verdict: str  # what they show, in words
    provenance: dict[str, dict[str, Any]]  # sections `evaluation`, `data`, `weights`, ready for JSON
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
    """What the templates show of results, for `write_page`."""
    sections = dict.fromkeys(section for result in results for section in result.provenance)
    return {
        "results": results,
        "names": display_names(results),
        "headlines": [_headline(result) for result in results],
        "summaries": [_summary(result) for result in results],
        "metrics": _table([(result, result.metrics) for result in results]),
        "health": _table([(result, result.health) for result in results]),
        "ranks": [
            [(rank, list(scenes)) for rank, scenes in groupby(result.scenes, key=lambda scene: scene.rank)]
            for result in results
        ],
        "provenance": [(section, _fields(results, section)) for section in sections],
        "recipes": [json.dumps(result.recipe, indent=2, ensure_ascii=False, default=str) for result in results],
        "shown": shown,
        "description_of": description_of,
    }


def display_names(results: Sequence[ModelResult]) -> list[str]:
    """The models' names, followed by the weights' file or run where two are equal."""
    origins = [result.provenance.get("weights", {}) for result in results]
    longer = [
        f"{result.name} ({origin.get('run') or origin.get('weights') or 'weights'})"
        for result, origin in zip(results, origins, strict=True)
    ]
    return first_unique([result.name for result in results], longer)


def first_unique(*candidates: Sequence[str]) -> list[str]:
    """The first of several lists in which no name is repeated; without one, the last list with numbers appended."""
    for names in candidates:
        if len(set(names)) == len(names):
            return list(names)
    last = list(candidates[-1])
    return [f"{name} [{last[: i + 1].count(name)}]" if last.count(name) > 1 else name for i, name in enumerate(last)]


def scenes_in_words(data: dict[str, Any]) -> str:
    """Which scenes were scored; empty where that is not known."""
    source = data.get("source") or data.get("name") or "the data"
    parts = [f"{data['scenes']:,} scenes of {source}"] if "scenes" in data else []
    return ", ".join([*parts, *([f"seed {data['seed']}"] if "seed" in data else [])])


def _headline(result: ModelResult) -> list[dict[str, str]]:
    cards = []
    for name, value in result.metrics.items():
        described = description_of(name)
        if described.headline and value is not None:
            note = f"paper {shown(name, result.reported[name])}" if name in result.reported else ""
            if name == "ms_per_image":
                machine = result.provenance.get("evaluation", {})
                device = "CPU" if machine.get("device") == "cpu" else machine.get("gpu")
                note = f"{device}, batch {machine.get('batch_size')}"
            cards.append({"label": described.label, "value": shown(name, value), "note": note})
    return cards


def _summary(result: ModelResult) -> str:
    """The scenes and the weights, in one line."""
    step = result.provenance.get("weights", {}).get("step")
    weights = f"weights of step {step:,}" if isinstance(step, int) else ""
    return ", ".join(filter(None, [scenes_in_words(result.provenance.get("data", {})), weights]))


def _table(numbers: Sequence[tuple[ModelResult, dict[str, Any]]]) -> Table:
    """A row for each model; the page shows it as a column."""
    columns = tuple(dict.fromkeys(name for _, values in numbers for name in values))
    return Table("model", columns, tuple(Row(result.name, values, result.reported) for result, values in numbers))


def _fields(results: Sequence[ModelResult], section: str) -> list[tuple[str, list[str]]]:
    """The fields of a section of the provenance: name, and one text for each model."""
    flat = [dict(_flat(result.provenance.get(section, {}))) for result in results]
    names = dict.fromkeys(name for fields in flat for name in fields)
    return [(name, [fields.get(name, "") for fields in flat]) for name in names]


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
