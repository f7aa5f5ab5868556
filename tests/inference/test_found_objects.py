"""found_objects: objects in the image's own pixels, and a COCO file that pycocotools loads."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage
from scipy.ndimage import gaussian_filter
from skimage.measure import regionprops

from unscene.data.image_resize import fit_image
from unscene.errors import RecipeError
from unscene.evaluation.clips import ClipTracking
from unscene.inference import found_objects as module
from unscene.inference.found_objects import (
    MIN_CONTRAST,
    FoundObjects,
    check_limits,
    coco_annotations,
    coco_json,
    contrast,
    found_objects,
    refine,
    touching_parts,
)
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


def test_boxes_are_of_the_pixels_and_the_models_own_are_scaled_beside_them():
    boxes = torch.tensor([[[0.5, 1, 3, 8], [0, 0, 0, 0]]])
    scores, valid = torch.tensor([[0.6, 0.2]]), torch.tensor([[True, False]])
    with_model_boxes = found_objects(halves(boxes=boxes, box_scores=scores, box_valid=valid), 0, fit(16, 32))
    assert with_model_boxes.boxes.tolist() == [[0, 0, 8, 16]]
    assert with_model_boxes.model_boxes.tolist() == [[2, 2, 12, 16]]
    assert with_model_boxes.scores.tolist() == pytest.approx([0.6])
    invalid = found_objects(halves(boxes=boxes, box_scores=scores, box_valid=~valid), 0, fit(16, 32))
    assert (invalid.boxes.tolist(), invalid.model_boxes.tolist()) == ([[0, 0, 8, 16]], [[0, 0, 0, 0]])
    assert invalid.scores[0] > 0.9
    assert "model_bbox" not in coco_annotations(invalid, 1)[0]
    assert coco_annotations(with_model_boxes, 1)[0]["model_bbox"] == [2, 2, 10, 14]
    assert found_objects(halves(), 0, fit(16, 32)).model_boxes is None


@pytest.mark.parametrize("ground", [20.0, 220.0])
def test_an_outline_at_half_height_is_where_a_blurred_disc_ends(ground):
    sharp = np.where(discs((30, 30), radius=10)[..., None], (120.0, 90.0, 150.0), ground)
    pixels = gaussian_filter(sharp, (2, 2, 0)).round().astype(np.uint8)
    labels = discs((30, 30), radius=13).astype(np.uint8)
    found = refine(objects_of(labels.copy()), pixels, outline=0.5)
    assert found.areas[0] == (found.labels == 1).sum() == pytest.approx(np.pi * 100, rel=0.05)
    np.testing.assert_allclose(found.boxes[0], (21, 21, 40, 40), atol=1)
    assert refine(objects_of(labels.copy()), pixels, outline=0.9).areas[0] < found.areas[0]
    assert refine(objects_of(labels.copy()), pixels).areas[0] == labels.sum()


@pytest.mark.parametrize(
    "limits",
    [{"min_score": -0.1}, {"min_contrast": 1.1}, {"outline": 1.0}, {"outline": -1.0}, {"outline": float("nan")}],
)
def test_limits_out_of_their_range_are_refused(limits):
    with pytest.raises(RecipeError, match=r"of an object must be from 0 to (below )?1, but is"):
        check_limits(**limits)
    with pytest.raises(RecipeError, match="of an object must be"):
        ClipTracking(2, **limits)
    check_limits(min_score=1, min_contrast=1, outline=0.99, min_area=3, join_alike=True, split_parts="touching")
    with pytest.raises(RecipeError, match="least area of an object must be 0 pixels or more, but is -1"):
        check_limits(min_area=-1)
    with pytest.raises(RecipeError, match="split_parts must be True, False or 'touching', not 'x'"):
        check_limits(split_parts="x")
    with pytest.raises(RecipeError, match=r"has no option 'outlines'\. Did you mean 'outline'\?"):
        ClipTracking(2, outlines=0.5)


def test_an_outline_needs_background_and_contrast():
    plain = np.full((60, 90, 3), 99, np.uint8)
    for labels in (np.ones((60, 90), np.uint8), discs((30, 30)).astype(np.uint8)):
        found = refine(objects_of(labels.copy()), plain, outline=0.5)
        assert found.areas.tolist() == [labels.sum()]


def test_objects_under_the_least_area_become_background():
    image = np.zeros((16, 16, 3), np.uint8)
    assert refine(found_objects(halves(), 0, fit(16, 16)), image, min_area=16 * 4).slots.tolist() == [1]
    found = refine(found_objects(halves(), 0, fit(16, 16)), image, min_area=16 * 4 + 1)
    assert (found.slots.tolist(), found.labels.max(), found.boxes.shape) == ([], 0, (0, 4))
    several = refine(found_objects(halves(background=None), 0, fit(16, 16)), image, min_area=100)
    assert (several.slots.tolist(), np.unique(several.labels).tolist()) == ([3], [0, 3])
    renumbered = refine(found_objects(halves(background=None), 0, fit(16, 16)), image, min_area=100, renumber=True)
    assert (renumbered.slots.tolist(), np.unique(renumbered.labels).tolist()) == ([1], [0, 1])


def objects_of(labels):
    """The objects of a label map, as a model without boxes would give them; the label is the latent."""
    slots = np.setdiff1d(labels, [0])
    windows = [ndimage.find_objects(labels)[slot - 1] for slot in slots]
    return FoundObjects(
        labels=labels.copy(),
        slots=slots.astype(np.int64),
        areas=np.array([(labels == slot).sum() for slot in slots], np.int64),
        boxes=np.array([(x.start, y.start, x.stop, y.stop) for y, x in windows], np.float32).reshape(-1, 4),
        scores=np.linspace(0.9, 0.5, len(slots)).astype(np.float32),
        model_boxes=None,
        latents=slots[:, None].astype(np.float32),
        locations=None,
    )


def disc(size=40, radius=8):
    rows, columns = np.mgrid[:size, :size] - size // 2
    return (rows**2 + columns**2 <= radius**2).astype(np.uint8)


def test_contrast_of_a_disc_falls_with_the_noise():
    labels, rng, contrasts = disc(), np.random.default_rng(0), []
    for noise in (0, 20, 60, 200):
        image = 100 + 60.0 * labels[..., None] + rng.normal(0, noise, (40, 40, 3))
        contrasts.append(contrast(image.clip(0, 255).astype(np.uint8), labels, 1))
    assert contrasts[0] > 0.9
    assert contrasts == sorted(contrasts, reverse=True)
    assert contrasts[3] < 0.05


@pytest.mark.parametrize("kind", ["plain", "noise", "gradient", "pixels chosen by their noise"])
def test_masks_on_nothing_have_no_contrast(kind):
    rng, labels = np.random.default_rng(0), disc()
    image = np.full((40, 40, 3), 90.0)
    if kind == "gradient":
        image += np.arange(40)[:, None, None] * 2
    elif kind != "plain":
        image += rng.normal(0, 15, (40, 40, 1))
    if kind == "pixels chosen by their noise":
        labels = (image[..., 0] > 105).astype(np.uint8)
    assert contrast(image.astype(np.uint8), labels, 1) < 0.05


def test_stripes_whose_mean_is_the_grounds_colour_have_contrast_and_a_patch_of_the_grounds_own_texture_has_none():
    labels, rng = disc(), np.random.default_rng(0)
    stripes = np.where(np.arange(40) // 2 % 2, 60.0, -60.0)[:, None, None]
    noise = rng.normal(0, 6, (40, 40, 1))
    on_plain = 128 + stripes * labels[..., None] + noise
    assert contrast(np.repeat(on_plain, 3, axis=2).astype(np.uint8), labels, 1) > 0.5
    on_stripes = 128 + stripes + noise
    assert contrast(np.repeat(on_stripes, 3, axis=2).astype(np.uint8), labels, 1) < 0.02


@pytest.mark.parametrize("height", [1, 2])
def test_a_thin_object_on_a_plain_background_has_contrast_even_in_pieces(height):
    """A creature of a game: a line of two colours, of which another slot has the pixels below it."""
    labels, image = np.zeros((20, 40), np.int64), np.zeros((20, 40, 3), np.uint8)
    labels[10 : 10 + height, 12:28:2], labels[10 + height, 12:28] = 1, 2
    image[labels == 1] = 200, 100, 60
    image[10 : 10 + height, 20] = 90, 80, 210
    image[labels == 2] = 90, 180, 90
    assert contrast(image, labels, 1) > 0.5
    assert contrast(image, labels, 2) > 0.5


def test_contrast_to_the_background_does_not_count_a_neighbour():
    labels = disc()
    labels[:, 29:] = 2
    image = np.where(labels == 1, 100, np.where(labels == 2, 100, 40)).astype(np.uint8)[..., None].repeat(3, -1)
    assert contrast(image, labels, 1) > 0.9
    labels[labels == 0] = 3  # no background: all others count
    assert 0 < contrast(image, labels, 1) < 0.9


def test_contrast_of_a_mask_that_fills_the_image_is_zero():
    assert contrast(np.zeros((3, 3, 3), np.uint8), np.ones((3, 3), np.uint8), 1) == 0
    assert contrast(np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), np.uint8), 1) == 0


def test_contrast_of_a_large_object_is_that_of_its_reduced_image():
    labels = disc(1200, 300)
    image = (100 + 50 * labels[..., None] + np.random.default_rng(0).normal(0, 5, (1200, 1200, 3))).astype(np.uint8)
    expected = contrast(image[::10, ::10], labels[::10, ::10], 1)
    assert contrast(image, labels, 1) == pytest.approx(expected, abs=0.05)


def test_objects_are_measured_and_those_of_little_contrast_become_background():
    labels = np.zeros((30, 60), np.uint8)
    labels[10:20, 10:20], labels[10:20, 40:50] = 2, 5
    image = np.full((30, 60, 3), 200, np.uint8)
    image[labels == 2] = (10, 20, 30)
    found = refine(objects_of(labels), image, min_contrast=MIN_CONTRAST)
    assert found.slots.tolist() == [2]
    assert found.colours.tolist() == [[10, 20, 30]]
    assert found.contrasts[0] > 0.8
    assert found.centroids().tolist() == [[14.5, 14.5]]
    assert np.unique(found.labels).tolist() == [0, 2]
    assert coco_annotations(found, 1)[0]["contrast"] == pytest.approx(found.contrasts[0], abs=1e-5)
    assert refine(objects_of(labels), image).contrasts[1] == 0


def test_connected_parts_become_objects():
    labels = np.zeros((12, 30), np.uint8)
    labels[2:5, 2:5] = labels[5:8, 5:8] = 3  # touch at a corner: one part
    labels[2:4, 20:22] = 3
    labels[9:11, 10:14] = 1
    found = refine(objects_of(labels), np.zeros((12, 30, 3), np.uint8), split_parts=True)
    assert found.slots.tolist() == [1, 2, 3]
    assert sorted(found.areas.tolist()) == [4, 8, 18]
    assert sorted(found.latents[:, 0].tolist()) == [1, 3, 3]
    for slot, area, (x1, y1, x2, y2) in zip(found.slots, found.areas, found.boxes.astype(int), strict=True):
        assert (found.labels == slot).sum() == (found.labels[y1:y2, x1:x2] == slot).sum() == area
    large = refine(objects_of(labels), np.zeros((12, 30, 3), np.uint8), split_parts=True, min_area=8)
    assert sorted(large.areas.tolist()) == [8, 18]
    assert large.slots.tolist() == [1, 2]


def discs(*places, radius=8):
    rows, columns = np.mgrid[:60, :90]
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 < radius**2 for y, x in places], axis=0)


def test_discs_that_touch_are_divided_between_their_middles():
    labels = np.zeros((60, 90), np.uint8)
    labels[discs((20, 15), (20, 29))] = 1  # 16 pixels wide, overlapping by 2
    for label, place in enumerate([(20, 50), (45, 15), (45, 50)], start=2):
        labels[discs(place)] = label
    pixels = np.zeros((60, 90, 3), np.uint8)
    assert len(refine(objects_of(labels), pixels, split_parts=True).slots) == 4
    found = refine(objects_of(labels), pixels, split_parts="touching")
    assert len(found.slots) == 5
    assert (found.labels > 0).sum() == (labels > 0).sum() == found.areas.sum()
    left, right = found.labels[20, 15], found.labels[20, 29]
    assert left != right
    middles = found.centroids()[[found.slots.tolist().index(label) for label in (left, right)]]
    np.testing.assert_allclose(middles, [(20, 15), (20, 29)], atol=0.6)


@pytest.mark.parametrize("shape", [discs((30, 30)), discs((30, 20), radius=19), np.ones((60, 90), bool), discs()])
def test_a_shape_without_a_waist_or_of_usual_size_is_one_object(shape):
    for usual in (200.0, 5000.0):
        assert len(touching_parts(shape, usual)) == int(shape.any())


def test_objects_under_the_least_score_become_background():
    log_masks = torch.zeros(1, 2, 1, SIZE, SIZE)
    log_masks[:, 0, :, :, :4] = log_masks[:, 1, :, :, 4:] = 1.0  # a share of e / (e + 1) = .731
    decomposition = Decomposition(log_masks.log_softmax(1), torch.zeros(1, 2, 3, SIZE, SIZE), -1)
    assert found_objects(decomposition, 0, fit(SIZE, SIZE), min_score=0.73).slots.tolist() == [1]
    found = found_objects(decomposition, 0, fit(SIZE, SIZE), min_score=0.74)
    assert (found.slots.tolist(), found.labels.max()) == ([], 0)


@given(arrays(np.int32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
def test_run_lengths_within_a_box_are_those_of_the_image(labels):
    for label in np.setdiff1d(labels, [0]).tolist():
        rows, columns = np.nonzero(labels == label)
        box = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)
        expected = coco_mask.encode(np.asfortranarray(labels == label, dtype=np.uint8))
        assert module._run_lengths(labels, label, box) == expected


@pytest.mark.parametrize("kind", ["stretch", "pad", "crop"])
def test_stripes_of_a_large_image_join_without_a_seam(kind, monkeypatch):
    log_masks = torch.randn(1, 4, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).log_softmax(dim=1)
    decomposition = Decomposition(log_masks, torch.zeros(1, 4, 3, SIZE, SIZE), -1)
    at_once = found_objects(decomposition, 0, fit(93, 61, kind))
    monkeypatch.setattr(module, "_PIXELS_AT_ONCE", 61 * 7)
    in_stripes = found_objects(decomposition, 0, fit(93, 61, kind))
    assert (at_once.labels != in_stripes.labels).mean() < 1e-3  # where two slots are equal but for rounding
    assert in_stripes.areas.sum() == (in_stripes.labels > 0).sum()
    assert in_stripes.scores == pytest.approx(at_once.scores, abs=1e-3)


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


# COCO


def loaded(dataset, tmp_path):
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def objects(labels, boxes, scores, model_boxes=None, latents=None, locations=None) -> FoundObjects:
    """The objects of a label map."""
    slots = np.unique(labels[labels > 0])
    rows = {"model_boxes": model_boxes, "latents": latents, "locations": locations}
    return FoundObjects(
        labels=labels.astype(np.uint8),
        slots=slots.astype(np.int64),
        areas=np.array([(labels == slot).sum() for slot in slots], np.int64),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        **{name: None if values is None else np.array(values, np.float32) for name, values in rows.items()},
    )


@pytest.fixture
def dataset():
    first, second = np.zeros((4, 6), int), np.zeros((5, 3), int)
    first[1:3, 2:6], second[4, 0] = 2, 1
    annotations = coco_annotations(objects(first, [(2, 1, 6, 3)], [0.75], latents=[(1.0, -0.123456)]), 1)
    annotations += coco_annotations(objects(second, [(0, 4, 1, 5)], [0.5]), 3)
    return coco_json([("a/1.jpg", 4, 6), ("empty.png", 9, 9), ("b.png", 5, 3)], annotations, {"fit": "pad"})


def test_ids_boxes_and_areas_by_hand(dataset):
    assert [image["id"] for image in dataset["images"]] == [1, 2, 3]
    assert dataset["images"][0] == {"id": 1, "file_name": "a/1.jpg", "height": 4, "width": 6}
    one, two = dataset["annotations"]
    assert (one["id"], one["image_id"], one["category_id"], one["slot"]) == (1, 1, 1, 2)
    assert one["bbox"] == [2, 1, 4, 2]
    assert (one["area"], one["iscrowd"], one["score"]) == (8, 0, 0.75)
    assert one["latent"] == [1.0, -0.12346]
    assert (two["id"], two["image_id"], two["area"]) == (2, 3, 1)
    assert "latent" not in two
    assert dataset["info"]["fit"] == "pad"


def test_pycocotools_loads_the_masks(dataset, tmp_path):
    coco = loaded(dataset, tmp_path)
    assert coco.getCatIds(catNms=["object"]) == [1]
    assert coco.getAnnIds(imgIds=[2]) == []
    mask = coco.annToMask(coco.loadAnns([1])[0])
    assert mask.tolist() == [[0] * 6, [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0] * 6]


def test_the_annotations_are_a_detectors_results_too(dataset, tmp_path):
    coco = loaded(dataset, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(dataset["annotations"]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@given(labels=arrays(np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(0, 3)))
def test_any_label_map_comes_back(labels):
    height, width = labels.shape
    number = len(np.unique(labels[labels > 0]))
    found = objects(labels, [(0, 0, width, height)] * number, [1.0] * number)
    dataset = coco_json([("x.png", height, width)], coco_annotations(found, 1), {})
    coco = COCO()
    coco.dataset = json.loads(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    assert len(dataset["annotations"]) == number
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert (coco.annToMask(annotation) == (labels == annotation["slot"])).all()
        assert annotation["area"] == (labels == annotation["slot"]).sum()


def test_no_object_at_all_is_a_valid_file(tmp_path):
    assert coco_annotations(objects(np.zeros((2, 2), int), [], []), 1) == []
    coco = loaded(coco_json([("x.png", 2, 2)], [], {}), tmp_path)
    assert coco.getImgIds() == [1]
    assert coco.getAnnIds() == []


def test_a_location_is_kept_to_four_places():
    mask = np.ones((2, 2), int)
    (annotation,) = coco_annotations(objects(mask, [(0, 0, 2, 2)], [0.5], locations=[(0.123456, 1.0)]), 1)
    assert annotation["location"] == [0.1235, 1.0]
    assert "location" not in coco_annotations(objects(mask, [(0, 0, 2, 2)], [0.5]), 1)[0]


def test_the_sides_of_a_box_are_rounded_before_their_difference():
    (annotation,) = coco_annotations(objects(np.ones((9, 9), int), [(0.126, 0.5, 3.244, 7.999)], [0.123456]), 1)
    assert annotation["bbox"] == [0.13, 0.5, 3.11, 7.5]
    assert annotation["score"] == 0.12346


def test_a_model_may_have_more_than_255_objects():
    masks = torch.full((1, 301, 1, 20, 20), -20.0)
    rows, columns = np.divmod(np.arange(300), 20)
    masks[0, np.arange(300), 0, rows, columns] = 0.0
    masks[0, 300, 0, 15:] = 0.0
    shape = (1, 301, 3, 20, 20)
    decomposition = Decomposition(masks.log_softmax(dim=1), torch.zeros(shape), background=300)
    found = found_objects(decomposition, 0, fit_image(np.zeros((20, 20, 3), np.uint8), 20, "stretch")[1])
    assert found.slots.tolist() == list(range(1, 301))
    assert found.labels[14, 19] == 300
    assert (found.areas == 1).all()
