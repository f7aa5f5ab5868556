"""shading: the lamps' light on a floor, highlights and shadows, hard and soft, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unscene.data.clevr.ray_tracing import CUBE, SOLID, SPHERE
from unscene.data.clevr.shading import LitScene, SampleBits, lamp_ahead, light
from unscene.data.clevr.stage import LAMP_POWER, LAMPS, STRATA, lamps_at

UP = (0.0, 0.0, 1.0)
NOTHING = np.zeros(0, SOLID)


def ball(x: float, y: float, z: float, radius: float, kind: int = SPHERE) -> np.ndarray:
    solids = np.zeros(1, SOLID)
    solids["kind"], solids["radius"], solids["centre"], solids["cosine"] = kind, radius, (x, y, z), 1
    return solids


@pytest.fixture
def lamps() -> np.ndarray:
    return lamps_at(LAMPS[None])[0]


def one_lamp(side: float, x: float = 0.0, height: float = 4.0) -> np.ndarray:
    """A white lamp of power 10 that shines at the origin."""
    lamp = lamps_at(np.array([[[x, 0.001, height]]] * 4).reshape(1, 4, 3))[0, :1]
    lamp["half"] = side / 2
    lamp["power"] = 10
    return lamp


def chances(count: int) -> list[SampleBits]:
    """As a pixel's samples have them: each stratum once, and random points in it."""
    draw = np.random.default_rng(0)
    numbers = [draw.integers(0, 2**63, dtype=np.uint64) for _ in range(count)]
    return [SampleBits(np.uint64(sample % STRATA * 0x5555), bits) for sample, bits in enumerate(numbers)]


def test_lamps_face_the_origin_with_square_corners(lamps):
    position, axis, right, up = (lamps[name] for name in ("position", "axis", "right", "up"))
    assert position == pytest.approx(LAMPS)
    assert axis == pytest.approx(-LAMPS / np.linalg.norm(LAMPS, axis=1, keepdims=True))
    for first, second, product in [(axis, right, 0), (axis, up, 0), (right, up, 0), (right, right, 1), (up, up, 1)]:
        assert (first * second).sum(1) == pytest.approx(np.full(4, product))


def test_the_floor_under_a_small_lamp_by_hand():
    # 4 above: 10 / 16; from 3 beside it, 5 away, both cosines .8: 10 * .8 * .8 / 25
    chance = chances(1)[0]
    assert light(LitScene(NOTHING, one_lamp(1e-6)), (0.0, 0.0, 0.0), UP, UP, 0.0, chance)[0] == pytest.approx(
        [10 / 16] * 3, rel=1e-3
    )
    beside = light(LitScene(NOTHING, one_lamp(1e-6)), (3.0, 0.0, 0.0), UP, UP, 0.0, chance)
    assert beside[0] == pytest.approx([0.256] * 3, rel=1e-3)
    assert beside[1] == (0, 0, 0)


def test_nothing_comes_from_behind_lamp_or_surface():
    scene, chance = LitScene(NOTHING, one_lamp(0.5)), chances(1)[0]
    assert light(scene, (0.0, 0.0, 5.0), (0.0, 0.0, -1.0), UP, 0.0, chance)[0] == (0, 0, 0)  # above it
    assert light(scene, (0.0, 0.0, 0.0), (0.0, 0.0, -1.0), UP, 0.0, chance)[0] == (0, 0, 0)


def test_all_lamps_together_light_the_floor_by_hand(lamps):
    # at the origin, each lamp straight ahead: P cos / d^2
    square = (LAMPS**2).sum(1)
    by_hand = (LAMP_POWER * (LAMPS[:, 2] / square**1.5)[:, None]).sum(0)
    assert by_hand[0] == pytest.approx(0.189 + 0.053 + 0.265 + 0.400, abs=0.002)  # red of key, fill, back and sun
    found = np.mean(
        [light(LitScene(NOTHING, lamps), (0.0, 0.0, 0.0), UP, UP, 0.0, chance)[0] for chance in chances(400)], axis=0
    )
    assert found == pytest.approx(by_hand, rel=0.01)


def test_a_ball_between_blocks_the_light_and_one_beside_does_not():
    chance = chances(1)[0]
    for x, shines in [(0.0, False), (0.6, True)]:
        scene = LitScene(ball(x, 0, 2, 0.5), one_lamp(0.001))
        assert (light(scene, (0.0, 0.0, 0.0), UP, UP, 0.0, chance)[0][0] > 0) == shines


def test_the_edge_of_a_shadow_is_as_soft_as_the_lamp_is_wide():
    # a lamp 1 wide, 4 up; a cube with x in -1 .. 0 and z in 2 .. 3. From x on the floor one sees the part of the lamp
    # beyond the cube's lower edge, x' > -x, for x < 0, and beyond its upper edge, x' > -x / 3, for x > 0
    shaded, free = LitScene(ball(-0.5, 0, 2.5, 0.5, CUBE), one_lamp(1.0)), LitScene(NOTHING, one_lamp(1.0))
    for x, share in [(-0.6, 0.0), (-0.25, 0.25), (0.0, 0.5), (0.75, 0.75), (1.6, 1.0)]:
        point, many = (x, 0.0, 0.0), chances(400)
        given, whole = (sum(light(scene, point, UP, UP, 0.0, c)[0][0] for c in many) for scene in (shaded, free))
        assert given / whole == pytest.approx(share, abs=0.05)
    one_pixel = [light(shaded, (0.0, 0.0, 0.0), UP, UP, 0.0, chance)[0][0] > 0 for chance in chances(STRATA)]
    assert sum(one_pixel) == 2  # a pixel's four samples ask the four parts of the lamp: two of them are free


def test_a_highlight_by_hand():
    # seen along the mirror's direction, h = n: D = 1 / (pi a^2), G / (4 nl nv) = 1 / (4 roots) with nl = nv = 1
    alpha, chance = 0.2, chances(1)[0]
    matt, shine = light(LitScene(NOTHING, one_lamp(1e-6)), (0.0, 0.0, 0.0), UP, UP, alpha, chance)
    assert shine[0] / matt[0] == pytest.approx(1 / (math.pi * alpha**2) / 4, rel=1e-3)
    aside = (math.sin(0.8), 0.0, math.cos(0.8))  # h leans by .4
    _, weak = light(LitScene(NOTHING, one_lamp(1e-6)), (0.0, 0.0, 0.0), UP, aside, alpha, chance)
    assert 0 < weak[0] < shine[0] / 10


def test_a_mirror_shows_the_lamps_square_from_its_front():
    lamps = one_lamp(1.0)
    assert lamp_ahead(lamps, (0.4, 0.4, 0.0), UP, math.inf) == 0
    assert lamp_ahead(lamps, (0.6, 0.4, 0.0), UP, math.inf) == -1
    assert lamp_ahead(lamps, (0.4, 0.4, 0.0), UP, 3.9) == -1  # something is nearer
    assert lamp_ahead(lamps, (0.4, 0.4, 6.0), (0.0, 0.0, -1.0), math.inf) == -1
