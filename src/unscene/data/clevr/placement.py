"""Random positions of CLEVR's solids: no two are too close, and none is hidden (compiled by numba).

The rules are those of clevr-dataset-gen's `render_images.py`. A solid gets random positions until one fits, 50 at most.
If none fits, or a solid shows too few pixels, all solids of the scene start again. The circles around two solids are at
least `GAP` apart. Their centres are at least `MARGIN` apart along each axis of the camera before its jitter. Camera and
lamps are jittered uniformly in a cube.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unscene.data import generated_scenes
from unscene.data.clevr import objects, ray_tracing, stage
from unscene.data.clevr.objects import ALL_COLOURS, MATERIALS, SIZES
from unscene.data.clevr.ray_tracing import SOLID, distance_to, first_hit
from unscene.data.clevr.stage import facing_origin
from unscene.data.generated_scenes import GOLDEN, sample_keys, uniform_draws
from unscene.ops import numba_jit
from unscene.ops.numba_jit import code_of, compiled, compiled_part, on_all_threads

EXTENT = 3.0  # x and y are in -3 .. 3
GAP, MARGIN = 0.25, 0.4  # between circles on the floor; along the camera's axes
LEAST_PIXELS = 200  # that every solid must show in CLEVR's picture of 320 x 240
TRIES, SCENES = 50, 5000  # most positions for one solid; most attempts for one scene
_AXES = facing_origin(stage.CAMERA * [1, 1, 0])[:2]  # behind and right, along the floor
_BEHIND, _RIGHT = tuple(_AXES[0].tolist()), tuple(_AXES[1].tolist())
_FIRST_DRAW = 16  # the draws before give the number of solids and the jitters

_METAL = MATERIALS.index("metal") + 1
_COLOURS = np.array([(0, 0, 0), *ALL_COLOURS.values()]) / 255
_RADII = np.array([0.0, *SIZES.values()])
splitmix64: Any = compiled_part(generated_scenes.splitmix64)  # of one uint64


class PlacedScenes(NamedTuple):
    """B scenes of up to M solids each; the factors are 0 where there is no solid."""

    key: NDArray[Any]  # [B] uint64; all random numbers of a scene are hashes of it
    number: NDArray[Any]  # [B] int64 of solids
    camera: NDArray[Any]  # [B, 3] float64
    lamps: NDArray[Any]  # [B, 4, 3] float64
    shape: NDArray[Any]  # [B, M] int64, counted from 1 as in `objects`; likewise the next three
    material: NDArray[Any]
    color: NDArray[Any]
    size: NDArray[Any]
    position: NDArray[Any]  # [B, M, 2] float64, x and y
    rotation: NDArray[Any]  # [B, M] float64 in [0, 2 pi), about the vertical axis
    visible_pixels: NDArray[Any]  # [B, M] int64, pixels of CLEVR's 320 x 240 whose centres show the solid


class Choices(NamedTuple):
    """The possible factors, equally probable: int64 numbers, counted from 1 as in `objects`."""

    shapes: NDArray[np.int64]
    materials: NDArray[np.int64]
    colours: NDArray[np.int64]
    sizes: NDArray[np.int64]


def placed_scenes(
    seed: int, indices: NDArray[np.int64], fewest: int, most: int, choices: Choices
) -> PlacedScenes | None:
    """Return B scenes of `fewest` to `most` solids, from (seed, index) alone; None if a scene has no room."""
    draws = uniform_draws(seed, indices, _FIRST_DRAW)
    jitter = 2 * draws - 1
    number = fewest + (draws[:, 0] * (most + 1 - fewest)).astype(np.int64)
    camera = stage.CAMERA + stage.CAMERA_JITTER * jitter[:, 1:4]
    lamps = np.tile(stage.LAMPS, (len(indices), 1, 1))
    lamps[:, :-1] += stage.LAMP_JITTER * jitter[:, 4:13].reshape(-1, 3, 3)  # the sun stays
    shape, material, color, size, pixels = (np.zeros((len(indices), most), np.int64) for _ in range(5))
    position, rotation = np.zeros((len(indices), most, 2)), np.zeros((len(indices), most))
    key = sample_keys(seed, indices)
    scenes = PlacedScenes(key, number, camera, lamps, shape, material, color, size, position, rotation, pixels)
    cameras = np.stack([camera, *facing_origin(camera)], axis=1)

    def place_range(start: int, stop: int) -> bool:
        part = slice(start, stop)
        return _place(PlacedScenes(*(values[part] for values in scenes)), cameras[part], choices)

    return scenes if all(on_all_threads(place_range, len(indices))) else None


@compiled_part
def solids_of(scenes: PlacedScenes, b: int) -> Any:
    """The solids of a scene: a record array [number] of `ray_tracing.SOLID`."""
    solids = np.empty(scenes.number[b], SOLID)
    for m in range(len(solids)):
        solid = solids[m]
        solid.kind, solid.radius = scenes.shape[b, m], _RADII[scenes.size[b, m]]
        solid.centre[0], solid.centre[1] = scenes.position[b, m, 0], scenes.position[b, m, 1]
        solid.centre[2] = solid.radius
        solid.cosine, solid.sine = math.cos(scenes.rotation[b, m]), math.sin(scenes.rotation[b, m])
        solid.metal = scenes.material[b, m] == _METAL
        solid.colour[:] = _COLOURS[scenes.color[b, m]]
    return solids


def _placer(code: str) -> Any:
    """The compiled loop over scenes; its cache on disk is valid for one `code` of its parts."""

    @compiled
    def place(scenes: PlacedScenes, cameras: Any, choices: Choices) -> bool:
        assert len(code) > 0
        for b in range(len(scenes.key)):
            draw = _FIRST_DRAW
            for _ in range(SCENES):
                draw, fits = _choose_solids(scenes, b, choices, draw)
                if fits and _all_show(scenes, b, cameras[b]):
                    break
            else:
                return False
        return True

    return place


@compiled_part
def _choose_solids(scenes: PlacedScenes, b: int, choices: Choices, draw: int) -> Any:
    """Choose all solids of a scene at random; returns the next draw, and whether every solid has room."""
    key = scenes.key[b]
    for m in range(scenes.number[b]):
        scenes.size[b, m] = _choice(choices.sizes, key, draw)
        draw += 1
        for _ in range(TRIES):
            scenes.position[b, m, 0] = EXTENT * (2 * uniform_draw(key, draw) - 1)
            scenes.position[b, m, 1] = EXTENT * (2 * uniform_draw(key, draw + 1) - 1)
            draw += 2
            if _has_room(scenes, b, m):
                break
        else:
            return draw, False
        scenes.shape[b, m] = _choice(choices.shapes, key, draw)
        scenes.color[b, m] = _choice(choices.colours, key, draw + 1)
        scenes.rotation[b, m] = 2 * math.pi * uniform_draw(key, draw + 2)
        scenes.material[b, m] = _choice(choices.materials, key, draw + 3)
        draw += 4
    return draw, True


@compiled_part
def bits_of_draw(key: Any, draw: int) -> Any:
    """The 64 random bits of a sample's draw; `key` is one of `generated_scenes.sample_keys`."""
    return splitmix64(key + np.uint64(draw) * GOLDEN)


@compiled_part
def uniform_draw(key: Any, draw: int) -> Any:
    """The number that `generated_scenes.uniform_draws` has at [sample, draw]."""
    return (bits_of_draw(key, draw) >> np.uint64(11)) * 2.0**-53


@compiled_part
def _choice(choices: Any, key: Any, draw: int) -> Any:
    return choices[int(uniform_draw(key, draw) * len(choices))]


@compiled_part
def _has_room(scenes: PlacedScenes, b: int, m: int) -> bool:
    """Whether solid `m` is far enough from the solids before it."""
    for other in range(m):
        x = scenes.position[b, m, 0] - scenes.position[b, other, 0]
        y = scenes.position[b, m, 1] - scenes.position[b, other, 1]
        if math.sqrt(x * x + y * y) < _RADII[scenes.size[b, m]] + _RADII[scenes.size[b, other]] + GAP:
            return False
        if abs(x * _BEHIND[0] + y * _BEHIND[1]) < MARGIN or abs(x * _RIGHT[0] + y * _RIGHT[1]) < MARGIN:
            return False
    return True


@compiled_part
def _all_show(scenes: PlacedScenes, b: int, camera: Any) -> bool:
    """Count the pixels that show each solid; return False at the first one that shows too few."""
    solids = solids_of(scenes, b)
    for m in range(scenes.number[b]):
        scenes.visible_pixels[b, m] = _pixels_showing(solids, m, camera)
        if scenes.visible_pixels[b, m] < LEAST_PIXELS:
            return False
    return True


@compiled_part
def _pixels_showing(solids: Any, m: int, camera: Any) -> int:
    x1, y1, x2, y2 = _rectangle_around(solids[m], camera)
    eye = (camera[0, 0], camera[0, 1], camera[0, 2])
    count = 0
    for y in range(y1, y2):
        for x in range(x1, x2):
            towards = stage.through(camera, x + 0.5, y + 0.5)
            if distance_to(solids[m], eye, towards) < math.inf and first_hit(solids, eye, towards)[1] == m:
                count += 1
    return count


@compiled_part
def _rectangle_around(solid: Any, camera: Any) -> Any:
    """The rectangle of pixels around a solid's rotated bounding box, in CLEVR's picture."""
    left, top, right, bottom = math.inf, math.inf, -math.inf, -math.inf
    half = solid.radius
    for corner in range(8):
        across = half if corner & 1 else -half
        along = half if corner & 2 else -half
        x, y = stage.seen_at(
            camera,
            solid.centre[0] + solid.cosine * across - solid.sine * along,
            solid.centre[1] + solid.sine * across + solid.cosine * along,
            solid.centre[2] + (half if corner & 4 else -half),
        )
        left, right, top, bottom = min(left, x), max(right, x), min(top, y), max(bottom, y)
    return max(int(left), 0), max(int(top), 0), min(int(right) + 1, stage.WIDTH), min(int(bottom) + 1, stage.HEIGHT)


_PARTS = (objects, stage, generated_scenes, numba_jit, ray_tracing)
_place = _placer(code_of(*_PARTS))
