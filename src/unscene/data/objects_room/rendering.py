"""Images and label maps of rooms, compiled by numba: the solids of `clevr.ray_tracing` under a sun with sharp shadows.

A pixel's colour is the mean of 2 x 2 samples, its label that of the ray through its centre: 0 sky, 1 floor, 2 and 3 the
left and right wall, 4 and more the objects.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.clevr import ray_tracing
from unscene.data.clevr.ray_tracing import SOLID, ahead, dot, first_hit, normals, occluded, unit
from unscene.data.objects_room.dataset import ROOM
from unscene.ops import numba_jit
from unscene.ops.numba_jit import code_of, compiled, compiled_part, on_all_threads

FIELD_OF_VIEW = math.tan(math.radians(35))  # half of it
PITCH = math.radians(-9)
WALL_HEIGHT = 2.3
SUN = tuple((np.array([-0.45, -0.2, 0.87]) / np.linalg.norm([-0.45, -0.2, 0.87])).tolist())
AMBIENT = 0.45  # share of the light that shadows keep
SKIN = 1e-6


def render(scenes: dict[str, NDArray[Any]], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images [B, size, size, 3] and label maps [B, size, size] uint8 of the scenes of `dataset`."""
    B = len(scenes["shape"])
    solids = np.zeros(scenes["shape"].shape, SOLID)
    solids["kind"], solids["radius"], solids["colour"] = scenes["shape"], scenes["radius"], scenes["color"]
    solids["centre"] = np.stack([scenes["x"], scenes["y"], scenes["radius"]], axis=-1)
    solids["cosine"], solids["sine"] = np.cos(scenes["rotation"]), np.sin(scenes["rotation"])
    number = (scenes["shape"] > 0).sum(axis=1)
    forward = np.stack([np.cos(scenes["azimuth"]), np.sin(scenes["azimuth"]), np.full(B, math.tan(PITCH))], axis=1)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    right = np.stack([np.sin(scenes["azimuth"]), -np.cos(scenes["azimuth"]), np.zeros(B)], axis=1)
    camera = np.stack([scenes["eye"], forward, right, np.cross(right, forward)], axis=1)
    images, labels = np.empty((B, size, size, 3), np.uint8), np.empty((B, size, size), np.uint8)

    def render_range(start: int, stop: int) -> None:
        part = slice(start, stop)
        _render(solids[part], number[part], camera[part], scenes["scenery"][part], images[part], labels[part])

    on_all_threads(render_range, B)
    return images, labels


def _renderer(code: str) -> Any:
    """The compiled loop over scenes and pixels; its cache on disk is valid for one `code` of its parts."""

    @compiled
    def render_rooms(all_solids: Any, number: Any, camera: Any, scenery: Any, images: Any, labels: Any) -> None:
        assert len(code) > 0
        size = labels.shape[1]
        for b in range(len(labels)):
            solids, eye = all_solids[b, : number[b]], (camera[b, 0, 0], camera[b, 0, 1], camera[b, 0, 2])
            for y in range(size):
                for x in range(size):
                    labels[b, y, x] = _hit(solids, eye, _through(camera[b], x + 0.5, y + 0.5, size))[0]
                    colour = (0.0, 0.0, 0.0)
                    for sample in range(4):
                        across, down = x + 0.25 + 0.5 * (sample & 1), y + 0.25 + 0.5 * (sample >> 1)
                        light = _radiance(solids, scenery[b], eye, _through(camera[b], across, down, size))
                        colour = ahead(colour, light, 0.25)
                    for channel in range(3):
                        images[b, y, x, channel] = np.uint8(255 * min(colour[channel], 1.0) + 0.5)

    return render_rooms


@compiled_part
def _through(camera: Any, x: float, y: float, size: int) -> Any:
    """The direction of the ray through a point of the image, of a camera [4, 3]: eye, forward, right, up."""
    across, down = FIELD_OF_VIEW * (2 * x / size - 1), FIELD_OF_VIEW * (2 * y / size - 1)
    return unit(
        (
            camera[1, 0] + across * camera[2, 0] - down * camera[3, 0],
            camera[1, 1] + across * camera[2, 1] - down * camera[3, 1],
            camera[1, 2] + across * camera[2, 2] - down * camera[3, 2],
        )
    )


@compiled_part
def _hit(solids: Any, eye: Any, towards: Any) -> Any:
    """The label of what a ray meets first, and its distance."""
    floor = -eye[2] / towards[2] if towards[2] < 0 else math.inf
    right = (ROOM - eye[0]) / towards[0] if towards[0] > 0 else math.inf
    left = (ROOM - eye[1]) / towards[1] if towards[1] > 0 else math.inf
    distance, index = first_hit(solids, eye, towards)
    nearest = min(floor, right, left)
    if index >= 0 and distance < nearest:
        return 4 + index, distance
    if floor <= nearest:
        return 1, floor
    if eye[2] + nearest * towards[2] > WALL_HEIGHT:
        return 0, math.inf
    return (2, left) if left <= nearest else (3, right)


@compiled_part
def _radiance(solids: Any, scenery: Any, eye: Any, towards: Any) -> Any:
    """The colour of a ray: that of the surface, by the sun and the light from around."""
    label, distance = _hit(solids, eye, towards)
    if label == 0:
        return (scenery[0, 0], scenery[0, 1], scenery[0, 2])
    point = ahead(eye, towards, distance)
    row = min(label, 2)  # both walls have one colour
    colour = (scenery[row, 0], scenery[row, 1], scenery[row, 2])
    flat = normal = (0.0, 0.0, 1.0)
    if label >= 4:
        solid = solids[label - 4]
        colour = (solid.colour[0], solid.colour[1], solid.colour[2])
        flat, normal = normals(solid, point)
    elif label == 2:
        flat = normal = (0.0, -1.0, 0.0)
    elif label == 3:
        flat = normal = (-1.0, 0.0, 0.0)
    facing = max(dot(normal, SUN), 0.0)
    if facing > 0 and occluded(solids, ahead(point, flat, SKIN), SUN, math.inf):
        facing = 0.0
    light = AMBIENT + (1 - AMBIENT) * facing
    return (colour[0] * light, colour[1] * light, colour[2] * light)


_render = _renderer(code_of(ray_tracing, numba_jit))
