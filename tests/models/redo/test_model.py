"""ReDO: the three terms by hand, the networks that each term trains, masks and attention."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.redo.model import ReDO, ReDOSettings
from unscene.models.redo.networks import SpatialAttention, halvings
from unscene.models.redo.region_masks import RegionMasks

SETTINGS = ReDOSettings(
    size=16,
    latent_dim=3,
    mask_channels=8,
    mask_blocks=1,
    generator_channels=4,
    discriminator_channels=4,
    code_channels=4,
    attention=False,
)


def make_model(**changes) -> ReDO:
    torch.manual_seed(0)
    return ReDO(dataclasses.replace(SETTINGS, **changes)).double().eval()  # eval: without power iterations


def make_images(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("slots", [2, 3])
def test_the_terms_by_hand(slots):
    """Image by image and region by region, as in Section 3 of the paper, in float64."""
    model, images = make_model(num_slots=slots), make_images()
    torch.manual_seed(5)
    losses, decomposition = model.loss(images)
    torch.manual_seed(5)
    codes = torch.randn(2, slots, 3, dtype=torch.float64)
    assert torch.equal(decomposition.latents, codes)
    for n in range(2):
        real = images[n : n + 1] * 2 - 1
        masks = model.masks(real)[0].exp().double()  # [K, 1, H, W]
        assert_close(masks.sum(dim=0), torch.ones(1, 16, 16).double(), rtol=1e-6, atol=1e-6)
        redrawn, scores = torch.zeros_like(real), []
        for k in range(slots):
            region = model.generators[k](masks[k : k + 1], codes[n : n + 1, k])
            redrawn = redrawn + masks[k] * region
            scores.append(model.discriminator(masks[k] * region + (1 - masks[k]) * real).item())
        decoded = model.codes(redrawn).view(slots, 3)
        expected = {
            "redrawing": -sum(scores) / slots,
            "code_reconstruction": (codes[n] - decoded).square().mean().item(),
            "discriminator": max(0.0, 1 - model.discriminator(real).item())
            + sum(max(0.0, 1 + score) for score in scores) / slots,
        }
        for name, value in expected.items():
            assert losses.terms[name][n].item() == pytest.approx(value, abs=1e-9), name
    assert losses.weights == {"redrawing": 1.0, "code_reconstruction": 5.0, "discriminator": 1.0}


def test_each_term_trains_its_own_networks():
    model = make_model()
    parts = {name: list(part.parameters()) for name, part in model.named_children()}
    trained = {}
    for term in ("redrawing", "code_reconstruction", "discriminator"):
        model.zero_grad()
        model.loss(make_images())[0].terms[term].sum().backward()
        trained[term] = {
            name for name, weights in parts.items() if any(w.grad is not None and w.grad.any() for w in weights)
        }
    assert trained == {
        "redrawing": {"masks", "generators"},
        "code_reconstruction": {"masks", "generators", "codes"},
        "discriminator": {"discriminator"},
    }
    assert all(weight.requires_grad for weight in model.parameters())


def test_forward_draws_regions_from_the_codes_of_the_image():
    model, images = make_model(), make_images()
    with torch.no_grad():
        decomposition = model(images)
        assert_close(decomposition.latents, model.codes(images * 2 - 1).view(2, 2, 3))
    assert decomposition.background is None
    assert 0 <= decomposition.components.min() <= decomposition.components.max() <= 1


def test_attention_starts_as_the_identity_and_is_a_weighted_mean():
    torch.manual_seed(0)
    attention = SpatialAttention(16).double().eval()
    features = torch.rand(2, 16, 4, 6).double()
    assert torch.equal(attention(features), features)
    attention.gamma.data.fill_(0.5)
    query, key, value = (layer(features) for layer in (attention.query, attention.key, attention.value))
    pooled_key, pooled_value = (torch.nn.functional.max_pool2d(maps, 2).flatten(2) for maps in (key, value))
    attended = torch.zeros(2, 8, 24).double()
    for pixel in range(24):
        scores = torch.einsum("bc,bcp->bp", query.flatten(2)[..., pixel], pooled_key)
        attended[..., pixel] = torch.einsum("bp,bcp->bc", scores.softmax(dim=1), pooled_value)
    assert_close(attention(features), features + 0.5 * attention.out(attended.view(2, 8, 4, 6)))


@pytest.mark.parametrize("slots", [2, 4])
def test_masks_sum_to_1_at_every_pixel(slots):
    log_masks = RegionMasks(slots, 8, 1)(torch.rand(3, 3, 24, 32))
    assert log_masks.shape == (3, slots, 1, 24, 32)
    assert_close(log_masks.exp().sum(dim=1), torch.ones(3, 1, 24, 32))


def test_impossible_sizes_and_settings_are_refused():
    assert [halvings(size) for size in (16, 32, 64, 128)] == [2, 3, 4, 5]
    for size in (8, 48, 100):
        with pytest.raises(RecipeError, match="power of 2"):
            halvings(size)
    for changes in ({"num_slots": 1}, {"mask_channels": 6}, {"temperature": 0.0}, {"latent_dim": 0}):
        with pytest.raises(RecipeError, match=f"^{next(iter(changes))} must be"):
            ReDOSettings(**changes)
    with pytest.raises(ShapeError, match="images"):
        make_model()(torch.zeros(1, 3, 32, 32).double())
