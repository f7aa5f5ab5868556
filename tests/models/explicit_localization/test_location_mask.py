from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.explicit_localization.location_mask import LocationSettings, location_mask
from unscene.models.explicit_localization.window import butterworth

SETTINGS = LocationSettings(region=3, order=4, cutoff=6, iterations=8, initial_variance=0.1, variance_floor=1e-3)
RED, GREEN = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.8, 0.2])


def scene(size: int = 32):
    """A red and a distant green square on explained pixels: images, remaining, and the pixels of the red one."""
    images, remaining = torch.full((1, 3, size, size), 0.5), torch.zeros(1, 1, size, size)
    red, green = torch.zeros(size, size, dtype=torch.bool), torch.zeros(size, size, dtype=torch.bool)
    red[6:11, 8:14], green[20:26, 20:26] = True, True
    images[0, :, red], images[0, :, green] = RED[:, None], GREEN[:, None]
    remaining[0, 0, red | green] = 1.0
    return images, remaining, red


def located(images, remaining, row, column, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    means = torch.full((len(images), settings.components - 1, 5), 0.5)
    return location_mask(images, remaining, torch.tensor([[row, column]] * len(images)), means, settings)


@pytest.mark.parametrize("initial_means", ["random", "centre"])
def test_object_on_explained_pixels_is_found_with_its_location(initial_means):
    images, remaining, red = scene()
    mask, location = located(images, remaining, 8, 10, initial_means=initial_means)
    assert_close(mask[0, 0], red.float(), rtol=0, atol=1e-3)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=2e-3)  # rows 6..10, columns 8..13


def test_mask_is_0_outside_the_window():
    images, remaining, _ = scene()
    mask, _ = located(images, torch.ones_like(remaining), 8, 10)
    rows, columns = (butterworth((torch.arange(32) - centre).abs().float(), 4, 6) for centre in (8, 10))
    window = rows[:, None] * columns[None, :] > 0.5
    assert not mask[0, 0, ~window].any()
    assert mask[0, 0, window].any()


def test_shifted_window_covers_all_of_an_object():
    images, remaining, _ = scene()
    # around the corner of the object: rows 3..9 and columns 5..11 without their corners
    cut, cut_location = located(images, remaining, 6, 8, cutoff=3)
    shifted, location = located(images, remaining, 6, 8, cutoff=3, window_shifts=2)
    assert float(cut.sum()) == pytest.approx(4 * 4 - 1, abs=0.1)
    assert_close(cut_location, torch.tensor([[8 / 32, 10 / 32]]), rtol=0, atol=5e-3)
    assert_close(shifted[0, 0, 6:11, 8:14], torch.ones(5, 6), rtol=0, atol=1e-2)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_explained_pixels_have_no_influence_with_weigh_remaining():
    """Without it, nearly explained pixels of the object's colour beside it shift its location."""
    images, remaining, _ = scene()
    images[0, :, 11:14, 8:14], remaining[0, 0, 11:14, 8:14] = RED[:, None, None], 0.02
    changes = {"remaining_colours": False, "initial_means": "centre"}
    _, plain = located(images, remaining, 8, 10, **changes)
    _, weighed = located(images, remaining, 8, 10, weigh_remaining=True, **changes)
    assert float(plain[0, 0]) > 9.5 / 32  # rows 6..13
    assert_close(weighed, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_three_components_separate_touching_objects():
    images, remaining, red = scene()
    images[0, :, 6:11, 14:18], remaining[0, 0, 6:11, 14:18] = GREEN[:, None, None], 1.0
    both, _ = located(images, remaining, 8, 10)
    alone, location = located(images, remaining, 8, 10, components=3, initial_means="centre")
    assert both[0, 0, 6:11, 14:16].min() > 0.9  # two components take both
    assert_close(alone[0, 0], red.float(), rtol=0, atol=1e-2)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_window_is_cut_at_a_corner():
    images, remaining = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    images[0, :, :3, :3], remaining[0, 0, :3, :3] = RED[:, None, None], 1.0
    mask, location = located(images, remaining, 0, 0)
    assert_close(mask[0, 0, :3, :3], torch.ones(3, 3), rtol=0, atol=1e-3)
    assert float(mask.sum()) == pytest.approx(9, abs=1e-2)
    assert_close(location, torch.full((1, 2), 1.5 / 16), rtol=0, atol=2e-3)


def test_method_none_masks_every_pixel_and_returns_the_centre():
    images, remaining, _ = scene()
    mask, location = located(images, remaining, 8, 10, method="none")
    assert torch.equal(mask, torch.ones_like(remaining))
    assert_close(location, torch.tensor([[8.5 / 32, 10.5 / 32]]))


def test_images_of_a_batch_are_independent():
    images, remaining, _ = scene()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    together, locations = located(torch.cat([images, noise]), torch.cat([remaining, torch.ones_like(remaining)]), 8, 10)
    alone, location = located(images, remaining, 8, 10)
    assert_close(together[:1], alone)
    assert_close(locations[:1], location)


@pytest.mark.parametrize("remains", [0.0, 1.0])
@pytest.mark.parametrize("initial_means", ["random", "centre"])
def test_flat_images_give_finite_masks(remains, initial_means):
    images = torch.full((2, 3, 16, 16), 0.3)
    remaining = torch.full((2, 1, 16, 16), remains)
    mask, location = located(images, remaining, 8, 8, components=3, initial_means=initial_means)
    assert mask.isfinite().all()
    assert ((mask >= 0) & (mask <= 1)).all()
    assert ((location >= 0) & (location <= 1)).all()


def test_mask_and_location_have_no_gradient():
    images, remaining, _ = scene()
    mask, location = located(images.requires_grad_(), remaining.requires_grad_(), 8, 10)
    assert not mask.requires_grad
    assert not location.requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region": 4}, "odd"),
        ({"cutoff": 0.0}, "above 0"),
        ({"components": 1}, "2 or more"),
        ({"iterations": -1}, "0 or more"),
        ({"window_shifts": -1}, "0 or more"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        LocationSettings(**changes)
