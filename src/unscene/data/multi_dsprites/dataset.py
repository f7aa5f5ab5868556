"""Multi-dSprites, "coloured sprites on grayscale": squares, ellipses and hearts that cover each other.

The data set of the R-MONet and MONet papers, generated; the shapes are in `sprites`.

A sample comes from (seed, index) alone: it is the same in any batch.

Labels follow the painter's order: sprite `m` is painted after sprite `m - 1` and has label `m + 1`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from unscene.data.hashed_random import Seed, uniform_draws
from unscene.data.indices import checked_indices
from unscene.data.label_boxes import boxes_of_labels
from unscene.data.multi_dsprites.sprites import ALL_SHAPES, SHAPES, covered_windows
from unscene.data.occluder import CropShare, OccluderShare, occlude
from unscene.errors import RecipeError
from unscene.settings import distinct_names, settings_dataclass

VERSION = 1  # of the generator: raised whenever the same seed would draw something else

Colours = Literal["fitted", "saturated", "grey"]
Background = Literal["grey", "colour"]
Scale = Annotated[float, Field(gt=0, le=1)]  # a larger sprite would reach across the image's border

SHIFTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "more_objects": {"min_objects": 7, "max_objects": 10},
        "unseen_shape": {"shapes": ("triangle",)},
        "unseen_colour": {"colours": "grey"},
        "occlusion": {"occluder": 0.4},
        "crop": {"crop": 2 / 3},
    }
)

_CHUNK = 64  # scenes; their working arrays stay in the processor's cache
_DRAWS = 8  # random numbers of the scene, and of each sprite
_LEAST_CONTRAST = 48  # of 256 greys, between a grey sprite and the ground
_OCCLUDER = 128  # grey


@settings_dataclass
class MultiDSpritesSettings:
    """What is drawn. The defaults are the R-MONet paper's variant.

    Attributes:
        count: number of scenes.
        seed: another seed draws another, unrelated data set.
        size: side of the image in pixels; the sprites grow with it.
        min_objects: fewest sprites of a scene.
        max_objects: most sprites of a scene; also M, the rows of boxes and factors.
        colours: of the sprites. "fitted": uniform RGB, as in the published images; "saturated": uniform hue at full
            saturation and value, as the paper states; "grey": uniform among the greys that are 48
            of 256 or more away from the ground. Uniform RGB leaves no colour unseen, but hardly ever gives a grey (all
            three within 16 of 256: 1 %), which on a grey ground differs from it in brightness alone.
        background: "grey": one uniform grey a scene; "colour": uniform RGB.
        min_scale: smallest sprite, uniform up to `max_scale`.
        max_scale: largest sprite.
        max_orientation: sprites are turned by an angle uniform from 0 to this, in degrees; 0 draws them all upright.
        shapes: of square, ellipse, heart, drawn with equal probability; and triangle, which the data set has not.
        crop: share of the image's side, about its middle, that is drawn at the image's size; 1 is all of it, 1/4 the
            least.
        occluder: side of a grey square somewhere in front, as a share of the image's side; 0 is none.

    Raises:
        RecipeError: a value is impossible.
    """

    count: PositiveInt = 60000
    seed: Seed = 0
    size: Annotated[int, Field(ge=16)] = 64  # below, a sprite could touch the border
    min_objects: NonNegativeInt = 2
    max_objects: Annotated[int, Field(ge=1, le=255)] = 5
    colours: Colours = "fitted"
    background: Background = "grey"
    min_scale: Scale = 0.5
    max_scale: Scale = 1.0
    max_orientation: Annotated[float, Field(ge=0, le=360)] = 360.0
    shapes: Annotated[tuple[str, ...], distinct_names(ALL_SHAPES)] = SHAPES
    crop: CropShare = 1.0
    occluder: OccluderShare = 0.0

    def __post_init__(self) -> None:
        if self.min_objects > self.max_objects:
            raise RecipeError(f"min_objects must be at most max_objects, {self.max_objects}, not {self.min_objects}.")
        if self.min_scale > self.max_scale:
            raise RecipeError(f"min_scale must be at most max_scale, {self.max_scale:g}, not {self.min_scale:g}.")


class MultiDSprites:
    """Multi-dSprites scenes, drawn when they are needed."""

    Settings = MultiDSpritesSettings
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = SHIFTS

    def __init__(self, settings: MultiDSpritesSettings | None = None) -> None:
        self.settings = settings or MultiDSpritesSettings()

    def __len__(self) -> int:
        return self.settings.count

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Draw scenes; scene `i` is the same in every batch.

        Returns:
            image: [B, size, size, 3] uint8.
            labels: [B, size, size] uint8 label map, 0 is the background and the occluder.
            boxes: [B, M, 4] float32 of the visible part, `x1 y1 x2 y2`, end exclusive; row `m` belongs to label
                `m + 1`, a zero row where there is no sprite, or it is hidden or outside of the crop.
            shape: [B, M] uint8, 1.. as in `ALL_SHAPES`, 0 where there is no sprite; all other factors are 0 there too.
            scale: [B, M] float32.
            orientation: [B, M] float32 from 0 to `max_orientation`, but in radians, clockwise.
            x, y: [B, M] float32 in [0, 1]; the centre is at `size (1/4 + x/2)` pixels, before the crop.
            color: [B, M, 3] float32 in [0, 1].
            visibility: [B, M] float32, the share of the sprite's own pixels, those outside of the crop among them, that
                neither a later sprite nor the occluder covers.
        """
        indices = checked_indices(indices, len(self))
        settings = self.settings
        B, M, size = len(indices), settings.max_objects, settings.size
        palette, sample = _draw_factors(settings, indices)
        sample["image"] = np.empty((B, size, size, 3), np.uint8)
        sample["labels"] = np.zeros((B, size, size), np.uint8)
        sample["boxes"] = np.empty((B, M, 4), np.float32)
        sample["visibility"] = np.empty((B, M), np.float32)
        for start in range(0, B, _CHUNK):
            part = slice(start, start + _CHUNK)
            _paint(settings, indices[part], {key: value[part] for key, value in sample.items()}, palette[part])
        return sample


def _draw_factors(
    settings: MultiDSpritesSettings, indices: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], dict[str, NDArray]]:
    """The scenes' palettes [B, M + 1, 4] uint8 (label to RGB, and an unused byte) and the factors of their sprites."""
    B, M = len(indices), settings.max_objects
    draws = uniform_draws(settings.seed, indices, _DRAWS * (M + 1)).reshape(B, M + 1, _DRAWS)
    scene, sprite = draws[:, 0], draws[:, 1:]
    number = settings.min_objects + (scene[:, 0] * (M + 1 - settings.min_objects)).astype(np.int64)
    present = np.arange(M) < number[:, None]  # [B, M]
    kinds = np.array([ALL_SHAPES.index(shape) + 1 for shape in settings.shapes], np.uint8)

    palette = np.zeros((B, M + 1, 4), np.uint8)
    ground = scene[:, 1:4] if settings.background == "colour" else scene[:, 1:2]
    palette[:, 0, :3] = _as_bytes(ground)
    palette[:, 1:, :3] = _colours(settings, sprite[..., 5:8], palette[:, :1, :1]) * present[..., None]
    turn = math.radians(settings.max_orientation)
    scale = settings.min_scale + (settings.max_scale - settings.min_scale) * sprite[..., 1]
    return palette, {
        "shape": kinds[(sprite[..., 0] * len(kinds)).astype(np.int64)] * present,
        "scale": (scale * present).astype(np.float32),
        "orientation": (turn * sprite[..., 2] * present).astype(np.float32),
        "x": (sprite[..., 3] * present).astype(np.float32),
        "y": (sprite[..., 4] * present).astype(np.float32),
        "color": palette[:, 1:, :3] / np.float32(255),
    }


def _colours(
    settings: MultiDSpritesSettings, draws: NDArray[np.float64], ground: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The sprites' RGB, [B, M, 3] or [B, M, 1], by draws [B, M, 3]; ground [B, 1, 1] is its grey."""
    if settings.colours == "fitted":
        return _as_bytes(draws)
    if settings.colours == "saturated":
        return _as_bytes(_pure_hue(draws[..., 0]))
    away = _LEAST_CONTRAST + np.floor(draws[..., :1] * (257 - 2 * _LEAST_CONTRAST))  # 48 .. 208, around the circle
    return np.asarray((ground + away) % 256, np.uint8)


def _as_bytes(uniform: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Numbers in [0, 1] to 0..255, all as likely."""
    return np.minimum(uniform * 256, 255).astype(np.uint8)


def _pure_hue(hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """[...] hue in [0, 1) to [..., 3] RGB at full saturation and value."""
    return np.asarray(np.clip(np.abs((6 * hue[..., None] + [0, 4, 2]) % 6 - 3) - 1, 0, 1))


def _paint(
    settings: MultiDSpritesSettings,
    indices: NDArray[np.int64],
    scenes: dict[str, NDArray],
    palette: NDArray[np.uint8],
) -> None:
    """Fill image, labels, boxes and visibility of the scenes from their factors, in place."""
    labels, (B, M) = scenes["labels"], scenes["shape"].shape
    scene, sprite = np.nonzero(scenes["shape"])  # in painter's order within a scene
    geometry = {key: scenes[key][scene, sprite] for key in ("shape", "scale", "orientation", "x", "y")}
    size = labels.shape[1]
    covered, corner = covered_windows(geometry, size, settings.crop)  # [S, w, w], [S, 2]
    area = np.count_nonzero(covered, axis=(1, 2))
    within = np.arange(covered.shape[1])
    if settings.crop < 1:
        inside = (corner[..., None] + within >= 0) & (corner[..., None] + within < size)  # [S, 2, w], x and y
        covered &= inside[:, 1, :, None] & inside[:, 0, None, :]
    first = (scene * size + corner[:, 1]) * size + corner[:, 0]
    pixels = (first[:, None, None] + within[:, None] * size + within)[covered]
    painted = np.count_nonzero(covered, axis=(1, 2))
    labels.reshape(-1)[pixels] = np.repeat((sprite + 1).astype(np.uint8), painted)  # of equal indices the last one wins

    entry = labels + (np.arange(B) * (M + 1))[:, None, None]  # into the palettes of all scenes, one after another
    scenes["image"][...] = palette.reshape(-1, 4).view(np.uint32)[:, 0].take(entry)[..., None].view(np.uint8)[..., :3]
    if settings.occluder:
        occlude(scenes["image"], labels, settings.seed, indices, settings.occluder, _OCCLUDER)
        entry = labels + (np.arange(B) * (M + 1))[:, None, None]
    scenes["boxes"][...] = boxes_of_labels(labels, M)
    shown = np.bincount(entry.ravel(), minlength=B * (M + 1)).reshape(B, M + 1)[:, 1:]
    scenes["visibility"][...] = 0
    scenes["visibility"][scene, sprite] = shown[scene, sprite] / np.maximum(area, 1)
