"""The light that comes back along a ray on CLEVR's stage, compiled by numba.

Rubber and floor are matt and lit by the lamps, with shadows; rubber has a faint sheen besides, which grows towards its
outline. Metal is two mirrors, a clear one (.6) and a blurred one (.4), that show floor, wall, lamps and other solids.
What light does after its first bounce is not traced but stood for by constants, fitted to CLEVR's published pictures:
the floor's glow from below, and the tint that solids give to the floor beside them.

Colours and radiances are linear RGB. Without numba this module cannot be imported.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from unscene.compilation import compiled_part
from unscene.data.clevr_stage import AXIS, FLOOR_ENDS, LAMP_POWER, LAMP_SIDES, NUM_LAMPS, Lamps, to_backdrop
from unscene.data.compiled_random import splitmix64
from unscene.data.ray_tracing import Solids, ahead, dot, first_hit, mirrored, normals, occluded, unit

FLOOR = 0.8  # albedo
FLOOR_GLOW, SWEEP_GLOW = 0.012, 0.0012  # radiance of floor, and its rise towards the wall, by light of later bounces
GLOW_BELOW, GLOW_AROUND = 0.2, 0.02  # radiance of the floor and of all else, as a solid's surface sees them
SOLID_GLOW = 0.15  # radiance of a white solid, as the floor sees it
RUBBER_ALPHA, RUBBER_SHEEN = 0.35, (0.2 / 2.2) ** 2  # GGX roughness; reflectance straight on, refractive index 1.2
METAL_ALPHA, CLEAR = 0.2, 0.6  # GGX roughness of the blurred mirror; share of the clear one
BOUNCES = 3  # from mirror to mirror
BRIGHTEST = 4.0  # of one sample: a lamp in a mirror is no brighter
SKIN = 1e-6  # secondary rays start so far outside
STRATA = 4  # the square of a lamp is parted in 2 x 2, one part for each sample of a pixel

_LAMP_RADIANCE = LAMP_POWER / LAMP_SIDES[:, None] ** 2
_BYTE, _STRATUM = np.uint64(255), np.uint64(3)


class Scene(NamedTuple):
    """What is on the stage.

    Attributes:
        solids: N of them.
        metal: [N] bool; the others are of rubber.
        colour: [N, 3] float64.
        lamps: where they are.
    """

    solids: Solids
    metal: Any
    colour: Any
    lamps: Lamps


class Chance(NamedTuple):
    """The random numbers of one sample of a pixel.

    Attributes:
        strata: uint64, two bits a lamp: which part of its square is asked; then two for the blurred mirror.
        bits: uint64, two bytes a lamp: where in that part.
    """

    strata: Any
    bits: Any


@compiled_part
def radiance(scene: Scene, origin: Any, direction: Any, chance: Chance) -> Any:
    """Return the light that the camera receives along a ray, none where nothing is."""
    distance, index = first_hit(scene.solids, origin, direction)
    if index < 0:
        return _of_backdrop(scene, origin, direction, chance)
    point = ahead(origin, direction, distance)
    flat, normal = normals(scene.solids, index, point)
    point = ahead(point, flat, SKIN)
    if not scene.metal[index]:
        return _of_rubber(scene, index, point, normal, direction, chance)
    back = (-direction[0], -direction[1], -direction[2])
    _, shine = light(scene, point, normal, back, METAL_ALPHA, chance)
    clear = seen(scene, point, _outward(mirrored(direction, normal), flat), chance, True)
    blurred = seen(scene, point, _outward(_blurred(direction, normal, chance), flat), chance, False)
    colour = _colour(scene, index)
    return (
        min(colour[0] * (CLEAR * clear[0] + (1 - CLEAR) * (blurred[0] + shine[0])), BRIGHTEST),
        min(colour[1] * (CLEAR * clear[1] + (1 - CLEAR) * (blurred[1] + shine[1])), BRIGHTEST),
        min(colour[2] * (CLEAR * clear[2] + (1 - CLEAR) * (blurred[2] + shine[2])), BRIGHTEST),
    )


@compiled_part
def seen(scene: Scene, origin: Any, direction: Any, chance: Chance, with_lamps: bool) -> Any:
    """Return what a mirror shows along a ray; a mirror in a mirror is a clear one."""
    tint = (1.0, 1.0, 1.0)
    for _ in range(BOUNCES):
        distance, index = first_hit(scene.solids, origin, direction)
        if with_lamps:
            lamp = _lamp_ahead(scene.lamps, origin, direction, distance)
            if lamp >= 0:
                shown = (_LAMP_RADIANCE[lamp, 0], _LAMP_RADIANCE[lamp, 1], _LAMP_RADIANCE[lamp, 2])
                return _product(tint, shown)
        if index < 0:
            return _product(tint, _of_backdrop(scene, origin, direction, chance))
        point = ahead(origin, direction, distance)
        flat, normal = normals(scene.solids, index, point)
        point = ahead(point, flat, SKIN)
        if not scene.metal[index]:
            return _product(tint, _of_rubber(scene, index, point, normal, direction, chance))
        tint = _product(tint, _colour(scene, index))
        origin, direction = point, _outward(mirrored(direction, normal), flat)
    return _product(tint, (FLOOR_GLOW, FLOOR_GLOW, FLOOR_GLOW))


@compiled_part
def light(scene: Scene, point: Any, normal: Any, back: Any, alpha: float, chance: Chance) -> Any:
    """Return the irradiance that the lamps give a surface, and the light of their highlights towards the viewer.

    E = sum_j P_j cos(axis_j) cos(normal) / d_j^2, over the lamps that no solid hides from one random point of each.

    Args:
        scene: what may be in between.
        point: just outside the surface.
        normal: to shade with.
        back: to the viewer.
        alpha: GGX roughness of the highlights; 0 for none.
        chance: where on the lamps.
    """
    red = green = blue = shine_red = shine_green = shine_blue = 0.0
    for lamp in range(NUM_LAMPS):
        ray = _to_lamp(scene.lamps, lamp, point, chance)
        square = dot(ray, ray)
        length = math.sqrt(square)
        ray = (ray[0] / length, ray[1] / length, ray[2] / length)
        facing, leaving = dot(normal, ray), -_dot_row(scene.lamps.axis, lamp, ray)
        if facing <= 0 or leaving <= 0 or occluded(scene.solids, point, ray, length):
            continue
        share = facing * leaving / square
        red, green, blue = (
            red + share * LAMP_POWER[lamp, 0],
            green + share * LAMP_POWER[lamp, 1],
            blue + share * LAMP_POWER[lamp, 2],
        )
        if alpha > 0:
            share *= _lobe(normal, ray, back, alpha)
            shine_red, shine_green, shine_blue = (
                shine_red + share * LAMP_POWER[lamp, 0],
                shine_green + share * LAMP_POWER[lamp, 1],
                shine_blue + share * LAMP_POWER[lamp, 2],
            )
    return (red, green, blue), (shine_red, shine_green, shine_blue)


@compiled_part
def _of_backdrop(scene: Scene, origin: Any, direction: Any, chance: Chance) -> Any:
    distance, along, up = to_backdrop(origin, direction)
    if distance == math.inf:
        return (0.0, 0.0, 0.0)
    point = ahead(origin, direction, distance)
    normal = (along * AXIS[0], along * AXIS[1], up)
    place = point[0] * AXIS[0] + point[1] * AXIS[1]
    glow = FLOOR_GLOW + SWEEP_GLOW * min(max(place, 0.0), FLOOR_ENDS)
    (red, green, blue), _ = light(scene, ahead(point, normal, SKIN), normal, normal, 0.0, chance)
    return (
        FLOOR / math.pi * red + glow,
        FLOOR / math.pi * green + glow,
        FLOOR / math.pi * blue + glow,
    )


@compiled_part
def _of_rubber(scene: Scene, index: int, point: Any, normal: Any, direction: Any, chance: Chance) -> Any:
    back = (-direction[0], -direction[1], -direction[2])
    lamps, shine = light(scene, point, normal, back, RUBBER_ALPHA, chance)
    sheen = RUBBER_SHEEN + (1 - RUBBER_SHEEN) * (1 - max(dot(normal, back), 0.0)) ** 5
    around = GLOW_BELOW * (1 - normal[2]) / 2 + GLOW_AROUND
    colour = _colour(scene, index)
    return (
        (1 - sheen) * colour[0] * (lamps[0] / math.pi + around) + sheen * (shine[0] + around),
        (1 - sheen) * colour[1] * (lamps[1] / math.pi + around) + sheen * (shine[1] + around),
        (1 - sheen) * colour[2] * (lamps[2] / math.pi + around) + sheen * (shine[2] + around),
    )


@compiled_part
def _to_lamp(lamps: Lamps, lamp: int, point: Any, chance: Chance) -> Any:
    """The way from a point to a random one in a part of the lamp's square."""
    stratum = (chance.strata >> np.uint64(2 * lamp)) & _STRATUM
    first = (chance.bits >> np.uint64(16 * lamp)) & _BYTE
    second = (chance.bits >> np.uint64(16 * lamp + 8)) & _BYTE
    u = (np.float64(first) + 0.5) / 256 + np.float64(stratum & np.uint64(1)) - 1  # in -1 .. 1
    v = (np.float64(second) + 0.5) / 256 + np.float64(stratum >> np.uint64(1)) - 1
    return (
        lamps.place[lamp, 0] + u * lamps.right[lamp, 0] + v * lamps.up[lamp, 0] - point[0],
        lamps.place[lamp, 1] + u * lamps.right[lamp, 1] + v * lamps.up[lamp, 1] - point[1],
        lamps.place[lamp, 2] + u * lamps.right[lamp, 2] + v * lamps.up[lamp, 2] - point[2],
    )


@compiled_part
def _lamp_ahead(lamps: Lamps, origin: Any, direction: Any, length: float) -> int:
    """The lamp whose shining side a ray meets before `length`, -1 if there is none."""
    for lamp in range(NUM_LAMPS):
        leaving = -_dot_row(lamps.axis, lamp, direction)
        if leaving <= 0:
            continue
        away = (
            origin[0] - lamps.place[lamp, 0],
            origin[1] - lamps.place[lamp, 1],
            origin[2] - lamps.place[lamp, 2],
        )
        distance = _dot_row(lamps.axis, lamp, away) / leaving
        met = ahead(away, direction, distance)
        half_square = LAMP_SIDES[lamp] ** 2 / 4
        across, upward = _dot_row(lamps.right, lamp, met), _dot_row(lamps.up, lamp, met)
        if 0 < distance < length and abs(across) <= half_square and abs(upward) <= half_square:
            return lamp
    return -1


@compiled_part
def _lobe(normal: Any, ray: Any, back: Any, alpha: float) -> float:
    """The GGX reflectance without Fresnel: D(h) G(l, v) / (4 (n.l) (n.v)), G of Smith, heights correlated."""
    facing, seeing = dot(normal, ray), max(dot(normal, back), 1e-4)
    half = unit((ray[0] + back[0], ray[1] + back[1], ray[2] + back[2]))
    square = alpha * alpha
    spread = dot(normal, half) ** 2 * (square - 1) + 1
    masking = facing * math.sqrt(seeing * seeing * (1 - square) + square)
    shadowing = seeing * math.sqrt(facing * facing * (1 - square) + square)
    return square / (math.pi * spread * spread) * 0.5 / (masking + shadowing)


@compiled_part
def _blurred(direction: Any, normal: Any, chance: Chance) -> Any:
    """A random reflection in the blurred mirror: at a facet with tan^2 = alpha^2 u / (1 - u)."""
    bits = splitmix64(chance.bits)
    stratum = (chance.strata >> np.uint64(2 * NUM_LAMPS)) & _STRATUM
    u = (np.float64(stratum) + (np.float64(bits & _BYTE) + 0.5) / 256) / STRATA
    turn = 2 * math.pi * (np.float64((bits >> np.uint64(8)) & _BYTE) + 0.5) / 256
    steep = METAL_ALPHA * math.sqrt(u / (1 - u))
    first = unit((normal[1], -normal[0], 0.0)) if abs(normal[2]) < 0.9 else unit((0.0, normal[2], -normal[1]))
    second = (
        normal[1] * first[2] - normal[2] * first[1],
        normal[2] * first[0] - normal[0] * first[2],
        normal[0] * first[1] - normal[1] * first[0],
    )
    facet = unit(ahead(ahead(normal, first, steep * math.cos(turn)), second, steep * math.sin(turn)))
    return mirrored(direction, facet)


@compiled_part
def _outward(direction: Any, flat: Any) -> Any:
    """A reflection that a bevel or a facet sent into the solid, turned back at its surface."""
    return direction if dot(direction, flat) > 0 else mirrored(direction, flat)


@compiled_part
def _colour(scene: Scene, index: int) -> Any:
    return (scene.colour[index, 0], scene.colour[index, 1], scene.colour[index, 2])


@compiled_part
def _product(a: Any, b: Any) -> Any:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


@compiled_part
def _dot_row(rows: Any, row: int, a: Any) -> float:
    return rows[row, 0] * a[0] + rows[row, 1] * a[1] + rows[row, 2] * a[2]
