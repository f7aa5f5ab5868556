from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings, ConvolutionalAutoencoder


def decoded_mean(model, images):
    code = model.encode(images)
    return model.decode(code.mean, code.maps)


SKIPS = pytest.mark.parametrize("skips", [False, True])


def network(skips=False, **changes):
    torch.manual_seed(0)
    settings = AutoencoderSettings(**{"channels": (8, 12, 16), "hidden": 20, "latent_dim": 5, **changes}, skips=skips)
    return ConvolutionalAutoencoder(settings, 32)


@SKIPS
def test_shapes(skips):
    model, images = network(skips), torch.rand(2, 4, 32, 32)
    code = model.encode(images)
    assert code.mean.shape == code.log_variance.shape == (2, 5)
    assert [maps.shape[1:] for maps in code.maps] == [(8, 16, 16), (12, 8, 8), (16, 4, 4)]
    decoded = model.decode(code.mean, code.maps)
    assert decoded.shape == (2, 3, 32, 32)
    assert ((decoded >= 0) & (decoded <= 1)).all()


@SKIPS
def test_gradients_reach_every_parameter(skips):
    model = network(skips)
    code = model.encode(torch.rand(4, 4, 32, 32))
    torch.manual_seed(1)
    model.decode(code.sample(), code.maps).square().sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


def test_decoder_reads_the_encoders_maps_only_with_skips():
    for skips in (False, True):
        model, images = network(skips), torch.rand(1, 4, 32, 32)
        code = model.encode(images)
        other_maps = model.encode(torch.rand(1, 4, 32, 32)).maps
        same = torch.equal(model.decode(code.mean, code.maps), model.decode(code.mean, other_maps))
        assert same is not skips


def test_autoencoder_overfits_a_batch():
    model = network(latent_dim=16)
    images = torch.rand(3, 4, 1, 1).expand(3, 4, 32, 32).contiguous()
    images[:, :, 8:20, 10:24] = torch.rand(3, 4, 1, 1)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(400):
        error = (decoded_mean(model, images) - images[:, :3]).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert float(error.detach()) < 2e-3


def test_samples_average_to_the_mean():
    code = network().encode(torch.rand(1, 4, 32, 32))
    torch.manual_seed(0)
    samples = torch.stack([code.sample() for _ in range(2000)])
    assert_close(samples.mean(dim=0), code.mean, rtol=0, atol=0.15)


def test_size_that_cannot_be_halved_is_refused():
    with pytest.raises(RecipeError, match="halved 3 times"):
        ConvolutionalAutoencoder(AutoencoderSettings(channels=(8, 8, 8)), 36)
    with pytest.raises(RecipeError, match="1 or more"):
        AutoencoderSettings(channels=())
