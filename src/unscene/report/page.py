"""An HTML page in one file: pictures are embedded, and nothing is loaded from anywhere."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from unscene.files import write_text

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # characters that a name of a file may hold, and HTML may not
_FOR_PICTURES = 5_500_000  # bytes; a third more in base64, so that the page stays under 8 MB


@dataclass(frozen=True)
class SlotLocation:
    slot: int  # its label, from 1
    y: float  # in 0..1 from the image's top
    x: float  # in 0..1 from the image's left
    name: str = ""  # of the true object whose middle is within 5 % of the frame; may be empty


@dataclass(frozen=True)
class Outline:
    """The border of an object, which the page draws on a picture."""

    label: int
    colour: str  # as CSS takes it
    path: str  # an SVG path in half pixels of the image
    x: float  # of its number, in pixels of the image
    y: float
    height: float  # of its number
    title: str  # shown beside the pointer


@dataclass(frozen=True)
class Histogram:
    """How often values occur, in bins of equal width from `low` to `high`."""

    title: str
    counts: tuple[int, ...]
    low: str
    high: str

    @classmethod
    def from_values(cls, title: str, values: NDArray[np.number], low: float, high: float, digits: int) -> Histogram:
        counts, _ = np.histogram(values, bins=24, range=(low, high if high > low else low + 1))
        return cls(title, tuple(counts.tolist()), f"{low:,.{digits}f}", f"{high:,.{digits}f}")


@dataclass(frozen=True)
class Picture:
    """An image of the page; with a size and outlines it is shown alone, and can be enlarged."""

    data: bytes  # a PNG, JPEG or animated WebP file
    alt: str  # what it shows, for readers who cannot see it
    caption: str = ""  # one line below it; empty for none
    link: str = ""  # relative address of the full image; empty for none
    locations: tuple[SlotLocation, ...] = ()  # of the objects in it, for a table; empty for a model without locations
    size: tuple[int, int] | None = None  # width and height that the outlines refer to
    outlines: tuple[Outline, ...] = ()


@dataclass(frozen=True)
class Section:
    """A part of a page: a heading, a sentence, numbers, histograms, pictures."""

    title: str
    text: str = ""
    pictures: tuple[Picture, ...] = ()
    numbers: tuple[tuple[str, str], ...] = ()  # name and value
    histograms: tuple[Histogram, ...] = ()


def write_page(
    path: Path, title: str, sections: Sequence[Section] = (), *, template: str = "page.html.j2", **values: Any
) -> None:
    """Write a page, of at most 8 MB beside its animations: larger pictures are all reduced by the same factor.

    `template` is a file of this folder, and `values` are what it shows beside the sections, such as `page_values`.
    """
    environment = Environment(
        loader=PackageLoader("unscene.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = {"results": (), "title": title, "sections": sections, **values}
    shown["written"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    drawn = [outline for section in sections for picture in section.pictures for outline in picture.outlines]
    left = max(_FOR_PICTURES // 5, _FOR_PICTURES - sum(len(outline.path) + 200 for outline in drawn))
    factor, sizes = 1.0, [2 * left]
    while sum(sizes) > left:
        sizes = []
        environment.filters["data_uri"] = partial(data_uri, factor=factor, sizes=sizes)
        text = environment.get_template(template).render(shown)
        factor *= 0.9 * sqrt(left / max(1, sum(sizes)))
    write_text(path, _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def data_uri(data: bytes, factor: float, sizes: list[int]) -> str:
    """A PNG, JPEG or WebP file as an address that contains it.

    Its width and height are multiplied by `factor` if that is below 1. `sizes` collects the bytes of all pictures. An
    animation (WebP) is neither reduced nor counted.
    """
    if data.startswith(b"RIFF"):
        return f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    if factor < 1:
        with Image.open(io.BytesIO(data)) as image:
            size = max(1, int(image.width * factor)), max(1, int(image.height * factor))
            file = io.BytesIO()
            image.resize(size, Image.Resampling.LANCZOS).save(file, image.format)
        data = file.getvalue()
    sizes.append(len(data))
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
