"""CLEVR-like scenes: cubes, spheres and cylinders of rubber and metal on CLEVR's stage, traced when they are needed.

Camera, lamps, materials and the rules of placement are those of clevr-dataset-gen. The picture is the crop that the
R-MONet and MONet papers train on (rows 29 to 221, columns 64 to 256 of 320 x 240), traced at its final size. Simpler
than in Blender: edges are sharp, and only shaded as round; light is followed to its first surface, and further only in
mirrors (`shading`).

A sample comes from (seed, index) alone. Tracing needs numba: `pip install 'unscene[render]'`. Only this module and
`objects` can be imported without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from unscene.data.clevr.objects import ALL_COLOURS, ALL_SHAPES, COLOURS, MATERIALS, SHAPES, SIZES, UNSEEN_COLOURS
from unscene.data.generated_scenes import (
    CropShare,
    OccluderShare,
    Seed,
    central_part,
    check_object_range,
    occlude,
    shifts_with,
)
from unscene.data.samples import GeneratedScenes, checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import distinct_names, settings_dataclass

VERSION = 1  # of the generator: raised whenever the same seed would give another scene
SHIFTS = shifts_with(unseen_shape="cone", unseen_colours=tuple(UNSEEN_COLOURS))

_OCCLUDER = 51  # grey, darker than floor and wall


@settings_dataclass
class ClevrScenesSettings:
    """The kind of scenes. The defaults are the papers' CLEVR6: 3 to 6 objects of all kinds."""

    count: PositiveInt = 60000  # number of scenes
    seed: Seed = 0  # another seed gives another, unrelated data set
    size: Annotated[int, Field(ge=16)] = 128  # side of the image in pixels
    min_objects: NonNegativeInt = 3  # fewest objects of a scene; some of them may be outside of the crop
    # most objects of a scene; also M, the rows of boxes and factors
    max_objects: Annotated[int, Field(ge=1, le=10)] = 6  # as in CLEVR; there is hardly room for more
    # With equal probability, as are materials, colours and sizes. CLEVR has no `cone`.
    shapes: Annotated[tuple[str, ...], distinct_names(ALL_SHAPES)] = SHAPES
    materials: Annotated[tuple[str, ...], distinct_names(MATERIALS)] = MATERIALS  # some of rubber, metal
    # by their names in CLEVR; and `orange`, `pink`, `white` and `black`, which CLEVR does not have
    colours: Annotated[tuple[str, ...], distinct_names(ALL_COLOURS)] = tuple(COLOURS)
    sizes: Annotated[tuple[str, ...], distinct_names(SIZES)] = tuple(SIZES)  # some of large, small
    crop: CropShare = 1.0  # central share of the papers' crop that is traced at the image's size, 1/4 to 1 (all of it)
    # side of a dark grey square somewhere in front, as a share of the image's side; 0 is none
    occluder: OccluderShare = 0.0
    # Cover floor and objects with random patterns of two colours, as ClevrTex does with photographs of materials. The
    # first colour of an object is its own.
    textures: bool = False

    def __post_init__(self) -> None:
        check_object_range(self.min_objects, self.max_objects)


class ClevrScenes(GeneratedScenes[ClevrScenesSettings]):
    """CLEVR-like scenes, traced when they are needed."""

    Settings = ClevrScenesSettings
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = SHIFTS

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Trace scenes; scene `i` is the same in every batch.

        Returns:
            image: [B, size, size, 3] uint8.
            labels: [B, size, size] uint8 label map, 0 is the background and the occluder.
            boxes: [B, M, 4] float32 of the visible part, `x1 y1 x2 y2`, end exclusive; row `m` belongs to label
                `m + 1`, a zero row where there is no object, or it is outside of the crop or behind the occluder.
            shape: [B, M] uint8, 1.. as in `objects.ALL_SHAPES`, 0 where there is no object; all other factors
                are 0 there too.
            material, color, size: [B, M] uint8, 1.. as in `MATERIALS`, `ALL_COLOURS` and `SIZES`.
            x, y, z: [B, M] float32, the centre, in CLEVR's units; the floor is at z = 0.
            rotation: [B, M] float32 in [0, 2 pi], about the vertical axis, counterclockwise from above.
            texture: [B, M] uint8, 1.. as in `PATTERNS`, with `textures` only.
            visible_pixels: [B, M] int32, how many show the object in CLEVR's picture of 320 x 240, without an
                occluder: 200 or more.

        Raises:
            DataError: numba is not installed, or the objects find no room.
        """
        indices = checked_indices(indices, len(self))
        settings, (placement, rendering, textures) = self.settings, compiled_tracer()
        chosen = (settings.shapes, settings.materials, settings.colours, settings.sizes)
        known = (ALL_SHAPES, MATERIALS, tuple(ALL_COLOURS), tuple(SIZES))
        choices = placement.Choices(
            *(np.array([1 + names.index(name) for name in some]) for some, names in zip(chosen, known, strict=True))
        )
        scenes = placement.placed_scenes(settings.seed, indices, settings.min_objects, settings.max_objects, choices)
        if scenes is None:
            attempts = f"{placement.SCENES} attempts did not place up to {settings.max_objects} objects"
            raise DataError(f"clevr_scenes: {attempts}, all visible. Lower max_objects, or allow other sizes.")
        view = central_part(rendering.CROP, settings.crop)
        patterns, texture = None, {}
        if settings.textures:
            patterns = textures.random_textures(settings.seed, indices, scenes.color, scenes.size)
            texture = {"texture": (patterns["pattern"][:, 1:] * (scenes.shape > 0)).astype(np.uint8)}
        image, labels = rendering.render(scenes, settings.size, settings.size, view, patterns)
        occlude(image, labels, settings.seed, indices, settings.occluder, _OCCLUDER)
        x, y = np.moveaxis(scenes.position.astype(np.float32), -1, 0)
        z = np.array([0, *SIZES.values()], np.float32)[scenes.size]
        return {
            "image": image,
            "labels": labels,
            "boxes": boxes_of_labels(labels, settings.max_objects),
            **{name: getattr(scenes, name).astype(np.uint8) for name in ("shape", "material", "color", "size")},
            **{"x": x, "y": y, "z": z, "rotation": scenes.rotation.astype(np.float32)},
            "visible_pixels": scenes.visible_pixels.astype(np.int32),
            **texture,
        }


def compiled_tracer(source: str = "clevr_scenes") -> tuple[ModuleType, ModuleType, ModuleType]:
    """The modules `placement`, `rendering` and `textures`, which numba compiles; a DataError if it is not installed."""
    try:
        from unscene.data.clevr import placement, rendering, textures
    except ImportError as missing:
        if missing.name not in ("numba", "llvmlite"):
            raise
        raise DataError(
            f"{source} traces its scenes with numba, which is not installed: pip install 'unscene[render]'."
        ) from None
    return placement, rendering, textures
