"""CLEVR-like scenes: cubes, spheres and cylinders of rubber and metal on CLEVR's stage, traced when they are needed.

Camera, lamps, materials and the rules of placement are those of clevr-dataset-gen. The picture is the crop that the
R-MONet and MONet papers train on (rows 29 to 221, columns 64 to 256 of 320 x 240), traced at its final size instead of
scaled down to it. Simpler than in Blender: the cubes' and cylinders' edges are sharp, and only shaded as
round; light is followed to its first surface, and further only in mirrors (`shading`).

A sample comes from (seed, index) alone. Tracing needs numba: `pip install 'unscene[render]'`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unscene.data.clevr.objects import (
    ALL_COLOURS,
    ALL_SHAPES,
    COLOURS,
    MATERIALS,
    SHAPES,
    SIZES,
    UNSEEN_COLOURS,
)
from unscene.data.indices import checked_indices
from unscene.data.label_boxes import boxes_of_labels
from unscene.data.occluder import centred, check_view, occlude
from unscene.errors import DataError, RecipeError, did_you_mean

VERSION = 1  # of the generator: raised whenever the same seed would draw something else

SHIFTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "more_objects": {"min_objects": 7, "max_objects": 10},
        "unseen_shape": {"shapes": ("cone",)},
        "unseen_colour": {"colours": tuple(UNSEEN_COLOURS)},
        "occlusion": {"occluder": 0.4},
        "crop": {"crop": 2 / 3},
    }
)

_SMALLEST_SIZE = 16
_MOST_OBJECTS = 10  # as in CLEVR; more seldom find room
_OCCLUDER = 51  # grey, darker than floor and wall


@dataclass(frozen=True)
class ClevrScenesSettings:
    """What is drawn. The defaults are the papers' CLEVR6: 3 to 6 objects of all kinds.

    Attributes:
        count: number of scenes.
        seed: another seed draws another, unrelated data set.
        size: side of the image in pixels.
        min_objects: fewest objects of a scene; some of them may be outside of the crop.
        max_objects: most objects of a scene; also M, the rows of boxes and factors.
        shapes: drawn with equal probability, as are materials, colours and sizes. CLEVR has no `cone`.
        materials: of rubber, metal.
        colours: by their names in CLEVR; and `orange`, `pink`, `white` and `black`, which CLEVR has not.
        sizes: of large, small.
        crop: share of the papers' crop, about its middle, that is traced at the image's size; 1 is all of it, 1/4 the
            least.
        occluder: side of a dark grey square somewhere in front, as a share of the image's side; 0 is none.

    Raises:
        RecipeError: a value is impossible.
    """

    count: int = 60000
    seed: int = 0
    size: int = 128
    min_objects: int = 3
    max_objects: int = 6
    shapes: tuple[str, ...] = SHAPES
    materials: tuple[str, ...] = MATERIALS
    colours: tuple[str, ...] = tuple(COLOURS)
    sizes: tuple[str, ...] = tuple(SIZES)
    crop: float = 1.0
    occluder: float = 0.0

    def __post_init__(self) -> None:
        _require(self.count >= 1, f"count must be 1 or more, but is {self.count}.")
        _require(0 <= self.seed < 2**63, f"seed must be 0 or more and below 2**63, but is {self.seed}.")
        _require(self.size >= _SMALLEST_SIZE, f"size must be {_SMALLEST_SIZE} or more pixels, but is {self.size}.")
        _require(
            0 <= self.min_objects <= self.max_objects and 1 <= self.max_objects <= _MOST_OBJECTS,
            f"0 <= min_objects <= max_objects and 1 <= max_objects <= {_MOST_OBJECTS} must hold, "
            f"but they are {self.min_objects} and {self.max_objects}. More seldom find room.",
        )
        _require_some("shapes", self.shapes, ALL_SHAPES)
        _require_some("materials", self.materials, MATERIALS)
        _require_some("colours", self.colours, tuple(ALL_COLOURS))
        _require_some("sizes", self.sizes, tuple(SIZES))
        check_view("clevr_scenes", self.crop, self.occluder)


class ClevrScenes:
    """CLEVR-like scenes, traced when they are needed."""

    Settings = ClevrScenesSettings
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = SHIFTS

    def __init__(self, settings: ClevrScenesSettings | None = None) -> None:
        self.settings = settings or ClevrScenesSettings()

    def __len__(self) -> int:
        return self.settings.count

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Trace scenes; scene `i` is the same in every batch.

        Returns:
            image: [B, size, size, 3] uint8.
            labels: [B, size, size] uint8 label map: what the ray through the pixel's middle meets, 0 is the background
                and the occluder.
            boxes: [B, M, 4] float32 of the visible part, `x1 y1 x2 y2`, end exclusive; row `m` belongs to label
                `m + 1`, a zero row where there is no object, or it is outside of the crop or behind the occluder.
            shape: [B, M] uint8, 1.. as in `objects.ALL_SHAPES`, 0 where there is no object; all other factors
                are 0 there too.
            material, color, size: [B, M] uint8, likewise as in `MATERIALS`, `ALL_COLOURS` and `SIZES`.
            x, y, z: [B, M] float32, the centre, in CLEVR's units; the floor is at z = 0.
            rotation: [B, M] float32 in [0, 2 pi], about the vertical axis, counterclockwise from above.
            visible_pixels: [B, M] int32, how many show the object in CLEVR's whole picture of 320 x 240, where there is
                no occluder: 200 or more.

        Raises:
            DataError: numba is not installed, or the objects find no room.
        """
        indices = checked_indices(indices, len(self))
        settings, (placement, rendering) = self.settings, compiled_tracer()
        choices = placement.Choices(
            _numbers(settings.shapes, ALL_SHAPES),
            _numbers(settings.materials, MATERIALS),
            _numbers(settings.colours, tuple(ALL_COLOURS)),
            _numbers(settings.sizes, tuple(SIZES)),
        )
        scenes = placement.placed_scenes(settings.seed, indices, settings.min_objects, settings.max_objects, choices)
        if scenes is None:
            raise DataError(
                f"clevr_scenes: {placement.SCENES} attempts did not place up to {settings.max_objects} objects so that "
                "all are visible. Lower max_objects, or allow other sizes."
            )
        view = centred(rendering.CROP, settings.crop)
        image, labels = rendering.render(scenes, settings.size, settings.size, view)
        occlude(image, labels, settings.seed, indices, settings.occluder, _OCCLUDER)
        radius = np.array([0, *SIZES.values()])[scenes.size]
        return {
            "image": image,
            "labels": labels,
            "boxes": boxes_of_labels(labels, settings.max_objects),
            **{name: getattr(scenes, name).astype(np.uint8) for name in ("shape", "material", "color", "size")},
            "x": scenes.position[..., 0].astype(np.float32),
            "y": scenes.position[..., 1].astype(np.float32),
            "z": radius.astype(np.float32),
            "rotation": scenes.rotation.astype(np.float32),
            "visible_pixels": scenes.visible_pixels.astype(np.int32),
        }


def compiled_tracer() -> tuple[ModuleType, ModuleType]:
    """The modules `placement` and `rendering`, which numba compiles.

    Raises:
        DataError: numba is not installed.
    """
    try:
        from unscene.data.clevr import placement, rendering
    except ImportError as missing:
        if missing.name not in ("numba", "llvmlite"):
            raise
        raise DataError(
            "clevr_scenes traces its scenes with numba, which is not installed: pip install 'unscene[render]'."
        ) from None
    return placement, rendering


def _numbers(chosen: tuple[str, ...], known: tuple[str, ...]) -> NDArray[np.int64]:
    return np.array([known.index(name) + 1 for name in chosen], np.int64)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise RecipeError(f"clevr_scenes: {message}")


def _require_some(setting: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    _require(len(chosen) > 0, f"{setting} must name at least one of {', '.join(known)}, but is empty.")
    _require(len(set(chosen)) == len(chosen), f"{setting} must differ, but are {', '.join(chosen)}.")
    for name in chosen:
        nearest = did_you_mean(str(name), known)
        _require(name in known, f"{setting} has no '{name}', only {', '.join(known)}.{nearest}")
