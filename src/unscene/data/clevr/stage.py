"""CLEVR's stage: camera, lamps, and the grey floor that rises into a wall behind the solids, compiled by numba.

The numbers are those of the published Blender scene (clevr-dataset-gen, `base_scene.blend`): three square lamps (key,
fill and back) and a sun, here one more square, far away. Only the backdrop's sweep is a quarter circle, fitted to it,
so that a ray meets it in closed form. Camera and lamps always face the origin, wherever the jitter moves them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.clevr.ray_tracing import unit
from unscene.ops.numba_jit import compiled_part

WIDTH, HEIGHT = 320, 240
FOCAL_LENGTH = WIDTH * 35 / 32  # pixels: a lens of 35 mm before a sensor of 32 mm
CAMERA = np.array([7.481131553649902, -6.5076398849487305, 5.34366512298584])
CAMERA_JITTER, LAMP_JITTER = 0.5, 1.0
SUN_DISTANCE = 1000.0
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

# one lamp: a square that shines along its axis; a scene has a record array [4] of them
LAMP = np.dtype([(name, np.float64, 3) for name in ("position", "axis", "right", "up", "power")] + [("half", "f8")])

# the backdrop: along an axis, from the camera's side to the wall's, it is flat, then a quarter circle, then upright
AXIS = (-0.903207675766153, 0.4292037912659949)
FLOOR_STARTS, FLOOR_ENDS, SWEEP_RADIUS, WALL_HEIGHT = -9.55, 8.5, 9.0, 23.2


def facing_origin(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return forward, right and up, [..., 3] of length 1, of cameras or lamps that face the origin and stand upright.

    `points` [..., 3] are their positions, none straight above the origin.
    """
    forward = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    right = np.stack([forward[..., 1], -forward[..., 0], np.zeros_like(forward[..., 0])], axis=-1)  # forward x z
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return forward, right, np.cross(right, forward)


def lamps_at(positions: NDArray[np.float64]) -> NDArray[np.void]:
    """Return scenes' lamps, [B, 4] of `LAMP`, at the positions [B, 4, 3] of their centres."""
    lamps = np.zeros(positions.shape[:2], LAMP)
    lamps["position"], lamps["power"], lamps["half"] = positions, LAMP_POWER, LAMP_SIDES / 2
    lamps["axis"], lamps["right"], lamps["up"] = facing_origin(positions)
    return lamps


@compiled_part
def through(camera: Any, x: float, y: float) -> Any:
    """The direction of the ray through a point of CLEVR's picture: x in 0 .. 320 to the right, y in 0 .. 240 downwards.

    `camera` [4, 3] is its position and the three axes of `facing_origin`.
    """
    across, down = (x - WIDTH / 2) / FOCAL_LENGTH, (y - HEIGHT / 2) / FOCAL_LENGTH
    ray = (
        camera[1, 0] + across * camera[2, 0] - down * camera[3, 0],
        camera[1, 1] + across * camera[2, 1] - down * camera[3, 1],
        camera[1, 2] + across * camera[2, 2] - down * camera[3, 2],
    )
    return unit(ray)


@compiled_part
def seen_at(camera: Any, x: float, y: float, z: float) -> Any:
    """The pixel position of a point in CLEVR's picture: the inverse of `through`."""
    away = (x - camera[0, 0], y - camera[0, 1], z - camera[0, 2])
    depth = away[0] * camera[1, 0] + away[1] * camera[1, 1] + away[2] * camera[1, 2]
    across = away[0] * camera[2, 0] + away[1] * camera[2, 1] + away[2] * camera[2, 2]
    upward = away[0] * camera[3, 0] + away[1] * camera[3, 1] + away[2] * camera[3, 2]
    return WIDTH / 2 + FOCAL_LENGTH * across / depth, HEIGHT / 2 - FOCAL_LENGTH * upward / depth


@compiled_part
def to_backdrop(origin: Any, direction: Any) -> Any:
    """Return the distance to the backdrop from before it, and its normal there: along the axis, and up."""
    start = origin[0] * AXIS[0] + origin[1] * AXIS[1]
    speed = direction[0] * AXIS[0] + direction[1] * AXIS[1]
    if direction[2] < 0:
        distance = -origin[2] / direction[2]
        met = start + distance * speed
        if met <= FLOOR_ENDS:
            return (distance if met >= FLOOR_STARTS and distance > 0 else math.inf), 0.0, 1.0
    if speed > 0:
        distance = (FLOOR_ENDS + SWEEP_RADIUS - start) / speed
        height = origin[2] + distance * direction[2]
        if height >= SWEEP_RADIUS:
            return (distance if height <= WALL_HEIGHT else math.inf), -1.0, 0.0
    elif direction[2] >= 0:
        return math.inf, 0.0, 1.0
    away, above = start - FLOOR_ENDS, origin[2] - SWEEP_RADIUS
    a = speed * speed + direction[2] * direction[2]
    b = away * speed + above * direction[2]
    c = away * away + above * above - SWEEP_RADIUS * SWEEP_RADIUS
    distance = (math.sqrt(max(b * b - a * c, 0.0)) - b) / a
    along, up = away + distance * speed, above + distance * direction[2]
    return distance, -along / SWEEP_RADIUS, -up / SWEEP_RADIUS
