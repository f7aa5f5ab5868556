"""figures: the panels of one scene and of several models, and objects in the colours of the truth."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unscene.errors import ShapeError
from unscene.evaluation.scenes import read_scenes
from unscene.report.figures import comparison_rows, rows_png, scene_rows
from unscene.report.slots import slot_colour
from unscene.scene import Decomposition, Scene

GROUND = (40, 40, 40)


def titles(rows):
    return [title for row in rows for title in row.titles]


def even_decomposition(K=3, background=-1, size=8):
    masks = torch.full((1, K, 1, size, size), 1 / K)
    return Decomposition(masks.log(), torch.zeros(1, K, 3, size, size), background)


def test_scene_with_boxes_and_truth_shows_them(loaded, scenes):
    scene = read_scenes(scenes, [0, 1], 64)
    rows = scene_rows(scene, loaded.decompose(scene.images), 1)
    shown = titles(rows)
    assert shown[:4] == ["image, boxes", "reconstruction", "segmentation", "truth"]
    assert shown[4:7] == ["background", "1: 0.95", "2: 0.86"]
    assert [len(row.panels) for row in rows] == [4, 6, 6]


def test_without_truth_boxes_and_background_those_panels_are_missing():
    rows = scene_rows(Scene(torch.rand(1, 3, 8, 8)), even_decomposition(background=None))
    assert titles(rows) == ["image", "reconstruction", "segmentation", "slot 1", "slot 2", "slot 3"]


def test_true_objects_take_the_colours_of_their_slots():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, :4, :4], labels[0, 4:, 4:] = 1, 2
    masks = torch.zeros(1, 3, 1, 8, 8)
    masks[0, 0, 0, 4:, 4:], masks[0, 1, 0, :4, :4] = 1, 1  # the slots in the other order
    masks[0, 2] = 1 - masks[0, :2].sum(0)
    found = Decomposition(masks.clamp_min(1e-6).log(), torch.zeros(1, 3, 3, 8, 8), -1)
    rows = scene_rows(Scene(torch.zeros(1, 3, 8, 8), labels), found)
    segmentation, truth = rows[0].panels[2:]
    assert (segmentation == truth).all()
    assert tuple(truth[0, 0]) == slot_colour(2)
    assert tuple(truth[-1, -1]) == slot_colour(1)


def test_objects_without_a_slot_have_colours_too():
    labels = torch.arange(64).view(1, 8, 8) % 5  # four objects, two slots that win nothing
    masks = torch.tensor([0.1, 0.1, 0.8]).view(1, 3, 1, 1, 1).expand(1, 3, 1, 8, 8)
    rows = scene_rows(
        Scene(torch.zeros(1, 3, 8, 8), labels), Decomposition(masks.log(), torch.zeros(1, 3, 3, 8, 8), -1)
    )
    truth = rows[0].panels[3].reshape(-1, 3)
    assert len(np.unique(truth, axis=0)) == 5


@pytest.mark.parametrize("K", [1, 2, 11])
def test_any_number_of_slots_becomes_a_png(K):
    scene, found = Scene(torch.rand(1, 3, 8, 8)), even_decomposition(K)
    with Image.open(io.BytesIO(rows_png(scene_rows(scene, found)))) as image:
        assert image.format == "PNG"
        assert image.width >= 3 * 192
        assert np.asarray(image)[..., 3].min() == 0  # a transparent ground
    assert sum(len(row.panels) for row in scene_rows(scene, found)) == 3 + 2 * K


def test_wrong_size_is_an_error():
    with pytest.raises(ShapeError, match="log_masks"):
        scene_rows(Scene(torch.rand(1, 3, 8, 8)), even_decomposition(size=16))


def test_slots_show_mask_and_masked_component_in_the_frame_of_their_colour():
    found = even_decomposition(2)  # every mask is 1/2, every component is 0
    _, masks, components = scene_rows(Scene(torch.rand(1, 3, 8, 8)), found)
    assert masks.titles == ("background", "slot 1")
    assert masks.frames == components.frames == (None, slot_colour(1))
    assert {int(value) for panel in masks.panels for value in np.unique(panel)} == {128}
    assert {int(value) for panel in components.panels for value in np.unique(panel)} == {117}  # .92 / 2 of 255


def two_objects(size=8, labelled=True):
    labels = torch.zeros(1, size, size, dtype=torch.long)
    labels[0, : size // 2, : size // 2], labels[0, size // 2 :, size // 2 :] = 1, 2
    return Scene(torch.full((1, 3, size, size), 0.5), labels if labelled else None)


def decomposition(label_map, K, background=-1, **more):
    """Slot k where the map says k."""
    masks = torch.stack([label_map == slot for slot in range(K)], 1)[:, :, None].float()
    return Decomposition(
        masks.clamp_min(1e-6).log(), torch.full((1, K, 3, *label_map.shape[1:]), 0.25), background, **more
    )


def swapped(size=8):
    """The objects of `two_objects` in slots 1 and 0, all else in slot 2."""
    labels = two_objects(size).labels
    return torch.tensor([2, 1, 0])[labels]


def corners(panel):
    """The colours of the first object, the second one, and the ground."""
    return [tuple(panel[corner].tolist()) for corner in ((5, 5), (-5, -5), (5, -5))]


def test_rows_of_a_comparison():
    found = {"A": decomposition(swapped(), 3), "B": decomposition(swapped(), 4)}
    rows = comparison_rows(two_objects(), found)
    assert [row.titles for row in rows] == [
        ("images",),
        ("true segmentation",),
        ("A: segmentation, reconstruction",),
        (),
        ("B: segmentation, reconstruction",),
        (),
    ]
    assert [row.texts for row in rows] == [(), (), ("ARI 1.000",), (), ("ARI 1.000",), ()]
    assert {panel.shape for row in rows for panel in row.panels} == {(192, 192, 3)}
    assert (rows[0].panels[0] == 128).all()
    assert (rows[3].panels[0] == 64).all()


def test_segmentations_have_the_colours_of_the_truth():
    rows = comparison_rows(two_objects(), {"A": decomposition(swapped(), 3)})
    assert corners(rows[1].panels[0]) == [slot_colour(1), slot_colour(2), GROUND]
    assert corners(rows[2].panels[0]) == [slot_colour(1), slot_colour(2), GROUND]


def test_without_a_stated_background_the_slot_on_the_background_is_the_ground():
    rows = comparison_rows(two_objects(), {"A": decomposition(swapped(), 3, background=None)})
    assert corners(rows[2].panels[0]) == [slot_colour(1), slot_colour(2), GROUND]


def test_ignored_pixels_are_drawn_as_background():
    slots = torch.tensor([[[0, 0, 1, 1]]])
    masks = torch.nn.functional.one_hot(slots, 2).permute(0, 3, 1, 2).unsqueeze(2).float()
    decomposition = Decomposition(masks.log(), torch.zeros(1, 2, 3, 1, 4), 0)
    ignored, plain = (Scene(torch.zeros(1, 3, 1, 4), torch.tensor([[[label, 0, 1, 1]]])) for label in (-1, 0))
    for rows in (scene_rows, lambda scene, found: comparison_rows(scene, {"a": found})):
        assert rows_png(rows(ignored, decomposition)) == rows_png(rows(plain, decomposition))


def test_slot_without_a_true_object_has_a_new_colour():
    labels = swapped()
    labels[0, :2, 4:] = 3  # on the background
    rows = comparison_rows(two_objects(), {"A": decomposition(labels, 4, background=2)})
    strange = tuple(rows[2].panels[0][5, -5].tolist())
    assert strange not in {slot_colour(1), slot_colour(2), GROUND}
    assert corners(rows[2].panels[0])[:2] == [slot_colour(1), slot_colour(2)]


def test_without_truth_slots_have_their_own_colours():
    rows = comparison_rows(two_objects(labelled=False), {"A": decomposition(swapped(), 3, background=None)})
    assert [row.titles for row in rows] == [("images",), ("A: segmentation, reconstruction",), ()]
    assert rows[1].texts == ()
    assert corners(rows[1].panels[0]) == [slot_colour(2), slot_colour(1), slot_colour(3)]


def test_only_valid_boxes_are_drawn():
    nothing = torch.full((1, 8, 8), 2)  # all is background
    boxes = torch.tensor([[[4.0, 4, 8, 8], [0, 0, 4, 4]]])
    for valid, seen in (([True, True], {3, 4}), ([False, True], {4}), ([False, False], set())):
        more = {"boxes": boxes, "box_scores": torch.ones(1, 2), "box_valid": torch.tensor([valid])}
        panel = comparison_rows(two_objects(), {"A": decomposition(nothing, 3, **more)})[2].panels[0]
        colours = {tuple(colour) for colour in panel.reshape(-1, 3).tolist()} - {GROUND, (0, 0, 0)}
        assert len(colours) == len(seen)


def test_boxes_have_the_colours_of_the_matched_objects():
    boxes = torch.tensor([[[4.0, 4, 8, 8], [0, 0, 4, 4]]])  # of slots 0 and 1
    more = {"boxes": boxes, "box_scores": torch.ones(1, 2), "box_valid": torch.ones(1, 2, dtype=torch.bool)}
    panel = comparison_rows(two_objects(), {"A": decomposition(swapped(), 3, **more)})[2].panels[0]
    assert tuple(panel[0, 50].tolist()) == slot_colour(1)
    assert tuple(panel[-1, -50].tolist()) == slot_colour(2)


@pytest.mark.parametrize(("size", "panel"), [(8, 192), (64, 192), (128, 128), (300, 192)])
def test_any_size_becomes_a_png_of_panels(size, panel):
    many = Scene(torch.rand(3, 3, size, size))
    found = Decomposition(torch.zeros(3, 1, 1, size, size), torch.rand(3, 1, 3, size, size))
    with Image.open(io.BytesIO(rows_png(comparison_rows(many, {"A": found})))) as image:
        assert image.format == "PNG"
        assert image.width == 3 * panel + 2 * 8 + 2 * 3
        assert image.height > 3 * panel
        assert np.asarray(image)[..., 3].min() == 0  # a transparent ground


def test_decomposition_of_other_images_is_an_error():
    with pytest.raises(ShapeError, match="log_masks"):
        comparison_rows(two_objects(), {"A": decomposition(swapped(16), 3)})
