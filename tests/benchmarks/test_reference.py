"""The library's float32 path against the plain reference: the same numbers, from two ways to compute them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

import unscene
from benchmarks.plain_step import PAPERS_LETTER, papers_letter
from benchmarks.reference.ari import plain_foreground_ari
from benchmarks.reference.monet import PlainMONet
from benchmarks.reference.pseudo_boxes import multi_otsu_016, plain_pseudo_boxes
from benchmarks.reference.rmonet import PlainRMONet
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.errors import RecipeError
from unscene.metrics.ari import ari_fg
from unscene.models.rmonet.model import RMONet
from unscene.models.rmonet.pseudo_boxes import pseudo_boxes
from unscene.models.rmonet.settings import PseudoBoxSettings
from unscene.recipes import load_recipe
from unscene.runs.recipe import read_recipe
from unscene.scene import Decomposition, Scene

# Anchors are sampled at random; asked for twice as many as there are, both ways take all of them.
EVERY_ANCHOR: dict[str, Any] = {"model.proposals.batch_size": 100_000}


def scenes(count: int, size: int = 64, seed: int = 3) -> dict[str, Any]:
    return MultiDSprites(MultiDSpritesSettings(count=count, size=size, seed=seed)).batch(range(count))


def scene_images(count: int) -> Tensor:
    return torch.from_numpy(scenes(count)["image"]).permute(0, 3, 1, 2).float() / 255


def fresh_model(recipe: str, **changes: Any) -> RMONet:
    """An untrained model, whose boxes pass at any score and whose masks differ between the slots."""
    torch.manual_seed(0)
    settings = {"model.proposals.score_threshold": 0.0, **EVERY_ANCHOR, **PAPERS_LETTER, **changes}
    model: RMONet = load_recipe(recipe, settings).build_model()
    with torch.no_grad():
        model.head.to_alpha.weight *= 8
        model.proposals.head.cls_logits.weight *= 6  # torchvision starts both at almost nothing
        model.proposals.head.bbox_pred.weight *= 3
    return model


def trained_model() -> RMONet:
    """The weights that come along, in a model that samples every anchor and computes every slot."""
    loaded = unscene.load("rmonet_unet/multi_dsprites_cpu")
    changes = {**EVERY_ANCHOR, **PAPERS_LETTER, "model.warmup.steps": 3000}
    model: RMONet = read_recipe(loaded.config, loaded.name, changes).build_model()
    model.load_state_dict(loaded.model.state_dict())
    return model.train()


PAPER, COMPACT = "rmonet_unet/multi_dsprites", "rmonet_unet/multi_dsprites_cpu"
MODELS = {
    "paper": lambda: fresh_model(PAPER),
    "compact": lambda: fresh_model(COMPACT, **{"model.warmup.steps": 0}),
    "trained": trained_model,
    "per channel": lambda: fresh_model(
        COMPACT,
        **{"model.mixture_over": "channel"},
    ),
}


def gradients(model: RMONet) -> dict[str, Tensor]:
    """The gradients, taken off the parameters."""
    taken = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad(set_to_none=True)
    return taken


@pytest.mark.parametrize("name", MODELS)
def test_loss_terms_and_gradients_are_those_of_the_plain_reference(name):
    model, images = MODELS[name](), scene_images(2)
    torch.manual_seed(1)
    losses, result = model.loss(images, step=12_000)
    losses.total.mean().backward()
    ours = gradients(model)
    torch.manual_seed(1)
    terms, total = PlainRMONet(model).loss(images, step=12_000)
    total.mean().backward()
    plain = gradients(model)

    assert result.box_valid.any(dim=1).all()
    assert (losses.observed["pseudo_boxes"] > 0).any()
    assert (losses.terms["regression"] > 0).any()
    assert terms.keys() == losses.terms.keys()
    for term, expected in terms.items():
        torch.testing.assert_close(losses.terms[term], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(losses.total, total, rtol=1e-5, atol=1e-5)
    assert ours.keys() == plain.keys() == dict(model.named_parameters()).keys()
    for parameter, gradient in plain.items():
        error = (ours[parameter] - gradient).norm() / gradient.norm().clamp_min(1e-6)
        assert error < 2e-3, f"{parameter}: gradients differ by {error:.1e} of their norm"


def test_warm_up_changes_both_alike():
    model, images, step = trained_model(), scene_images(2), 1500
    torch.manual_seed(2)
    losses, _ = model.loss(images, step)
    torch.manual_seed(2)
    _, total = PlainRMONet(model).loss(images, step)
    torch.testing.assert_close(losses.total, total, rtol=1e-5, atol=1e-5)
    settled, _ = model.loss(images, 12_000)
    assert not torch.allclose(settled.total, total, rtol=1e-2)


def test_inference_is_that_of_the_plain_reference():
    model, images = trained_model().eval(), scene_images(4)
    with torch.no_grad():
        result = model(images)
        log_masks, components = PlainRMONet(model)(images)
    torch.testing.assert_close(result.log_masks.exp(), log_masks.exp(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(result.components, components, rtol=1e-4, atol=1e-5)
    assert result.labels().unique().numel() > 3


def test_bfloat16_channels_last_is_near_the_float32_reference():
    """As the training runs it: within 1 % of the total, whose largest term is thousands of nats."""
    model, images = trained_model(), scene_images(4)
    plain = PlainRMONet(copy.deepcopy(model))
    model.to(memory_format=torch.channels_last)
    torch.manual_seed(4)
    with torch.autocast("cpu", torch.bfloat16):
        losses, _ = model.loss(images, step=12_000)
    torch.manual_seed(4)
    terms, total = plain.loss(images, step=12_000)
    torch.testing.assert_close(losses.total, total, rtol=1e-2, atol=0)
    torch.testing.assert_close(losses.terms["latent_kl"], terms["latent_kl"], rtol=3e-2, atol=0)
    assert not torch.equal(losses.total, total)


def test_reference_of_unknown_variants_is_an_error():
    with pytest.raises(RecipeError, match=r"model.head.kind to be unet, not lite"):
        PlainRMONet(load_recipe("rmonet_lite/multi_dsprites").build_model())


def soft_masks(size: int, noise: float) -> Tensor:
    """[6, 5, size, size] masks of generated scenes, blurred; noise scatters bits everywhere."""
    labels = scenes(6, size)["labels"]
    masks = np.stack([gaussian_filter((labels == m + 1).astype(np.float32), (0, 1, 1)) for m in range(5)], axis=1)
    random = np.random.default_rng(0)
    masks *= random.uniform(0.2, 1, (6, 5, 1, 1))
    masks[0, :2] = masks[0, :2].sum(axis=0)  # a slot that holds two objects, twice
    return torch.from_numpy(np.clip(masks + noise * random.random(masks.shape), 0, 1).astype(np.float32))


@pytest.mark.parametrize(("size", "noise"), [(64, 0.0), (64, 0.5), (128, 0.0), (128, 0.02)])
def test_pseudo_boxes_are_those_of_scikit_image_mask_by_mask(size, noise):
    masks, settings = soft_masks(size, noise), PseudoBoxSettings()
    boxes, scores, valid = pseudo_boxes(masks, settings)
    expected = plain_pseudo_boxes(masks, settings)
    assert sum(len(found) for found, _ in expected) > 10
    for image, (found, score) in enumerate(expected):
        assert boxes[image, valid[image]].tolist() == found.tolist()
        assert scores[image, valid[image]].tolist() == pytest.approx(score.tolist(), rel=1e-6)


def test_least_score_leaves_out_the_same_boxes():
    masks = soft_masks(64, 0.0)
    settings, lenient = PseudoBoxSettings(min_score=0.3), PseudoBoxSettings()
    boxes, _, valid = pseudo_boxes(masks, settings)
    expected = plain_pseudo_boxes(masks, settings)
    assert [boxes[i, valid[i]].tolist() for i in range(6)] == [found.tolist() for found, _ in expected]
    assert valid.sum() < sum(len(found) for found, _ in plain_pseudo_boxes(masks, lenient))


def test_old_multi_otsu_leaves_out_bin_0_and_the_highest_bound():
    values = np.repeat([0.0, 0.3, 0.5, 0.7, 1.0], [50, 10, 10, 10, 10])  # a value a bin of width .2
    assert multi_otsu_016(values, classes=3, bins=5) == pytest.approx([0.3, 0.5])
    assert multi_otsu_016(values[values != 0.3], classes=3, bins=5) == pytest.approx([0.1, 0.5])
    assert plain_pseudo_boxes(torch.full((1, 1, 8, 8), 0.5), PseudoBoxSettings())[0][0].shape == (0, 4)


def test_foreground_ari_is_that_of_scikit_learn():
    random = np.random.default_rng(5)
    labels = scenes(64)["labels"]
    labels[3] = 0
    log_masks = torch.from_numpy(random.normal(size=(64, 6, 1, 64, 64)).astype(np.float32))
    log_masks += 2 * torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 6).permute(0, 3, 1, 2).unsqueeze(2)
    result = Decomposition(log_masks.log_softmax(dim=1), torch.zeros(64, 6, 3, 64, 64), background=-1)
    metric = ari_fg()
    metric.update(Scene(torch.zeros(64, 3, 64, 64), torch.from_numpy(labels)), result)
    expected = plain_foreground_ari(labels, result.labels().numpy())
    assert metric.per_image()[3] is expected[3] is None
    counted = [image for image in range(64) if image != 3]
    ours, theirs = ([scores[image] for image in counted] for scores in (metric.per_image(), expected))
    assert np.abs(np.subtract(ours, theirs)).max() < 1e-9
    assert 0.1 < np.mean(theirs) < 0.9


@pytest.mark.parametrize("name", ["monet/multi_dsprites", "monet/multi_dsprites_cpu"])
def test_monets_loss_gradients_and_answer_are_those_of_its_plain_reference(name):
    torch.manual_seed(0)
    model = papers_letter(load_recipe(name, {"model.mixture_over": "channel"})).build_model().double()
    images = scene_images(2).double()  # five networks in a row make float32's rounding large
    with torch.no_grad():
        model.attention.to_logit.weight *= 8  # masks with some contrast
    plain = PlainMONet(model)
    torch.manual_seed(1)
    losses, _ = model.loss(images)
    losses.total.mean().backward()
    ours = gradients(model)
    torch.manual_seed(1)
    terms, total = plain.loss(images)
    total.mean().backward()
    theirs = gradients(model)
    assert terms.keys() == losses.terms.keys()
    for term, expected in terms.items():
        torch.testing.assert_close(losses.terms[term], expected, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(losses.total, total, rtol=1e-8, atol=1e-8)
    assert ours.keys() == theirs.keys() == dict(model.named_parameters()).keys()
    for parameter, gradient in theirs.items():
        assert (ours[parameter] - gradient).norm() / gradient.norm().clamp_min(1e-6) < 1e-6, parameter
    with torch.no_grad():
        log_masks, components = plain(images)
        result = model(images)
    torch.testing.assert_close(result.log_masks, log_masks, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(result.components, components, rtol=1e-8, atol=1e-8)


def test_monets_reference_knows_its_own_attention_only():
    with pytest.raises(RecipeError, match=r"needs model\.attention to be unet"):
        PlainMONet(load_recipe("monet_resnet_fpn/multi_dsprites").build_model())
