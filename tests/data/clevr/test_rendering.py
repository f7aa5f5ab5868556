"""rendering: whole pictures against the NumPy oracle, and outlines against projected ellipses and polygons."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from benchmarks.reference.clevr_rendering import traced
from unscene.data.clevr import placement, rendering, stage
from unscene.data.clevr.placement import Choices, PlacedScenes, placed_scenes
from unscene.data.clevr.rendering import CROP, WHOLE, render
from unscene.data.clevr.stage import CAMERA, LAMPS, facing_origin

EVERYTHING = Choices(np.arange(1, 4), np.arange(1, 3), np.arange(1, 9), np.arange(1, 3))
UNSEEN = Choices(np.array([4]), np.arange(1, 3), np.arange(9, 13), np.arange(1, 3))  # cones, in colours of ours
CUBE, SPHERE, CYLINDER = 1, 2, 3


def one_solid(shape: int, position: tuple[float, float], rotation: float = 0.3, size: int = 1, camera=CAMERA):
    """A rubber solid alone."""
    rows = {"shape": shape, "material": 1, "color": 2, "size": size}
    factors = {name: np.full((1, 1), value, np.int64) for name, value in rows.items()}
    return PlacedScenes(
        key=np.array([5], np.uint64),
        number=np.array([1]),
        camera=np.asarray(camera)[None].astype(float),
        lamps=LAMPS[None].copy(),
        **factors,
        position=np.array([[position]], float),
        rotation=np.full((1, 1), rotation),
        visible_pixels=np.zeros((1, 1), np.int64),
    )


def projected(points: np.ndarray, camera=CAMERA) -> np.ndarray:
    """[N, 2] where points are in CLEVR's picture."""
    forward, right, up = facing_origin(np.asarray(camera, float))
    away = points - camera
    return np.stack([160 + 350 * (away @ right) / (away @ forward), 120 - 350 * (away @ up) / (away @ forward)], 1)


def middles(height: int, width: int, view) -> np.ndarray:
    """[height, width, 2] of the pixels, in CLEVR's picture."""
    x = view[0] + (np.arange(width) + 0.5) * (view[2] - view[0]) / width
    y = view[1] + (np.arange(height) + 0.5) * (view[3] - view[1]) / height
    return np.stack(np.meshgrid(x, y), -1)


def inside_hull(points: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """[...] how far pixels are inside the hull of projected points, below 0 for outside."""
    sides = ConvexHull(points).equations
    return -(pixels @ sides[:, :2].T + sides[:, 2]).max(-1)


@pytest.mark.parametrize("choices", [EVERYTHING, UNSEEN])
@pytest.mark.parametrize(("view", "height", "width"), [(WHOLE, 48, 64), (CROP, 48, 48)])
def test_pictures_and_labels_are_those_of_the_oracle(view, height, width, choices):
    scenes = placed_scenes(0, np.arange(7), 3, 6, choices)
    images, masks = render(scenes, height, width, view)
    for b in range(7):
        image, mask = traced(scenes, b, height, width, view)
        assert np.array_equal(masks[b], mask)
        assert np.abs(images[b].astype(int) - image).max() <= 1


@pytest.mark.parametrize("position", [(0, 0), (2.5, -2.5), (-2.8, 1.0)])
@pytest.mark.parametrize("view", [WHOLE, CROP])
def test_a_spheres_label_is_an_ellipse(position, view):
    # The cone around it, half angle p, about an axis at an angle q to the camera's, cuts the picture in an ellipse:
    # along the axis from f tan(q - p) to f tan(q + p), across it f sin p / sqrt(cos^2 q - sin^2 p) at its middle.
    height, width = (240, 320) if view is WHOLE else (128, 128)
    mask = render(one_solid(SPHERE, position), height, width, view)[1][0]
    forward, right, up = facing_origin(CAMERA)
    away = np.array([*position, 0.7]) - CAMERA
    distance = np.linalg.norm(away)
    p, q = np.arcsin(0.7 / distance), np.arccos(away @ forward / distance)
    outward = np.array([away @ right, -(away @ up)])
    outward /= np.linalg.norm(outward)
    near, far = 350 * np.tan(q - p), 350 * np.tan(q + p)
    across = 350 * np.sin(p) / np.sqrt(np.cos(q) ** 2 - np.sin(p) ** 2)
    from_middle = middles(height, width, view) - [160, 120] - outward * (near + far) / 2
    radial = from_middle @ outward / ((far - near) / 2)
    sideways = from_middle @ [-outward[1], outward[0]] / across
    assert np.array_equal(mask == 1, radial**2 + sideways**2 < 1)
    assert mask.max() == 1 or view is CROP


@pytest.mark.parametrize("rotation", [0.0, 0.7, 4.0])
def test_a_cubes_label_is_the_hull_of_its_corners(rotation):
    mask = render(one_solid(CUBE, (0.5, -1.0), rotation), 240, 320, WHOLE)[1][0]
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T * 0.7
    c, s = np.cos(rotation), np.sin(rotation)
    corners = signs @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) + [0.5, -1.0, 0.7]
    depth = inside_hull(projected(corners), middles(240, 320, WHOLE))
    assert np.array_equal(mask == 1, depth > 0)


def test_a_cylinders_label_is_the_hull_of_its_rims():
    mask = render(one_solid(CYLINDER, (0.5, -1.0), size=2), 240, 320, WHOLE)[1][0]
    angle = np.linspace(0, 2 * np.pi, 401)
    rims = [np.stack([0.5 + 0.35 * np.cos(angle), -1 + 0.35 * np.sin(angle), angle * 0 + z], 1) for z in (0, 0.7)]
    depth = inside_hull(projected(np.concatenate(rims)), middles(240, 320, WHOLE))
    certain = np.abs(depth) > 1e-3  # the hull is a polygon
    assert np.array_equal((mask == 1)[certain], (depth > 0)[certain])
    assert certain.mean() > 0.9999


def test_the_nearer_of_two_covers_the_farther():
    farther, nearer = one_solid(SPHERE, (-1.0, 0.87)), one_solid(SPHERE, (1.0, -0.87))
    solid_fields = ("shape", "material", "color", "size", "position", "rotation", "visible_pixels")
    pair = farther._replace(
        number=np.array([2]),
        **{name: np.concatenate([getattr(farther, name), getattr(nearer, name)], 1) for name in solid_fields},
    )
    mask = render(pair, 240, 320, WHOLE)[1][0]
    alone = [render(scene, 240, 320, WHOLE)[1][0] == 1 for scene in (farther, nearer)]
    assert (alone[0] & alone[1]).any()
    assert np.array_equal(mask == 2, alone[1])
    assert np.array_equal(mask == 1, alone[0] & ~alone[1])


def test_the_crop_is_a_part_of_the_uncropped_picture():
    scenes = placed_scenes(0, np.arange(3), 3, 6, EVERYTHING)
    whole, crop = render(scenes, 240, 320, WHOLE), render(scenes, 192, 192, CROP)
    assert np.array_equal(whole[1][:, 29:221, 64:256], crop[1])
    difference = np.abs(whole[0][:, 29:221, 64:256].astype(int) - crop[0])
    assert np.median(difference) == 0  # other random numbers: penumbras and blurred mirrors differ
    assert difference.mean() < 1


def test_red_rubber_is_red_and_the_floor_a_light_grey():
    image, mask = (arrays[0] for arrays in render(one_solid(SPHERE, (0, 0)), 240, 320, WHOLE))
    ball, floor = np.median(image[mask == 1], 0), image[mask == 0].astype(int)
    assert ball[0] > 2 * ball[1]
    assert ball[1] == pytest.approx(ball[2], abs=8)
    assert 100 < np.median(floor) < 150  # published pictures: 118 on average
    assert np.ptp(floor, axis=1).max() < 40
    assert np.median(floor[:, 0]) > 100


def test_the_same_picture_whatever_the_threads():
    scenes = placed_scenes(0, np.arange(5), 3, 6, EVERYTHING)
    before = torch.get_num_threads()
    pictures = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        pictures.append(render(scenes, 64, 64))
    torch.set_num_threads(before)
    for one, other in zip(*pictures, strict=True):
        assert np.array_equal(one, other)


def test_no_scene_and_no_solid():
    none = PlacedScenes(*(values[:0] for values in one_solid(CUBE, (0, 0))))
    assert render(none, 20, 20)[0].shape == (0, 20, 20, 3)
    image, mask = render(one_solid(CUBE, (0, 0))._replace(number=np.array([0])), 20, 20)
    assert not mask.any()
    assert image.min() > 90


@pytest.mark.parametrize("whole", [rendering, placement])
def test_a_change_of_any_part_compiles_again(whole):
    parts: set[ModuleType] = set()
    waiting = {whole}
    while waiting:
        module = waiting.pop()
        values = [*vars(module).values()]
        values += [item for value in values if value is stage for item in vars(value).values()]
        used = {sys.modules[value.__module__] for value in values if hasattr(value, "py_func")}
        waiting |= used - parts - {whole}
        parts |= used - {whole}
    assert len(parts) > 2
    assert parts <= set(whole._PARTS)  # the modules whose code is digested
