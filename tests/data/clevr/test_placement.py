"""placement: CLEVR's rules hold in every scene, and the visible pixels are those of the label map."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from unscene.data.clevr import placement
from unscene.data.clevr.placement import (
    GAP,
    LEAST_PIXELS,
    MARGIN,
    Choices,
    PlacedScenes,
    placed_scenes,
    splitmix64,
    uniform_draw,
)
from unscene.data.clevr.rendering import WHOLE, render
from unscene.data.clevr.stage import CAMERA, LAMPS
from unscene.data.generated_scenes import sample_keys, uniform_draws
from unscene.data.generated_scenes import splitmix64 as splitmix64_of_arrays

RADII = np.array([0, 0.7, 0.35])
COUNT = 300
BEHIND, RIGHT = np.array([-0.754490, 0.656311]), np.array([0.656311, 0.754490])  # of all of CLEVR's scene files


def everything() -> Choices:
    return Choices(np.arange(1, 4), np.arange(1, 3), np.arange(1, 9), np.arange(1, 3))


@pytest.fixture(scope="module", params=[(3, 6), (7, 10)], ids=["few", "many"])
def scenes(request) -> PlacedScenes:
    placed = placed_scenes(0, np.arange(COUNT), *request.param, everything())
    assert placed is not None
    return placed


def test_solids_keep_their_distance_and_stay_on_the_stage(scenes):
    for b in range(COUNT):
        n = scenes.number[b]
        position, radius = scenes.position[b, :n], RADII[scenes.size[b, :n]]
        assert np.abs(position).max() <= 3
        for i, j in combinations(range(n), 2):
            apart = position[i] - position[j]
            assert np.hypot(*apart) - radius[i] - radius[j] >= GAP == 0.25
            assert min(abs(apart @ BEHIND), abs(apart @ RIGHT)) >= MARGIN - 1e-5
            assert MARGIN == 0.4


def test_every_solid_shows_200_pixels_in_clevrs_picture(scenes):
    _, masks = render(PlacedScenes(*(values[:12] for values in scenes)), 240, 320, WHOLE)
    for b, mask in enumerate(masks):
        counted = np.bincount(mask.ravel(), minlength=scenes.shape.shape[1] + 1)[1:]
        assert counted.tolist() == scenes.visible_pixels[b].tolist()
    present = scenes.shape > 0
    assert scenes.visible_pixels[present].min() >= LEAST_PIXELS == 200
    assert not scenes.visible_pixels[~present].any()


def test_numbers_and_factors_are_uniform(scenes):
    present = np.arange(scenes.shape.shape[1]) < scenes.number[:, None]
    assert ((scenes.shape > 0) == present).all()
    numbers = np.bincount(scenes.number)[scenes.number.min() :]
    assert np.abs(numbers - COUNT / 4).max() < 4 * np.sqrt(COUNT / 4)
    for values, kinds in [(scenes.shape, 3), (scenes.material, 2), (scenes.color, 8)]:
        shares = np.bincount(values[present], minlength=kinds + 1)[1:] / present.sum()
        assert shares == pytest.approx(np.full(kinds, 1 / kinds), abs=0.05)
    assert 0.4 < (scenes.size[present] == 1).mean() < 0.6
    assert (scenes.rotation >= 0).all()
    assert (scenes.rotation < 2 * np.pi).all()


def test_camera_and_lamps_are_jittered_but_the_sun_is_not(scenes):
    for values, middle, most in [(scenes.camera, CAMERA, 0.5), (scenes.lamps[:, :3], LAMPS[:3], 1.0)]:
        away = np.abs(values - middle)
        assert 0.95 * most < away.max() <= most
        assert away.mean() == pytest.approx(most / 2, rel=0.1)
    assert (scenes.lamps[:, 3] == LAMPS[3]).all()


def test_a_scene_is_the_same_in_any_batch(scenes):
    few, most = scenes.number.min(), scenes.number.max()
    order = np.array([7, 2, 2, 250])
    again = placed_scenes(0, order, few, most, everything())
    other = placed_scenes(1, order, few, most, everything())
    for first, second, unlike in zip(scenes, again, other, strict=True):
        assert np.array_equal(first[order], second)
        assert not np.array_equal(first[order], unlike)


def test_choices_limit_the_factors():
    chosen = Choices(np.array([2]), np.array([2]), np.array([1, 8]), np.array([2]))
    placed = placed_scenes(3, np.arange(30), 0, 4, chosen)
    assert set(placed.number.tolist()) == {0, 1, 2, 3, 4}
    present = placed.shape > 0
    assert set(placed.shape[present]) == set(placed.material[present]) == set(placed.size[present]) == {2}
    assert set(placed.color[present]) == {1, 8}


def test_no_room_gives_none(monkeypatch):
    monkeypatch.setattr(placement, "_place", lambda *_: False)
    assert placed_scenes(0, np.arange(2), 3, 6, everything()) is None


def test_scalar_and_array_numbers_are_equal():
    keys, draws = sample_keys(7, np.array([0, 3, 10**9])), uniform_draws(7, np.array([0, 3, 10**9]), 40)
    assert [[uniform_draw(key, draw) for draw in range(40)] for key in keys] == draws.tolist()


def test_a_state_is_mixed_the_same():
    states = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert [splitmix64(state) for state in states] == splitmix64_of_arrays(states).tolist()
