from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.scene import Decomposition, Losses, Scene, Sequence


def decomposition(batch: int = 2, slots: int = 3, size: int = 4, **fields) -> Decomposition:
    torch.manual_seed(0)
    log_masks = (2 * torch.randn(batch, slots, 1, size, size)).log_softmax(dim=1)
    return Decomposition(log_masks, torch.rand(batch, slots, 3, size, size), **fields)


def box_fields(batch: int = 2, boxes: int = 2) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.rand(batch, boxes, 4),
        "box_scores": torch.rand(batch, boxes),
        "box_valid": torch.ones(batch, boxes, dtype=torch.bool),
    }


# Scene


def test_a_scene_is_as_long_as_its_batch():
    scene = Scene(torch.rand(5, 3, 4, 6), torch.zeros(5, 4, 6, dtype=torch.long), torch.zeros(5, 0, 4))
    assert len(scene) == 5
    assert len(Scene(torch.rand(0, 3, 4, 4))) == 0


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"images": torch.rand(3, 4, 4)}, "images"),
        ({"images": torch.rand(2, 1, 4, 4)}, "images"),
        ({"images": torch.rand(2, 3, 4, 4), "labels": torch.zeros(2, 4, 5)}, "labels"),
        ({"images": torch.rand(2, 3, 4, 4), "labels": torch.zeros(1, 4, 4)}, "labels"),
        ({"images": torch.rand(2, 3, 4, 4), "boxes": torch.zeros(2, 3, 5)}, "boxes"),
        ({"images": torch.rand(2, 3, 4, 4), "boxes": torch.zeros(1, 3, 4)}, "boxes"),
    ],
)
def test_a_scene_refuses_axes_that_do_not_fit(fields, name):
    with pytest.raises(ShapeError, match=name):
        Scene(**fields)


# Sequence


def test_scenes_of_clips_become_a_sequence_of_scenes():
    numbers = torch.arange(6)  # frames 0, 1, 2 of two clips
    images = numbers.view(6, 1, 1, 1).expand(6, 3, 4, 5).float()
    scene = Scene(images, numbers.view(6, 1, 1).expand(6, 4, 5), numbers.view(6, 1, 1).expand(6, 2, 4).float())
    clips = Sequence.from_clips(scene, 3)
    assert (len(clips), clips.images.shape) == (3, (3, 2, 3, 4, 5))
    assert [frame.images[:, 0, 0, 0].tolist() for frame in clips] == [[0, 3], [1, 4], [2, 5]]
    assert clips[-1].labels[:, 0, 0].tolist() == clips[2].boxes[:, 1, 3].tolist() == [2, 5]
    assert clips[0].categories is None
    assert len(Sequence.from_clips(scene, 6)[0]) == 1
    with pytest.raises(IndexError):
        clips[3]


@pytest.mark.parametrize("length", [0, 4, 7])
def test_scenes_that_are_no_whole_clips_are_refused(length):
    with pytest.raises(ShapeError, match=f"6 scenes are no whole clips of {length} frames"):
        Sequence.from_clips(Scene(torch.rand(6, 3, 4, 4)), length)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"images": torch.rand(2, 3, 4, 4)}, "images"),
        ({"labels": torch.zeros(3, 2, 4, 4)}, "labels"),
        ({"boxes": torch.zeros(2, 3, 5)}, "boxes"),
        ({"categories": torch.zeros(2, 2, 5)}, "categories"),
    ],
)
def test_a_sequence_refuses_axes_that_do_not_fit(fields, name):
    with pytest.raises(ShapeError, match=name):
        Sequence(**{"images": torch.rand(2, 3, 3, 4, 4)} | fields)


@pytest.mark.parametrize("convert", [lambda array: array, torch.from_numpy], ids=["arrays", "tensors"])
def test_a_batch_becomes_a_scene_of_float_images(convert):  # by hand: 0, 51, 255 are 0, 1/5, 1
    image = np.zeros((1, 2, 3, 3), np.uint8)
    image[0, 1, 2] = 0, 51, 255
    labels, boxes = np.zeros((1, 2, 3), np.uint8), np.zeros((1, 1, 4), np.float64)
    labels[0, 1, 2], boxes[0, 0] = 255, (2, 1, 3, 2)
    batch = {"image": image, "labels": labels, "boxes": boxes, "shape": np.ones((1, 1))}
    scene = Scene.from_batch({name: convert(values) for name, values in batch.items()})
    assert scene.images.dtype == scene.boxes.dtype == torch.float32
    assert scene.labels.dtype == torch.long
    assert scene.images.shape == (1, 3, 2, 3)
    assert scene.images[0, :, 1, 2].tolist() == pytest.approx([0, 0.2, 1])
    assert scene.images.sum().item() == pytest.approx(1.2)
    assert scene.labels.tolist() == [[[0, 0, 0], [0, 0, 255]]]
    assert scene.boxes.tolist() == [[[2, 1, 3, 2]]]


@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_without_the_truth_becomes_a_scene_without(count):
    scene = Scene.from_batch({"image": np.zeros((count, 4, 4, 3), np.uint8)})
    assert (len(scene), scene.labels, scene.boxes) == (count, None, None)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 4, 4, 3), np.float32), r"image must be uint8 in 0..255, but is torch.float32"),
        (np.zeros((2, 3, 4, 4), np.uint8), "image"),
    ],
)
def test_a_batch_of_other_images_is_refused(image, message):
    with pytest.raises(ShapeError, match=message):
        Scene.from_batch({"image": image})


# Decomposition


def test_reconstruction_is_the_components_mixed_by_masks():
    answer = decomposition()
    expected = np.zeros((2, 3, 4, 4))
    for b, k, c, y, x in np.ndindex(2, 3, 3, 4, 4):
        expected[b, c, y, x] += np.exp(answer.log_masks[b, k, 0, y, x].item()) * answer.components[b, k, c, y, x].item()
    np.testing.assert_allclose(answer.reconstruction().numpy(), expected, atol=1e-5)
    assert_close(answer.masks().sum(dim=1), torch.ones(2, 1, 4, 4))


@settings(deadline=None)
@given(
    winners=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    background=st.one_of(st.none(), st.integers(-4, 3)),
)
def test_labels_count_the_foreground_in_order(winners, background):
    """The background's pixels are 0, those of the n-th foreground slot n."""
    log_masks = torch.full((1, 4, 1, 1, len(winners)), -9.0)
    for column, winner in enumerate(winners):
        log_masks[0, winner, 0, 0, column] = 0
    answer = Decomposition(log_masks, torch.zeros(1, 4, 3, 1, len(winners)), background)
    if background is None:
        assert answer.foreground == [0, 1, 2, 3]
        expected = winners
    else:
        hidden = background if background >= 0 else background + 4
        assert answer.foreground == [slot for slot in range(4) if slot != hidden]
        expected = [0 if winner == hidden else answer.foreground.index(winner) + 1 for winner in winners]
    assert answer.labels().tolist() == [[expected]]
    assert answer.labels().dtype == torch.int64


def test_one_slot_labels_everything_alike():
    assert not decomposition(slots=1, background=0).labels().any()
    assert decomposition(slots=1, background=0).foreground == []
    assert decomposition(slots=1).foreground == [0]


def test_map_changes_every_tensor_and_nothing_else():
    answer = decomposition(background=-1, latents=torch.rand(2, 3, 5), **box_fields())
    first = answer.map(lambda tensor: tensor[:1])
    assert first.background == -1
    assert first.num_slots == 3
    for item in dataclasses.fields(answer):
        value = getattr(answer, item.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(first, item.name), value[:1])
    assert decomposition().map(torch.clone).boxes is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_masks": torch.zeros(2, 3, 4, 4)}, "log_masks"),
        ({"log_masks": torch.zeros(2, 2, 1, 4, 4)}, "components"),
        ({"components": torch.zeros(2, 3, 1, 4, 4)}, "components"),
        ({"latents": torch.zeros(2, 4, 5)}, "latents"),
        ({"boxes": torch.zeros(2, 2, 4)}, "together"),
        ({"box_valid": torch.zeros(2, 2)}, "together"),
        ({**box_fields(boxes=3), "boxes": torch.zeros(2, 3, 5)}, "boxes"),
        ({**box_fields(boxes=3), "box_scores": torch.zeros(2, 2)}, "box_scores"),
        ({**box_fields(boxes=3), "box_valid": torch.zeros(1, 3)}, "box_valid"),
        ({"background": 3}, "one of 3 slots, but is 3"),
        ({"background": -4}, "one of 3 slots, but is -4"),
    ],
)
def test_a_decomposition_refuses_other_axes(changes, message):
    with pytest.raises(ShapeError, match=message):
        dataclasses.replace(decomposition(), **changes)


@pytest.mark.parametrize("kind", [Scene(torch.rand(1, 3, 4, 4)), decomposition()])
def test_scenes_and_decompositions_are_frozen(kind):
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind.boxes = torch.zeros(1, 1, 4)


# Pictures and other formats


def objects_in_halves() -> Decomposition:
    """Two images of 4 x 4: slot 1 on the left half, the background on the right; slot 2 takes the lower right corner
    of the second image.
    """
    masks = torch.full((2, 3, 1, 4, 4), 1e-6)
    masks[:, 0, :, :, :2] = masks[:, 2, :, :, 2:] = 1
    masks[1, 1, :, 3, 3], masks[1, 2, :, 3, 3] = 1, 1e-6
    masks = masks / masks.sum(dim=1, keepdim=True)
    return Decomposition(masks.log(), torch.rand(2, 3, 3, 4, 4), background=-1)


def test_coco_annotations_by_hand():
    coco = objects_in_halves().to_coco(["a.png", "b.png"])
    assert [(image["id"], image["file_name"], image["height"]) for image in coco["images"]] == [
        (1, "a.png", 4),
        (2, "b.png", 4),
    ]
    rows = [(row["image_id"], row["slot"], row["area"], row["bbox"]) for row in coco["annotations"]]
    assert rows == [(1, 1, 8, [0, 0, 2, 4]), (2, 1, 8, [0, 0, 2, 4]), (2, 2, 1, [3, 3, 1, 1])]
    with pytest.raises(ShapeError, match="file_names"):
        objects_in_halves().to_coco(["a.png"])


def test_supervision_detections_by_hand():
    pytest.importorskip("supervision")  # an extra
    first, second = objects_in_halves().to_supervision()
    assert first.xyxy.tolist() == [[0, 0, 2, 4]]
    assert first.mask[0].tolist() == [[True, True, False, False]] * 4
    assert second.class_id.tolist() == [1, 2]
    assert second.confidence == pytest.approx([1, 1], abs=1e-4)


def test_pictures_have_a_column_for_each_image():
    found = objects_in_halves()
    alone, beside = found.plot(), found.plot(torch.rand(2, 3, 4, 4))
    assert beside.height > alone.height  # the images are one row more
    assert found.plot(count=1).width < alone.width
    assert found._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"


# Losses


def test_the_total_is_the_weighted_sum_and_carries_the_gradient():
    near, far = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([10.0, 0.0], requires_grad=True)
    losses = Losses({"near": near, "far": far}, {"near": 2.0, "far": 0.5}, {"seen": torch.tensor([7.0, 7.0])})
    assert losses.total.tolist() == [7, 4]
    losses.total.sum().backward()
    assert near.grad.tolist() == [2, 2]
    assert far.grad.tolist() == [0.5, 0.5]
    assert Losses({"near": near}, {"near": 3.0}).total.tolist() == [3, 6]


@pytest.mark.parametrize(
    ("terms", "weights", "observed", "message"),
    [
        ({}, {}, {}, "needs a weight"),
        ({"a": torch.zeros(2)}, {}, {}, "needs a weight"),
        ({"a": torch.zeros(2)}, {"a": 1.0, "b": 1.0}, {}, "needs a weight"),
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": 1.0, "b": 1.0}, {}, "'b'"),
        ({"a": torch.tensor(0.0)}, {"a": 1.0}, {}, "'a'"),
        ({"a": torch.zeros(2, 1)}, {"a": 1.0}, {}, "'a'"),
        ({"a": torch.zeros(2)}, {"a": 1.0}, {"seen": torch.zeros(3)}, "'seen'"),
    ],
)
def test_losses_refuse_terms_that_do_not_fit(terms, weights, observed, message):
    with pytest.raises(ShapeError, match=message):
        Losses(terms, weights, observed)
