"""CLEVR's lamps: the light that they give a surface, with soft shadows and highlights, compiled by numba.

Three square lamps (key, fill and back) and a sun, as in the published Blender scene (clevr-dataset-gen,
`base_scene.blend`). They always face the origin, wherever the jitter moves them. The sun is one more square, far away.

Light is linear RGB. Without numba this module cannot be imported.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unscene.data.clevr.ray_tracing import ahead, dot, occluded, unit
from unscene.data.clevr.stage import facing_origin
from unscene.ops.numba_jit import compiled_part

SUN_DISTANCE = 1000.0
LAMP_JITTER = 1.0
LAMPS = np.array(
    [
        [6.446710109710693, -2.905174732208252, 4.258398056030273],
        [-4.671124458312988, -4.01359748840332, 3.0112245082855225],
        [-1.168501377105713, 2.646024465560913, 5.815736770629883],
        [SUN_DISTANCE * 0.41449564, -SUN_DISTANCE * 0.19458349, SUN_DISTANCE * 0.88900542],
    ]
)
LAMP_SIDES = np.array([0.5, 0.5, 1.0, 0.1 * SUN_DISTANCE])
LAMP_POWER = (  # an area lamp of strength s in Cycles gives s / 4 * cosine to its axis / distance squared
    np.array([[100 / 4], [30 / 4], [50 / 4], [0.45 * SUN_DISTANCE**2]])  # the sun gives an irradiance of 0.45
    * [[1, 0.9323092, 0.81666356], [0.76166618, 0.81771964, 1], [1, 1, 1], [1, 1, 1]]
)
STRATA = 4  # a lamp has 2 x 2 parts, one for each sample of a pixel

_BYTE, _STRATUM = np.uint64(255), np.uint64(3)

# one lamp: a square that shines along its axis; a scene has a record array [4] of them
LAMP = np.dtype(
    [(f"{vector}_{axis}", np.float64) for vector in ("position", "axis", "right", "up") for axis in "xyz"]
    + [("red", np.float64), ("green", np.float64), ("blue", np.float64), ("half", np.float64)]
)


class LitScene(NamedTuple):
    """Solids and lamps on the stage."""

    solids: Any  # [N] of `ray_tracing.SOLID`
    lamps: Any  # [4] of `LAMP`


class SampleBits(NamedTuple):
    """The random bits of one sample of a pixel."""

    strata: Any  # uint64, two bits a lamp: the part of its square to sample; then two bits for the blurred mirror
    bits: Any  # uint64, two bytes a lamp: the position in that part


def lamps_at(positions: NDArray[np.float64]) -> NDArray[np.void]:
    """Return scenes' lamps, [B, 4] of `LAMP`, at the positions [B, 4, 3] of their centres."""
    lamps = np.zeros(positions.shape[:2], LAMP)
    for vector, values in zip(("position", "axis", "right", "up"), (positions, *facing_origin(positions)), strict=True):
        for index, axis in enumerate("xyz"):
            lamps[f"{vector}_{axis}"] = values[..., index]
    for index, colour in enumerate(("red", "green", "blue")):
        lamps[colour] = LAMP_POWER[:, index]
    lamps["half"] = LAMP_SIDES / 2
    return lamps


@compiled_part
def light(scene: LitScene, point: Any, normal: Any, back: Any, alpha: float, sample: SampleBits) -> Any:
    """Return the irradiance that the lamps give a surface, and the light of their highlights towards the viewer.

    E = sum_j P_j cos(axis_j) cos(normal) / d_j^2, over one random point j of each lamp (`sample`); a point that a
    solid hides gives no light. `point` is just outside the surface, `back` the direction to the viewer, and `alpha`
    the GGX roughness of the highlights, 0 for none.
    """
    red = green = blue = shine_red = shine_green = shine_blue = 0.0
    for which in range(len(scene.lamps)):
        lamp = scene.lamps[which]
        ray = _to_lamp(lamp, which, point, sample)
        square = dot(ray, ray)
        length = math.sqrt(square)
        ray = (ray[0] / length, ray[1] / length, ray[2] / length)
        facing, leaving = dot(normal, ray), -dot((lamp.axis_x, lamp.axis_y, lamp.axis_z), ray)
        if facing <= 0 or leaving <= 0 or occluded(scene.solids, point, ray, length):
            continue
        share = facing * leaving / square
        red, green, blue = red + share * lamp.red, green + share * lamp.green, blue + share * lamp.blue
        if alpha > 0:
            share *= _lobe(normal, ray, back, alpha)
            shine_red, shine_green, shine_blue = (
                shine_red + share * lamp.red,
                shine_green + share * lamp.green,
                shine_blue + share * lamp.blue,
            )
    return (red, green, blue), (shine_red, shine_green, shine_blue)


@compiled_part
def _to_lamp(lamp: Any, which: int, point: Any, sample: SampleBits) -> Any:
    """The vector from `point` to a random point in one part of the lamp's square."""
    stratum = (sample.strata >> np.uint64(2 * which)) & _STRATUM
    first = (sample.bits >> np.uint64(16 * which)) & _BYTE
    second = (sample.bits >> np.uint64(16 * which + 8)) & _BYTE
    u = lamp.half * ((np.float64(first) + 0.5) / 256 + np.float64(stratum & np.uint64(1)) - 1)
    v = lamp.half * ((np.float64(second) + 0.5) / 256 + np.float64(stratum >> np.uint64(1)) - 1)
    return (
        lamp.position_x + u * lamp.right_x + v * lamp.up_x - point[0],
        lamp.position_y + u * lamp.right_y + v * lamp.up_y - point[1],
        lamp.position_z + u * lamp.right_z + v * lamp.up_z - point[2],
    )


@compiled_part
def lamp_ahead(lamps: Any, origin: Any, direction: Any, length: float) -> int:
    """The lamp whose shining side a ray meets before `length`, -1 if there is none."""
    for which in range(len(lamps)):
        lamp = lamps[which]
        axis = (lamp.axis_x, lamp.axis_y, lamp.axis_z)
        leaving = -dot(axis, direction)
        if leaving <= 0:
            continue
        away = (origin[0] - lamp.position_x, origin[1] - lamp.position_y, origin[2] - lamp.position_z)
        distance = dot(axis, away) / leaving
        met = ahead(away, direction, distance)
        right = abs(dot((lamp.right_x, lamp.right_y, lamp.right_z), met))
        up = abs(dot((lamp.up_x, lamp.up_y, lamp.up_z), met))
        if 0 < distance < length and right <= lamp.half and up <= lamp.half:
            return which
    return -1


@compiled_part
def _lobe(normal: Any, ray: Any, back: Any, alpha: float) -> Any:
    """The GGX reflectance without Fresnel: D(h) G(l, v) / (4 (n.l) (n.v)), with Smith's height-correlated G."""
    facing, seeing = dot(normal, ray), max(dot(normal, back), 1e-4)
    half = unit((ray[0] + back[0], ray[1] + back[1], ray[2] + back[2]))
    square = alpha * alpha
    spread = dot(normal, half) ** 2 * (square - 1) + 1
    masking = facing * math.sqrt(seeing * seeing * (1 - square) + square)
    shadowing = seeing * math.sqrt(facing * facing * (1 - square) + square)
    return square / (math.pi * spread * spread) * 0.5 / (masking + shadowing)
