"""Rooms with objects, after DeepMind's Objects Room: sky, floor, two walls, and up to three solids, 64 pixels.

The camera stands in a corner and looks at the opposite one. Colours of sky, floor, walls and objects are random. A
scene is drawn anew until every object shows `LEAST_PIXELS`. Simpler than the published set, whose renderer has
textures, capsules and other solids: scores on these scenes are not scores on Objects Room.

A sample comes from (seed, index) alone. Tracing needs numba: `pip install 'unscene[render]'`.
"""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from unscene.data.clevr.dataset import compiled_tracer
from unscene.data.clevr.objects import ALL_SHAPES
from unscene.data.generated_scenes import Seed, check_object_range, uniform_draws
from unscene.data.samples import GeneratedScenes, checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import distinct_names, settings_dataclass

VERSION = 1  # of the generator: raised whenever the same seed would give another scene

SCENERY = ("sky", "floor", "left wall", "right wall")
SHIFTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "six_objects": {"min_objects": 6, "max_objects": 6},
        "identical_colour": {"min_objects": 4, "max_objects": 6, "identical_colour": True},
    }
)
LEAST_PIXELS = 12  # that every object must show at 64 px; in proportion at other sizes
ROOM = 6.0  # both walls' distance from the corner where the camera stands
GAP = 0.1  # between circles around objects, on the floor
_NEAR, _FAR = 1.6, 5.2  # of an object's centre from the camera
_SPREAD = np.radians(29)  # of an object's direction from the camera's
_RADII = (0.3, 0.6)
_POSITIONS, _ATTEMPTS = 20, 60  # tries for an object; for a scene
_SCENE_DRAWS, _OBJECT_DRAWS = 16, 6 + 2 * _POSITIONS


@settings_dataclass
class ObjectsRoomSettings:
    """The kind of scenes. The defaults are the training set's; the published test sets are the shifts."""

    count: PositiveInt = 60000  # number of scenes
    seed: Seed = 0  # another seed gives another, unrelated data set
    size: Annotated[int, Field(ge=16)] = 64  # side of the image in pixels
    min_objects: NonNegativeInt = 1  # fewest objects of a scene; 0 and a `max_objects` of 0 draw empty rooms
    max_objects: Annotated[int, Field(ge=0, le=10)] = 3  # most objects of a scene
    # some of cube, sphere, cylinder, cone, with equal probability
    shapes: Annotated[tuple[str, ...], distinct_names(ALL_SHAPES)] = ALL_SHAPES
    identical_colour: bool = False  # whether all objects of a scene have one colour
    # how many of sky, floor, left and right wall are background, in this order; the others have labels and rows before
    # those of the objects
    background: Annotated[int, Field(ge=1, le=4)] = 4

    def __post_init__(self) -> None:
        check_object_range(self.min_objects, self.max_objects)


class ObjectsRoom(GeneratedScenes[ObjectsRoomSettings]):
    """Rooms, traced when they are needed."""

    Settings = ObjectsRoomSettings
    shifts: ClassVar[Mapping[str, Mapping[str, Any]]] = SHIFTS

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Trace scenes; scene `i` is the same in every batch. M counts the scenery that is no background, too.

        Returns:
            image: [B, size, size, 3] uint8.
            labels: [B, size, size] uint8 label map, 0 is the background.
            boxes: [B, M, 4] float32 `x1 y1 x2 y2`, end exclusive; row `m` belongs to label `m + 1`.
            visibility: [B, M] float32, 1 for what shows a pixel.
            shape: [B, M] uint8, 1.. as in `objects.ALL_SHAPES`, 0 for scenery and no object, as all factors below.
            color: [B, M, 3] float32 in [0, 1].
            x, y, radius, rotation: [B, M] float32; both walls are at 6, the camera near (0.4, 0.4).

        Raises:
            DataError: numba is not installed, or the objects find no room.
        """
        indices, settings = checked_indices(indices, len(self)), self.settings
        compiled_tracer("objects_room")
        from unscene.data.objects_room import rendering

        size, M = settings.size, max(settings.max_objects, 1)
        scenes: dict[str, NDArray] = {}
        images = np.empty((len(indices), size, size, 3), np.uint8)
        labels = np.empty(images.shape[:3], np.uint8)
        waiting = np.arange(len(indices))
        for attempt in range(_ATTEMPTS):
            found, has_room = _place(settings, indices[waiting], attempt)
            if not scenes:
                scenes = {name: np.zeros((len(indices), *rows.shape[1:]), rows.dtype) for name, rows in found.items()}
            images[waiting], labels[waiting] = rendering.render(found, size)
            for name, rows in found.items():
                scenes[name][waiting] = rows
            shown = (labels[waiting, None] == (4 + np.arange(M))[:, None, None]).sum(axis=(2, 3))  # [., M] pixels
            hidden = (found["shape"] > 0) & (shown < LEAST_PIXELS * (size / 64) ** 2)
            waiting = waiting[~has_room | hidden.any(axis=1)]
            if not len(waiting):
                break
        else:
            raise DataError(f"objects_room: {_ATTEMPTS} attempts did not place the objects. Lower max_objects.")
        labels = np.where(labels < settings.background, 0, labels - (settings.background - 1)).astype(np.uint8)
        S = len(SCENERY) - settings.background  # rows of scenery
        sample: dict[str, NDArray] = {"image": images, "labels": labels, "boxes": boxes_of_labels(labels, S + M)}
        for name in ("shape", "color", "x", "y", "radius", "rotation"):
            sample[name] = np.pad(scenes[name], [(0, 0), (S, 0)] + [(0, 0)] * (scenes[name].ndim - 2))
        sample["visibility"] = (sample["boxes"][..., 2] > 0).astype(np.float32)
        return sample


def _place(
    settings: ObjectsRoomSettings, indices: NDArray[np.int64], attempt: int
) -> tuple[dict[str, NDArray], NDArray[np.bool_]]:
    """Camera, colours and objects of scenes at an attempt, and whether all objects have room."""
    B, M = len(indices), max(settings.max_objects, 1)
    width = _SCENE_DRAWS + M * _OBJECT_DRAWS
    draws = uniform_draws(settings.seed, indices, width * (attempt + 1))[:, width * attempt :]
    scene, objects = draws[:, :_SCENE_DRAWS], draws[:, _SCENE_DRAWS:].reshape(B, M, _OBJECT_DRAWS)
    number = settings.min_objects + (scene[:, 0] * (settings.max_objects + 1 - settings.min_objects)).astype(np.int64)
    present = np.arange(M) < number[:, None]
    azimuth = np.radians(45 + 24 * (scene[:, 1] - 0.5))
    eye = np.stack([0.3 + 0.2 * scene[:, 2], 0.3 + 0.2 * scene[:, 3], 1.1 + 0.3 * scene[:, 4]], axis=1)
    kinds = np.array([1 + ALL_SHAPES.index(shape) for shape in settings.shapes])
    radius = (_RADII[0] + (_RADII[1] - _RADII[0]) * objects[..., 1]) * present
    sky, floor = _colours(scene[:, 5:8], 0.2, 0.85, 0.3), _colours(scene[:, 8:11], 0.5, 0.5)
    walls = _colours(scene[:, 11:14], 0.4, 0.5)
    if settings.identical_colour:
        objects[..., 3:6] = objects[:, :1, 3:6]

    tries = objects[..., 6:].reshape(B, M, _POSITIONS, 2)
    away = _NEAR + (_FAR - _NEAR) * tries[..., 0]
    towards = azimuth[:, None, None] + _SPREAD * (2 * tries[..., 1] - 1)
    candidates = eye[:, None, None, :2] + away[..., None] * np.stack([np.cos(towards), np.sin(towards)], axis=-1)
    position, has_room = np.zeros((B, M, 2)), np.ones(B, np.bool_)
    for m in range(M):
        apart = np.linalg.norm(candidates[:, m, :, None] - position[:, None, :m], axis=-1)  # [B, positions, m]
        free = (apart > (radius[:, m, None] + radius[:, :m])[:, None] * 1.42 + GAP).all(axis=-1)
        free &= (candidates[:, m] < (ROOM - GAP - 1.42 * radius[:, m])[:, None, None]).all(axis=-1)
        position[:, m] = candidates[np.arange(B), m, free.argmax(axis=1)]
        has_room &= free.any(axis=1) | ~present[:, m]
    return {
        "shape": (kinds[(objects[..., 0] * len(kinds)).astype(np.int64)] * present).astype(np.uint8),
        "x": (position[..., 0] * present).astype(np.float32),
        "y": (position[..., 1] * present).astype(np.float32),
        "radius": radius.astype(np.float32),
        "rotation": (2 * np.pi * objects[..., 2] * present).astype(np.float32),
        "color": (_colours(objects[..., 3:6], 0.7, 0.7) * present[..., None]).astype(np.float32),
        "scenery": np.stack([sky, floor, walls], axis=1),
        "azimuth": azimuth,
        "eye": eye,
    }, has_room


def _colours(draws: NDArray[np.float64], saturation: float, value: float, most: float = 1.0) -> NDArray[np.float64]:
    """RGB of a random hue, a saturation up to `most`, and a value up to 1; [..., 3] of three draws."""
    flat = draws.reshape(-1, 3)
    colours = [
        colorsys.hsv_to_rgb(hue, saturation + (most - saturation) * s, value + (1 - value) * v)
        for hue, s, v in flat.tolist()
    ]
    return np.array(colours).reshape(draws.shape)
