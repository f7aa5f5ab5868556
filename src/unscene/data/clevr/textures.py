"""Patterns on solids and floor, compiled by numba: functions of a point, as if things were cut from a patterned block.

A pattern mixes two colours. That of the first surface on a ray tints all of its light; what mirrors show is plain.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data import generated_scenes
from unscene.data.clevr.objects import ALL_COLOURS, PATTERNS
from unscene.data.clevr.ray_tracing import ahead, first_hit
from unscene.data.clevr.shading import FLOOR
from unscene.data.clevr.stage import to_backdrop
from unscene.data.generated_scenes import sample_keys, uniform_draws
from unscene.ops.numba_jit import compiled_part

# a pattern: of the floor, or in the frame of a solid; a scene has a record array [1 + M], the floor's first, or [0]
TEXTURE = np.dtype(
    [("pattern", np.int64), ("key", np.uint64), ("scale", np.float64)]  # its number, from 1; of its noise; cells a unit
    + [(name, np.float64, 3) for name in ("first", "second")]  # factors of the plain colour
)
_STREAM = 0x9E7A_7475_7265_0000  # its top bit is set, so it differs from every seed
_STRONGEST = 6.0  # factor of a plain colour
_CHECKS, _STRIPES, _DOTS, _BRICKS, _MARBLE, _WOOD = range(1, 7)  # and noise, 7
splitmix64: Any = compiled_part(generated_scenes.splitmix64)  # of one uint64


def random_textures(seed: int, indices: NDArray[np.int64], color: NDArray[Any], size: NDArray[Any]) -> NDArray[np.void]:
    """Return the textures [B, 1 + M] of floor and solids, from (seed, index) alone.

    `color` and `size` [B, M] are numbers of `objects`; a solid's first colour is its own, its second is random.
    """
    B, M = color.shape
    draws = uniform_draws(seed ^ _STREAM, indices, (1 + M) * 8).reshape(B, 1 + M, 8)
    textures = np.zeros((B, 1 + M), TEXTURE)
    textures["pattern"] = 1 + (draws[..., 0] * len(PATTERNS)).astype(np.int64)
    textures["key"] = sample_keys(seed ^ _STREAM, indices)[:, None] + np.arange(1 + M, dtype=np.uint64)
    textures["scale"] = 1.5 + 2.5 * draws[..., 1]
    textures["scale"][:, 0] /= 2.5  # the floor is larger
    textures["scale"][:, 1:][size == 2] *= 2  # and small solids are half as large
    plain = np.array([(0, 0, 0), *ALL_COLOURS.values()])[color] / 255
    bright = (0.02 + 0.78 * draws[..., 2:8]) ** 1.5
    textures["first"], textures["second"] = 1.0, bright[..., :3]
    textures["second"][:, 1:] = np.minimum(textures["second"][:, 1:] / np.maximum(plain, 1e-3), _STRONGEST)
    textures["second"][:, 0] /= FLOOR
    textures["first"][:, 0] = bright[:, 0, 3:] / FLOOR
    return textures


@compiled_part
def tint(solids: Any, textures: Any, origin: Any, direction: Any) -> Any:
    """The factors of the plain colour that a ray meets first."""
    distance, index = first_hit(solids, origin, direction)
    if index < 0:
        distance = to_backdrop(origin, direction)[0]
        if distance == math.inf:
            return (1.0, 1.0, 1.0)
    x, y, z = ahead(origin, direction, distance)
    if index >= 0:
        solid = solids[index]
        across, along = x - solid.centre[0], y - solid.centre[1]
        x, y = solid.cosine * across + solid.sine * along, solid.cosine * along - solid.sine * across
        z -= solid.centre[2]
    texture = textures[1 + index]
    share = _share(texture, texture.scale * x, texture.scale * y, texture.scale * z)
    first, second = texture.first, texture.second
    return (
        first[0] + share * (second[0] - first[0]),
        first[1] + share * (second[1] - first[1]),
        first[2] + share * (second[2] - first[2]),
    )


@compiled_part
def _share(texture: Any, x: float, y: float, z: float) -> Any:
    """The share of the second colour at a point, in cells."""
    x, y, z = x + 0.25, y + 0.25, z + 0.25  # no face of a cube lies between two cells
    if texture.pattern == _CHECKS:
        return float((math.floor(x) + math.floor(y) + math.floor(z)) % 2)
    if texture.pattern == _STRIPES:
        return 1.0 if _fraction(x + 0.5 * z) < 0.5 else 0.0
    if texture.pattern == _DOTS:
        u, v, w = _fraction(x) - 0.5, _fraction(y) - 0.5, _fraction(z) - 0.5
        return 1.0 if u * u + v * v + w * w < 0.2 else 0.0
    if texture.pattern == _BRICKS:
        row = 2 * (y + z)
        return 1.0 if _fraction(row) < 0.16 or _fraction(x + 0.5 * (math.floor(row) % 2)) < 0.08 else 0.0
    cloud = _clouds(texture.key, x, y, z)
    if texture.pattern == _MARBLE:
        return 0.5 + 0.5 * math.sin(math.pi * (x + y + 4 * cloud))
    if texture.pattern == _WOOD:
        return _fraction(2 * math.sqrt(x * x + z * z) + cloud)
    return min(max(3 * cloud - 1, 0.0), 1.0)


@compiled_part
def _fraction(x: float) -> Any:
    return x - math.floor(x)


@compiled_part
def _clouds(key: Any, x: float, y: float, z: float) -> Any:
    """Three octaves of value noise, in [0, 1)."""
    total, amplitude = 0.0, 4 / 7
    for _ in range(3):
        total += amplitude * _value_noise(key, x, y, z)
        x, y, z, amplitude = 2 * x, 2 * y, 2 * z, amplitude / 2
    return total


@compiled_part
def _value_noise(key: Any, x: float, y: float, z: float) -> Any:
    """Random numbers at whole coordinates, smoothly between them."""
    u, v, w = _fraction(x), _fraction(y), _fraction(z)
    u, v, w = u * u * (3 - 2 * u), v * v * (3 - 2 * v), w * w * (3 - 2 * w)
    total = 0.0
    for corner in range(8):
        i, j, k = corner & 1, corner >> 1 & 1, corner >> 2
        cell = (math.floor(x) + i) * 73856093 ^ (math.floor(y) + j) * 19349663
        bits = splitmix64(key ^ np.uint64(cell ^ (math.floor(z) + k) * 83492791))
        weight = (u if i else 1 - u) * (v if j else 1 - v) * (w if k else 1 - w)
        total += weight * ((bits >> np.uint64(11)) * 2.0**-53)
    return total
