"""What every registered model promises, whatever the paper. A new model needs one line in `tiny.MODELS`."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests import tiny
from tests.tiny import SIZE
from unscene.errors import RecipeError, ShapeError
from unscene.models import MODELS, model_class
from unscene.models.monet.resnet_attention import ResNetAttention
from unscene.scene import Decomposition, Losses

CASES = [
    pytest.param(name, settings, id=f"{name}-{variant}")
    for name, variants in tiny.MODELS.items()
    for variant, settings in variants.items()
]
EVERY_MODEL = pytest.mark.parametrize(("name", "settings"), CASES)


def build(name: str, settings: Any, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return model_class(name)(settings)


def check_decomposition(output: Decomposition, batch: int, slots: int) -> None:
    assert output.log_masks.shape == (batch, slots, 1, SIZE, SIZE)
    assert output.components.shape == (batch, slots, 3, SIZE, SIZE)
    assert_close(output.masks().sum(dim=1), torch.ones(batch, 1, SIZE, SIZE), rtol=0, atol=1e-5)
    assert output.labels().max() < slots
    for field in dataclasses.fields(output):
        value = getattr(output, field.name)
        if isinstance(value, torch.Tensor):
            assert value.dtype in (torch.float32, torch.bool), field.name
            assert torch.isfinite(value).all(), field.name
    if output.boxes is not None:
        assert output.boxes.shape == (batch, len(output.foreground), 4)
        assert output.boxes.min() >= 0
        assert output.boxes.max() <= SIZE
        assert not output.boxes[~output.box_valid].any()
        sides = output.boxes[output.box_valid][:, 2:] - output.boxes[output.box_valid][:, :2]
        assert (sides > 0).all()


def check_losses(losses: Losses, batch: int) -> None:
    assert any("reconstruction" in term for term in losses.terms)
    assert losses.weights.keys() == losses.terms.keys()
    for name, term in losses.terms.items():
        assert term.shape == (batch,), name
        assert term.dtype == torch.float32, name
        assert torch.isfinite(term).all(), name
    assert_close(losses.total, sum(losses.weights[name] * term for name, term in losses.terms.items()))


def test_every_registered_model_is_under_this_contract():
    assert tiny.MODELS.keys() == MODELS.keys()


def test_an_unknown_model_is_refused_with_the_nearest_name():
    with pytest.raises(RecipeError, match=r"no model 'rmonnet'\. Did you mean 'rmonet'"):
        model_class("rmonnet")


@EVERY_MODEL
def test_settings_are_the_models(name, settings):
    assert isinstance(settings, model_class(name).Settings)
    model_class(name).Settings()  # every setting has a default


@EVERY_MODEL
@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_of_decomposition_and_loss(name, settings, batch, scenes):
    model = build(name, settings)
    losses, trained = model.loss(scenes(batch), 10)
    check_losses(losses, batch)
    check_decomposition(trained, batch, settings.num_slots)
    with torch.no_grad():
        check_decomposition(model.eval()(scenes(batch)), batch, settings.num_slots)


@EVERY_MODEL
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_an_image_without_any_object(name, settings, value):
    model = build(name, settings)
    images = torch.full((2, 3, SIZE, SIZE), value)
    losses, _ = model.loss(images, 0)
    losses.total.sum().backward()
    check_losses(losses, 2)
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    with torch.no_grad():
        check_decomposition(model.eval()(images), 2, settings.num_slots)


@EVERY_MODEL
def test_two_slots_suffice(name, settings, scenes):
    model = build(name, dataclasses.replace(settings, num_slots=2))
    losses, trained = model.loss(scenes(2), 10)
    check_losses(losses, 2)
    check_decomposition(trained, 2, 2)


@EVERY_MODEL
def test_gradients_reach_every_parameter(name, settings, scenes):
    model = build(name, settings)
    model.loss(scenes(4), 10)[0].total.mean().backward()
    unreached = [
        label for label, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert unreached == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@EVERY_MODEL
def test_bfloat16_agrees_with_float32(name, settings, scenes):
    """Wherever rounding did not decide for another box: among near equals it may, and then all else follows."""
    model, images = build(name, settings).eval(), scenes(8)
    outputs = []
    for half in (False, True):
        torch.manual_seed(1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs.append(model.loss(images, 10))
    (full_losses, full), (half_losses, half) = outputs
    check_losses(half_losses, 8)
    check_decomposition(half, 8, settings.num_slots)
    same = torch.ones(8, dtype=torch.bool)
    if full.boxes is not None and half.boxes is not None:
        same = (full.boxes - half.boxes).abs().amax(dim=(1, 2)) < 1
    if full.locations is not None and half.locations is not None:
        same &= (full.locations - half.locations).abs().amax(dim=(1, 2)) < 0.5 / SIZE
    assert same.any()
    assert (full.masks() - half.masks())[same].abs().mean() < 0.01
    assert (full.reconstruction() - half.reconstruction())[same].abs().mean() < 0.02
    nats_a_pixel = (full_losses.total - half_losses.total)[same].abs() / SIZE**2
    assert nats_a_pixel.max() < 0.1
    assert (full.log_masks != half.log_masks).any()  # bfloat16 was indeed used


def one_step(name: str, settings: Any, images: torch.Tensor) -> tuple[Losses, Decomposition, list[torch.Tensor]]:
    model = build(name, settings, seed=3)
    losses, output = model.loss(images, 10)
    losses.total.mean().backward()
    return losses, output, [parameter.grad for parameter in model.parameters()]


@EVERY_MODEL
def test_the_same_seed_gives_the_same_bits(name, settings, scenes):
    losses, output, gradients = one_step(name, settings, scenes(2))
    same_losses, same_output, same_gradients = one_step(name, settings, scenes(2))
    assert all(torch.equal(losses.terms[term], same_losses.terms[term]) for term in losses.terms)
    assert torch.equal(output.log_masks, same_output.log_masks)
    assert torch.equal(output.components, same_output.components)
    assert all(map(torch.equal, gradients, same_gradients))


@EVERY_MODEL
def test_plain_bodies_of_all_operations_give_the_same_loss_and_gradients(name, settings, scenes, monkeypatch):
    fast, _, gradients = one_step(name, settings, scenes(2))
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    plain, _, plain_gradients = one_step(name, settings, scenes(2))
    assert_close(fast.terms, plain.terms, rtol=1e-4, atol=1e-3)
    norm = torch.stack([gradient.double().norm() for gradient in plain_gradients]).norm()
    error = torch.stack([(a - b).double().norm() for a, b in zip(gradients, plain_gradients, strict=True)]).norm()
    assert error <= 1e-2 * norm  # batch norm of two images enlarges rounding


@EVERY_MODEL
def test_decomposing_uses_no_random_number(name, settings, scenes):
    """In use, every latent is its posterior's mean: twice the same output, and no random number is spent."""
    model = build(name, settings).eval()
    with torch.no_grad():
        torch.manual_seed(1)
        first, state = model(scenes(2)), torch.get_rng_state()
        torch.manual_seed(1)
        assert torch.equal(state, torch.get_rng_state())
        torch.manual_seed(2)
        second = model(scenes(2))
    assert torch.equal(first.log_masks, second.log_masks)
    assert torch.equal(first.components, second.components)


@EVERY_MODEL
def test_redrawing_unchanged_latents_gives_the_components_again(name, settings, scenes):
    model, images = build(name, settings).eval(), scenes(2)
    if not hasattr(model, "redraw"):
        assert name == "explicit_localization", "its masks come from the images alone, and no latent stands for them"
        return
    with torch.no_grad():
        expected = model(images)
        redrawn = model.redraw(images, expected.latents)
        other = model.redraw(images, expected.latents + 1)
    check_decomposition(redrawn, 2, settings.num_slots)
    assert_close(redrawn.components, expected.components, rtol=0, atol=1e-4)
    assert (other.components - expected.components).abs().max() > 1e-4


@EVERY_MODEL
def test_images_are_decomposed_independently(name, settings, scenes):
    model, images = build(name, settings).eval(), scenes(3)
    with torch.no_grad():
        together = model(images)
        for image in range(3):
            alone = model(images[image : image + 1])
            assert_close(alone.log_masks[0].exp(), together.log_masks[image].exp(), rtol=0, atol=1e-3)
            assert_close(alone.components[0], together.components[image], rtol=0, atol=1e-3)


@EVERY_MODEL
def test_saved_weights_give_the_same_decomposition(name, settings, scenes):
    model = build(name, settings)
    model.loss(scenes(2), 0)  # moves the running statistics
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = build(name, settings, seed=9)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        output, loaded = model.eval()(scenes(2)), other.eval()(scenes(2))
    assert torch.equal(output.log_masks, loaded.log_masks)
    assert torch.equal(output.components, loaded.components)


def evaluation_gap(model: Any, images: torch.Tensor) -> tuple[float, float, Decomposition]:
    """After some steps, how far evaluation is from training with the same noise, on the batch that they trained on.

    Returns:
        Nats a pixel, the masks' mean difference, and the decomposition in training.
    """
    averaged = any("running" in label for label, _ in model.named_buffers())
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(20 if averaged else 2):
        optimizer.zero_grad()
        model.loss(images, step)[0].total.mean().backward()
        optimizer.step()
    results = []
    with torch.no_grad():
        for _ in range(30 if averaged else 0):  # then 96 % of the running statistics are of these weights
            model.loss(images, 20)
        for mode in (True, False):
            torch.manual_seed(1)
            results.append(model.train(mode).loss(images, 20))
    (trained_losses, trained), (losses, evaluated) = results
    nats = (trained_losses.total - losses.total).mean().abs() / SIZE**2
    return float(nats), float((trained.masks() - evaluated.masks()).abs().mean()), trained


@EVERY_MODEL
def test_evaluation_computes_the_loss_that_training_computes(name, settings, scenes):
    nats_a_pixel, mask_difference, trained = evaluation_gap(build(name, settings), scenes(8))
    if trained.boxes is not None:  # among near equals another box may win, and then all else follows
        assert nats_a_pixel < 0.1
    else:
        assert nats_a_pixel < 0.002
        assert mask_difference < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lite", "unet"])
def test_evaluation_differs_where_the_passes_of_monet_share_statistics(kind, scenes, monkeypatch):
    """The contract above finds the fault that running statistics of each pass prevent."""
    forward = ResNetAttention.forward
    monkeypatch.setattr(ResNetAttention, "forward", lambda self, seen, index: forward(self, seen, 0))
    nats_a_pixel, mask_difference, _ = evaluation_gap(build("monet", tiny.tiny_monet(kind)), scenes(8))
    assert nats_a_pixel > 0.002 or mask_difference > 0.005


@EVERY_MODEL
def test_images_of_another_size_are_refused(name, settings):
    model = build(name, settings)
    with pytest.raises(ShapeError, match="images"):
        model(torch.rand(1, 3, SIZE // 2, SIZE))
    with pytest.raises(ShapeError, match="images"):
        model.loss(torch.rand(3, SIZE, SIZE), 0)
