"""health: made-up decompositions get the verdict that their masks deserve."""

from __future__ import annotations

from statistics import pvariance

import pytest
import torch

from unscene.errors import TrainingError
from unscene.metrics.health import Health
from unscene.scene import Decomposition

B, K, SIZE = 2, 4, 8


def decomposition(
    shares: torch.Tensor, background: int | None = -1, valid: torch.Tensor | None = None
) -> Decomposition:
    """Of masks [K, SIZE, SIZE], the same for every image."""
    masks = shares[None, :, None].expand(B, -1, -1, -1, -1)
    boxes = None if valid is None else torch.zeros(B, valid.shape[1], 4)
    return Decomposition(
        log_masks=masks.log(),
        components=torch.zeros(B, len(shares), 3, SIZE, SIZE),
        background=background,
        boxes=boxes,
        box_scores=None if valid is None else valid.float(),
        box_valid=valid,
    )


def hard(labels: torch.Tensor) -> torch.Tensor:
    """Masks [K, SIZE, SIZE] of a label map of slots."""
    return torch.stack([(labels == slot).float() for slot in range(K)])


def verdict(made_up: Decomposition, images: torch.Tensor | None = None) -> str:
    health = Health()
    health.update(IMAGES if images is None else images, made_up)
    return health.verdict()


def map_of(*objects: tuple[int, slice, slice]) -> torch.Tensor:
    labels = torch.full((SIZE, SIZE), K - 1)
    for slot, rows, columns in objects:
        labels[rows, columns] = slot
    return labels


THREE = map_of((0, slice(0, 3), slice(0, 3)), (1, slice(0, 3), slice(5, 8)), (2, slice(5, 8), slice(0, 3)))


def coloured(labels: torch.Tensor) -> torch.Tensor:
    """Images [B, 3, SIZE, SIZE] in which every label has a grey of its own."""
    return (labels / K).expand(B, 3, -1, -1)


IMAGES = coloured(THREE)


def test_three_objects_in_three_slots_are_well():
    assert verdict(decomposition(hard(THREE))).startswith("decomposing")


def test_all_objects_in_one_slot():
    one = torch.where(THREE < K - 1, 0, THREE)
    assert verdict(decomposition(hard(one))).startswith("all objects in one slot")


def test_everything_background():
    assert verdict(decomposition(hard(map_of()))).startswith("everything background")


def test_faded_masks_are_everything_background_too():
    faded = 0.3 * hard(THREE) + 0.7 * hard(map_of())  # the objects are seen, but their slots win no pixel
    assert verdict(decomposition(faded)).startswith("everything background")


def test_no_background():
    labels = torch.arange(SIZE * SIZE).reshape(SIZE, SIZE) % (K - 1)
    assert verdict(decomposition(hard(labels))).startswith("no background")


def test_undecided():
    assert verdict(
        decomposition(torch.tensor([0.28, 0.24, 0.24, 0.24])[:, None, None].expand(-1, SIZE, SIZE))
    ).startswith("undecided")


@pytest.mark.parametrize("background", [-1, None])
def test_masks_that_lie_on_nothing(background):
    labels = map_of((0, slice(0, 2), slice(0, 4)), (1, slice(3, 5), slice(0, 4)), (2, slice(3, 6), slice(5, 8)))
    noise = torch.rand(B, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    beside = "masks beside the objects: turned by 180 degrees, they fit the image as well"
    assert verdict(decomposition(hard(labels), background), noise).startswith(beside)
    assert verdict(decomposition(hard(labels), background), coloured(labels)).startswith("decomposing")


def test_colours_explained_by_hand():
    """Half of the image is 0, half 1; the variance is 1/4, and a slot of three quarters has the mean 1/3 or 2/3."""
    image = torch.zeros(1, 3, 4, 4)
    image[..., 2:] = 1
    masks = torch.zeros(1, 2, 1, 4, 4)
    masks[:, 0, ..., :3], masks[:, 1, ..., 3:] = 1, 1
    health = Health()
    health.update(image, Decomposition(masks.log(), torch.zeros(1, 2, 3, 4, 4)))
    between = (3 / 4 * (1 / 3 - 1 / 2) ** 2 + 1 / 4 * (1 - 1 / 2) ** 2) / (1 / 4)
    assert health.compute()["explained"] == pytest.approx(between)
    assert health.compute()["explained_turned"] == pytest.approx(between)


def test_masks_that_are_no_numbers():
    assert verdict(decomposition(torch.full((K, SIZE, SIZE), float("nan")))).startswith("not finite")


def test_a_model_without_a_background_slot():
    assert verdict(decomposition(hard(THREE), background=None)).startswith("decomposing")
    one = hard(torch.zeros(SIZE, SIZE))
    assert verdict(decomposition(one, background=None)).startswith("all of the image in one slot")


def test_a_large_slot_is_no_bad_sign_where_none_is_known_to_be_the_background():
    two = torch.where(THREE == 2, K - 1, THREE)
    two[0, :3] = two[0, 5:8] = K - 1  # two objects of six pixels each: the rest is .81 of the image
    two[1, :3] = K - 1  # and one of three: .86
    assert verdict(decomposition(hard(two))).startswith("decomposing: several slots share the foreground")
    found = verdict(decomposition(hard(two), background=None))
    assert found.startswith("decomposing: several slots share the image (largest slot 0.86")


@pytest.mark.parametrize("background", [-1, 0])
def test_one_slot_alone(background):
    assert verdict(decomposition(torch.ones(1, SIZE, SIZE), background)).startswith("everything background")


def test_numbers_by_hand():
    # turned, slot 0 lies on the background, slots 1 and 2 on each other's objects, and the background's on all else
    pixels = [9 * [0.0] + 28 * [0.75], 9 * [0.75], 9 * [0.5], 9 * [0.25]]
    variances = [pvariance(grey) * len(grey) for grey in pixels]
    turned = 1 - sum(variances) / (64 * pvariance([grey for greys in pixels for grey in greys]))
    health = Health()
    health.update(IMAGES, decomposition(hard(THREE), valid=torch.tensor([[True, True, False], [True, False, False]])))
    assert health.compute() == pytest.approx(
        {
            "largest_slot": 1 / 3,  # three objects of 9 pixels
            "slots_used": 3,
            "foreground": 27 / 64,
            "foreground_won": 27 / 64,
            "background": 37 / 64,
            "decided": 1,
            "explained": 1,
            "explained_turned": turned,
            "boxes": 1.5,
        }
    )


def mirrored(labels: torch.Tensor) -> torch.Tensor:
    return hard(labels).flip(-1)


def test_stable_objects_and_the_score_by_hand():
    health = Health()
    health.update(IMAGES, decomposition(hard(THREE)), mirrored=decomposition(mirrored(THREE)))
    assert health.compute()["stable_objects"] == 3
    assert health.score() == pytest.approx(3**0.5)  # everything is explained
    moved = map_of((2, slice(0, 3), slice(0, 3)), (0, slice(0, 4), slice(4, 8)), (1, slice(5, 8), slice(0, 1)))
    health = Health()  # another slot of the same mask; 9 of 16 pixels; 3 of 9 pixels
    health.update(IMAGES, decomposition(hard(THREE)), mirrored=decomposition(mirrored(moved)))
    assert health.compute()["stable_objects"] == 2


def test_half_an_object_is_not_the_same():
    half = map_of((0, slice(0, 4), slice(0, 2)))
    health = Health()
    health.update(IMAGES, decomposition(hard(map_of((0, slice(0, 4), slice(0, 4))))), decomposition(mirrored(half)))
    assert health.compute()["stable_objects"] == 0
    assert health.score() == 0


def test_stable_slots_of_a_model_without_background():
    health = Health()
    health.update(IMAGES, decomposition(hard(THREE), None), decomposition(mirrored(THREE), None))
    assert health.compute()["stable_objects"] == 4


def test_stability_of_the_first_images_alone():
    health, first = Health(), decomposition(mirrored(THREE))
    one = Decomposition(first.log_masks[:1], first.components[:1], -1)
    health.update(IMAGES, decomposition(hard(THREE)), one)
    assert health.compute()["stable_objects"] == 3
    without = Health()
    without.update(IMAGES, decomposition(hard(THREE)))
    assert without.score() is None


def test_without_boxes_none_are_counted():
    health = Health()
    health.update(IMAGES, decomposition(hard(THREE)))
    assert "boxes" not in health.compute()


def test_merged_processes_count_as_one():
    whole, first, second = Health(), Health(), Health()
    for health in (whole, first):
        health.update(IMAGES, decomposition(hard(THREE)))
    for health in (whole, second):
        health.update(IMAGES, decomposition(hard(map_of())))
    first.merge(second)
    assert first.compute() == whole.compute()
    empty = Health()
    empty.merge(first)
    assert empty.compute() == whole.compute()


def test_no_image_has_no_health():
    with pytest.raises(TrainingError, match="no health without images"):
        Health().verdict()
