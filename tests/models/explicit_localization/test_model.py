from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings
from unscene.models.explicit_localization.location_mask import LocationSettings
from unscene.models.explicit_localization.model import (
    ExplicitLocalization,
    ExplicitLocalizationSettings,
    reconstruction_quality,
)

NETWORK = AutoencoderSettings(channels=(6, 8), hidden=16, latent_dim=4)
LOCATION = LocationSettings(region=3, cutoff=4)
SETTINGS = ExplicitLocalizationSettings(
    size=16, num_slots=3, quality_variance=0.3, latent_weight=0.0, network=NETWORK, location=LOCATION
)


def make_model(**changes) -> ExplicitLocalization:
    torch.manual_seed(0)
    return ExplicitLocalization(dataclasses.replace(SETTINGS, **changes))


def make_images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_quality_by_hand():
    error = torch.tensor([0.27, 0.0, 9.0]).view(1, 1, 1, 3)  # .3 in each channel; none; large, but explained
    remaining = torch.tensor([0.5, 1.0, 0.0]).view(1, 1, 1, 3)
    quality = reconstruction_quality(error, remaining, variance=0.1)
    assert quality.flatten().tolist() == pytest.approx([math.exp(-0.5 * 0.27 / 0.2), 1.0, 1.0])


def test_gradient_of_the_quality_is_right():
    torch.manual_seed(0)
    error, remaining = (torch.rand(1, 1, 2, 3, dtype=torch.float64).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda *maps: reconstruction_quality(*maps, 0.3), (error, remaining))


def test_masks_sum_to_1_and_the_background_is_the_rest():
    decomposition = make_model()(make_images(4))
    assert decomposition.background == 0
    assert_close(decomposition.masks().sum(dim=1), torch.ones(4, 1, 16, 16))
    assert decomposition.locations.shape == (4, 2, 2)


def test_steps_with_too_few_pixels_are_empty():
    decomposition = make_model(stop_below=10_000.0)(make_images())
    assert_close(decomposition.masks()[:, 0], torch.ones(2, 1, 16, 16))
    assert not decomposition.locations.any()


def test_steps_after_an_empty_one_are_not_computed_and_change_nothing(monkeypatch):
    model, images = make_model(num_slots=6, stop_below=12.0, explained="location"), make_images(1)
    computed = []
    object_step = ExplicitLocalization.object_step
    monkeypatch.setattr(ExplicitLocalization, "object_step", lambda *args: computed.append(1) or object_step(*args))
    short = model(images)
    assert 1 < len(computed) < 5
    monkeypatch.setattr("unscene.models.explicit_localization.model.host_may_read", lambda values: False)
    computed.clear()
    for name, value in model(images).tensors().items():
        assert torch.equal(value, getattr(short, name)), name
    assert len(computed) == 5


def test_objects_have_no_masks_during_background_steps():
    model, images = make_model(background_steps=5), make_images()
    losses, decomposition = model.loss(images, 4)
    assert decomposition.masks()[:, 1:].max() < 1e-6
    assert decomposition.log_masks.shape[1] == 3
    _, later = model.loss(images, 5)
    assert later.masks()[:, 1:].max() > 0.01
    assert losses.terms["reconstruction"].shape == (2,)


def test_explained_location_takes_badly_reconstructed_pixels_too():
    images = make_images()
    by_quality = make_model(quality_variance=1e-4).steps(images, sample=False)
    by_location = make_model(quality_variance=1e-4, explained="location").steps(images, sample=False)
    assert by_quality[1].mask.max() < 0.5
    assert by_location[1].mask.max() > 0.5
    assert (sum(step.mask for step in by_location) - 1).abs().max() < 1e-5


def test_masks_have_a_gradient_unless_they_are_constants():
    images = make_images()
    for mask_gradient in (True, False):
        _, decomposition = make_model(mask_gradient=mask_gradient).loss(images)
        assert decomposition.log_masks.requires_grad is mask_gradient
        assert decomposition.components.requires_grad
    assert_close(make_model()(images).masks(), make_model(mask_gradient=False)(images).masks())


def test_masked_background_input_hides_the_objects():
    """Pixels with an object's mask of 1 do not change the background's reconstruction."""
    changes = {"explained": "location", "quality_variance": 1e-8, "location": LocationSettings(method="none")}
    images = make_images()  # the background explains nothing, so the first object's step takes every pixel
    for background_input, equal in (("masked", True), ("image", False)):
        model = make_model(background_input=background_input, **changes)
        first, second = model(images), model(images.flip(0))
        assert torch.equal(first.components[:, 0], second.components[:, 0]) is equal
        assert not torch.equal(first.components[:, 1], second.components[:, 1])


def test_residual_norm_sums_distances_in_colour():
    """In a background step the mask is 1: the loss is the sum over pixels of the distance in colour."""
    model, images = make_model(residual="norm", background_steps=1), make_images()
    with torch.no_grad():
        losses, decomposition = model.loss(images)
    distance = (decomposition.components[:, 0] - images).square().sum(dim=1).add(1e-4).sqrt()
    assert_close(losses.terms["reconstruction"], distance.sum(dim=(1, 2)))


def test_model_overfits_a_batch():
    model = make_model(explained="location", quality_variance=0.05)
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
        ({"median_background": True, "background_input": "masked"}, "needs background_input: image"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        make_model(**changes)
