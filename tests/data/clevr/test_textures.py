"""Textures: patterns worked by hand, colours by (seed, index), scenes that are otherwise the plain ones."""

import numpy as np
import pytest

from unscene.data.clevr.dataset import ClevrScenes, ClevrScenesSettings
from unscene.data.clevr.objects import ALL_COLOURS, PATTERNS
from unscene.data.clevr.ray_tracing import SOLID, SPHERE
from unscene.data.clevr.textures import TEXTURE, random_textures, tint

DOWN = (0.0, 0.0, -1.0)


def covers(pattern: str, scale: float = 1.0) -> np.ndarray:
    """Textures of floor and one solid: black and white, and on the solid red and green."""
    cover = np.zeros(2, TEXTURE)
    cover["pattern"], cover["key"], cover["scale"] = 1 + PATTERNS.index(pattern), 7, scale
    cover["second"][0] = 1
    cover["first"][1], cover["second"][1] = (1, 0, 0), (0, 1, 0)
    return cover


def on_floor(cover: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    return tint(np.zeros(0, SOLID), cover, (x, y, 5.0), DOWN)


@pytest.mark.parametrize(
    ("pattern", "points"),
    [
        ("checks", {(0.5, 0.5): 0, (1.5, 0.5): 1, (1.5, 1.5): 0, (-0.5, 0.5): 1}),  # cells begin at -1/4
        ("stripes", {(0.0, 0.0): 0, (0.2, 3.0): 0, (0.3, 3.0): 0, (-0.2, 1.0): 1, (0.7, 0.0): 0}),
        ("dots", {(0.25, 0.25): 0, (0.0, 0.7): 0}),
        ("bricks", {(0.35, 0.1): 0, (-0.22, 0.1): 1, (0.35, -0.2): 0}),
    ],
)
def test_patterns_are_the_same_a_cell_further(pattern, points):
    cover = covers(pattern)
    for (x, y), share in points.items():
        here = on_floor(cover, x, y)
        assert here in ((0, 0, 0), (1, 1, 1))
        assert on_floor(cover, x + 2, y + 2) == here
        if pattern == "checks":
            assert here == (share, share, share)


@pytest.mark.parametrize("pattern", ["marble", "wood", "noise"])
def test_noisy_patterns_mix_both_colours(pattern):
    cover, places = covers(pattern), np.random.default_rng(0).uniform(-3, 3, (200, 2))
    shares = np.array([on_floor(cover, x, y)[0] for x, y in places.tolist()])
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert shares.std() > 0.2


def test_a_solid_turns_with_its_pattern():
    solid = np.zeros(1, SOLID)
    solid["kind"], solid["radius"], solid["centre"], solid["cosine"] = SPHERE, 1, (0, 0, 1), 1
    plain = [tint(solid, covers("stripes", 3), (x, 0.0, 9.0), DOWN) for x in np.linspace(-0.9, 0.9, 30).tolist()]
    solid["cosine"], solid["sine"] = 0, 1  # a quarter turn: what was to the right is now behind
    turned = [tint(solid, covers("stripes", 3), (0.0, y, 9.0), DOWN) for y in np.linspace(-0.9, 0.9, 30).tolist()]
    assert plain == turned
    assert set(plain) == {(1, 0, 0), (0, 1, 0)}
    assert tint(solid, covers("checks"), (9.0, 0.0, 9.0), (0.0, 0.0, 1.0)) == (1, 1, 1)  # nothing is met


def test_the_first_colour_of_a_solid_is_its_own():
    color, size = np.array([[1, 2, 0]]), np.array([[1, 2, 0]])
    found = random_textures(3, np.array([5]), color, size)
    np.testing.assert_array_equal(found["first"][0, 1:], 1)
    shown = found["second"][0, 1] * np.array(next(iter(ALL_COLOURS.values()))) / 255
    assert (shown <= 0.8).all()
    assert 2 * found["scale"][0, 0] < found["scale"][0].max()
    np.testing.assert_array_equal(
        random_textures(3, np.array([9, 5]), color.repeat(2, 0), size.repeat(2, 0))[1], found[0]
    )


def test_textured_scenes_are_the_plain_ones_in_other_colours():
    plain = ClevrScenes(ClevrScenesSettings(count=9, size=32)).batch(range(9))
    source = ClevrScenes(ClevrScenesSettings(count=9, size=32, textures=True))
    scenes = source.batch(range(9))
    assert set(scenes) - set(plain) == {"texture"}
    for name in set(plain) - {"image"}:
        np.testing.assert_array_equal(scenes[name], plain[name])
    assert (scenes["image"] != plain["image"]).any(axis=-1).mean() > 0.9
    np.testing.assert_array_equal((scenes["texture"] > 0), plain["shape"] > 0)
    assert scenes["texture"].max() <= len(PATTERNS)
    for name, values in source.batch([4, 1]).items():
        np.testing.assert_array_equal(values, scenes[name][[4, 1]])
