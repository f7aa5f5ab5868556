"""What an evaluation gives, and the page shows: numbers, where they come from, and scenes to look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from unscene.metrics.object_locations import LocatedObject

SCHEMA = 1  # of metrics.json; raised whenever a name in it changes its meaning

Rank = Literal["best", "median", "worst"]


@dataclass(frozen=True)
class SlotLocation:
    """Where a model says that an object is.

    Attributes:
        slot: its label, from 1.
        y: in 0..1 from the image's top.
        x: in 0..1 from the image's left.
        name: of the true object whose middle is within 5 % of the frame; empty for none, and where none has a name.
    """

    slot: int
    y: float
    x: float
    name: str = ""


@dataclass(frozen=True)
class Picture:
    """An image of the page.

    Attributes:
        data: a PNG or JPEG file.
        alt: what is seen, for those who do not see it.
        caption: one line below it; empty for none.
        link: relative address of the full image; empty for none.
        locations: of the objects in it, for a table; empty for a model without locations.
    """

    data: bytes
    alt: str
    caption: str = ""
    link: str = ""
    locations: tuple[SlotLocation, ...] = ()


@dataclass(frozen=True)
class ExampleScene:
    """A scene of the evaluation.

    Attributes:
        index: of the scene in its source, from which it can be drawn again.
        rank: where it stands among all.
        score: what it is ranked by; None where nothing is known of it.
        picture: see `unscene.report.figures.scene_figure`.
    """

    index: int
    rank: Rank
    score: float | None
    picture: Picture


@dataclass(frozen=True)
class Curves:
    """The curves of the training, as PNG files for a light and for a dark ground."""

    light: bytes
    dark: bytes
    alt: str


@dataclass(frozen=True)
class ModelResult:
    """One evaluation of one model.

    Attributes:
        name: of the recipe.
        metrics: by name; None is not applicable. `ms_per_image` is among them.
        health: numbers that need no truth, by name.
        verdict: what they say, in words.
        provenance: sections `evaluation` (machine, versions, command, date), `data`, `weights`, ready for JSON.
        recipe: every setting.
        ranked_by: the metric by which the scenes are ranked.
        scenes: best, median and worst.
        curves: of the training, where its metrics.csv is known.
        located: how often each object was located, by its name, where model and data have both.
    """

    name: str
    metrics: dict[str, float | int | None]
    health: dict[str, float]
    verdict: str
    provenance: dict[str, dict[str, Any]]
    recipe: dict[str, Any] = field(default_factory=dict)
    ranked_by: str = "ari_fg"
    scenes: tuple[ExampleScene, ...] = ()
    curves: Curves | None = None
    located: dict[str, LocatedObject] = field(default_factory=dict)

    @property
    def reported(self) -> dict[str, float]:
        """The paper's numbers by our metrics' names, as the recipe has them."""
        about = self.recipe.get("about") or {}
        return dict(about.get("reported") or {})

    def as_json(self) -> dict[str, Any]:
        """What metrics.json holds: each metric under its own name, and what is beside them; pictures are left out."""
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
