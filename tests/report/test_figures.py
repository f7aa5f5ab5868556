"""scene_figure: the panels that a scene has, and no others."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unscene.errors import ShapeError
from unscene.evaluation.example_scenes import read_scenes
from unscene.report.figures import png_bytes, scene_figure
from unscene.report.slots import slot_colour
from unscene.scene import Decomposition, Scene


def titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def decomposition(K=3, background=-1, size=8):
    masks = torch.full((1, K, 1, size, size), 1 / K)
    return Decomposition(masks.log(), torch.zeros(1, K, 3, size, size), background)


def test_a_scene_with_boxes_and_truth_shows_them(loaded, scenes):
    scene = read_scenes(scenes, [0, 1], 64)
    figure = scene_figure(scene, loaded.decompose(scene.images), 1)
    shown = titles(figure)
    assert shown[:4] == ["image, boxes", "reconstruction", "segmentation", "truth"]
    assert shown[4:7] == ["background", "1: 0.95", "2: 0.86"]
    assert len(figure.axes) == 4 + 6 + 6


def test_without_truth_boxes_and_background_those_panels_are_missing():
    figure = scene_figure(Scene(torch.rand(1, 3, 8, 8)), decomposition(background=None))
    assert titles(figure) == ["image", "reconstruction", "segmentation", "slot 1", "slot 2", "slot 3"]


def test_true_objects_take_the_colours_of_their_slots():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, :4, :4], labels[0, 4:, 4:] = 1, 2
    masks = torch.zeros(1, 3, 1, 8, 8)
    masks[0, 0, 0, 4:, 4:], masks[0, 1, 0, :4, :4] = 1, 1  # the slots in the other order
    masks[0, 2] = 1 - masks[0, :2].sum(0)
    found = Decomposition(masks.clamp_min(1e-6).log(), torch.zeros(1, 3, 3, 8, 8), -1)
    figure = scene_figure(Scene(torch.zeros(1, 3, 8, 8), labels), found)
    segmentation, truth = (np.asarray(figure.axes[place].images[0].get_array()) for place in (2, 3))
    assert (segmentation == truth).all()
    assert tuple(truth[0, 0]) == slot_colour(2)
    assert tuple(truth[-1, -1]) == slot_colour(1)


def test_objects_without_a_slot_are_drawn_as_well():
    labels = torch.arange(64).view(1, 8, 8) % 5  # four objects, two slots that win nothing
    masks = torch.tensor([0.1, 0.1, 0.8]).view(1, 3, 1, 1, 1).expand(1, 3, 1, 8, 8)
    figure = scene_figure(
        Scene(torch.zeros(1, 3, 8, 8), labels), Decomposition(masks.log(), torch.zeros(1, 3, 3, 8, 8), -1)
    )
    truth = np.asarray(figure.axes[3].images[0].get_array()).reshape(-1, 3)
    assert len(np.unique(truth, axis=0)) == 5


@pytest.mark.parametrize("K", [1, 2, 11])
def test_any_number_of_slots_becomes_a_png(K):
    figure = scene_figure(Scene(torch.rand(1, 3, 8, 8)), decomposition(K))
    with Image.open(io.BytesIO(png_bytes(figure))) as image:
        assert image.format == "PNG"
        assert image.width >= 3 * 120
        assert np.asarray(image)[..., 3].min() == 0  # a transparent ground
    assert len(figure.axes) == 3 + 2 * K


def test_another_image_or_another_size_is_refused():
    scene = Scene(torch.rand(1, 3, 8, 8))
    with pytest.raises(ShapeError, match="index must be one of 1 images"):
        scene_figure(scene, decomposition(), 1)
    with pytest.raises(ShapeError, match="log_masks"):
        scene_figure(scene, decomposition(size=16))
