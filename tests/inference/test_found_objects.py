"""found_objects: objects in the image's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.measure import regionprops

from unscene.data.image_resize import fit_image
from unscene.inference.found_objects import found_objects
from unscene.scene import Decomposition

SIZE = 8


def halves(background: int | None = -1, **more: torch.Tensor) -> Decomposition:
    """Slot 0 takes the left quarter, slot 1 nothing, slot 2 the rest."""
    masks = torch.zeros(1, 3, 1, SIZE, SIZE)
    masks[:, 0, :, :, :2] = 1
    masks[:, 2, :, :, 2:] = 1
    return Decomposition(masks.log(), torch.zeros(1, 3, 3, SIZE, SIZE), background, **more)


def fit(height, width, kind="stretch"):
    return fit_image(np.zeros((height, width, 3), np.uint8), SIZE, kind)[1]


def test_a_quarter_of_the_square_is_a_quarter_of_the_image():
    found = found_objects(halves(), 0, fit(40, 80))
    assert found.labels.shape == (40, 80)
    assert found.slots.tolist() == [1]
    assert found.areas.tolist() == [40 * 20]
    assert found.boxes.tolist() == [[0, 0, 20, 40]]
    assert found.scores[0] > 0.9
    assert found.latents is None


def test_without_a_background_slot_every_slot_is_an_object():
    found = found_objects(halves(background=None), 0, fit(16, 16))
    assert found.slots.tolist() == [1, 3]
    assert found.areas.tolist() == [16 * 4, 16 * 12]
    assert (found.labels == 3).sum() == 16 * 12


def test_with_the_background_first_labels_skip_it():
    found = found_objects(halves(background=0), 0, fit(16, 16))
    assert found.slots.tolist() == [2]  # slot 2 of the model is the second of its foreground
    assert (found.labels[:, :4] == 0).all()


def test_valid_boxes_are_the_models_scaled_and_others_are_of_the_pixels():
    boxes = torch.tensor([[[0.5, 1, 3, 8], [0, 0, 0, 0]]])
    scores, valid = torch.tensor([[0.6, 0.2]]), torch.tensor([[True, False]])
    of_model = found_objects(halves(boxes=boxes, box_scores=scores, box_valid=valid), 0, fit(16, 32))
    assert of_model.boxes.tolist() == [[2, 2, 12, 16]]
    assert of_model.scores.tolist() == pytest.approx([0.6])
    invalid = found_objects(halves(boxes=boxes, box_scores=scores, box_valid=~valid), 0, fit(16, 32))
    assert invalid.boxes.tolist() == [[0, 0, 8, 16]]


def test_latents_belong_to_their_slots():
    latents = torch.arange(6.0).view(1, 3, 2)
    assert found_objects(halves(latents=latents), 0, fit(16, 16)).latents.tolist() == [[0, 1]]
    assert found_objects(halves(0, latents=latents), 0, fit(16, 16)).latents.tolist() == [[4, 5]]


def test_outside_a_crop_is_background():
    found = found_objects(halves(), 0, fit(16, 32, "crop"))
    assert found.boxes.tolist() == [[8, 0, 12, 16]]
    assert (found.labels[:, :8] == 0).all()
    whole = found_objects(halves(background=None), 0, fit(16, 32, "crop"))
    assert set(np.unique(whole.labels[:, :8])) == {0}


def test_a_padded_image_gives_masks_of_its_own_shape():
    found = found_objects(halves(), 0, fit(16, 32, "pad"))
    assert found.labels.shape == (16, 32)
    assert found.boxes.tolist() == [[0, 0, 8, 16]]


def test_all_background_is_no_object():
    masks = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1, 1).expand(1, 3, 1, SIZE, SIZE)
    found = found_objects(Decomposition(masks.log(), torch.zeros(1, 3, 3, SIZE, SIZE), -1), 0, fit(5, 7))
    assert found.slots.tolist() == []
    assert found.scores.shape == (0,)


def test_random_masks_agree_with_argmax_and_scikit_image():
    log_masks = torch.randn(2, 4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    decomposition = Decomposition(log_masks, torch.zeros(2, 4, 3, SIZE, SIZE), -1)
    found = found_objects(decomposition, 1, fit(SIZE, SIZE))
    assert (found.labels == decomposition.labels()[1].numpy()).all()
    for props in regionprops(found.labels):
        row = found.slots.tolist().index(props.label)
        top, left, bottom, right = props.bbox
        assert found.boxes[row].tolist() == [left, top, right, bottom]
        assert found.areas[row] == props.area
        shares = log_masks[1, props.label - 1, 0].exp().numpy()[found.labels == props.label]
        assert found.scores[row] == pytest.approx(shares.mean(), abs=1e-5)
