"""ray_tracing: distances and normals worked by hand, and many rays against the NumPy oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.reference.clevr_solids import Solid
from unscene.data.clevr.objects import ALL_SHAPES
from unscene.data.clevr.ray_tracing import (
    BEVEL,
    CONE,
    CUBE,
    CYLINDER,
    SOLID,
    SPHERE,
    distance_to,
    first_hit,
    normals,
    occluded,
)

DOWN, ALONG_X = (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)
STEEP = (math.sqrt(0.2), 0.0, -math.sqrt(0.8))  # as a cone's side
SLANTED = (math.sqrt(0.5), 0.0, -math.sqrt(0.5))


def solid(kind: int, centre=(0.0, 0.0, 1.0), radius: float = 1.0, rotation: float = 0.0) -> np.ndarray:
    solids = np.zeros(1, SOLID)
    solids["kind"], solids["radius"] = kind, radius
    solids["centre"] = centre
    solids["cosine"], solids["sine"] = math.cos(rotation), math.sin(rotation)
    return solids


def test_the_kinds_are_counted_as_the_factor_is():
    kinds = [ALL_SHAPES[kind - 1] for kind in (CUBE, SPHERE, CYLINDER, CONE)]
    assert kinds == ["cube", "sphere", "cylinder", "cone"]


@pytest.mark.parametrize(
    ("kind", "rotation", "origin", "direction", "distance"),
    [
        (SPHERE, 0, (0, 0, 5), DOWN, 3),
        (SPHERE, 0, (0.6, 0, 5), DOWN, 3.2),  # the sphere is .8 high there
        (SPHERE, 0, (-5, 0, 1.8), ALONG_X, 4.4),
        (SPHERE, 0, (1.001, 0, 5), DOWN, math.inf),
        (SPHERE, 0, (0, 0, 5), (0, 0, 1), math.inf),  # behind
        (CUBE, 0, (0.9, -0.9, 5), DOWN, 3),
        (CUBE, 0, (1.001, 0, 5), DOWN, math.inf),
        (CUBE, math.pi / 4, (1.4, 0, 5), DOWN, 3),  # the corner reaches 1.414
        (CUBE, math.pi / 4, (-5, 0, 1), ALONG_X, 5 - math.sqrt(2)),
        (CUBE, math.pi / 4, (-5, 0.5, 1), ALONG_X, 5 - math.sqrt(2) + 0.5),
        (CUBE, 0, (-4, 0, 5), SLANTED, 3 * math.sqrt(2)),
        (CYLINDER, 0, (0.7, 0.7, 5), DOWN, 3),
        (CYLINDER, 0, (0.72, 0.72, 5), DOWN, math.inf),
        (CYLINDER, 0, (-5, 0.6, 1.9), ALONG_X, 4.2),  # the side is at x = -.8
        (CYLINDER, 0, (-5, 0, 2.001), ALONG_X, math.inf),
        (CYLINDER, 0, (-3.5, 0, 5), SLANTED, 3 * math.sqrt(2)),  # on the lid, at x = -.5
        (CYLINDER, 0, (-4.5, 0, 5), SLANTED, 3.5 * math.sqrt(2)),  # past the lid, on the side
        (CONE, 0, (0.5, 0, 5), DOWN, 4),  # half as wide at half its height, z = 1
        (CONE, 0, (0.3, 0.4, 5), DOWN, 4),
        (CONE, 0, (0, 0, 5), DOWN, 3),  # on the tip
        (CONE, 0, (1.001, 0, 5), DOWN, math.inf),
        (CONE, 0, (-5, 0, 1), ALONG_X, 4.5),
        (CONE, 0, (-5, 0, 0.5), ALONG_X, 4.25),
        (CONE, 0, (-5, 0.4, 1), ALONG_X, 4.7),  # .3 from the axis: .5 wide there
        (CONE, 0, (-5, 0, 2.001), ALONG_X, math.inf),  # the other half of the double cone is not there
        (CONE, 0, (-5, 0, -0.001), ALONG_X, math.inf),
        (CONE, 0, (-4, 0, 5), SLANTED, 11 / 3 * math.sqrt(2)),  # z = 1 - x and z = 2 + 2 x meet at x = -1/3
        (CONE, 0, (-0.6, 0, 3), STEEP, 0.55 * math.sqrt(5)),  # along the far side, through the near one at x = -.05
        (CONE, 0, (-0.4, 0, 3), STEEP, math.inf),
        (CONE, 0, (-0.5, 0, -2), (0, 0, 1), 2),  # from below, through the base
        (CONE, 0, (0, 0, -2), (0, 0, 1), 2),
        (CONE, 0, (-2, 0, -1), (math.sqrt(0.5), 0, math.sqrt(0.5)), math.sqrt(2)),  # on the rim
    ],
)
def test_distances_by_hand(kind, rotation, origin, direction, distance):
    one = solid(kind, rotation=rotation)
    assert distance_to(one[0], origin, direction) == pytest.approx(distance, abs=1e-12)
    met = first_hit(one, origin, direction)
    assert met[1] == (0 if distance < math.inf else -1)


def test_a_ray_meets_the_nearer_of_two_solids_and_either_casts_a_shadow():
    two = np.concatenate([solid(SPHERE), solid(CUBE, centre=(-3, 0, 1))])
    assert first_hit(two, (-9.0, 0.0, 1.0), ALONG_X) == (5.0, 1)
    assert occluded(two, (-9.0, 0.0, 1.0), ALONG_X, 5.1)
    assert not occluded(two, (-9.0, 0.0, 1.0), ALONG_X, 4.9)
    assert not occluded(two[:0], (-9.0, 0.0, 1.0), ALONG_X, math.inf)


ON_RIM = math.sqrt(0.5)  # where two bevels meet, the normal is half way
HALF_WAY = np.array([2, 1 - math.sqrt(5)]) / math.hypot(2, 1 - math.sqrt(5))  # between (2, 1) and (0, -sqrt 5)


@pytest.mark.parametrize(
    ("kind", "point", "flat", "shaded"),
    [
        (SPHERE, (0, 0.6, 1.8), (0, 0.6, 0.8), (0, 0.6, 0.8)),
        (CUBE, (1, 0.2, 1.3), (1, 0, 0), (1, 0, 0)),
        (CUBE, (0.3, -0.4, 2), (0, 0, 1), (0, 0, 1)),
        (CUBE, (1, 0.2, 2), (1, 0, 0), (ON_RIM, 0, ON_RIM)),
        (CUBE, (1, 0.2, 2 - BEVEL / 2), (1, 0, 0), (2 / math.sqrt(5), 0, 1 / math.sqrt(5))),
        (CYLINDER, (0.6, 0.8, 1.1), (0.6, 0.8, 0), (0.6, 0.8, 0)),
        (CYLINDER, (0, 0, 2), (0, 0, 1), (0, 0, 1)),
        (CYLINDER, (0, -1, 2), (0, 0, 1), (0, -ON_RIM, ON_RIM)),
        (CONE, (0.3, 0.4, 1), (1.2 / math.sqrt(5), 1.6 / math.sqrt(5), 1 / math.sqrt(5)), None),
        (CONE, (-0.75, 0, 0.5), (-2 / math.sqrt(5), 0, 1 / math.sqrt(5)), None),
        (CONE, (0.2, 0.1, 0), (0, 0, -1), None),
        (CONE, (0, 0, 2), (0, 0, 1), (0, 0, 1)),
        (CONE, (0, 1, 0), (0, 2 / math.sqrt(5), 1 / math.sqrt(5)), (0, *HALF_WAY)),  # side and base
    ],
)
def test_normals_by_hand(kind, point, flat, shaded):
    found = normals(solid(kind)[0], point)
    assert found[0] == pytest.approx(flat)
    assert found[1] == pytest.approx(flat if shaded is None else shaded)


def test_the_normals_turn_with_the_cube():
    turned = solid(CUBE, rotation=math.pi / 6)[0]
    x, y = math.cos(math.pi / 6), math.sin(math.pi / 6)
    assert normals(turned, (x, y, 1.2))[0] == pytest.approx((x, y, 0))


@pytest.mark.parametrize("kind", [CUBE, SPHERE, CYLINDER, CONE])
def test_many_rays_agree_with_the_oracle(kind):
    draw = np.random.default_rng(kind)
    angle, centre = 0.7, np.array([0.3, -0.2, 0.7])
    one = solid(kind, tuple(centre), 0.7, angle)[0]
    axes = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    plain = Solid(ALL_SHAPES[kind - 1], False, np.ones(3), centre, 0.7, axes)
    origin = draw.normal(size=(500, 3))
    origin = centre + 3 * origin / np.linalg.norm(origin, axis=1, keepdims=True)
    direction = centre + draw.normal(scale=0.6, size=(500, 3)) - origin
    direction[:100, :2] = 0  # upright
    direction[100:200, 2] = 0  # level
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    found = np.array([distance_to(one, tuple(o), tuple(d)) for o, d in zip(origin, direction, strict=True)])
    assert 100 < np.isfinite(found).sum() < 450
    np.testing.assert_allclose(found, plain.distances(origin, direction), rtol=1e-9)
    met = np.isfinite(found)
    points = origin[met] + found[met, None] * direction[met]
    both = [normals(one, tuple(point)) for point in points]
    for which, expected in enumerate(plain.normals(points)):
        np.testing.assert_allclose([pair[which] for pair in both], expected, atol=1e-9)
