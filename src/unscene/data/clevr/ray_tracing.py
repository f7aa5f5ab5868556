"""Where a ray first meets spheres, cubes, upright cylinders and cones, in closed form, compiled by numba.

A point or a direction is a tuple of three numbers; directions have length 1. Rays start outside of every solid. A miss
is an infinite distance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from unscene.ops.numba_jit import compiled_part

CUBE, SPHERE, CYLINDER, CONE = 1, 2, 3, 4
BEVEL = 0.1  # width of an edge that is shaded as round, of the half side
_REACH = (0.0, math.sqrt(3), 1.0, math.sqrt(2), math.sqrt(2))  # of a solid from its centre, by its kind, of its radius
_CERTAIN = 1e-9  # of a squared length: no rounding makes a sphere around a solid too small

# a solid of a scene, which is a record array [N]; it stands upright
SOLID = np.dtype(
    [("kind", np.int64)]  # CUBE, SPHERE, CYLINDER or CONE
    + [("radius", np.float64)]  # also half the side of a cube and half the height of a cylinder or cone
    + [(name, np.float64, 3) for name in ("centre", "colour")]  # linear RGB
    + [(name, np.float64) for name in ("cosine", "sine")]  # of the rotation about the vertical axis
    + [("metal", np.int64)]  # 0 is rubber
)


@compiled_part
def dot(a: Any, b: Any) -> Any:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@compiled_part
def cross(a: Any, b: Any) -> Any:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


@compiled_part
def minus(a: Any, b: Any) -> Any:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


@compiled_part
def product(a: Any, b: Any) -> Any:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])


@compiled_part
def ahead(origin: Any, direction: Any, distance: float) -> Any:
    """The point at a distance along a ray."""
    x, y, z = direction[0], direction[1], direction[2]
    return origin[0] + distance * x, origin[1] + distance * y, origin[2] + distance * z


@compiled_part
def unit(a: Any) -> Any:
    length = math.sqrt(dot(a, a))
    return (a[0] / length, a[1] / length, a[2] / length)


@compiled_part
def mirrored(direction: Any, normal: Any) -> Any:
    """The direction of the ray's reflection: d - 2 (d . n) n."""
    return ahead(direction, normal, -2 * dot(direction, normal))


@compiled_part
def first_hit(solids: Any, origin: Any, direction: Any) -> Any:
    """Return the distance to the nearest solid and its index, -1 if there is none."""
    nearest, which = math.inf, -1
    for index in range(len(solids)):
        distance = distance_to(solids[index], origin, direction)
        if distance < nearest:
            nearest, which = distance, index
    return nearest, which


@compiled_part
def occluded(solids: Any, origin: Any, direction: Any, length: float) -> bool:
    """Whether a solid stands in the first `length` of a ray."""
    for index in range(len(solids)):  # noqa: SIM110 - numba has no any()
        if distance_to(solids[index], origin, direction) < length:
            return True
    return False


@compiled_part
def distance_to(solid: Any, origin: Any, direction: Any) -> Any:
    """Return the distance to one solid; a bounding sphere rejects most rays first."""
    away = minus(origin, solid.centre)
    along, reach = dot(away, direction), _REACH[solid.kind] * solid.radius
    outside = dot(away, away) - reach * reach
    apart = along * along - outside
    if apart < -_CERTAIN or (along > 0 and outside > _CERTAIN):
        return math.inf
    if solid.kind == SPHERE:
        distance = -along - math.sqrt(max(apart, 0.0))
        return distance if apart >= 0 and distance > 0 else math.inf
    if solid.kind == CUBE:
        cosine, sine = solid.cosine, solid.sine
        return _to_box(_turned(away, cosine, -sine), _turned(direction, cosine, -sine), solid.radius)
    if solid.kind == CYLINDER:
        return _to_cylinder(away, direction, solid.radius)
    return _to_cone(away, direction, solid.radius)


@compiled_part
def _turned(a: Any, cosine: float, sine: float) -> Any:
    return (cosine * a[0] - sine * a[1], cosine * a[1] + sine * a[0], a[2])


@compiled_part
def _between(origin: float, direction: float, half: float) -> Any:
    """Where a ray enters and leaves the slab |x| <= half."""
    if direction == 0:
        return (-math.inf, math.inf) if abs(origin) <= half else (math.inf, math.inf)
    wall = math.copysign(half, direction)
    return (-wall - origin) / direction, (wall - origin) / direction


@compiled_part
def _to_box(away: Any, direction: Any, half: float) -> float:
    """Distance to the cube |x|, |y|, |z| <= half: a ray is in it while it is in all three slabs."""
    enters_x, leaves_x = _between(away[0], direction[0], half)
    enters_y, leaves_y = _between(away[1], direction[1], half)
    enters_z, leaves_z = _between(away[2], direction[2], half)
    enters, leaves = max(enters_x, enters_y, enters_z), min(leaves_x, leaves_y, leaves_z)
    return enters if 0 < enters <= leaves else math.inf


@compiled_part
def _to_cylinder(away: Any, direction: Any, half: float) -> float:
    """Distance to the cylinder x^2 + y^2 <= half^2, |z| <= half: a ray is in it while in the tube and in the slab."""
    enters, leaves = _between(away[2], direction[2], half)
    a = direction[0] * direction[0] + direction[1] * direction[1]
    b = away[0] * direction[0] + away[1] * direction[1]
    c = away[0] * away[0] + away[1] * away[1] - half * half
    apart = b * b - a * c
    if apart < 0 or (a == 0 and c > 0):
        return math.inf
    if a > 0:
        root = math.sqrt(apart)
        enters, leaves = max(enters, (-b - root) / a), min(leaves, (-b + root) / a)
    return enters if 0 < enters <= leaves else math.inf


@compiled_part
def _to_cone(away: Any, direction: Any, half: float) -> Any:
    """Distance to the cone x^2 + y^2 <= (half - z)^2 / 4, |z| <= half, whose tip is above: the nearest of its surfaces.

    A ray may enter a double cone twice, so one interval does not do, as it does for a cylinder. Each root of the side's
    equation counts at the solid's height, and the base within its circle.
    """
    below = half - away[2]  # the tip, at the origin
    a = direction[0] * direction[0] + direction[1] * direction[1] - direction[2] * direction[2] / 4
    b = away[0] * direction[0] + away[1] * direction[1] + below * direction[2] / 4
    c = away[0] * away[0] + away[1] * away[1] - below * below / 4
    nearest = math.inf
    if direction[2] != 0:
        distance = (-half - away[2]) / direction[2]
        x, y = away[0] + distance * direction[0], away[1] + distance * direction[1]
        if distance > 0 and x * x + y * y <= half * half:
            nearest = distance
    apart = b * b - a * c
    if apart < 0:
        return nearest
    both = -b - math.copysign(math.sqrt(apart), b)  # a times one root, and the other is c by it: neither cancels
    return min(nearest, _on_side(away, direction, half, both / a), _on_side(away, direction, half, c / both))


@compiled_part
def _on_side(away: Any, direction: Any, half: float, distance: float) -> Any:
    """A distance to the double cone, where it is ahead and at the cone's height; else infinity."""
    return distance if distance > 0 and abs(away[2] + distance * direction[2]) <= half else math.inf


@compiled_part
def normals(solid: Any, point: Any) -> Any:
    """Return the outward normal at a point of a solid, and the normal to shade with, which turns at bevelled edges.

    The solid itself has sharp edges, so its outline is exact. The shading treats them as round.
    """
    away, radius = minus(point, solid.centre), solid.radius
    own = _turned((away[0] / radius, away[1] / radius, away[2] / radius), solid.cosine, -solid.sine)
    far = math.sqrt(own[0] * own[0] + own[1] * own[1])  # from the axis
    x, y = (own[0] / far, own[1] / far) if far > 0 else (0.0, 0.0)
    if solid.kind == SPHERE:
        flat = shaded = unit(own)
    elif solid.kind == CUBE:
        flat, shaded = _cube_normals(own)
    elif solid.kind == CONE:  # the side stands out by 2 for every 1 upwards; its tip is shaded as round
        flat = unit((2 * x, 2 * y, 1.0))
        shaded = unit((flat[0], flat[1], flat[2] + _lean(own[2])))
        if own[2] + 1 < (1 - own[2]) / 2 - far:  # nearer to the base than to the side
            lean = _lean(far)
            flat, shaded = (0.0, 0.0, -1.0), unit((lean * flat[0], lean * flat[1], lean * flat[2] - 1))
    elif abs(own[2]) >= far:  # the cylinder's lid
        out, lean = math.copysign(1.0, own[2]), _lean(far)
        flat, shaded = (0.0, 0.0, out), unit((lean * x, lean * y, out))
    else:
        flat, shaded = (x, y, 0.0), unit((x, y, _lean(own[2])))
    return _turned(flat, solid.cosine, solid.sine), _turned(shaded, solid.cosine, solid.sine)


@compiled_part
def _cube_normals(own: Any) -> Any:
    x, y, z = abs(own[0]), abs(own[1]), abs(own[2])
    lean = (_lean(own[0]), _lean(own[1]), _lean(own[2]))
    if x >= y and x >= z:
        out = math.copysign(1.0, own[0])
        return (out, 0.0, 0.0), unit((out, lean[1], lean[2]))
    if y >= z:
        out = math.copysign(1.0, own[1])
        return (0.0, out, 0.0), unit((lean[0], out, lean[2]))
    out = math.copysign(1.0, own[2])
    return (0.0, 0.0, out), unit((lean[0], lean[1], out))


@compiled_part
def _lean(offset: float) -> float:
    """How far the normal leans towards an edge at an offset from a side's middle: 0 inside, +-1 at the edge."""
    return math.copysign(max(abs(offset) - (1 - BEVEL), 0.0) / BEVEL, offset)
