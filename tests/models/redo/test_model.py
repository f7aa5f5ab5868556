"""redo: the three terms by hand, whose weights they move, and the masks' and generators' parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.redo.model import ReDO, ReDOSettings
from unscene.models.redo.region_masks import RegionMasks
from unscene.models.redo.residual_encoder import halvings
from unscene.models.redo.spatial_attention import SpatialAttention

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


def model_of(**changes) -> ReDO:
    torch.manual_seed(0)
    return ReDO(dataclasses.replace(SETTINGS, **changes)).double().eval()  # eval: the power iteration stands still


def images_of(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("slots", [2, 3])
def test_the_terms_by_hand(slots):
    """Image by image and region by region, as the paper's Section 3 says it, in float64."""
    model, images = model_of(num_slots=slots), images_of()
    torch.manual_seed(5)
    losses, answer = model.loss(images)
    torch.manual_seed(5)
    codes = torch.randn(2, slots, 3, dtype=torch.float64)
    assert torch.equal(answer.latents, codes)
    for n in range(2):
        real = images[n : n + 1] * 2 - 1
        masks = model.masks(real)[0].exp().double()  # [K, 1, H, W]
        assert_close(masks.sum(dim=0), torch.ones(1, 16, 16).double(), rtol=1e-6, atol=1e-6)
        everything, judged = torch.zeros_like(real), []
        for k in range(slots):
            drawn = model.generators[k](masks[k : k + 1], codes[n : n + 1, k])
            everything = everything + masks[k] * drawn
            judged.append(model.discriminator(masks[k] * drawn + (1 - masks[k]) * real).item())
        read = model.codes(everything).view(slots, 3)
        expected = {
            "redrawing": -sum(judged) / slots,
            "code_reconstruction": (codes[n] - read).square().mean().item(),
            "discriminator": max(0.0, 1 - model.discriminator(real).item())
            + sum(max(0.0, 1 + each) for each in judged) / slots,
        }
        for name, value in expected.items():
            assert losses.terms[name][n].item() == pytest.approx(value, abs=1e-9), name
    assert losses.weights == {"redrawing": 1.0, "code_reconstruction": 5.0, "discriminator": 1.0}


def test_each_term_moves_its_own_networks():
    model = model_of()
    parts = {name: list(part.parameters()) for name, part in model.named_children()}
    moved = {}
    for term in ("redrawing", "code_reconstruction", "discriminator"):
        model.zero_grad()
        model.loss(images_of())[0].terms[term].sum().backward()
        moved[term] = {
            name for name, weights in parts.items() if any(w.grad is not None and w.grad.any() for w in weights)
        }
    assert moved == {
        "redrawing": {"masks", "generators"},
        "code_reconstruction": {"masks", "generators", "codes"},
        "discriminator": {"discriminator"},
    }
    assert all(weight.requires_grad for weight in model.parameters())


def test_an_error_within_leaves_the_discriminator_learning(monkeypatch):
    model = model_of()
    monkeypatch.setattr(model, "_judge", lambda images: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(ValueError, match="broken"):
        model.loss(images_of())
    assert all(weight.requires_grad for weight in model.discriminator.parameters())


def test_in_use_regions_are_drawn_from_the_codes_that_are_read():
    model, images = model_of(), images_of()
    with torch.no_grad():
        answer = model(images)
        assert_close(answer.latents, model.codes(images * 2 - 1).view(2, 2, 3))
    assert answer.background is None
    assert 0 <= answer.components.min() <= answer.components.max() <= 1


def test_attention_begins_as_the_identity_and_is_a_weighted_mean():
    torch.manual_seed(0)
    attention = SpatialAttention(16).double().eval()
    features = torch.rand(2, 16, 4, 6).double()
    assert torch.equal(attention(features), features)
    attention.gamma.data.fill_(0.5)
    query, key, value = (part(features) for part in (attention.query, attention.key, attention.value))
    pooled_key, pooled_value = (torch.nn.functional.max_pool2d(part, 2).flatten(2) for part in (key, value))
    seen = torch.zeros(2, 8, 24).double()
    for place in range(24):
        scores = torch.einsum("bc,bcp->bp", query.flatten(2)[..., place], pooled_key)
        seen[..., place] = torch.einsum("bp,bcp->bc", scores.softmax(dim=1), pooled_value)
    assert_close(attention(features), features + 0.5 * attention.out(seen.view(2, 8, 4, 6)))


@pytest.mark.parametrize("slots", [2, 4])
def test_masks_share_every_pixel_at_full_size(slots):
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
        model_of()(torch.zeros(1, 3, 32, 32).double())
