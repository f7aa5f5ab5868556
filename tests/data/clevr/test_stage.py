"""clevr_stage: the camera's picture and the backdrop, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unscene.data.clevr.stage import (
    AXIS,
    CAMERA,
    FLOOR_ENDS,
    FLOOR_STARTS,
    SWEEP_RADIUS,
    WALL_HEIGHT,
    facing_origin,
    seen_at,
    through,
    to_backdrop,
)


@pytest.fixture
def camera() -> np.ndarray:
    return np.stack([CAMERA, *facing_origin(CAMERA)])


def test_the_camera_faces_the_origin_and_stands_upright(camera):
    _, forward, right, up = camera
    assert np.cross(forward, -CAMERA) == pytest.approx(0, abs=1e-9)
    assert camera[1:] @ camera[1:].T == pytest.approx(np.eye(3))
    assert right[2] == 0
    assert up[2] > 0
    # what all of CLEVR's scene files say of their directions "behind" and "right", along the floor
    assert forward[:2] / np.hypot(*forward[:2]) == pytest.approx([-0.75449, 0.65631], abs=1e-5)
    assert right[:2] == pytest.approx([0.65631, 0.75449], abs=1e-5)


def test_the_origin_is_in_the_middle_and_a_metre_beside_it_a_focal_length_further(camera):
    assert seen_at(camera, 0.0, 0.0, 0.0) == pytest.approx((160, 120))
    beside, above = camera[2], camera[3]
    focal_length = 350  # 320 pixels of 35 mm / 32 mm
    assert seen_at(camera, *beside) == pytest.approx((160 + focal_length / np.linalg.norm(CAMERA), 120))
    assert seen_at(camera, *above) == pytest.approx((160, 120 - focal_length / np.linalg.norm(CAMERA)))


def test_a_point_lies_on_the_ray_through_where_it_is_seen(camera):
    point = np.array([1.2, -0.7, 0.4])
    ray = np.array(through(camera, *seen_at(camera, *point)))
    assert np.linalg.norm(ray) == pytest.approx(1)
    assert np.cross(ray, point - CAMERA) == pytest.approx(0, abs=1e-9)


def beside_the_wall(along: float, height: float) -> tuple[float, float, float]:
    return (along * AXIS[0], along * AXIS[1], height)


TO_WALL = (AXIS[0], AXIS[1], 0.0)
DOWN = (0.0, 0.0, -1.0)
DIAGONAL = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("origin", "direction", "expected"),
    [
        ((0, 0, 5), DOWN, (5, 0, 1)),
        (beside_the_wall(FLOOR_STARTS - 0.01, 5), DOWN, (math.inf, 0, 1)),  # before the floor's edge
        (beside_the_wall(0, 12), TO_WALL, (FLOOR_ENDS + SWEEP_RADIUS, -1, 0)),
        (beside_the_wall(0, WALL_HEIGHT + 0.1), TO_WALL, (math.inf, -1, 0)),
        (beside_the_wall(0, 5), (-AXIS[0], -AXIS[1], 0.0), (math.inf, 0, 1)),
        # from the centre of the sweep at 45 degrees downwards
        (
            beside_the_wall(FLOOR_ENDS, SWEEP_RADIUS),
            (DIAGONAL * AXIS[0], DIAGONAL * AXIS[1], -DIAGONAL),
            (SWEEP_RADIUS, -DIAGONAL, DIAGONAL),
        ),
        # straight down where the sweep has risen: 9 - sqrt(81 - 25) high
        (
            beside_the_wall(FLOOR_ENDS + 5, 8),
            DOWN,
            (8 - (SWEEP_RADIUS - math.sqrt(56)), -5 / SWEEP_RADIUS, math.sqrt(56) / SWEEP_RADIUS),
        ),
    ],
)
def test_the_backdrop_by_hand(origin, direction, expected):
    found = to_backdrop(tuple(map(float, origin)), direction)
    if expected[0] == math.inf:
        assert found[0] == math.inf
    else:
        assert found == pytest.approx(expected)
