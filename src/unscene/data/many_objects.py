"""Large images of many like objects on a plain ground, with label maps: touching discs, ellipses, textured parts.

They stand for pictures in which people count cells, colonies, pills or parts. A sample comes from (seed, index) alone.
No object covers another, and all lie within the image.

    discs      of one grey each on dark ground
    ellipses   brighter than a ground whose grey rises from one side to the other
    parts      discs and polygons, striped or checked in two colours, on grey ground
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt
from scipy.ndimage import binary_dilation, gaussian_filter
from scipy.special import ndtri

from unscene.data.generated_scenes import Seed, check_object_range, uniform_draws
from unscene.data.samples import GeneratedScenes, checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import settings_dataclass

VERSION = 1  # of the generator: raised whenever the same seed would give another scene

SIDES = (0, 3, 4, 6)  # of a part; 0 is a disc
_GAP = 2  # pixels between objects that are not set against each other
_BLUR = 0.7  # pixels, of the picture
_NOISE = 0.03  # standard deviation; black is 0, white 1
_TRIES = 256  # positions of one object
_SCENE_DRAWS, _OBJECT_DRAWS = 3, 16 + 3 * _TRIES


@settings_dataclass
class ManyObjectsSettings:
    """The kind of images."""

    kind: Literal["discs", "ellipses", "parts"] = "discs"  # of objects and ground, as the module says
    count: PositiveInt = 100  # number of images
    seed: Seed = 0  # another seed gives another, unrelated data set
    size: Annotated[int, Field(ge=32)] = 512  # side of an image in pixels
    # Usual diameter in pixels. An object has the area of a disc of .8 to 1.2 times this diameter.
    object_size: Annotated[float, Field(ge=6)] = 22.0
    min_objects: NonNegativeInt = 40  # fewest objects of an image
    max_objects: Annotated[int, Field(ge=1, le=255)] = 80  # most objects of an image; also M, the rows of boxes
    # Share of the objects that are set against an earlier one. The others keep a distance to earlier ones.
    touching: Annotated[float, Field(ge=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        check_object_range(self.min_objects, self.max_objects)


class ManyObjects(GeneratedScenes[ManyObjectsSettings]):
    """Images of many objects, generated when they are needed."""

    Settings = ManyObjectsSettings

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray]:
        """Generate images; image `i` is the same in every batch.

        Returns:
            image: [B, size, size, 3] uint8.
            labels: [B, size, size] uint8 label map, 0 is the background.
            boxes: [B, M, 4] float32 `x1 y1 x2 y2`, end exclusive; a zero row where there is no object.

        Raises:
            DataError: the objects find no room.
        """
        indices, size = checked_indices(indices, len(self)), self.settings.size
        images = np.empty((len(indices), size, size, 3), np.uint8)
        labels = np.zeros((len(indices), size, size), np.uint8)
        for b in range(len(indices)):
            images[b] = self._draw(indices[b : b + 1], labels[b])
        return {"image": images, "labels": labels, "boxes": boxes_of_labels(labels, self.settings.max_objects)}

    def _draw(self, index: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image [size, size, 3]; its label map [size, size] is filled in place."""
        settings, (size, M) = self.settings, (self.settings.size, self.settings.max_objects)
        draws = uniform_draws(settings.seed, index, size**2 + _SCENE_DRAWS + M * _OBJECT_DRAWS)[0]
        noise, scene, objects = np.split(draws, [size**2, size**2 + _SCENE_DRAWS])
        number = settings.min_objects + int(scene[0] * (M + 1 - settings.min_objects))
        image = np.repeat(_ground(settings.kind, size, scene[1])[..., None], 3, axis=-1)
        for m, row in enumerate(objects.reshape(M, _OBJECT_DRAWS)[:number]):
            mask, colours = _shape(settings.kind, settings.object_size, row)
            y, x = _location(labels, mask, row[16:].reshape(_TRIES, 3), row[15] < settings.touching and m > 0)
            window = (slice(y, y + len(mask)), slice(x, x + len(mask)))
            labels[window][mask] = m + 1
            image[window][mask] = colours[mask] + (image[window][mask] if settings.kind == "ellipses" else 0)
        image = gaussian_filter(image, (_BLUR, _BLUR, 0))
        image += _NOISE * ndtri(noise.reshape(size, size, 1) * (1 - 2**-52) + 2**-53)
        return np.asarray(np.rint(255 * image.clip(0, 1)), np.uint8)


def _ground(kind: str, size: int, turn: float) -> NDArray[np.float64]:
    """The grey [size, size] behind the objects."""
    if kind != "ellipses":
        return np.full((size, size), 0.12 if kind == "discs" else 0.5)
    along = np.linspace(-0.5, 0.5, size)
    angle = 2 * np.pi * turn
    return np.asarray(0.35 + 0.25 * (along * np.cos(angle) + along[:, None] * np.sin(angle)) * np.sqrt(2))


def _shape(kind: str, object_size: float, draws: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """The pixels [w, w] of an object, and what its pixels are, or exceed the ground by, [w, w, 3].

    Around the pixels lies a margin of `_GAP`.
    """
    radius = object_size / 2 * (0.8 + 0.4 * draws[0])
    narrow = np.sqrt(0.5 + 0.4 * draws[1]) if kind == "ellipses" else 1.0
    reach = int(1.6 * radius) + 1 + _GAP  # the corner of a triangle is 1.56 radii away
    down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1] + draws[2:4, None, None] - 0.5
    angle = 2 * np.pi * draws[4]
    u = (across * np.cos(angle) + down * np.sin(angle)) * narrow  # the object's own frame
    v = (down * np.cos(angle) - across * np.sin(angle)) / narrow
    sides = SIDES[int(draws[5] * len(SIDES))] if kind == "parts" else 0
    if sides:
        normals = 2 * np.pi * np.arange(sides)[:, None, None] / sides
        distance = (u * np.cos(normals) + v * np.sin(normals)).max(axis=0)
        radius *= np.sqrt(np.pi / (sides * np.tan(np.pi / sides)))  # of the circle within, for the same area
    else:
        distance = np.hypot(u, v)
    grey = {"discs": 0.45 + 0.45 * draws[6], "ellipses": 0.2 + 0.2 * draws[6], "parts": 0.0}[kind]
    colours = np.full((*u.shape, 3), grey)
    if kind == "parts":
        frequency = 2 * np.pi / (object_size * (0.2 + 0.2 * draws[6]))
        is_first = np.sin(frequency * u) > 0
        if draws[7] < 0.5:
            is_first ^= np.sin(frequency * v) > 0
        pair = np.where(draws[8:14] < 0.5, 0.6 * draws[8:14], 0.3 + 0.7 * draws[8:14])  # away from the ground's grey
        colours = np.where(is_first[..., None], pair[:3], pair[3:])
    return distance <= radius, colours


def _location(
    labels: NDArray[np.uint8], mask: NDArray[np.bool_], tries: NDArray[np.float64], touching: bool
) -> tuple[int, int]:
    """The first row and column of a window [w, w] in which the mask covers no object.

    A touching one comes out of the middle of an earlier object along a ray, and stops where it is free. Its last step
    was one pixel or less in each direction, so the two are neighbours.
    """
    last = len(labels) - len(mask)
    kept_free = mask if touching else binary_dilation(mask, iterations=_GAP)
    number = int(labels.max())
    for other, across, down in tries if last >= 0 else ():
        if touching:
            middle = np.argwhere(labels == 1 + int(other * number)).mean(axis=0) - len(mask) // 2
            direction = np.array([np.sin(2 * np.pi * across), np.cos(2 * np.pi * across)])
            ray = np.rint(middle + np.arange(2 * len(mask))[:, None] * direction).astype(int)
        else:
            ray = np.array([[int(down * (last + 1)), int(across * (last + 1))]])
        for y, x in ray.tolist():
            if not (0 <= y <= last and 0 <= x <= last):
                break
            if not labels[y : y + len(mask), x : x + len(mask)][kept_free].any():
                return y, x
    raise DataError(f"many_objects: {_TRIES} attempts found no room for an object. Lower max_objects, or raise size.")
