"""One self-contained HTML page: no other file, no script, and readable in light, in dark, and on a phone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from math import sqrt
from pathlib import Path
from typing import Any, Literal, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from unscene.files import write_text
from unscene.report.metric_descriptions import description_of, shown
from unscene.report.results import ExampleScene, ModelResult, Picture
from unscene.report.table import Row, Table

LARGEST_PAGE = 8_000_000  # bytes
Parts: TypeAlias = "tuple[Sequence[ModelResult], Sequence[Section]]"
_FOR_PICTURES = LARGEST_PAGE * 0.94 * 3 / 4  # base64 writes 4 characters for 3 bytes


@dataclass(frozen=True)
class Section:
    """A part of the page beside the models' own: a heading, some words, pictures side by side."""

    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()


def write_page(path: Path, results: Sequence[ModelResult], title: str, sections: Sequence[Section] = ()) -> None:
    """Write the page of one or several evaluated models.

    The file stays under 8 MB: when its pictures are too large for that, all are reduced by the same factor.

    Args:
        path: of the HTML file.
        results: one model each, in their order.
        title: of the page.
        sections: further parts, before the provenance.

    Raises:
        RunError: the file cannot be written; nothing is left half-written.
    """
    results, sections = _reduced((tuple(results), tuple(sections)))
    write_text(path, page_text("page.html.j2", title, results, sections))


def page_text(
    template: str, title: str, results: Sequence[ModelResult], sections: Sequence[Section] = (), **more: Any
) -> str:
    """The page as HTML.

    Args:
        template: a file beside this one, `page.html.j2` or one that extends it.
        title: see `write_page`.
        results: see there.
        sections: see there.
        more: what else the template needs.
    """
    environment = Environment(
        loader=PackageLoader("unscene.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template(template).render(
        title=title,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        results=results,
        names=display_names(results),
        headlines=[_headline(result) for result in results],
        summaries=[_summary(result) for result in results],
        metrics=_table(results, "metrics"),
        health=_table(results, "health"),
        ranks=[_by_rank(result) for result in results],
        provenance=_provenance_rows(results),
        recipes=[json.dumps(result.recipe, indent=2, ensure_ascii=False, default=str) for result in results],
        sections=sections,
        shown=shown,
        description_of=description_of,
        **more,
    )


def data_uri(data: bytes) -> str:
    """A PNG or JPEG file as an address that holds the whole of it."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def display_names(results: Sequence[ModelResult]) -> list[str]:
    """The models' names, with the weights' file or run behind them where two have the same."""
    origins = [result.provenance.get("weights", {}) for result in results]
    longer = [
        f"{result.name} ({origin.get('run') or origin.get('weights') or 'weights'})"
        for result, origin in zip(results, origins, strict=True)
    ]
    return first_unique([result.name for result in results], longer)


def first_unique(*candidates: Sequence[str]) -> list[str]:
    """The first of several lists in which no name stands twice; if there is none, the last one with numbers behind."""
    for names in candidates:
        if len(set(names)) == len(names):
            return list(names)
    last = list(candidates[-1])
    return [f"{name} [{last[: i + 1].count(name)}]" if last.count(name) > 1 else name for i, name in enumerate(last)]


def _headline(result: ModelResult) -> list[dict[str, str]]:
    cards = []
    for name, value in result.metrics.items():
        described = description_of(name)
        if described.headline and value is not None:
            reported = result.reported.get(name)
            note = "" if reported is None else f"paper {shown(name, reported)}"
            if name == "ms_per_image":
                ran = result.provenance.get("evaluation", {})
                note = f"{ran.get('gpu') if ran.get('device') != 'cpu' else 'CPU'}, batch {ran.get('batch_size')}"
            cards.append({"label": described.label, "value": shown(name, value), "note": note})
    return cards


def _summary(result: ModelResult) -> str:
    """What was evaluated, in one line."""
    step = result.provenance.get("weights", {}).get("step")
    parts = [scenes_in_words(result.provenance.get("data", {}))]
    parts += [f"weights of step {step:,}"] if isinstance(step, int) else []
    return ", ".join(part for part in parts if part)


def scenes_in_words(data: dict[str, Any]) -> str:
    """Which scenes were scored; empty where that is not known."""
    source = data.get("source") or data.get("name") or "the data"
    parts = [f"{data['scenes']:,} scenes of {source}"] if "scenes" in data else []
    return ", ".join([*parts, *([f"seed {data['seed']}"] if "seed" in data else [])])


def _table(results: Sequence[ModelResult], part: Literal["metrics", "health"]) -> Table:
    """A row for each model; the page shows it with a column for each."""
    values = [getattr(result, part) for result in results]
    columns = tuple(dict.fromkeys(name for numbers in values for name in numbers))
    rows = (Row(result.name, numbers, result.reported) for result, numbers in zip(results, values, strict=True))
    return Table("model", columns, tuple(rows))


def _by_rank(result: ModelResult) -> list[tuple[str, list[ExampleScene]]]:
    return [(rank, list(scenes)) for rank, scenes in groupby(result.scenes, key=lambda scene: scene.rank)]


def _provenance_rows(results: Sequence[ModelResult]) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """Section -> field -> one text a model."""
    flat = [{part: dict(_flat(fields)) for part, fields in result.provenance.items()} for result in results]
    parts = dict.fromkeys(part for sections in flat for part in sections)
    return [
        (part, [(name, [sections.get(part, {}).get(name, "") for sections in flat]) for name in _names(flat, part)])
        for part in parts
    ]


def _names(flat: list[dict[str, dict[str, str]]], part: str) -> Iterable[str]:
    return dict.fromkeys(name for sections in flat for name in sections.get(part, {}))


def _flat(value: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Nested fields as dotted names and texts."""
    nested: Iterable[tuple[str, Any]] | None = None
    if isinstance(value, dict):
        nested = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, dict | list | tuple) for item in value):
        nested = ((str(number), item) for number, item in enumerate(value, start=1))
    if nested is not None:
        for key, item in nested:
            yield from _flat(item, f"{name}.{key}" if name else str(key))
        return
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    yield name, "none" if value is None else str(value)


def _reduced(parts: Parts) -> Parts:
    """Make all pictures smaller until the page holds them."""
    while (size := _picture_bytes(parts)) > _FOR_PICTURES:
        parts = _map_pictures(parts, partial(_smaller, factor=0.9 * sqrt(_FOR_PICTURES / size)))
    return parts


def _picture_bytes(parts: Parts) -> int:
    sizes: list[int] = []

    def count(data: bytes) -> bytes:
        sizes.append(len(data))
        return data

    _map_pictures(parts, count)
    return sum(sizes)


def _map_pictures(value: Any, change: Callable[[bytes], bytes]) -> Any:
    """The same value with every file in it changed: the bytes of a picture or of curves."""
    if isinstance(value, bytes):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_map_pictures(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{part.name: _map_pictures(getattr(value, part.name), change) for part in fields(value)})
    return value


def _smaller(data: bytes, factor: float) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        size = max(1, int(image.width * factor)), max(1, int(image.height * factor))
        file = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(file, image.format)
    return file.getvalue()
