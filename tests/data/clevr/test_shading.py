"""shading: floor, rubber and metal along single rays, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unscene.data.clevr import shading
from unscene.data.clevr.ray_tracing import CUBE, SOLID, SPHERE
from unscene.data.clevr.shading import (
    FLOOR,
    FLOOR_GLOW,
    GLOW_AROUND,
    GLOW_BELOW,
    RUBBER_SHEEN,
    SOLID_GLOW,
    LitScene,
    SampleBits,
    radiance,
)
from unscene.data.clevr.stage import LAMP, lamps_at

DOWN = (0.0, 0.0, -1.0)
CHANCE = SampleBits(np.uint64(0), np.uint64(0))
DARK = np.zeros(0, LAMP)


def block(kind: int, colour: tuple[float, float, float], metal: bool, x: float = 0.0) -> np.ndarray:
    solid = np.zeros(1, SOLID)
    solid["kind"], solid["radius"], solid["centre"], solid["cosine"] = kind, 1, (x, 0, 1), 1
    solid["metal"] = metal
    solid["colour"] = colour
    return solid


def lamp_above() -> np.ndarray:
    """Power 10, a thousandth wide, 6 above the origin."""
    lamp = lamps_at(np.array([[[0.0, 0.001, 6.0]] * 4]))[0, :1]
    lamp["half"] = 0.0005
    lamp["power"] = 10, 20, 30
    return lamp


def test_the_lit_floor():
    # E = 10, 20, 30 / 36
    found = radiance(LitScene(np.zeros(0, SOLID), lamp_above()), (0.0, 0.0, 5.0), DOWN, CHANCE)
    assert found == pytest.approx([FLOOR / math.pi * power / 36 + FLOOR_GLOW for power in (10, 20, 30)], rel=1e-3)


def test_nothing_is_beyond_the_wall():
    assert radiance(LitScene(np.zeros(0, SOLID), lamp_above()), (0.0, 0.0, 5.0), (0.0, 0.0, 1.0), CHANCE) == (0, 0, 0)


def test_the_floor_beside_a_ball_is_tinted():
    # its centre is 1 up and 3 beside: r^2 z / d^3 = 1 / 10^1.5
    found = radiance(LitScene(block(SPHERE, (1, 0.5, 0), False), DARK), (3.0, 0.0, 5.0), DOWN, CHANCE)
    tint = FLOOR * SOLID_GLOW / 10**1.5
    assert found == pytest.approx([FLOOR_GLOW + tint, FLOOR_GLOW + tint / 2, FLOOR_GLOW])


def test_the_lid_of_a_rubber_cube_straight_from_above():
    # 4 below the lamp: E = 10, 20, 30 / 16; D G / 4 = 1 / (4 pi .35^2) for its highlight
    found = radiance(LitScene(block(CUBE, (0.5, 1, 0), False), lamp_above()), (0.0, 0.0, 5.0), DOWN, CHANCE)
    for value, power, colour in zip(found, (10, 20, 30), (0.5, 1, 0), strict=True):
        matt = colour * (power / 16 / math.pi + GLOW_AROUND)
        shine = power / 16 / (4 * math.pi * 0.35**2) + GLOW_AROUND
        assert value == pytest.approx((1 - RUBBER_SHEEN) * matt + RUBBER_SHEEN * shine, rel=1e-3)


def test_the_side_of_a_rubber_cube_in_the_dark_has_the_floors_glow():
    found = radiance(LitScene(block(CUBE, (1, 0.5, 0), False), DARK), (5.0, 0.0, 1.0), (-1.0, 0.0, 0.0), CHANCE)
    around = GLOW_BELOW / 2 + GLOW_AROUND
    assert found[1] == pytest.approx((1 - RUBBER_SHEEN) * 0.5 * around + RUBBER_SHEEN * around)


def test_metal_shows_the_floor_in_its_colour():
    # a ray that falls on the side at 45 degrees sees the floor .8 before it; in the dark that glows alone
    slanted = (-math.sqrt(0.5), 0.0, -math.sqrt(0.5))
    scene = LitScene(block(CUBE, (1, 0.5, 0), True), DARK)
    red, green, blue = radiance(scene, (4.0, 0.0, 3.8), slanted, CHANCE)
    least = FLOOR_GLOW  # the floor's, and the cube's tint of it
    assert least < red < 3 * least
    assert FLOOR_GLOW / 2 < green < red
    assert blue == 0


def test_metal_shows_its_neighbour():
    # a level ray along x meets the cube's side, returns, and sees the ball behind the camera
    metal, ball = block(CUBE, (1, 1, 1), True), block(SPHERE, (1, 0, 0), False, x=8.0)
    red, green, _ = radiance(LitScene(np.concatenate([metal, ball]), DARK), (4.0, 0.0, 1.0), (-1.0, 0.0, 0.0), CHANCE)
    alone = radiance(LitScene(metal, DARK), (4.0, 0.0, 1.0), (-1.0, 0.0, 0.0), CHANCE)
    seen = GLOW_BELOW / 2 + GLOW_AROUND  # of the ball, straight on
    assert red - alone[0] > shading.CLEAR * seen * 0.9
    assert green - alone[1] < 0.05 * seen


def test_a_lamp_shows_in_a_metal_ball_and_gives_a_flat_lid_a_highlight():
    wide = lamp_above()
    wide["half"] = 0.5
    from_above = ((0.0, 0.0, 5.0), DOWN, CHANCE)
    assert radiance(LitScene(block(SPHERE, (1, 1, 1), True), wide), *from_above)[0] == shading.BRIGHTEST
    lid = radiance(LitScene(block(CUBE, (1, 1, 1), True), lamp_above()), *from_above)
    by_hand = 0.4 * 10 / 16 / (4 * math.pi * 0.2**2)  # of the blurred mirror: the clear one shows the darkness above
    assert lid[0] == pytest.approx(by_hand, rel=0.01)
