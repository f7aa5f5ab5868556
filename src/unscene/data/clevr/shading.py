"""The light that the camera receives along a ray on CLEVR's stage, compiled by numba.

Rubber and floor are matt. The lamps light them, with shadows. Rubber also has a faint sheen, stronger near its outline.
Metal mixes a clear mirror (0.6) and a blurred one (0.4), which show floor, wall, lamps and other solids.
Light after its first bounce is not traced. Constants replace it, fitted to CLEVR's published pictures: the floor's glow
from below, and the tint that solids give to the floor beside them.

Colours and radiances are linear RGB. Without numba this module cannot be imported.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unscene.data.clevr.lights import STRATA, LitScene, SampleBits, lamp_ahead, light
from unscene.data.clevr.random_numba import splitmix64
from unscene.data.clevr.ray_tracing import SPHERE, ahead, cross, dot, first_hit, mirrored, normals, unit
from unscene.data.clevr.stage import AXIS, FLOOR_ENDS, to_backdrop
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


@compiled_part
def radiance(scene: LitScene, origin: Any, direction: Any, sample: SampleBits) -> Any:
    """Return the light that the camera receives along a ray, 0 if the ray meets nothing."""
    distance, index = first_hit(scene.solids, origin, direction)
    if index < 0:
        return _backdrop_radiance(scene, origin, direction, sample)
    point = ahead(origin, direction, distance)
    solid = scene.solids[index]
    flat, normal = normals(solid, point)
    point = ahead(point, flat, SKIN)
    if not solid.metal:
        return _rubber_radiance(scene, solid, point, normal, direction, sample)
    back = (-direction[0], -direction[1], -direction[2])
    _, shine = light(scene, point, normal, back, METAL_ALPHA, sample)
    clear = seen(scene, point, _outward(mirrored(direction, normal), flat), sample, solid.kind == SPHERE)
    first, second = _facets(normal, sample)
    blurred = seen(scene, point, _outward(mirrored(direction, first), flat), sample, False)
    other = seen(scene, point, _outward(mirrored(direction, second), flat), sample, False)
    return (
        min(solid.red * (CLEAR * clear[0] + (1 - CLEAR) * ((blurred[0] + other[0]) / 2 + shine[0])), BRIGHTEST),
        min(solid.green * (CLEAR * clear[1] + (1 - CLEAR) * ((blurred[1] + other[1]) / 2 + shine[1])), BRIGHTEST),
        min(solid.blue * (CLEAR * clear[2] + (1 - CLEAR) * ((blurred[2] + other[2]) / 2 + shine[2])), BRIGHTEST),
    )


@compiled_part
def seen(scene: LitScene, origin: Any, direction: Any, sample: SampleBits, with_lamps: bool) -> Any:
    """Return what a mirror shows along a ray; a mirror seen in a mirror counts as clear."""
    tint = (1.0, 1.0, 1.0)
    for _ in range(BOUNCES):
        distance, index = first_hit(scene.solids, origin, direction)
        if with_lamps:
            which = lamp_ahead(scene.lamps, origin, direction, distance)
            if which >= 0:
                lamp = scene.lamps[which]
                area = 4 * lamp.half * lamp.half
                return _product(tint, (lamp.red / area, lamp.green / area, lamp.blue / area))
        if index < 0:
            return _product(tint, _backdrop_radiance(scene, origin, direction, sample))
        point = ahead(origin, direction, distance)
        solid = scene.solids[index]
        flat, normal = normals(solid, point)
        point = ahead(point, flat, SKIN)
        if not solid.metal:
            return _product(tint, _rubber_radiance(scene, solid, point, normal, direction, sample))
        tint = _product(tint, (solid.red, solid.green, solid.blue))
        origin, direction = point, _outward(mirrored(direction, normal), flat)
    return _product(tint, (FLOOR_GLOW, FLOOR_GLOW, FLOOR_GLOW))


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
    tint = _light_of_solids(scene.solids, point)
    return (
        FLOOR * (red / math.pi + tint[0]) + glow,
        FLOOR * (green / math.pi + tint[1]) + glow,
        FLOOR * (blue / math.pi + tint[2]) + glow,
    )


@compiled_part
def _light_of_solids(solids: Any, point: Any) -> Any:
    """The light that solids give to the floor: each covers the share of the sky that a sphere covers, r^2 z / d^3."""
    red = green = blue = 0.0
    for index in range(len(solids)):
        solid = solids[index]
        x, y = solid.x - point[0], solid.y - point[1]
        square = x * x + y * y + solid.z * solid.z
        share = SOLID_GLOW * solid.radius * solid.radius * solid.z / (square * math.sqrt(square))
        red, green, blue = red + share * solid.red, green + share * solid.green, blue + share * solid.blue
    return red, green, blue


@compiled_part
def _rubber_radiance(scene: LitScene, solid: Any, point: Any, normal: Any, direction: Any, sample: SampleBits) -> Any:
    back = (-direction[0], -direction[1], -direction[2])
    lamps, shine = light(scene, point, normal, back, RUBBER_ALPHA, sample)
    sheen = RUBBER_SHEEN + (1 - RUBBER_SHEEN) * (1 - max(dot(normal, back), 0.0)) ** 5
    around = GLOW_BELOW * (1 - normal[2]) / 2 + GLOW_AROUND
    return (
        (1 - sheen) * solid.red * (lamps[0] / math.pi + around) + sheen * (shine[0] + around),
        (1 - sheen) * solid.green * (lamps[1] / math.pi + around) + sheen * (shine[1] + around),
        (1 - sheen) * solid.blue * (lamps[2] / math.pi + around) + sheen * (shine[2] + around),
    )


@compiled_part
def _facets(normal: Any, sample: SampleBits) -> Any:
    """Two facets of the blurred mirror, tan^2 = alpha^2 u / (1 - u), tilted alike in opposite directions."""
    bits = splitmix64(sample.bits)
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


@compiled_part
def _product(a: Any, b: Any) -> Any:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])
