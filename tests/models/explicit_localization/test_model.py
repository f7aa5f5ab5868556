from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings
from unscene.models.explicit_localization.butterworth import butterworth_window
from unscene.models.explicit_localization.location_mask import LocationSettings
from unscene.models.explicit_localization.model import ExplicitLocalization, ExplicitLocalizationSettings

NETWORK = AutoencoderSettings(channels=(6, 8), hidden=16, latent_dim=4)
WINDOW = LocationSettings(region=3, cutoff=4, method="window")
SETTINGS = ExplicitLocalizationSettings(
    size=16, num_slots=3, quality_variance=0.3, latent_weight=0.0, network=NETWORK, location=WINDOW
)


def model_of(**changes) -> ExplicitLocalization:
    torch.manual_seed(0)
    return ExplicitLocalization(dataclasses.replace(SETTINGS, **changes))


def images_of(batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def algorithm_2(model: ExplicitLocalization, images: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Lines 1 to 11 for one image [3, H, W], written from the paper with the window as L: masks and reconstructions."""
    settings = model.settings
    s = torch.ones(16, 16, dtype=images.dtype)
    masks, drawn = [], []
    for k in range(settings.num_slots):
        x_re = model.network(torch.cat([images, s[None]])[None])[0]
        error = (x_re - images).square().sum(dim=0)
        if k == 0:
            s = s * (1 - torch.exp(-error / (2 * settings.quality_variance)))
            masks.append(torch.zeros(16, 16))
        else:
            quality = torch.exp(-s * error / (2 * settings.quality_variance))
            sums = torch.zeros(16, 16)
            for i in range(16):
                for j in range(16):
                    sums[i, j] = (s * quality)[max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].sum()
            place = int(sums.argmax())
            window = butterworth_window(torch.tensor([[place // 16, place % 16]]), (16, 16), 4.0, 4.0)[0, 0] > 0.5
            masks.append(s * quality * window)
            s = s * (1 - quality * window)
        drawn.append(x_re)
    masks[0] = 1 - sum(masks[1:])
    return masks, drawn


def test_it_is_algorithm_2_step_by_step():
    model, images = model_of(), images_of()
    with torch.no_grad():
        answer = model(images)
        for image in range(2):
            masks, drawn = algorithm_2(model, images[image])
            assert_close(answer.masks()[image, :, 0], torch.stack(masks), rtol=1e-4, atol=1e-5)
            assert_close(answer.components[image], torch.stack(drawn), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [True, False])
def test_the_loss_is_equation_1(masked):
    model, images = model_of(masked_reconstruction=masked, prior_weight=0.3, masked_colour=0.4), images_of()
    with torch.no_grad():
        losses, _ = model.loss(images)
        for image in range(2):
            masks, drawn = algorithm_2(model, images[image])
            expected = 0.0
            for m, x_re in zip(masks, drawn, strict=True):
                made, truth = (m * x_re, m * images[image]) if masked else (x_re, images[image])
                expected += (m * (made - truth) ** 2).sum() + 0.3 * ((1 - m) * (made - 0.4) ** 2).sum()
            assert float(losses.total[image]) == pytest.approx(float(expected), rel=1e-4)


def test_gradient_by_finite_differences():
    """In float64, through Q and the recursion of s: L is held by the window, which a small change does not move."""
    model, images = model_of().double(), images_of(1, torch.float64)
    loss = model.loss(images)[0].total.sum()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    generator = torch.Generator().manual_seed(3)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            values = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-6)
                values.append(float(model.loss(images)[0].total.sum()))
                parameter.sub_(direction, alpha=sign * 1e-6)
        numeric = (values[0] - values[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-3, abs=1e-4)


def test_masks_share_every_pixel_and_the_background_is_the_rest():
    answer = model_of(location=LocationSettings(region=3, cutoff=4)).forward(images_of(4))
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
    assert by_location[1].mask.max() > 0.9
    assert (sum(step.mask for step in by_location) - 1).abs().max() < 1e-5


def test_a_norm_counts_an_error_by_its_distance():
    """Nothing is looked for, so all is the background: the loss is the sum over pixels of the distance in colour."""
    model, images = model_of(residual="norm", background_steps=1), images_of()
    with torch.no_grad():
        losses, answer = model.loss(images)
    distance = (answer.components[:, 0] - images).square().sum(dim=1).add(1e-4).sqrt()
    assert_close(losses.terms["reconstruction"], distance.sum(dim=(1, 2)))


def test_a_batch_is_learnt_by_heart():
    model = model_of(explained="location", quality_variance=0.05, location=LocationSettings(region=3, cutoff=4))
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
