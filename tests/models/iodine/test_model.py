from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.common.mixture import posterior_log_masks
from unscene.models.iodine.model import IODINE, IODINESettings, Sample
from unscene.models.iodine.refinement_network import RefinementSettings

TINY = IODINESettings(
    size=24,
    num_slots=3,
    iterations=3,
    latent_dim=5,
    sigma=0.3,
    decoder_channels=8,
    decoder_layers=2,
    refinement=RefinementSettings(channels=(8, 8), hidden=16, lstm=16),
)


def tiny(seed: int = 0, **changes: Any) -> IODINE:
    torch.manual_seed(seed)
    model = IODINE(dataclasses.replace(TINY, **changes))
    model.first_posterior.data.normal_(0, 0.5)
    return model


def record_samples(model: IODINE, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """A list to which the model's later samples are appended."""
    samples: list[Sample] = []
    original = model._sample

    def recorded(*arguments: Any) -> Sample:
        samples.append(original(*arguments))
        return samples[-1]

    monkeypatch.setattr(model, "_sample", recorded)
    return samples


def record_inputs(model: IODINE, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """A list to which the later inputs of the refinement network are appended."""
    inputs: list[tuple[Tensor, ...]] = []
    original = model.refinement.forward

    def recorded(*arguments: Any) -> Any:
        inputs.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(model.refinement, "forward", recorded)
    return inputs


# The loss


def test_terms_weigh_step_t_by_t_over_the_number_of_steps(scenes, monkeypatch):
    model, images = tiny(latent_weight=0.7), scenes(2, size=24)
    samples = record_samples(model, monkeypatch)
    losses, decomposition = model.loss(images)
    assert len(samples) == 4  # lambda_0 .. lambda_3
    for name, values in {
        "reconstruction": [sample.reconstruction for sample in samples],
        "latent_kl": [sample.divergence for sample in samples],
    }.items():
        assert_close(losses.terms[name], values[1] / 3 + 2 * values[2] / 3 + values[3])
        assert torch.equal(losses.observed[f"last_{name}"], values[3])
    assert losses.weights == {"reconstruction": 1.0, "latent_kl": 0.7}
    assert torch.equal(decomposition.components, samples[3].components)
    assert_close(decomposition.log_masks, samples[3].log_masks)


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_likelihood_and_divergence_of_a_sample(over, scenes):
    """With SciPy and torch.distributions, in float64."""
    model, images = tiny(mixture_over=over).double(), scenes(2, size=24).double()
    posterior = torch.randn(2, 3, 10, dtype=torch.float64)
    with torch.no_grad():
        sample = model._sample(images, posterior, torch.zeros(3, 5, dtype=torch.float64))
    density = norm.pdf(images[:, None].numpy(), sample.components.numpy(), 0.3)
    if over == "pixel":
        density = density.prod(axis=2, keepdims=True)
    mixed = (sample.mask_logits.softmax(dim=1).numpy() * density).sum(axis=1)
    assert sample.reconstruction.tolist() == pytest.approx((-np.log(mixed)).sum(axis=(1, 2, 3)).tolist(), rel=1e-9)
    mean, log_variance = posterior.chunk(2, dim=2)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = kl_divergence(Normal(mean, log_variance.exp().sqrt()), prior).sum(dim=(1, 2))
    assert_close(sample.divergence, divergence)


def test_each_step_samples_noise_once_for_the_batch(scenes):
    model = tiny()
    torch.manual_seed(4)
    model.loss(scenes(2, size=24))
    state = torch.get_rng_state()
    torch.manual_seed(4)
    for _ in range(4):  # T + 1
        torch.randn(2, 3, 5)
    assert torch.equal(torch.get_rng_state(), state)


# Inputs of the refinement network


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_refinement_inputs_are_those_of_the_papers_list(over, scenes, monkeypatch):
    model = tiny(mixture_over=over, latent_weight=0.5).double()
    images = scenes(2, size=24).double()
    samples, inputs = record_samples(model, monkeypatch), record_inputs(model, monkeypatch)
    model.loss(images)
    (shared, own, posterior, grad_posterior, _), sample = inputs[1], samples[1]
    likelihoods, means, masks = pixel_likelihoods(images, sample, over)
    loss = -likelihoods["p"].log().sum()
    grad_means, grad_masks = torch.autograd.grad(loss, [means, masks])
    expected_shared = [images, standard(likelihoods["p"][:, None])[:, 0], coordinates(2)]
    expected_own = [
        means,
        masks,
        sample.mask_logits,
        likelihoods["N"] / likelihoods["N"].sum(dim=1, keepdim=True),  # mask posterior
        standard(grad_means),
        standard(grad_masks),
        standard(likelihoods["without"]),
    ]
    assert_close(shared, torch.cat(expected_shared, dim=1), rtol=0, atol=1e-4)
    assert_close(own, torch.cat(expected_own, dim=2), rtol=0, atol=1e-4)
    loss = sample.reconstruction + 0.5 * sample.divergence
    (expected,) = torch.autograd.grad(loss.sum(), posterior)
    assert_close(grad_posterior, standard(expected), rtol=0, atol=1e-4)


def pixel_likelihoods(images: Tensor, sample: Sample, over: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """p(x | z) [B, 1, H, W], N_k and p(x | z_j, j != k) [B, K, 1, H, W] at every pixel; means and masks, as leaves."""
    means, masks = (maps.detach().requires_grad_() for maps in (sample.components, sample.log_masks.exp()))
    channel_densities = Normal(means, 0.3).log_prob(images[:, None]).exp()
    pixel_densities = channel_densities.prod(dim=2, keepdim=True)
    mixed = pixel_densities if over == "pixel" else channel_densities
    likelihood = (masks * mixed).sum(dim=1).prod(dim=1, keepdim=True)
    without = []
    for slot in range(3):
        others = [other for other in range(3) if other != slot]
        share = masks[:, others] / masks[:, others].sum(dim=1, keepdim=True)
        without.append((share * mixed[:, others]).sum(dim=1).prod(dim=1, keepdim=True))
    return {"p": likelihood, "N": pixel_densities, "without": torch.stack(without, dim=1)}, means, masks


def standard(values: Tensor) -> Tensor:
    """Mean 0 and variance 1 in each slot, as a layer norm gives them."""
    axes = tuple(range(2, values.ndim))
    variance = values.var(dim=axes, keepdim=True, correction=0)
    return (values - values.mean(dim=axes, keepdim=True)) / (variance + 1e-5).sqrt()


def coordinates(batch: int) -> Tensor:
    """[B, 2, 24, 24] y and x from -1 to 1."""
    line = torch.arange(24, dtype=torch.float64) / 11.5 - 1
    return torch.stack([line[:, None].expand(24, 24), line.expand(24, 24)]).expand(batch, -1, -1, -1)


def test_cosine_coordinates_are_the_authors_basis(scenes, monkeypatch):
    """The product of cos(pi f y) and cos(pi g x) at a corner, the centre and the opposite corner."""
    model = tiny(coordinates="cosine", size=25)
    inputs = record_inputs(model, monkeypatch)
    model.loss(scenes(1, size=25))
    maps = inputs[0][0][0, 4:]  # after the image and the likelihood
    frequencies = [(f, g) for f in range(3) for g in range(3)][1:]
    assert len(maps) == 8
    for row, column in [(0, 0), (12, 12), (24, 24), (24, 0), (6, 20)]:
        expected = [np.cos(np.pi * f * row / 24) * np.cos(np.pi * g * column / 24) for f, g in frequencies]
        assert maps[:, row, column].tolist() == pytest.approx(expected, abs=1e-6)


def test_mask_posterior_is_1_for_the_only_slot_that_fits(scenes):
    """One slot is the image itself, the others are far from it: the posterior does not depend on the masks."""
    model, images = tiny(sigma=0.05), scenes(1, size=24)
    components = torch.stack([images, images + 3, images - 3], dim=1)
    mask_logits = torch.randn(1, 3, 1, 24, 24)
    zero = torch.zeros(1)
    sample = Sample(components, mask_logits, mask_logits.log_softmax(dim=1), zero, zero)
    _, own = model._refinement_inputs(images, sample, torch.zeros_like(components), torch.zeros_like(mask_logits))
    assert own[:, 0, 5].min() == 1
    assert own[:, 1:, 5].max() == 0


def test_gradients_and_likelihoods_are_constants_in_training(scenes, monkeypatch):
    model = tiny()
    inputs, samples = record_inputs(model, monkeypatch), record_samples(model, monkeypatch)
    model.loss(scenes(2, size=24))
    shared, own, posterior, grad_posterior, _ = inputs[1]
    assert not grad_posterior.requires_grad
    assert not shared.requires_grad
    assert posterior.requires_grad  # as means, masks and their posterior do
    sources = [samples[1].components, samples[1].mask_logits]
    for channels, differentiable in ((slice(0, 6), True), (slice(6, 11), False)):
        gradients = torch.autograd.grad(own[:, :, channels].square().sum(), sources, retain_graph=True)
        assert [bool(gradient.any()) for gradient in gradients] == [differentiable, differentiable]


# Inference


MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_results_do_not_depend_on_the_callers_gradient_mode(mode, checkpointing, scenes):
    model, images = tiny(checkpointing=checkpointing), scenes(2, size=24)
    torch.manual_seed(2)
    plain, (plain_losses, _) = model(images), model.loss(images)
    torch.manual_seed(2)
    with MODES[mode]():
        copies = scenes(2, size=24).clone()
        decomposition, (losses, trained) = model(copies), model.loss(copies)
        assert torch.is_inference_mode_enabled() == (mode == "inference_mode")
        assert not torch.is_grad_enabled()
    assert torch.equal(decomposition.log_masks, plain.log_masks.detach())
    assert torch.equal(decomposition.components, plain.components.detach())
    assert torch.equal(decomposition.latents, plain.latents.detach())
    assert torch.equal(losses.total, plain_losses.total.detach())
    results = [decomposition.components, decomposition.log_masks, decomposition.latents]
    results += [losses.total, trained.components, trained.log_masks]
    assert not any(tensor.requires_grad for tensor in results)


def test_model_trains_after_inference_mode(scenes):
    model, images = tiny(), scenes(2, size=24)
    with torch.inference_mode():
        model(images)
    model.loss(images)[0].total.mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_forward_decodes_the_mean_of_the_last_posterior(scenes):
    model, images = tiny(), scenes(2, size=24)
    with torch.no_grad():
        decomposition = model(images)
        components, mask_logits = model._decode(decomposition.latents)
    assert torch.equal(decomposition.components, components)
    assert torch.equal(decomposition.log_masks, mask_logits.log_softmax(dim=1))
    assert decomposition.background is None


def test_fixed_noise_differs_between_slots_only(scenes):
    model = tiny(seed=0)
    assert torch.equal(model.noise, tiny(seed=1).noise)
    assert model.noise.shape == (3, 3, 5)
    assert "noise" not in model.state_dict()
    image = scenes(1, size=24)
    with torch.no_grad():
        decomposition = model(image.expand(2, -1, -1, -1))
    assert_close(decomposition.latents[0], decomposition.latents[1])
    assert (decomposition.latents[0, 0] - decomposition.latents[0, 1]).abs().max() > 1e-4


def test_forward_samples_by_the_fixed_noise(monkeypatch, scenes):
    model = tiny()
    latents: list[Tensor] = []
    monkeypatch.setattr(
        model.decoder, "forward", lambda z, decode=model.decoder.forward: latents.append(z) or decode(z)
    )
    with torch.no_grad():
        model(scenes(2, size=24))
    mean, log_variance = model.first_posterior.detach().chunk(2)
    expected = mean + log_variance.exp().sqrt() * model.noise[0]
    assert_close(latents[0].view(2, 3, 5).detach(), expected.expand(2, 3, 5))


# Training


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_checkpointing_changes_neither_loss_nor_gradients(padding, scenes):
    results = []
    for checkpointing in (False, True):
        model = tiny(checkpointing=checkpointing, decoder_padding=padding).double()
        torch.manual_seed(3)
        losses, _ = model.loss(scenes(2, size=24).double())
        losses.total.mean().backward()
        results.append([losses.total, *(weight.grad for weight in model.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert_close(plain, checkpointed, rtol=1e-9, atol=1e-9)


def test_checkpointing_saves_memory(scenes):
    """Autograd saves less than half of the numbers."""
    saved = {}
    for checkpointing in (False, True):
        model, total = tiny(checkpointing=checkpointing, decoder_layers=5, decoder_channels=32), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.loss(scenes(2, size=24))
        saved[checkpointing] = total
    assert saved[True] < 0.5 * saved[False]


def test_one_iteration_of_two_slots(scenes):
    """Every weight has a gradient except the LSTM's weights of its previous state, which is zero."""
    model = tiny(iterations=1, num_slots=2)
    losses, decomposition = model.loss(scenes(2, size=24))
    losses.total.mean().backward()
    unreached = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert unreached == ["refinement.lstm.weight_hh"]
    assert decomposition.log_masks.shape == (2, 2, 1, 24, 24)


def test_gradient_flows_through_lambda_of_every_step(scenes):
    """All updates are 0, so only lambda connects the first posterior with the last sample."""
    model, images = tiny(), scenes(2, size=24)
    for weight in model.refinement.update.parameters():
        weight.data.zero_()
    torch.manual_seed(0)
    losses, _ = model.loss(images)
    (gradient,) = torch.autograd.grad(losses.observed["last_reconstruction"].sum(), model.first_posterior)
    assert gradient.abs().max() > 0


def test_images_of_one_colour_give_finite_losses():
    model = tiny(sigma=0.01)
    for value in (0.0, 1.0):
        model.zero_grad()
        losses, _ = model.loss(torch.full((2, 3, 24, 24), value))
        losses.total.mean().backward()
        assert torch.isfinite(losses.total).all()
        assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_mask_of_0_has_a_finite_gradient(scenes):
    """The gradient by a mask is N_k / p(x), unbounded where the mask is 0 and only its slot fits."""
    model, images = tiny(sigma=0.02), scenes(2, size=24)
    model.decoder.last.bias.data[3] = 0
    model.decoder.last.weight.data[3] *= 1e4  # random masks near 0 and 1
    losses, _ = model.loss(images)
    losses.total.mean().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_model_learns_a_batch(scenes):
    model, images = tiny(sigma=0.1, iterations=2, decoder_channels=32, decoder_stride=4), scenes(2, size=24)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    totals = []
    for _ in range(150):
        losses, _ = model.loss(images)
        optimizer.zero_grad()
        losses.total.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        totals.append(losses.total.mean().item())
    with torch.no_grad():
        error = (model(images).reconstruction() - images).square().mean()
    assert totals[-1] < totals[0] - 1000
    assert error < 0.4 * images.var(dim=(2, 3)).mean()


@pytest.mark.parametrize(
    "wrong", [{"num_slots": 1}, {"iterations": 0}, {"sigma": 0.0}, {"latent_weight": -1.0}, {"latent_dim": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"^{next(iter(wrong))} must be"):
        dataclasses.replace(TINY, **wrong)


def test_stride_must_divide_the_size():
    with pytest.raises(RecipeError, match="stride 5"):
        tiny(decoder_stride=5)


def test_latent_weight_rises_over_its_warmup(scenes):
    settings = dataclasses.replace(TINY, latent_weight=0.5, latent_warmup=10)
    assert [settings.latent_weight_at(step) for step in (0, 5, 10, 99)] == [0.0, 0.25, 0.5, 0.5]
    assert dataclasses.replace(TINY, latent_weight=0.5).latent_weight_at(0) == 0.5
    losses, _ = tiny(latent_weight=0.5, latent_warmup=10).loss(scenes(2, TINY.size), step=5)
    assert losses.weights["latent_kl"] == 0.25


def test_slots_of_one_colour_show_the_mean_of_what_the_decoder_draws():
    images = torch.rand(2, 3, 24, 24)
    free, limited = tiny()(images), tiny(one_colour=True)
    shown = limited(images).components
    assert_close(shown, shown[..., :1, :1].expand_as(shown), atol=0, rtol=0)

    assert free.latents is not None
    drawn = tiny().redraw(images, free.latents).components
    assert_close(limited.redraw(images, free.latents).components[..., 0, 0], drawn.mean(dim=(3, 4)))
    losses, _ = limited.loss(images)
    losses.total.sum().backward()
    assert all(weight.grad is not None for weight in limited.parameters())


def test_posterior_masks_are_shown_and_change_no_loss():
    inferred, posterior = tiny().eval(), tiny(masks="posterior").eval()
    images = torch.rand(2, 3, inferred.settings.size, inferred.settings.size)
    posterior.load_state_dict(inferred.state_dict())
    seen = inferred(images)
    sigmas = torch.full((inferred.settings.num_slots,), inferred.settings.sigma)
    assert_close(posterior(images).log_masks, posterior_log_masks(images, seen.components, seen.log_masks, sigmas))
    torch.manual_seed(0)
    loss, _ = inferred.loss(images)
    torch.manual_seed(0)
    assert_close(posterior.loss(images)[0].total, loss.total, rtol=0, atol=0)
