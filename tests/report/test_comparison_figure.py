"""comparison_figure: the rows that there are, and objects in the colours of the truth."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from unscene.errors import ShapeError
from unscene.report.comparison_figure import comparison_rows, scenes_png
from unscene.report.slots import slot_colour
from unscene.scene import Decomposition, Scene

GROUND = (40, 40, 40)


def scene(size=8, labelled=True):
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
    """The objects of `scene` in slots 1 and 0, all else in slot 2."""
    labels = scene(size).labels
    return torch.tensor([2, 1, 0])[labels]


def corners(panel):
    """The colours of the first object, the second one, and the ground."""
    return [tuple(panel[place].tolist()) for place in ((5, 5), (-5, -5), (5, -5))]


def test_rows_are_images_truth_and_two_of_every_model():
    found = {"A": decomposition(swapped(), 3), "B": decomposition(swapped(), 4)}
    rows = comparison_rows(scene(), found)
    assert [row.title for row in rows] == [
        "images",
        "true segmentation",
        "A: segmentation, reconstruction",
        "",
        "B: segmentation, reconstruction",
        "",
    ]
    assert [row.texts for row in rows] == [(), (), ("ARI 1.000",), (), ("ARI 1.000",), ()]
    assert {panel.shape for row in rows for panel in row.panels} == {(192, 192, 3)}
    assert (rows[0].panels[0] == 128).all()
    assert (rows[3].panels[0] == 64).all()


def test_segmentations_have_the_colours_of_the_truth():
    rows = comparison_rows(scene(), {"A": decomposition(swapped(), 3)})
    assert corners(rows[1].panels[0]) == [slot_colour(1), slot_colour(2), GROUND]
    assert corners(rows[2].panels[0]) == [slot_colour(1), slot_colour(2), GROUND]


def test_without_a_stated_background_the_slot_on_the_background_is_the_ground():
    rows = comparison_rows(scene(), {"A": decomposition(swapped(), 3, background=None)})
    assert corners(rows[2].panels[0]) == [slot_colour(1), slot_colour(2), GROUND]


def test_what_is_no_true_object_has_a_colour_of_its_own():
    labels = swapped()
    labels[0, :2, 4:] = 3  # on the background
    rows = comparison_rows(scene(), {"A": decomposition(labels, 4, background=2)})
    strange = tuple(rows[2].panels[0][5, -5].tolist())
    assert strange not in {slot_colour(1), slot_colour(2), GROUND}
    assert corners(rows[2].panels[0])[:2] == [slot_colour(1), slot_colour(2)]


def test_without_truth_slots_have_their_own_colours():
    rows = comparison_rows(scene(labelled=False), {"A": decomposition(swapped(), 3, background=None)})
    assert [row.title for row in rows] == ["images", "A: segmentation, reconstruction", ""]
    assert rows[1].texts == ()
    assert corners(rows[1].panels[0]) == [slot_colour(2), slot_colour(1), slot_colour(3)]


def test_boxes_have_the_colours_of_their_slots_and_only_valid_ones_are_drawn():
    nothing = torch.full((1, 8, 8), 2)  # all is background
    boxes = torch.tensor([[[4.0, 4, 8, 8], [0, 0, 4, 4]]])
    for valid, seen in (([True, True], {3, 4}), ([False, True], {4}), ([False, False], set())):
        more = {"boxes": boxes, "box_scores": torch.ones(1, 2), "box_valid": torch.tensor([valid])}
        panel = comparison_rows(scene(), {"A": decomposition(nothing, 3, **more)})[2].panels[0]
        colours = {tuple(colour) for colour in panel.reshape(-1, 3).tolist()} - {GROUND, (0, 0, 0)}
        assert len(colours) == len(seen)


def test_boxes_follow_the_slots_to_the_colours_of_the_truth():
    boxes = torch.tensor([[[4.0, 4, 8, 8], [0, 0, 4, 4]]])  # of slots 0 and 1
    more = {"boxes": boxes, "box_scores": torch.ones(1, 2), "box_valid": torch.ones(1, 2, dtype=torch.bool)}
    panel = comparison_rows(scene(), {"A": decomposition(swapped(), 3, **more)})[2].panels[0]
    assert tuple(panel[0, 50].tolist()) == slot_colour(1)
    assert tuple(panel[-1, -50].tolist()) == slot_colour(2)


@pytest.mark.parametrize(("size", "panel"), [(8, 192), (64, 192), (128, 128), (300, 192)])
def test_any_size_becomes_a_png_of_panels(size, panel):
    many = Scene(torch.rand(3, 3, size, size))
    found = Decomposition(torch.zeros(3, 1, 1, size, size), torch.rand(3, 1, 3, size, size))
    with Image.open(io.BytesIO(scenes_png(many, {"A": found}))) as image:
        assert image.format == "PNG"
        assert image.width == 3 * panel + 2 * 4
        assert image.height > 3 * panel
        assert np.asarray(image)[..., 3].min() == 0  # a transparent ground


def test_a_decomposition_of_other_images_is_refused():
    with pytest.raises(ShapeError, match="log_masks"):
        comparison_rows(scene(), {"A": decomposition(swapped(16), 3)})
