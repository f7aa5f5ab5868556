from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn
from torch.distributions import Categorical, Normal, kl_divergence
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.common.annealing import WarmupSettings
from unscene.models.common.component_vae import ColourLimits, ComponentVAESettings
from unscene.models.common.mixture import posterior_log_masks
from unscene.models.monet.attention_unet import AttentionUNetSettings
from unscene.models.monet.model import MONet, MONetSettings
from unscene.models.rmonet.settings import BackboneSettings, HeadSettings

TINY = MONetSettings(
    size=32,
    num_slots=4,
    unet=AttentionUNetSettings((8, 8, 16), hidden=16),
    backbone=BackboneSettings(width=8, fpn_channels=16),
    head=HeadSettings(channels=8, bottleneck=16),
    vae=ComponentVAESettings(
        latent_dim=4, encoder_channels=(8, 8, 16), encoder_hidden=32, decoder_channels=8, decoder_layers=2
    ),
)
ATTENTIONS = [
    pytest.param({}, id="unet"),
    pytest.param({"attention": "resnet_fpn", "head": dataclasses.replace(TINY.head, kind="lite")}, id="resnet_fpn"),
    pytest.param({"attention": "resnet_fpn"}, id="resnet_fpn_unet"),
]


def tiny(seed: int = 0, **changes: Any) -> MONet:
    torch.manual_seed(seed)
    return MONet(dataclasses.replace(TINY, **changes))


class FixedAttention(nn.Module):
    """An attention that returns the given logits, one after another, and records its inputs."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits, self.seen = list(logits), []

    def forward(self, seen: torch.Tensor, index: int) -> torch.Tensor:
        self.seen.append(seen)
        return torch.full_like(seen[:, :1], self.logits[index])


def test_each_pass_takes_a_share_of_the_scope_and_reads_the_remainder():
    model, images = tiny(num_slots=3), torch.rand(2, 3, 32, 32)
    model.attention = FixedAttention(0.0, math.log(3))  # takes 1/2, then 3/4 of the rest
    masks = model.infer_masks(images).exp()
    for slot, share in enumerate([1 / 2, 3 / 8, 1 / 8]):
        assert_close(masks[:, slot], torch.full((2, 1, 32, 32), share))
    first, second = model.attention.seen
    assert torch.equal(first[:, :3], images)
    assert not first[:, 3].any()  # log 1
    assert_close(second[:, 3], torch.full((2, 32, 32), math.log(1 / 2)))


def test_scope_of_zero_stays_finite():
    model, images = tiny(num_slots=4), torch.rand(1, 3, 32, 32)
    model.attention = FixedAttention(1000.0, 0.0, 0.0)
    log_masks = model.infer_masks(images)
    assert torch.isfinite(log_masks).all()
    assert_close(log_masks.exp().sum(dim=1), torch.ones(1, 1, 32, 32))
    assert model.attention.seen[1][:, 3].min() == -16  # what a network can read


@pytest.mark.parametrize("over", ["pixel", "channel"])
@pytest.mark.parametrize("changes", ATTENTIONS)
def test_the_loss_is_equation_3(changes, over):
    """-log sum_k m_k N(x; X_k, sigma_k) + beta KL(q(z) || p(z)) + gamma KL(q(c) || p(c)), with SciPy and PyTorch's
    distributions in float64; sigma .09 for the first slot, .11 for the others."""
    model = tiny(mixture_over=over, latent_weight=0.4, mask_weight=0.6, **changes)
    images = torch.rand(3, 3, 32, 32)
    torch.manual_seed(5)
    losses, output = model.loss(images)
    torch.manual_seed(5)
    with torch.no_grad():
        log_masks = model.infer_masks(images)
        mean, log_variance = model.vae.encode(images, log_masks)
        latents = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        components, mask_logits = model.vae.decode(latents)
    assert_close(output.components, components)
    density = norm.pdf(
        images[:, None].double().numpy(),
        components.double().numpy(),
        np.array([0.09, 0.11, 0.11, 0.11]).reshape(1, 4, 1, 1, 1),
    )
    if over == "pixel":
        density = density.prod(axis=2, keepdims=True)
    likelihood = np.log((log_masks.double().exp().numpy() * density).sum(axis=1)).sum(axis=(1, 2, 3))
    assert losses.terms["reconstruction"].tolist() == pytest.approx((-likelihood).tolist(), rel=1e-4)
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros(()), torch.ones(()))).sum(dim=(1, 2))
    assert_close(losses.terms["latent_kl"], expected, rtol=1e-4, atol=1e-3)
    shares = Categorical(logits=log_masks.movedim(1, -1)), Categorical(logits=mask_logits.movedim(1, -1))
    assert_close(losses.terms["mask_kl"], kl_divergence(*shares).sum(dim=(1, 2, 3)), rtol=1e-3, atol=1e-2)
    assert losses.weights == {"reconstruction": 1.0, "latent_kl": 0.4, "mask_kl": 0.6}


@pytest.mark.slow
@pytest.mark.parametrize("changes", ATTENTIONS)
def test_a_batch_is_overfitted(changes):
    model, images = tiny(**changes), torch.zeros(2, 3, 32, 32)
    images[0, 0, 4:14, 4:14] = 1
    images[1, 2, 16:28, 10:20] = 1
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    errors = []
    for step in range(60):
        losses, output = model.loss(images, step)
        optimizer.zero_grad()
        losses.total.mean().backward()
        optimizer.step()
        errors.append(float((output.reconstruction().detach() - images).square().mean()))
    assert errors[-1] < errors[0] / 4


def test_the_backbones_read_four_channels_and_have_no_idle_weights():
    model = tiny(attention="resnet_fpn", head=dataclasses.replace(TINY.head, kind="lite"))
    assert model.attention.backbone.conv1.in_channels == 4
    assert {name.rsplit(".", 2)[0] for name in model.state_dict() if ".fpn." in name} == {
        "attention.backbone.fpn.inner_blocks.1",
        "attention.backbone.fpn.inner_blocks.2",
        "attention.backbone.fpn.inner_blocks.3",
        "attention.backbone.fpn.layer_blocks.1",
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, r"num_slots"),
        ({"sigma_foreground": 0.0}, r"sigma_foreground"),
        ({"latent_weight": -1.0}, r"latent_weight"),
        ({"vae": dataclasses.replace(TINY.vae, decoder_region="roi")}, r"MONet's slots have no boxes"),
        ({"backbone": BackboneSettings(pretrained=True)}, r"backbone\.pretrained is for images of 3 channels"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(TINY, **changes)


def test_the_warm_up_begins_with_a_wide_foreground_and_no_divergences():
    model, images = tiny(warmup=WarmupSettings(steps=10, sigma_foreground=0.3)), torch.rand(2, 3, 32, 32)
    assert model.loss(images, 0)[0].weights == {"reconstruction": 1.0, "latent_kl": 0.0, "mask_kl": 0.0}
    assert model.loss(images, 5)[0].weights == {"reconstruction": 1.0, "latent_kl": 0.25, "mask_kl": 0.25}
    assert model.settings.at(0).sigmas(images).tolist() == pytest.approx([0.09, 0.3, 0.3, 0.3])
    assert model.settings.at(10) is model.settings


def test_colours_may_be_free_until_the_warm_up_ends():
    warmup = WarmupSettings(steps=10, free_colours=True)
    settings = tiny(warmup=warmup, background_cells=2, foreground_colours=1).settings
    assert settings.at(9).limits == ColourLimits(0, 0, 0)
    assert settings.at(10).limits == ColourLimits(0, 2, 1)
    held = dataclasses.replace(settings, warmup=WarmupSettings(steps=10))
    assert held.at(9).limits == ColourLimits(0, 2, 1)


def test_a_background_of_one_cell_has_one_colour_in_loss_and_use():
    model, images = tiny(background_cells=1), torch.rand(2, 3, 32, 32)
    for decomposition in (model.loss(images)[1], model(images)):
        pixels = decomposition.components.flatten(3)
        assert_close(pixels[:, 0], pixels[:, 0, :, :1].expand(2, 3, 1024))
        assert (pixels[:, 1:].std(dim=-1) > 0).all()


@pytest.mark.parametrize("number", [1, 2])
def test_objects_have_so_many_colours_in_loss_use_and_redrawing(number):
    model, images = tiny(foreground_colours=number), torch.rand(2, 3, 32, 32)
    drawn = model(images)
    for decomposition in (model.loss(images)[1], drawn, model.redraw(images, drawn.latents)):
        components = decomposition.components.detach()
        assert (components[:, 0].flatten(2).std(dim=-1) > 0).all()
        for slot in components[:, 1:].flatten(0, 1):
            assert len(slot.flatten(1).mul(1e4).round().unique(dim=1).T) == number


@pytest.mark.parametrize("changes", ATTENTIONS)
def test_initial_scope_weights_are_scaled(changes):
    plain, quiet = tiny(**changes), tiny(initial_scope_weight=0.1, **changes)
    first, other = (next(m.attention.parameters()) for m in (plain, quiet))
    assert_close(other[:, 3], 0.1 * first[:, 3])
    assert torch.equal(other[:, :3], first[:, :3])


def test_other_sizes_than_the_backbones_are_refused():
    with pytest.raises(RecipeError, match=r"multiple of 32, not 48: set data\.size to 64"):
        tiny(size=48, attention="resnet_fpn")


def test_posterior_masks_are_shown_and_change_no_loss():
    inferred, posterior, images = tiny().eval(), tiny(masks="posterior").eval(), torch.rand(2, 3, 32, 32)
    posterior.load_state_dict(inferred.state_dict())
    seen = inferred(images)
    expected = posterior_log_masks(images, seen.components, seen.log_masks, inferred.settings.sigmas(images))
    assert_close(posterior(images).log_masks, expected)
    torch.manual_seed(0)
    loss, _ = inferred.loss(images)
    torch.manual_seed(0)
    assert_close(posterior.loss(images)[0].total, loss.total, rtol=0, atol=0)
