from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings
from unscene.models.explicit_localization.location_mask import LocationSettings
from unscene.models.explicit_localization.model import ExplicitLocalization, ExplicitLocalizationSettings

NETWORK = AutoencoderSettings(channels=(6, 8), hidden=16, latent_dim=4)
LOCATION = LocationSettings(region=3, cutoff=4)
SETTINGS = ExplicitLocalizationSettings(
    size=16, num_slots=3, quality_variance=0.3, latent_weight=0.0, network=NETWORK, location=LOCATION
)


def model_of(**changes) -> ExplicitLocalization:
    torch.manual_seed(0)
    return ExplicitLocalization(dataclasses.replace(SETTINGS, **changes))


def images_of(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_masks_share_every_pixel_and_the_background_is_the_rest():
    answer = model_of()(images_of(4))
    assert answer.background == 0
    assert_close(answer.masks().sum(dim=1), torch.ones(4, 1, 16, 16))
    assert answer.locations.shape == (4, 2, 2)


def test_steps_that_hold_too_little_are_left_empty():
    answer = model_of(stop_below=10_000.0)(images_of())
    assert_close(answer.masks()[:, 0], torch.ones(2, 1, 16, 16))
    assert not answer.locations.any()


def test_at_first_only_the_background_is_learnt():
    model, images = model_of(background_steps=5), images_of()
    losses, answer = model.loss(images, 4)
    assert answer.masks()[:, 1:].max() < 1e-6
    assert answer.log_masks.shape[1] == 3
    _, later = model.loss(images, 5)
    assert later.masks()[:, 1:].max() > 0.01
    assert losses.terms["reconstruction"].shape == (2,)


def test_what_is_looked_at_is_explained_whole_however_badly_it_is_drawn():
    images = images_of()
    by_quality = model_of(quality_variance=1e-4).steps(images, sample=False)
    by_location = model_of(quality_variance=1e-4, explained="location").steps(images, sample=False)
    assert by_quality[1].mask.max() < 0.5
    assert by_location[1].mask.max() > 0.5
    assert (sum(step.mask for step in by_location) - 1).abs().max() < 1e-5


def test_the_masks_carry_a_gradient_unless_they_are_constants():
    images = images_of()
    for mask_gradient in (True, False):
        _, answer = model_of(mask_gradient=mask_gradient).loss(images)
        assert answer.log_masks.requires_grad is mask_gradient
        assert answer.components.requires_grad
    assert_close(model_of()(images).masks(), model_of(mask_gradient=False)(images).masks())


def test_a_background_drawn_from_its_own_pixels_does_not_see_the_objects():
    """What lies under an object's mask of 1 changes nothing of the background's reconstruction."""
    changes = {"explained": "location", "quality_variance": 1e-8, "location": LocationSettings(method="none")}
    images = images_of()  # nothing is explained at first, so the first object's step takes every pixel
    for background_input, equal in (("masked", True), ("image", False)):
        model = model_of(background_input=background_input, **changes)
        first, second = model(images), model(images.flip(0))
        assert torch.equal(first.components[:, 0], second.components[:, 0]) is equal
        assert not torch.equal(first.components[:, 1], second.components[:, 1])


def test_a_norm_counts_an_error_by_its_distance():
    """Nothing is looked for, so all is the background: the loss is the sum over pixels of the distance in colour."""
    model, images = model_of(residual="norm", background_steps=1), images_of()
    with torch.no_grad():
        losses, answer = model.loss(images)
    distance = (answer.components[:, 0] - images).square().sum(dim=1).add(1e-4).sqrt()
    assert_close(losses.terms["reconstruction"], distance.sum(dim=(1, 2)))


def test_a_batch_is_learnt_by_heart():
    model = model_of(explained="location", quality_variance=0.05)
    images = torch.full((4, 3, 16, 16), 0.2)
    for image, (row, column) in enumerate([(2, 3), (8, 2), (4, 9), (10, 10)]):
        images[image, :, row : row + 4, column : column + 4] = torch.rand(3, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    first = None
    for step in range(200):
        total = model.loss(images, step)[0].terms["reconstruction"].mean()
        first = first or total.item()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert total.item() < 0.1 * first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, "2 or more"),
        ({"quality_variance": 0.0}, "above 0"),
        ({"object_quality_variance": 0.0}, "above 0"),
        ({"prior_weight": -1.0}, "0 or more"),
        ({"size": 18}, "halved"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        model_of(**changes)
