from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch.distributions import Categorical, Normal, kl_divergence
from torch.testing import assert_close

from tests.tiny import tiny_rmonet
from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed, WarmupSettings
from unscene.models.common.component_vae import ColourLimits
from unscene.models.common.mixture import mixture_log_likelihood, posterior_log_masks
from unscene.models.common.stick_breaking import LOG_ZERO, stick_breaking
from unscene.models.rmonet.model import RMONet
from unscene.models.rmonet.pseudo_boxes import pseudo_boxes
from unscene.models.rmonet.segmentation_heads import alpha_logits
from unscene.models.rmonet.settings import HeadSettings, LossWeights, ProposalSettings, PseudoBoxSettings

TINY = tiny_rmonet("unet")
WARMUP = WarmupSettings(steps=100, sigma_foreground=0.3, latent_weight=0.1, mask_weight=0.0, score_threshold=0.2)


def tiny(seed: int = 0, **changes: Any) -> RMONet:
    torch.manual_seed(seed)
    model = RMONet(dataclasses.replace(TINY, **changes))
    for parameter in model.head.to_alpha.parameters():
        parameter.data.normal_(0, 1)  # alpha maps with some contrast
    return model


def alpha_of(model: RMONet, images: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Alpha logits [B, N, maps, H, W] of boxes [B, N, 4]."""
    return alpha_logits(model.head, model.backbone(images), boxes)


def head_of(kind: str) -> HeadSettings:
    return dataclasses.replace(TINY.head, kind=kind)


# Eq. 3


def negative_log_likelihood(images, components, masks, over: str) -> list[float]:
    """-log sum_k m_k N(x; X_k, sigma_k) of Eq. 2 with SciPy, in float64; sigma .11 in front, .09 behind."""
    images, components, masks = (tensor.detach().double().numpy() for tensor in (images, components, masks))
    scales = np.array([0.11, 0.11, 0.11, 0.09]).reshape(1, 4, 1, 1, 1)
    density = norm.pdf(images[:, None], components, scales)  # [B, K, 3, H, W]
    if over == "pixel":
        density = density.prod(axis=2, keepdims=True)
    return (-np.log((masks * density).sum(axis=1)).sum(axis=(1, 2, 3))).tolist()


@pytest.mark.parametrize("over", ["pixel", "channel"])
@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
def test_the_loss_is_equation_3(kind, over, scenes):
    weights = LossWeights(latent=0.4, mask=0.6, objectness=2.0, regression=3.0)
    model, images = tiny(head=head_of(kind), mixture_over=over, weights=weights), scenes(3)
    torch.manual_seed(5)
    losses, output = model.loss(images, 10)

    attention = model.infer_masks(images, model.settings)
    log_masks, proposals, predicted = attention.log_masks, attention.boxes, attention.anchors
    torch.manual_seed(5)
    mean, log_variance = model.vae.encode(images, log_masks)
    latents = mean + log_variance.exp().sqrt() * torch.randn(mean.shape)
    components, decoded = model.vae.decode(latents)
    posterior = Normal(mean, log_variance.exp().sqrt())
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    shared, redrawn = Categorical(logits=log_masks.movedim(1, -1)), Categorical(logits=decoded.movedim(1, -1))
    boxes, _, valid = pseudo_boxes(log_masks.detach()[:, :3, 0].exp())
    objectness, regression = model.proposals.loss(predicted, boxes, valid)
    expected = {
        "reconstruction": negative_log_likelihood(images, components, log_masks.exp(), over),
        "latent_kl": kl_divergence(posterior, prior).sum(dim=(1, 2)).tolist(),
        "mask_kl": kl_divergence(shared, redrawn).sum(dim=(1, 2, 3)).tolist(),
        "objectness": objectness.tolist(),
        "regression": regression.tolist(),
    }
    assert losses.terms.keys() == expected.keys()
    for name, values in expected.items():
        assert losses.terms[name].tolist() == pytest.approx(values, rel=1e-4, abs=1e-3), name
    assert losses.weights == {
        "reconstruction": 1.0, "latent_kl": 0.4, "mask_kl": 0.6, "objectness": 2.0, "regression": 3.0,
    }  # fmt: skip
    assert losses.observed["pseudo_boxes"].tolist() == valid.sum(dim=1).tolist()
    assert torch.equal(output.boxes, proposals.boxes)
    assert torch.equal(output.latents, mean)
    assert output.background == -1


@pytest.mark.parametrize("distance", [0.3, 1.0])
def test_a_slot_explains_a_pixel_outside_its_box_at_40_nats(distance):
    """One pixel, by hand: the background, with all of it, is `distance` away; a slot without a share has its colour.

    With a share of truly 0 the pixel costs 3 distance^2 / (2 .09^2): 16.7 nats, then 185. LOG_ZERO caps it at 40.
    """
    closed = torch.zeros(1, 1, 1, 1, 1, dtype=torch.bool)
    log_masks = stick_breaking(torch.zeros(1, 1, 1, 1, 1, dtype=torch.float64), closed)
    components = torch.tensor([distance, 0.0], dtype=torch.float64).view(1, 2, 1, 1, 1).expand(1, 2, 3, 1, 1)
    image, scales = (
        torch.full((1, 3, 1, 1), distance, dtype=torch.float64),
        torch.tensor([0.11, 0.09], dtype=torch.float64),
    )
    found = -mixture_log_likelihood(image, components, log_masks, scales).item()
    exact = 3 * (distance**2 / (2 * 0.09**2) + math.log(0.09 * math.sqrt(2 * math.pi)))
    bound = 40 + 3 * math.log(0.11 * math.sqrt(2 * math.pi))
    assert found == pytest.approx(min(exact, bound), abs=1e-6)
    assert (exact > bound) == (distance == 1)


def test_boxes_learn_from_masks_but_masks_not_from_boxes(scenes):
    """No gradient flows through pseudo boxes, and the head learns only from the reconstruction (Section 3.4)."""
    model = tiny()
    terms = model.loss(scenes(2), 10)[0].terms
    (terms["objectness"] + terms["regression"]).sum().backward(retain_graph=True)
    assert all(parameter.grad is None for part in (model.head, model.vae) for parameter in part.parameters())
    assert all(
        parameter.grad.any() for part in (model.proposals, model.backbone.fpn) for parameter in part.parameters()
    )
    model.zero_grad()
    (terms["reconstruction"] + terms["mask_kl"]).sum().backward()
    assert all(parameter.grad is None for parameter in model.proposals.parameters())
    assert all(parameter.grad.any() for parameter in model.head.parameters())


# Section 3.1


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
def test_masks_are_sticks_broken_inside_the_widened_boxes(kind, scenes):
    model, images = tiny(head=head_of(kind)).eval(), scenes(2)
    with torch.no_grad():
        attention = model.infer_masks(images, model.settings)
        log_masks, proposals = attention.log_masks, attention.boxes
        alpha = alpha_of(model, images, proposals.boxes).sigmoid().double()
    masks = log_masks.exp()
    for image in range(2):
        scope = np.ones((64, 64))
        for slot in range(3):
            x1, y1, x2, y2 = proposals.boxes[image, slot].tolist()
            wide, high = 0.3 * (x2 - x1), 0.3 * (y2 - y1)
            reached = np.zeros((64, 64))
            rows = slice(max(0, math.floor(y1 - high)), math.ceil(y2 + high))
            reached[rows, max(0, math.floor(x1 - wide)) : math.ceil(x2 + wide)] = 1
            taken = alpha[image, slot, 0].numpy() * reached
            np.testing.assert_allclose(masks[image, slot, 0].numpy(), scope * taken, atol=1e-5)
            scope *= 1 - taken
        np.testing.assert_allclose(masks[image, 3, 0].numpy(), scope, atol=1e-5)


def test_without_a_sure_box_everything_is_background(scenes):
    model, images = tiny(proposals=ProposalSettings(score_threshold=0.99)), scenes(2)
    losses, _ = model.loss(images)
    losses.total.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    with torch.no_grad():
        output = model.eval()(images)
    assert not output.box_valid.any()
    assert not output.labels().any()
    assert_close(output.masks()[:, -1], torch.ones(2, 1, 64, 64))
    assert_close(output.reconstruction(), output.components[:, -1])


def test_an_empty_slot_takes_nothing_though_others_have_boxes(scenes):
    proposals = ProposalSettings(score_threshold=0.0, final_nms_threshold=0.0)  # no two boxes may touch
    model, images = tiny(num_slots=20, proposals=proposals), scenes(2)
    with torch.no_grad():
        output = model.eval()(images)
    assert output.box_valid.any(dim=1).all()
    assert not output.box_valid.all()
    assert output.masks()[:, :-1][~output.box_valid].max() < 1e-15


@pytest.mark.parametrize(
    ("normalise", "mean", "std"),
    [(True, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))],
)
def test_images_are_normalised_for_the_backbone_alone(scenes, normalise, mean, std):
    plain, normalising, images = tiny().eval(), tiny(normalise=normalise).eval(), scenes(2)
    seen = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    with torch.no_grad():
        expected = plain.infer_masks(seen, plain.settings).log_masks
        assert_close(normalising.infer_masks(images, normalising.settings).log_masks, expected)
        output = normalising(images)
        assert_close(output.latents, plain.vae.encode(images, expected)[0])


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
def test_without_detection_masks_are_made_in_parallel(kind, scenes):
    """The paper's ablation (Fig. 20): no boxes, no pseudo boxes, K-1 maps of the whole image."""
    model, images = tiny(detection=False, head=head_of(kind)), scenes(2)
    losses, output = model.loss(images, 10)
    losses.total.sum().backward()
    assert losses.terms.keys() == losses.weights.keys() == {"reconstruction", "latent_kl", "mask_kl"}
    assert losses.observed == {}
    assert output.boxes is output.box_scores is output.box_valid is None
    assert not any(name.startswith("proposals") for name, _ in model.named_parameters())
    assert all(parameter.grad.any() for parameter in (*model.head.parameters(), *model.vae.parameters()))
    with torch.no_grad():
        masks = model.eval().infer_masks(images, model.settings).log_masks.exp()
        alpha = alpha_of(model, images, torch.tensor([[[0.0, 0, 64, 64]]] * 2))[:, 0].sigmoid()
    scope = torch.ones(2, 64, 64)
    for slot in range(3):
        assert_close(masks[:, slot, 0], scope * alpha[:, slot], rtol=0, atol=1e-5)
        scope = scope * (1 - alpha[:, slot])
    assert_close(masks[:, 3, 0], scope, rtol=0, atol=1e-5)
    assert (masks[:, 0] - masks[:, 1]).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
def test_images_of_96_pixels(kind, scenes):
    model = tiny(size=96, head=head_of(kind))
    losses, output = model.loss(scenes(2, size=96), 10)
    losses.total.sum().backward()
    assert torch.isfinite(losses.total).all()
    assert output.components.shape == (2, 4, 3, 96, 96)
    assert output.boxes.max() <= 96


# warm-up


def asked_thresholds(model: RMONet, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A list in which the score threshold of every later call of `propose` appears."""
    seen: list[float] = []
    propose = model.proposals.propose

    def recording(predicted, size, num_boxes, threshold):
        seen.append(threshold)
        return propose(predicted, size, num_boxes, threshold)

    monkeypatch.setattr(model.proposals, "propose", recording)
    return seen


@pytest.mark.parametrize(
    ("step", "sigma", "beta", "gamma", "threshold"),
    [
        (0, 0.3, 0.1, 0.0, 0.2),
        (50, math.sqrt(0.3 * 0.11), 0.3, 0.25, 0.4),
        (100, 0.11, 0.5, 0.5, 0.6),
        (12_345, 0.11, 0.5, 0.5, 0.6),
    ],
)
def test_warm_up_values(step, sigma, beta, gamma, threshold, monkeypatch, scenes):
    """Half-way between .3 and .11 on a logarithmic scale is the root of their product."""
    model = tiny(warmup=WARMUP, proposals=ProposalSettings(score_threshold=0.6))
    seen = asked_thresholds(model, monkeypatch)
    assert model.settings.at(step).sigmas(torch.zeros(1)).tolist() == pytest.approx([sigma, sigma, sigma, 0.09])
    losses, _ = model.loss(scenes(1), step)
    assert losses.weights["latent_kl"] == pytest.approx(beta)
    assert losses.weights["mask_kl"] == pytest.approx(gamma)
    assert losses.weights["objectness"] == losses.weights["regression"] == 1
    assert seen == pytest.approx([threshold])


def test_posterior_masks_are_shown_and_change_no_loss(scenes):
    """A slot keeps nothing outside its box."""
    inferred, images = tiny().eval(), scenes(2)
    posterior = tiny(masks="posterior").eval()
    posterior.load_state_dict(inferred.state_dict())
    seen, shown = inferred(images), posterior(images)
    expected = posterior_log_masks(images, seen.components, seen.log_masks, inferred.settings.sigmas(images))
    assert_close(shown.log_masks, expected)
    assert (shown.log_masks - seen.log_masks).abs().max() > 0.1
    assert (shown.log_masks[seen.log_masks <= LOG_ZERO] == LOG_ZERO).all()
    torch.manual_seed(0)
    loss, _ = inferred.loss(images)
    torch.manual_seed(0)
    assert_close(posterior.loss(images)[0].total, loss.total, rtol=0, atol=0)


def test_masks_learn_the_posterior_ones_from_a_step_on(scenes):
    images = scenes(2)
    model = tiny(weights=LossWeights(posterior=Annealed(9, 10, 0.0, 3.0)))
    assert "posterior_kl" not in model.loss(images, 9)[0].terms
    losses, output = model.loss(images, 10)
    assert losses.weights["posterior_kl"] == 3
    posterior = posterior_log_masks(images, output.components, output.log_masks, model.settings.sigmas(images)).exp()
    expected = (posterior * (posterior.clamp_min(1e-30).log() - output.log_masks)).sum(dim=(1, 2, 3, 4))
    assert_close(losses.terms["posterior_kl"], expected)
    assert (expected > 1).all()
    with pytest.raises(RecipeError, match="posterior must be 0 or more, not -1"):
        LossWeights(posterior=Annealed(9, 10, 0.0, -1.0))


def test_what_the_background_does_not_explain_has_a_pseudo_box_by_quality():
    """Without a sure box all is background; only the quality of its component tells where an object is."""
    image = torch.full((1, 3, 64, 64), 0.5)
    image[:, 0, 16:40, 16:40] = 1
    found = {}
    for by_quality in (False, True):
        boxes = PseudoBoxSettings(by_quality=by_quality)
        model = tiny(proposals=ProposalSettings(score_threshold=0.999), background_cells=1, pseudo_boxes=boxes)
        losses, output = model.loss(image)
        assert not output.box_valid.any()
        found[by_quality] = losses.observed["pseudo_boxes"].item()
    assert found[False] == 0
    assert found[True] >= 1


@pytest.mark.parametrize("free", [True, False])
def test_colours_may_be_free_until_the_warm_up_ends(free):
    warmup = dataclasses.replace(WARMUP, free_colours=free)
    boxes = PseudoBoxSettings(by_quality=True)
    settings = tiny(warmup=warmup, background_cells=2, foreground_colours=1, pseudo_boxes=boxes).settings
    early, late = settings.at(WARMUP.steps - 1), settings.at(WARMUP.steps)
    assert early.limits == (ColourLimits(-1, 0, 0) if free else ColourLimits(-1, 2, 1))
    assert early.pseudo_boxes.by_quality is not free
    assert late.limits == ColourLimits(-1, 2, 1)
    assert late.pseudo_boxes.by_quality


def test_forward_uses_the_values_after_the_warm_up(monkeypatch, scenes):
    model = tiny(warmup=WARMUP, proposals=ProposalSettings(score_threshold=0.6)).eval()
    seen = asked_thresholds(model, monkeypatch)
    model(scenes(1))
    assert seen == [0.6]


def test_without_warm_up_the_first_step_has_the_papers_values(scenes):
    model = tiny()
    assert model.settings.at(0).sigmas(torch.zeros(1)).tolist() == pytest.approx([0.11, 0.11, 0.11, 0.09])
    weights = model.loss(scenes(1), 0)[0].weights
    assert list(weights.values()) == [1, 0.5, 0.5, 1, 1]


def test_the_wide_gaussian_of_the_warm_up_enters_the_likelihood(scenes):
    model, images = tiny(warmup=WARMUP, weights=LossWeights()), scenes(2)
    torch.manual_seed(0)
    early = model.loss(images, 0)[0].terms["reconstruction"]
    torch.manual_seed(0)
    late = model.loss(images, 100)[0].terms["reconstruction"]
    assert (early - late).abs().min() > 10


# settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, "num_slots must be 2 or more"),
        ({"sigma_background": 0.0}, "sigma_background must be above 0"),
        ({"sigma_foreground": -0.1}, "sigma_foreground must be above 0"),
        ({"size": 80}, "multiple of 32, not 80: set data.size to 64"),
        ({"size": 0}, "multiple of 32, not 0: set data.size to 32"),
        ({"num_slots": 22}, "needs 21 boxes, but proposals.top_n_after is 20"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        dataclasses.replace(TINY, **changes)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"steps": -1}, "steps must be 0 or more"), ({"sigma_foreground": 0.0}, "sigma_foreground must be above 0")],
)
def test_an_impossible_warm_up_is_refused(wrong, message):
    with pytest.raises(RecipeError, match=message):
        WarmupSettings(**wrong)


def test_without_detection_num_slots_may_exceed_the_proposals():
    assert dataclasses.replace(TINY, num_slots=22, detection=False).num_slots == 22


# learning


@pytest.mark.slow
def test_a_few_scenes_are_learnt_by_heart(scenes):
    """Four scenes from dark to bright, so that the mean scene is no solution and the latents must tell them apart."""
    model = tiny()
    images = (scenes(4) * torch.tensor([0.0, 0.7, 1.4, 2.2]).view(4, 1, 1, 1)).clamp(0, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    errors, nats = [], []
    for step in range(60):
        losses, output = model.loss(images, step)
        optimizer.zero_grad()
        losses.total.mean().backward()
        optimizer.step()
        errors.append((output.reconstruction() - images).square().mean().item())
        nats.append(losses.terms["reconstruction"].mean().item())
    mean_scene_error = (images - images.mean(dim=0)).square().mean().item()
    assert errors[0] > mean_scene_error
    assert sum(errors[-10:]) / 10 < 0.3 * mean_scene_error
    assert sum(nats[-10:]) / 10 < nats[0] - 10 * 64**2


# less work


LESS = {"skip_empty_slots": True}


def with_regions(**changes: Any) -> RMONet:
    vae = dataclasses.replace(TINY.vae, encoder_region="roi", decoder_region="roi", roi_size=16)
    return tiny(vae=vae, **changes)


def test_skipping_empty_slots_changes_no_mask_and_no_used_component(scenes):
    images, changes = scenes(4), {"num_slots": 12, "proposals": ProposalSettings(score_threshold=0.0, top_n_before=6)}
    full, less = tiny(**changes).eval(), tiny(**changes, **LESS).eval()
    with torch.no_grad():
        expected, output = full(images), less(images)
    valid = output.box_valid
    assert 0 < valid.sum() < valid.numel()
    assert torch.equal(valid, expected.box_valid)
    assert_close(output.log_masks, expected.log_masks, rtol=1e-4, atol=1e-4)
    used = torch.nn.functional.pad(valid, (0, 1), value=True)
    assert_close(output.components[used], expected.components[used], rtol=1e-4, atol=1e-5)
    assert not output.components[~used].any()


def test_skipped_slots_have_no_loss(scenes):
    model = tiny(num_slots=12, proposals=ProposalSettings(score_threshold=0.0, top_n_before=6), **LESS)
    losses, output = model.loss(scenes(4))
    used = torch.nn.functional.pad(output.box_valid, (0, 1), value=True)
    assert not output.latents[~used].any()
    attention = model.eval().infer_masks(scenes(4), model.settings)
    mean, log_variance = model.vae.encode(scenes(4), attention.log_masks, attention.used, attention.regions)
    per_slot = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=2)
    assert not per_slot[~attention.used].any()
    assert torch.isfinite(losses.total).all()


def test_masks_and_components_are_zero_outside_their_region(scenes):
    model, images = with_regions(**LESS).eval(), scenes(3)
    with torch.no_grad():
        attention = model.infer_masks(images, model.settings)
        output = model(images)
    regions = attention.regions
    assert torch.equal(regions[:, -1], torch.tensor([0.0, 0, 64, 64]).expand(3, 4))
    for image, slot in torch.nonzero(attention.used[:, :-1]).tolist():
        x1, y1, x2, y2 = regions[image, slot].int().tolist()
        outside = torch.ones(64, 64, dtype=torch.bool)
        outside[y1:y2, x1:x2] = False
        assert output.log_masks[image, slot, 0][outside].max() <= -40
        assert not output.components[image, slot][:, outside].any()
        assert output.components[image, slot][:, ~outside].min() > 0


def test_gradients_reach_every_parameter_through_regions(scenes):
    model = with_regions(**LESS)
    losses, _ = model.loss(scenes(4))
    losses.total.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_regions_need_boxes():
    with pytest.raises(RecipeError, match="detection to true"):
        dataclasses.replace(TINY, vae=dataclasses.replace(TINY.vae, decoder_region="roi"), detection=False)


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
def test_a_batch_in_which_no_box_is_valid_can_be_trained(kind, scenes):
    """All background: every loss is finite and every parameter of the head still has a gradient, of zeros."""
    settings = ProposalSettings(score_threshold=0.999)
    vae = dataclasses.replace(TINY.vae, encoder_region="roi", decoder_region="roi", roi_size=16)
    model = tiny(head=head_of(kind), vae=vae, proposals=settings, num_slots=9, **LESS)
    losses, output = model.loss(scenes(4))
    assert not output.box_valid.any()
    losses.total.mean().backward()
    assert torch.isfinite(losses.total).all()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.head.parameters())


def test_objects_have_one_colour_in_their_regions(scenes):
    vae = dataclasses.replace(TINY.vae, decoder_region="roi", roi_size=16)
    model, images = tiny(foreground_colours=1, vae=vae), scenes(2)
    _, decomposition = model.loss(images)
    objects = decomposition.components[:, : model.background].detach()
    inside = objects.amax(dim=2, keepdim=True) > 0  # outside of its region a slot is black
    for slot, seen in zip(objects.flatten(0, 1), inside.flatten(0, 1), strict=True):
        colours = slot[:, F.max_pool2d(1.0 - seen.float(), 3, 1, 1)[0] == 0]  # the region's border fades
        assert_close(colours, colours[:, :1].expand_as(colours), rtol=0, atol=1e-5)
    assert decomposition.components[:, model.background].std(dim=(2, 3)).max() > 1e-3


def test_objects_have_two_colours_of_which_a_pixel_takes_the_nearest(scenes):
    vae = dataclasses.replace(TINY.vae, decoder_region="roi", roi_size=16)
    model, images = tiny(foreground_colours=2, vae=vae), scenes(2)
    losses, decomposition = model.loss(images)
    losses.total.sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.vae.decoder.parameters())
    objects = decomposition.components[:, : model.background].detach()
    seen = 0
    for b, image in enumerate(images):
        for slot in objects[b]:
            inside = F.max_pool2d((slot.amax(dim=0) == 0).float()[None], 3, 1, 1)[0] == 0  # its border fades
            colours = slot[:, inside].mul(1e4).round().unique(dim=1) / 1e4
            assert colours.shape[1] <= 2
            if colours.shape[1] == 2:
                seen += 1
                distance = (image[:, inside, None] - colours[:, None]).square().sum(dim=0)
                shown = (slot[:, inside, None] - colours[:, None]).square().sum(dim=0).argmin(dim=1)
                certain = (distance[:, 0] - distance[:, 1]).abs() > 1e-3
                assert torch.equal(shown[certain], distance.argmin(dim=1)[certain])
    assert seen > 0


def test_a_background_of_one_cell_is_constant_over_the_image(scenes):
    model, images = tiny(background_cells=1), scenes(2)
    _, trained = model.loss(images)
    with torch.no_grad():
        evaluated = model.eval()(images)
    for components in (trained.components, evaluated.components):
        background, objects = components[:, model.background], components[:, : model.background]
        assert_close(background, background[..., :1, :1].expand_as(background), rtol=0, atol=1e-6)
        assert objects.std(dim=(3, 4)).max() > 1e-3
