"""Multi-dSprites of the R-MONet and MONet papers ("coloured sprites on grayscale"): squares, ellipses, hearts.

A sample comes from (seed, index) alone: it is the same in any batch. Sprites are painted in order: sprite `m` covers
those before it and has label `m + 1`. Scenes may be the frames of clips, in which the sprites move.

The geometry is fitted to the published images (intersection over union .97 to 1 with true renders). Its lengths are in
units of the image's side, for scale 1. A pixel belongs to a sprite that contains its centre; no pixel is mixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from unscene.data.generated_scenes import (
    CropShare,
    OccluderShare,
    Seed,
    check_object_range,
    occlude,
    shifts_with,
    uniform_draws,
)
from unscene.data.samples import GeneratedScenes, checked_indices
from unscene.errors import RecipeError
from unscene.scene import boxes_of_labels
from unscene.settings import distinct_names, settings_dataclass

VERSION = 1  # of the generator: raised whenever the same seed would give another scene

Array32 = NDArray[np.float32]
Scale = Annotated[float, Field(gt=0, le=1)]  # a larger sprite would reach across the image's border

SHAPES = ("square", "ellipse", "heart")  # the factor `shape` counts them from 1, as dSprites does; 0 is no sprite
ALL_SHAPES = (*SHAPES, "triangle")  # the triangle is unseen in a training on the published shapes
SHIFTS = shifts_with(unseen_shape="triangle", unseen_colours="grey")

SQUARE_HALF_SIDE = 9.6 / 64
ELLIPSE_SEMI_AXES = (12.8 / 64, 7.2 / 64)
HEART_HALF_WIDTH = 9.6 / 64
HEART_STRETCH = 1.075  # of its height
TRIANGLE_CIRCUMRADIUS = 13.5 / 64  # of an equilateral one; its area is .82 of the ellipse's
NEAREST_CENTRE = 1 / 4  # of any sprite to the image's border

_REACH = SQUARE_HALF_SIDE * math.sqrt(2)  # no point of a sprite is further from its centre
_HEART_COLUMNS = 2048
_CHUNK = 64  # scenes; their working arrays stay in the processor's cache
_DRAWS = 8  # random numbers of the scene, and of each sprite
_LEAST_CONTRAST = 48  # of 256 greys, between a grey sprite and the ground
_OCCLUDER = 128  # grey
_MOTION_STREAM = 0xA3C1_5D27_4E8B_90F6  # its top bit is set, so it differs from every seed


@settings_dataclass
class MultiDSpritesSettings:
    """The kind of scenes. The defaults are the R-MONet paper's variant."""

    count: PositiveInt = 60000  # number of scenes
    seed: Seed = 0  # another seed gives another, unrelated data set
    # side of the image in pixels; the sprites grow with it
    size: Annotated[int, Field(ge=16)] = 64  # below, a sprite could touch the border
    min_objects: NonNegativeInt = 2  # fewest sprites of a scene
    # most sprites of a scene; also M, the rows of boxes and factors, which have one row for 0
    max_objects: Annotated[int, Field(ge=0, le=255)] = 5
    # "fitted": uniform RGB for sprites, as in the published images; "saturated": uniform hue at full saturation and
    # value, as the paper states; "grey": uniform among the greys that are 48 of 256 or more away from the ground.
    # Uniform RGB hardly ever gives a grey (all three within 16 of 256: 1 %).
    colours: Literal["fitted", "saturated", "grey"] = "fitted"
    background: Literal["grey", "colour"] = "grey"  # "grey": one uniform grey a scene; "colour": uniform RGB
    min_scale: Scale = 0.5  # smallest sprite, uniform up to `max_scale`
    max_scale: Scale = 1.0  # largest sprite
    # sprites are turned by an angle uniform from 0 to this, in degrees; 0 leaves all upright
    max_orientation: Annotated[float, Field(ge=0, le=360)] = 360.0
    # some of square, ellipse, heart, with equal probability; and triangle, which the data set does not have
    shapes: Annotated[tuple[str, ...], distinct_names(ALL_SHAPES)] = SHAPES
    crop: CropShare = 1.0  # central share of the image's side that is shown at the image's size, 1/4 to 1 (all of it)
    occluder: OccluderShare = 0.0  # side of a grey square somewhere in front, as a share of the image's side; 0 is none
    # T; scene `i` is frame `i % T` of clip `i // T`, whose sprites move and keep their labels. 1: no clips.
    clip_length: PositiveInt = 1
    # Of a sprite in a clip, as a share of the image's side per frame. Its speed is uniform up to this, its direction is
    # uniform, and it turns back where its centre meets the border of the centres' range.
    max_speed: Annotated[float, Field(ge=0, le=0.5)] = 0.03

    def __post_init__(self) -> None:
        check_object_range(self.min_objects, self.max_objects)
        if self.min_scale > self.max_scale:
            raise RecipeError(f"min_scale must be at most max_scale, {self.max_scale:g}, not {self.min_scale:g}.")


class MultiDSprites(GeneratedScenes[MultiDSpritesSettings]):
    """Multi-dSprites scenes, generated when they are needed."""

    Settings = MultiDSpritesSettings
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = SHIFTS

    @property
    def clip_length(self) -> int:
        """Number of the frames of a clip; 1 for still scenes."""
        return self.settings.clip_length

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Generate scenes; scene `i` is the same in every batch.

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
        B, M, size = len(indices), max(1, settings.max_objects), settings.size
        clips, frames = np.divmod(indices, settings.clip_length)
        palette, sample = _random_factors(settings, clips)
        _move(settings, clips, frames, sample)
        sample["image"] = np.empty((B, size, size, 3), np.uint8)
        sample["labels"] = np.zeros((B, size, size), np.uint8)
        sample["boxes"] = np.empty((B, M, 4), np.float32)
        sample["visibility"] = np.zeros((B, M), np.float32)
        for start in range(0, B, _CHUNK):
            part = slice(start, start + _CHUNK)
            _paint(settings, clips[part], {key: value[part] for key, value in sample.items()}, palette[part])
        return sample


def _random_factors(
    settings: MultiDSpritesSettings, indices: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], dict[str, NDArray]]:
    """The scenes' palettes [B, M + 1, 4] uint8 (label to RGB, and an unused byte) and the factors of their sprites."""
    B, M = len(indices), max(1, settings.max_objects)
    draws = uniform_draws(settings.seed, indices, _DRAWS * (M + 1)).reshape(B, M + 1, _DRAWS)
    scene, sprite = draws[:, 0], draws[:, 1:]
    number = settings.min_objects + (scene[:, 0] * (settings.max_objects + 1 - settings.min_objects)).astype(np.int64)
    present = np.arange(M) < number[:, None]  # [B, M]
    kinds = np.array([ALL_SHAPES.index(shape) + 1 for shape in settings.shapes], np.uint8)

    palette = np.zeros((B, M + 1, 4), np.uint8)
    palette[:, 0, :3] = _as_bytes(scene[:, 1:4] if settings.background == "colour" else scene[:, 1:2])
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


def _move(
    settings: MultiDSpritesSettings, clips: NDArray[np.int64], frames: NDArray[np.int64], sample: dict[str, NDArray]
) -> None:
    """Move the sprites from their locations in frame 0 to those in `frames` [B], in place."""
    draws = uniform_draws(settings.seed ^ _MOTION_STREAM, clips, 2 * max(1, settings.max_objects))
    speed, turn = draws[:, ::2], draws[:, 1::2]  # [B, M]
    step = settings.max_speed * speed / (1 - 2 * NEAREST_CENTRE)  # of the centres' range
    direction = 2 * math.pi * turn
    for name, velocity in (("x", step * np.cos(direction)), ("y", step * np.sin(direction))):
        path = (sample[name] + velocity * frames[:, None]) % 2  # there and back
        moved = (frames[:, None] > 0) & (sample["shape"] > 0)
        sample[name] = np.where(moved, np.minimum(path, 2 - path), sample[name]).astype(np.float32)


def _colours(
    settings: MultiDSpritesSettings, draws: NDArray[np.float64], ground: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The sprites' RGB, [B, M, 3] or [B, M, 1], by draws [B, M, 3]; ground [B, 1, 1] is its grey."""
    if settings.colours == "fitted":
        return _as_bytes(draws)
    if settings.colours == "saturated":
        hue = draws[..., :1]  # to RGB at full saturation and value
        return _as_bytes(np.clip(np.abs((6 * hue + [0, 4, 2]) % 6 - 3) - 1, 0, 1))
    away = _LEAST_CONTRAST + np.floor(draws[..., :1] * (257 - 2 * _LEAST_CONTRAST))  # 48 .. 208, around the circle
    return np.asarray((ground + away) % 256, np.uint8)


def _as_bytes(uniform: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Numbers in [0, 1] to 0..255, all equally likely."""
    return np.minimum(uniform * 256, 255).astype(np.uint8)


def _paint(
    settings: MultiDSpritesSettings, clips: NDArray[np.int64], scenes: dict[str, NDArray], palette: NDArray[np.uint8]
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
        occlude(scenes["image"], labels, settings.seed, clips, settings.occluder, _OCCLUDER)
        entry = labels + (np.arange(B) * (M + 1))[:, None, None]
    scenes["boxes"][...] = boxes_of_labels(labels, M)
    shown = np.bincount(entry.ravel(), minlength=B * (M + 1)).reshape(B, M + 1)[:, 1:]
    scenes["visibility"][scene, sprite] = shown[scene, sprite] / np.maximum(area, 1)


def covered_windows(
    sprites: Mapping[str, NDArray], size: int, crop: float = 1.0
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the pixels [S, w, w] that S sprites cover, in windows around their centres, and each window's corner.

    The corner is [S, 2], x and y of the first pixel in the image. The factors are all [S]; a window is large enough for
    any sprite. From a `size` of 16 every window lies in the image, unless it is cropped; with a `crop`, sprites and
    distances are 1 / crop as large.
    """
    reach = math.floor(_REACH * size / crop + 0.5)
    location = NEAREST_CENTRE + (1 - 2 * NEAREST_CENTRE) * np.stack([sprites["x"], sprites["y"]], axis=1)
    centre = size * ((location - (1 - crop) / 2) / crop)
    corner = np.floor(centre).astype(np.int64) - reach
    middle = np.arange(2 * reach + 1) + 0.5
    away = middle + (corner - centre)[..., None]  # [S, 2, w] from the sprite's centre, in pixels
    angle = sprites["orientation"].astype(np.float64)
    length = sprites["scale"].astype(np.float64) * size / crop
    cosine = (away * (np.cos(angle) / length)[:, None, None]).astype(np.float32)
    sine = (away * (np.sin(angle) / length)[:, None, None]).astype(np.float32)

    covered = np.empty((len(angle), len(middle), len(middle)), np.bool_)
    for kind, shape in enumerate(ALL_SHAPES, start=1):
        chosen = sprites["shape"] == kind
        right = cosine[chosen, 0, None, :] + sine[chosen, 1, :, None]  # [S', w, w] in the sprite's own frame
        down = cosine[chosen, 1, :, None] - sine[chosen, 0, None, :]
        covered[chosen] = _contains(shape, right, down)
    return covered, corner


def _contains(shape: str, right: Array32, down: Array32) -> NDArray[np.bool_]:
    """Whether points of a sprite's own frame lie in it, for scale 1."""
    if shape == "square":
        return np.maximum(np.abs(right), np.abs(down)) <= np.float32(SQUARE_HALF_SIDE)
    if shape == "ellipse":
        a, b = ELLIPSE_SEMI_AXES
        return (right * np.float32(1 / a)) ** 2 + (down * np.float32(1 / b)) ** 2 <= 1
    if shape == "heart":
        column = (np.abs(right) * np.float32(_HEART_COLUMNS / HEART_HALF_WIDTH)).astype(np.int32)
        column = np.minimum(column, _HEART_COLUMNS)
        return (down >= _HEART_TOP.take(column)) & (down <= _HEART_BOTTOM.take(column))
    # the triangle's three sides are half a circumradius from the centre: one below, two that meet at the top
    above = np.float32(math.sqrt(3) / 2) * np.abs(right) - np.float32(0.5) * down
    return np.maximum(down, above) <= np.float32(TRIANGLE_CIRCUMRADIUS / 2)


def _heart_columns(columns: int) -> tuple[Array32, Array32]:
    """Where the heart begins and ends, downwards, in each column of its right half: [columns + 1], the last one empty.

    x = 16 sin^3 t,  y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t   (upwards)

    A column x meets the curve twice, at t and pi - t, so these two numbers a column describe the shape.
    """

    def height(t: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))

    t = np.arcsin(np.cbrt((np.arange(columns) + 0.5) / columns))
    middle = (height(np.linspace(0, np.pi / 2, 10001)).max() + height(np.array(np.pi))) / 2  # of its bounding box
    unit = HEART_STRETCH * HEART_HALF_WIDTH / 16
    top, bottom = (middle - height(t)) * unit, (middle - height(np.pi - t)) * unit
    return np.append(top, 1).astype(np.float32), np.append(bottom, -1).astype(np.float32)


_HEART_TOP, _HEART_BOTTOM = _heart_columns(_HEART_COLUMNS)
