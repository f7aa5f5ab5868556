"""object_locations: places and distances by hand, one slot for one object."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unscene.metrics.object_locations import ObjectLocations, label_centres, match_locations
from unscene.scene import Decomposition, Scene


def scene_of(labels: torch.Tensor) -> Scene:
    return Scene(torch.zeros(len(labels), 3, *labels.shape[1:]), labels)


def answer(labels: torch.Tensor, locations: torch.Tensor | None) -> Decomposition:
    slots = 1 + (2 if locations is None else locations.shape[1])
    masks = torch.full((len(labels), slots, 1, *labels.shape[1:]), 1 / slots)
    return Decomposition(masks.log(), torch.zeros(len(labels), slots, 3, *labels.shape[1:]), 0, locations=locations)


def two_objects() -> torch.Tensor:
    labels = torch.zeros(1, 10, 20, dtype=torch.long)
    labels[0, 2:4, 2:6] = 1  # its middle is row 3 of 10, column 4 of 20
    labels[0, 8:10, 10:14] = 3
    return labels


def test_middles_of_boxes_by_hand():
    assert label_centres(two_objects()[0]) == {1: (0.3, 0.2), 3: (0.9, 0.6)}
    assert label_centres(torch.zeros(4, 4, dtype=torch.int64)) == {}


def test_locations_within_five_percent_count_as_located():
    locations = torch.tensor([[[0.324, 0.232], [0.0, 0.0], [0.9, 0.66]]])  # .04, unused, .06 away
    metric = ObjectLocations()
    metric.update(scene_of(two_objects()), answer(two_objects(), locations))
    assert metric.compute() == {"located": 0.5, "location_error": pytest.approx(0.04)}
    assert [(row.label, row.images, row.located) for row in metric.by_label()] == [(1, 1, 1), (3, 1, 0)]
    assert metric.by_label()[0].distance == pytest.approx(0.04)
    assert metric.by_label()[1].distance is None


def test_one_location_matches_one_object():
    centres = np.array([[0.5, 0.5], [0.52, 0.5]])
    one, _ = match_locations(centres, np.array([[0.51, 0.5]]))
    assert sorted(one) == [-1, 0]
    both, distances = match_locations(centres, np.array([[0.52, 0.5], [0.55, 0.5]]))
    assert both.tolist() == [0, 1]  # the nearer match of the second would leave the first without any
    assert distances.tolist() == pytest.approx([0.02, 0.03])


def test_unused_slot_is_not_a_location_at_the_corner():
    labels = torch.zeros(1, 20, 20, dtype=torch.long)
    labels[0, 0, 0] = 1
    metric = ObjectLocations()
    metric.update(scene_of(labels), answer(labels, torch.zeros(1, 2, 2)))
    assert metric.compute() == {"located": 0.0, "location_error": None}


def test_images_without_objects_labels_or_locations_do_not_count():
    labels = two_objects()
    metric = ObjectLocations()
    metric.update(scene_of(labels), answer(labels, None))
    metric.update(Scene(torch.zeros(1, 3, 10, 20)), answer(labels, torch.rand(1, 2, 2)))
    metric.update(scene_of(torch.zeros_like(labels)), answer(labels, torch.rand(1, 2, 2)))
    assert metric.per_image() == [None, None, None]
    assert metric.by_label() == []


@given(st.integers(0, 1000), st.integers(0, 4), st.integers(0, 4))
def test_match_is_within_the_tolerance_and_one_to_one(seed, objects, slots):
    choose = np.random.default_rng(seed)
    centres, locations = choose.random((objects, 2)) / 5, choose.random((slots, 2)) / 5
    matched, distances = match_locations(centres, locations)
    used = matched[matched >= 0]
    assert len(set(used)) == len(used)
    for row, slot in enumerate(matched):
        assert (distances[row] <= 0.05) == (slot >= 0)
        if slot >= 0:
            assert distances[row] == pytest.approx(np.hypot(*(centres[row] - locations[slot])))
        else:  # no location that is still free is near
            free = [n for n in range(slots) if n not in used]
            assert all(np.hypot(*(centres[row] - locations[n])) > 0.05 for n in free)
