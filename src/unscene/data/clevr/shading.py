"""The light that the camera receives along a ray on CLEVR's stage, compiled by numba.

Rubber and floor are matt. The lamps light them, with soft shadows. Rubber also has a faint sheen, stronger near its
outline. Metal mixes a clear mirror (0.6) and a blurred one (0.4), which show floor, wall, lamps and other solids.
Light after its first bounce is not traced. Constants replace it, fitted to CLEVR's published pictures: the floor's glow
from below, and the tint that solids give to the floor beside them.

Colours and radiances are linear RGB.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from unscene.data import generated_scenes
from unscene.data.clevr.ray_tracing import (
    SPHERE,
    ahead,
    cross,
    dot,
    first_hit,
    minus,
    mirrored,
    normals,
    occluded,
    product,
    unit,
)
from unscene.data.clevr.stage import AXIS, FLOOR_ENDS, STRATA, to_backdrop
from unscene.ops.numba_jit import compiled_part

FLOOR = 0.8  # albedo
FLOOR_GLOW, SWEEP_GLOW = 0.012, 0.0012  # radiance of the floor by later bounces; its rise towards the wall
GLOW_BELOW, GLOW_AROUND = 0.2, 0.02  # radiance of the floor and of the rest, as a solid receives it
SOLID_GLOW = 0.15  # radiance of a white solid, as the floor receives it
RUBBER_ALPHA, RUBBER_SHEEN = 0.35, (0.2 / 2.2) ** 2  # GGX roughness; reflectance straight on, refractive index 1.2
METAL_ALPHA, CLEAR = 0.2, 0.6  # GGX roughness of the blurred mirror; share of the clear one
BOUNCES = 3  # from mirror to mirror
BRIGHTEST = 1.5  # limit of one sample, for lamps seen in mirrors
SKIN = 1e-6  # secondary rays start at this distance from the surface

_BYTE, _STRATUM = np.uint64(255), np.uint64(3)
_splitmix64: Any = compiled_part(generated_scenes.splitmix64)  # of one uint64


class LitScene(NamedTuple):
    """Solids and lamps on the stage."""

    solids: Any  # [N] of `ray_tracing.SOLID`
    lamps: Any  # [4] of `stage.LAMP`


class SampleBits(NamedTuple):
    """The random bits of one sample of a pixel."""

    strata: Any  # uint64, two bits a lamp: the part of its square to sample; then two bits for the blurred mirror
    bits: Any  # uint64, two bytes a lamp: the position in that part


@compiled_part
def radiance(scene: LitScene, origin: Any, direction: Any, sample: SampleBits) -> Any:
    """Return the light that the camera receives along a ray, 0 if the ray meets nothing."""
    distance, index = first_hit(scene.solids, origin, direction)
    if index < 0:
        return _backdrop_radiance(scene, origin, direction, sample)
    solid, point = scene.solids[index], ahead(origin, direction, distance)
    flat, normal = normals(solid, point)
    point = ahead(point, flat, SKIN)
    if not solid.metal:
        return _rubber_radiance(scene, solid, point, normal, direction, sample)
    back = (-direction[0], -direction[1], -direction[2])
    _, shine = light(scene, point, normal, back, METAL_ALPHA, sample)
    clear = _mirror_image(scene, point, _outward(mirrored(direction, normal), flat), sample, solid.kind == SPHERE)
    first, second = _facets(normal, sample)
    blurred = _mirror_image(scene, point, _outward(mirrored(direction, first), flat), sample, False)
    other = _mirror_image(scene, point, _outward(mirrored(direction, second), flat), sample, False)
    red, green, blue = product(
        solid.colour,
        (
            CLEAR * clear[0] + (1 - CLEAR) * ((blurred[0] + other[0]) / 2 + shine[0]),
            CLEAR * clear[1] + (1 - CLEAR) * ((blurred[1] + other[1]) / 2 + shine[1]),
            CLEAR * clear[2] + (1 - CLEAR) * ((blurred[2] + other[2]) / 2 + shine[2]),
        ),
    )
    return min(red, BRIGHTEST), min(green, BRIGHTEST), min(blue, BRIGHTEST)


@compiled_part
def _mirror_image(scene: LitScene, origin: Any, direction: Any, sample: SampleBits, with_lamps: bool) -> Any:
    """What a mirror shows along a ray; a mirror seen in a mirror counts as clear."""
    tint = (1.0, 1.0, 1.0)
    for _ in range(BOUNCES):
        distance, index = first_hit(scene.solids, origin, direction)
        if with_lamps:
            which = lamp_ahead(scene.lamps, origin, direction, distance)
            if which >= 0:
                power, area = scene.lamps[which].power, 4 * scene.lamps[which].half * scene.lamps[which].half
                return product(tint, (power[0] / area, power[1] / area, power[2] / area))
        if index < 0:
            return product(tint, _backdrop_radiance(scene, origin, direction, sample))
        solid, point = scene.solids[index], ahead(origin, direction, distance)
        flat, normal = normals(solid, point)
        point = ahead(point, flat, SKIN)
        if not solid.metal:
            return product(tint, _rubber_radiance(scene, solid, point, normal, direction, sample))
        tint = product(tint, solid.colour)
        origin, direction = point, _outward(mirrored(direction, normal), flat)
    return product(tint, (FLOOR_GLOW, FLOOR_GLOW, FLOOR_GLOW))


@compiled_part
def _backdrop_radiance(scene: LitScene, origin: Any, direction: Any, sample: SampleBits) -> Any:
    distance, along, up = to_backdrop(origin, direction)
    if distance == math.inf:
        return (0.0, 0.0, 0.0)
    point = ahead(origin, direction, distance)
    normal = (along * AXIS[0], along * AXIS[1], up)
    depth = point[0] * AXIS[0] + point[1] * AXIS[1]
    glow = FLOOR_GLOW + SWEEP_GLOW * min(max(depth, 0.0), FLOOR_ENDS)
    (red, green, blue), _ = light(scene, ahead(point, normal, SKIN), normal, normal, 0.0, sample)
    tint = (0.0, 0.0, 0.0)
    for index in range(len(scene.solids)):  # each covers the share of the sky that a sphere covers, r^2 z / d^3
        solid = scene.solids[index]
        x, y, z = solid.centre[0] - point[0], solid.centre[1] - point[1], solid.centre[2]
        square = x * x + y * y + z * z
        tint = ahead(tint, solid.colour, SOLID_GLOW * solid.radius * solid.radius * z / (square * math.sqrt(square)))
    return (
        FLOOR * (red / math.pi + tint[0]) + glow,
        FLOOR * (green / math.pi + tint[1]) + glow,
        FLOOR * (blue / math.pi + tint[2]) + glow,
    )


@compiled_part
def _rubber_radiance(scene: LitScene, solid: Any, point: Any, normal: Any, direction: Any, sample: SampleBits) -> Any:
    back = (-direction[0], -direction[1], -direction[2])
    lamps, shine = light(scene, point, normal, back, RUBBER_ALPHA, sample)
    sheen = RUBBER_SHEEN + (1 - RUBBER_SHEEN) * (1 - max(dot(normal, back), 0.0)) ** 5
    around, colour = GLOW_BELOW * (1 - normal[2]) / 2 + GLOW_AROUND, solid.colour
    return (
        (1 - sheen) * colour[0] * (lamps[0] / math.pi + around) + sheen * (shine[0] + around),
        (1 - sheen) * colour[1] * (lamps[1] / math.pi + around) + sheen * (shine[1] + around),
        (1 - sheen) * colour[2] * (lamps[2] / math.pi + around) + sheen * (shine[2] + around),
    )


@compiled_part
def light(scene: LitScene, point: Any, normal: Any, back: Any, alpha: float, sample: SampleBits) -> Any:
    """Return the irradiance that the lamps give a surface, and the light of their highlights towards the viewer.

    E = sum_j P_j cos(axis_j) cos(normal) / d_j^2, over one random point j of each lamp (`sample`); a point that a
    solid hides gives no light. `point` is just outside the surface, `back` the direction to the viewer, and `alpha`
    the GGX roughness of the highlights, 0 for none.
    """
    irradiance = shine = (0.0, 0.0, 0.0)
    for which in range(len(scene.lamps)):
        lamp = scene.lamps[which]
        stratum = (sample.strata >> np.uint64(2 * which)) & _STRATUM
        first = (sample.bits >> np.uint64(16 * which)) & _BYTE
        second = (sample.bits >> np.uint64(16 * which + 8)) & _BYTE
        u = lamp.half * ((np.float64(first) + 0.5) / 256 + np.float64(stratum & np.uint64(1)) - 1)
        v = lamp.half * ((np.float64(second) + 0.5) / 256 + np.float64(stratum >> np.uint64(1)) - 1)
        to_lamp = minus(ahead(ahead(lamp.position, lamp.right, u), lamp.up, v), point)
        square, ray = dot(to_lamp, to_lamp), unit(to_lamp)
        facing, leaving = dot(normal, ray), -dot(lamp.axis, ray)
        if facing <= 0 or leaving <= 0 or occluded(scene.solids, point, ray, math.sqrt(square)):
            continue
        share = facing * leaving / square
        irradiance = ahead(irradiance, lamp.power, share)
        if alpha > 0:
            shine = ahead(shine, lamp.power, share * _lobe(normal, ray, back, alpha))
    return irradiance, shine


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


@compiled_part
def lamp_ahead(lamps: Any, origin: Any, direction: Any, length: float) -> int:
    """The lamp whose shining side a ray meets before `length`, -1 if there is none."""
    for which in range(len(lamps)):
        lamp = lamps[which]
        leaving = -dot(lamp.axis, direction)
        if leaving <= 0:
            continue
        away = minus(origin, lamp.position)
        distance = dot(lamp.axis, away) / leaving
        met = ahead(away, direction, distance)
        if 0 < distance < length and abs(dot(lamp.right, met)) <= lamp.half and abs(dot(lamp.up, met)) <= lamp.half:
            return which
    return -1


@compiled_part
def _facets(normal: Any, sample: SampleBits) -> Any:
    """Two facets of the blurred mirror, tan^2 = alpha^2 u / (1 - u), tilted alike in opposite directions."""
    bits = _splitmix64(sample.bits)
    stratum = (sample.strata >> np.uint64(8)) & _STRATUM
    u = (np.float64(stratum) + (np.float64(bits & _BYTE) + 0.5) / 256) / STRATA
    turn = 2 * math.pi * (np.float64((bits >> np.uint64(8)) & _BYTE) + 0.5) / 256
    steep = METAL_ALPHA * math.sqrt(u / (1 - u))
    tangent = unit((normal[1], -normal[0], 0.0)) if abs(normal[2]) < 0.9 else unit((0.0, normal[2], -normal[1]))
    other = cross(normal, tangent)
    across, along = steep * math.cos(turn), steep * math.sin(turn)
    facet = unit(ahead(ahead(normal, tangent, across), other, along))
    return facet, unit(ahead(ahead(normal, tangent, -across), other, -along))


@compiled_part
def _outward(direction: Any, flat: Any) -> Any:
    """Mirror a direction at the surface if a bevel or a facet sent it into the solid."""
    return direction if dot(direction, flat) > 0 else mirrored(direction, flat)
