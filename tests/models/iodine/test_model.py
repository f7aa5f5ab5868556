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


def samples_of(model: IODINE, monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """A list that every sample that the model decodes is put into."""
    seen: list[Sample] = []
    original = model._sample

    def listening(*arguments: Any) -> Sample:
        seen.append(original(*arguments))
        return seen[-1]

    monkeypatch.setattr(model, "_sample", listening)
    return seen


def read_by(model: IODINE, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """A list that everything that the refinement network reads is put into."""
    seen: list[tuple[Tensor, ...]] = []
    original = model.refinement.forward

    def listening(*arguments: Any) -> Any:
        seen.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(model.refinement, "forward", listening)
    return seen


# The loss


def test_the_terms_weigh_a_step_by_its_place(scenes, monkeypatch):
    model, images = tiny(latent_weight=0.7), scenes(2, size=24)
    drawn = samples_of(model, monkeypatch)
    losses, answer = model.loss(images)
    assert len(drawn) == 4  # lambda_0 .. lambda_3
    for name, values in {
        "reconstruction": [each.reconstruction for each in drawn],
        "latent_kl": [each.divergence for each in drawn],
    }.items():
        assert_close(losses.terms[name], values[1] / 3 + 2 * values[2] / 3 + values[3])
        assert torch.equal(losses.observed[f"last_{name}"], values[3])
    assert losses.weights == {"reconstruction": 1.0, "latent_kl": 0.7}
    assert torch.equal(answer.components, drawn[3].components)
    assert_close(answer.log_masks, drawn[3].log_masks)


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_a_step_costs_its_likelihood_and_its_divergence(over, scenes):
    """With SciPy and torch.distributions, in float64."""
    model, images = tiny(mixture_over=over).double(), scenes(2, size=24).double()
    posterior = torch.randn(2, 3, 10, dtype=torch.float64)
    with torch.no_grad():
        drawn = model._sample(images, posterior, torch.zeros(3, 5, dtype=torch.float64))
    density = norm.pdf(images[:, None].numpy(), drawn.components.numpy(), 0.3)
    if over == "pixel":
        density = density.prod(axis=2, keepdims=True)
    mixed = (drawn.mask_logits.softmax(dim=1).numpy() * density).sum(axis=1)
    assert drawn.reconstruction.tolist() == pytest.approx((-np.log(mixed)).sum(axis=(1, 2, 3)).tolist(), rel=1e-9)
    mean, log_variance = posterior.chunk(2, dim=2)
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    divergence = kl_divergence(Normal(mean, log_variance.exp().sqrt()), prior).sum(dim=(1, 2))
    assert_close(drawn.divergence, divergence)


def test_every_step_draws_the_noise_of_the_whole_batch_once(scenes):
    model = tiny()
    torch.manual_seed(4)
    model.loss(scenes(2, size=24))
    spent = torch.get_rng_state()
    torch.manual_seed(4)
    for _ in range(4):  # T + 1
        torch.randn(2, 3, 5)
    assert torch.equal(torch.get_rng_state(), spent)


# What the refinement network reads


@pytest.mark.parametrize("inputs", ["plain", "log"])
@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_inputs_are_those_of_the_papers_list(over, inputs, scenes, monkeypatch):
    model = tiny(mixture_over=over, likelihood_inputs=inputs, latent_weight=0.5).double()
    images = scenes(2, size=24).double()
    drawn, read = samples_of(model, monkeypatch), read_by(model, monkeypatch)
    model.loss(images)
    (shared, own, posterior, gradient, _), sample = read[1], drawn[1]
    likelihoods, means, masks = likelihoods_of(images, sample, over)
    loss = -likelihoods["p"].log().sum()
    of_means, of_masks = torch.autograd.grad(loss, [means, masks])
    as_read = torch.log if inputs == "log" else torch.clone
    expected_shared = [images, standard(as_read(likelihoods["p"])[:, None])[:, 0], places(2)]
    expected_own = [
        means,
        masks,
        sample.mask_logits,
        likelihoods["N"] / likelihoods["N"].sum(dim=1, keepdim=True),  # mask posterior
        standard(of_means),
        standard(of_masks),
        standard(as_read(likelihoods["without"])),
    ]
    assert_close(shared, torch.cat(expected_shared, dim=1), rtol=0, atol=1e-4)
    assert_close(own, torch.cat(expected_own, dim=2), rtol=0, atol=1e-4)
    of_loss = sample.reconstruction + 0.5 * sample.divergence
    (of_posterior,) = torch.autograd.grad(of_loss.sum(), posterior)
    assert_close(gradient, standard(of_posterior), rtol=0, atol=1e-4)


def likelihoods_of(images: Tensor, drawn: Sample, over: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """p(x | z) [B, 1, H, W], N_k and p(x | z_j, j != k) [B, K, 1, H, W] at every pixel; means and masks, as leaves."""
    means, masks = (each.detach().requires_grad_() for each in (drawn.components, drawn.log_masks.exp()))
    each = Normal(means, 0.3).log_prob(images[:, None]).exp()
    together = each.prod(dim=2, keepdim=True)
    mixed = together if over == "pixel" else each
    of_pixel = (masks * mixed).sum(dim=1).prod(dim=1, keepdim=True)
    without = []
    for slot in range(3):
        others = [other for other in range(3) if other != slot]
        share = masks[:, others] / masks[:, others].sum(dim=1, keepdim=True)
        without.append((share * mixed[:, others]).sum(dim=1).prod(dim=1, keepdim=True))
    return {"p": of_pixel, "N": together, "without": torch.stack(without, dim=1)}, means, masks


def standard(values: Tensor) -> Tensor:
    """Mean 0 and variance 1 in each slot, as a layer norm gives them."""
    axes = tuple(range(2, values.ndim))
    variance = values.var(dim=axes, keepdim=True, correction=0)
    return (values - values.mean(dim=axes, keepdim=True)) / (variance + 1e-5).sqrt()


def places(batch: int) -> Tensor:
    """[B, 2, 24, 24] y and x from -1 to 1."""
    line = torch.arange(24, dtype=torch.float64) / 11.5 - 1
    return torch.stack([line[:, None].expand(24, 24), line.expand(24, 24)]).expand(batch, -1, -1, -1)


def test_a_mask_that_explains_a_pixel_alone_is_its_posterior(scenes, monkeypatch):
    """One slot is the image itself, the others are far from it: the posterior is 1 there, whatever the masks."""
    model, images = tiny(sigma=0.05), scenes(1, size=24)
    components = torch.stack([images, images + 3, images - 3], dim=1)
    mask_logits = torch.randn(1, 3, 1, 24, 24)
    nothing = torch.zeros(1)
    drawn = Sample(components, mask_logits, mask_logits.log_softmax(dim=1), nothing, nothing)
    _, own = model._refinement_inputs(images, drawn, torch.zeros_like(components), torch.zeros_like(mask_logits))
    assert own[:, 0, 5].min() == 1
    assert own[:, 1:, 5].max() == 0


def test_gradients_and_likelihoods_are_constants_for_the_training(scenes, monkeypatch):
    model = tiny()
    read, drawn = read_by(model, monkeypatch), samples_of(model, monkeypatch)
    model.loss(scenes(2, size=24))
    shared, own, posterior, gradient, _ = read[1]
    assert not gradient.requires_grad
    assert not shared.requires_grad
    assert posterior.requires_grad  # lambda, means, masks and their posterior are learnt through
    wanted = [drawn[1].components, drawn[1].mask_logits]
    for channels, learnt in ((slice(0, 6), True), (slice(6, 11), False)):
        found = torch.autograd.grad(own[:, :, channels].square().sum(), wanted, retain_graph=True)
        assert [bool(each.any()) for each in found] == [learnt, learnt]


# In use


MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_callers_mode_changes_no_number(mode, checkpointing, scenes):
    model, images = tiny(checkpointing=checkpointing), scenes(2, size=24)
    torch.manual_seed(2)
    plain, (plain_losses, _) = model(images), model.loss(images)
    torch.manual_seed(2)
    with MODES[mode]():
        made_within = scenes(2, size=24).clone()
        answer, (losses, trained) = model(made_within), model.loss(made_within)
    assert torch.equal(answer.log_masks, plain.log_masks.detach())
    assert torch.equal(answer.components, plain.components.detach())
    assert torch.equal(answer.latents, plain.latents.detach())
    assert torch.equal(losses.total, plain_losses.total.detach())
    carried = [answer.components, answer.log_masks, answer.latents, losses.total, trained.components, trained.log_masks]
    assert not any(each.requires_grad for each in carried)


def test_a_model_answers_and_goes_on_learning_afterwards(scenes):
    model, images = tiny(), scenes(2, size=24)
    with torch.inference_mode():
        model(images)
    model.loss(images)[0].total.mean().backward()
    assert all(each.grad is not None for each in model.parameters())


def test_the_answer_is_the_last_posteriors_mean_decode(scenes):
    model, images = tiny(), scenes(2, size=24)
    with torch.no_grad():
        answer = model(images)
        components, mask_logits = model._decode(answer.latents)
    assert torch.equal(answer.components, components)
    assert torch.equal(answer.log_masks, mask_logits.log_softmax(dim=1))
    assert answer.background is None


def test_fixed_noise_tells_slots_apart_and_is_the_same_for_every_image_and_model(scenes):
    model, other = tiny(seed=0), tiny(seed=1)
    assert torch.equal(model.noise, other.noise)
    assert model.noise.shape == (3, 3, 5)
    assert "noise" not in model.state_dict()
    image = scenes(1, size=24)
    with torch.no_grad():
        answer = model(image.expand(2, -1, -1, -1))
    assert_close(answer.latents[0], answer.latents[1])
    assert (answer.latents[0, 0] - answer.latents[0, 1]).abs().max() > 1e-4


def test_a_draw_in_use_is_mean_and_scaled_fixed_noise(monkeypatch, scenes):
    model = tiny()
    seen: list[Tensor] = []
    monkeypatch.setattr(
        model.decoder, "forward", lambda latents, old=model.decoder.forward: seen.append(latents) or old(latents)
    )
    with torch.no_grad():
        model(scenes(2, size=24))
    mean, log_variance = model.first_posterior.detach().chunk(2)
    expected = mean + log_variance.exp().sqrt() * model.noise[0]
    assert_close(seen[0].view(2, 3, 5).detach(), expected.expand(2, 3, 5))


# Training


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_checkpointing_changes_neither_loss_nor_gradients(padding, scenes):
    found = []
    for checkpointing in (False, True):
        model = tiny(checkpointing=checkpointing, decoder_padding=padding).double()
        torch.manual_seed(3)
        losses, _ = model.loss(scenes(2, size=24).double())
        losses.total.mean().backward()
        found.append([losses.total, *(each.grad for each in model.parameters())])
    for plain, checkpointed in zip(*found, strict=True):
        assert_close(plain, checkpointed, rtol=1e-9, atol=1e-9)


def test_checkpointing_keeps_less(scenes):
    """The bytes that autograd keeps of the decoder's maps are gone."""
    kept = {}
    for checkpointing in (False, True):
        model, total = tiny(checkpointing=checkpointing, decoder_layers=5, decoder_channels=32), 0

        def count(tensor: Tensor) -> Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model.loss(scenes(2, size=24))
        kept[checkpointing] = total
    assert kept[True] < 0.5 * kept[False]


def test_one_step_of_two_slots(scenes):
    """All but the LSTM's weights of a state that is not there yet learn of it."""
    model = tiny(iterations=1, num_slots=2)
    losses, answer = model.loss(scenes(2, size=24))
    losses.total.mean().backward()
    unreached = [name for name, each in model.named_parameters() if each.grad is None or not each.grad.any()]
    assert unreached == ["refinement.lstm.weight_hh"]
    assert answer.log_masks.shape == (2, 2, 1, 24, 24)


def test_the_network_learns_through_every_step(scenes):
    """Lambda is not cut between steps: where all updates are nothing, only it goes from the first to the last."""
    model, images = tiny(), scenes(2, size=24)
    for each in model.refinement.update.parameters():
        each.data.zero_()
    torch.manual_seed(0)
    losses, _ = model.loss(images)
    (of_last,) = torch.autograd.grad(losses.observed["last_reconstruction"].sum(), model.first_posterior)
    assert of_last.abs().max() > 0


def test_images_of_one_colour_stay_finite():
    model = tiny(sigma=0.01)
    for value in (0.0, 1.0):
        model.zero_grad()
        losses, _ = model.loss(torch.full((2, 3, 24, 24), value))
        losses.total.mean().backward()
        assert torch.isfinite(losses.total).all()
        assert all(torch.isfinite(each.grad).all() for each in model.parameters())


def test_a_mask_of_nothing_has_a_finite_gradient(scenes):
    """The gradient by a mask is N_k / p(x), which has no bound where the mask is 0 and its slot alone fits."""
    model, images = tiny(sigma=0.02), scenes(2, size=24)
    model.decoder.last.bias.data[3] = 0
    model.decoder.last.weight.data[3] *= 1e4  # masks that are sure of themselves, at random
    losses, _ = model.loss(images)
    losses.total.mean().backward()
    assert all(torch.isfinite(each.grad).all() for each in model.parameters())


def test_a_batch_is_learnt(scenes):
    model, images = tiny(sigma=0.1, iterations=2, decoder_channels=32, decoder_stride=4), scenes(2, size=24)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    costs = []
    for _ in range(150):
        losses, _ = model.loss(images)
        optimizer.zero_grad()
        losses.total.mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        costs.append(losses.total.mean().item())
    with torch.no_grad():
        error = (model(images).reconstruction() - images).square().mean()
    assert costs[-1] < costs[0] - 1000
    assert error < 0.4 * images.var(dim=(2, 3)).mean()


@pytest.mark.parametrize(
    "wrong", [{"num_slots": 1}, {"iterations": 0}, {"sigma": 0.0}, {"latent_weight": -1.0}, {"latent_dim": 0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(RecipeError, match=f"^{next(iter(wrong))} must be"):
        dataclasses.replace(TINY, **wrong)


def test_a_stride_must_divide_the_size():
    with pytest.raises(RecipeError, match="stride 5"):
        tiny(decoder_stride=5)


def test_latent_weight_rises_over_its_warmup(scenes):
    settings = dataclasses.replace(TINY, latent_weight=0.5, latent_warmup=10)
    assert [settings.latent_weight_at(step) for step in (0, 5, 10, 99)] == [0.0, 0.25, 0.5, 0.5]
    assert dataclasses.replace(TINY, latent_weight=0.5).latent_weight_at(0) == 0.5
    losses, _ = tiny(latent_weight=0.5, latent_warmup=10).loss(scenes(2, TINY.size), step=5)
    assert losses.weights["latent_kl"] == 0.25
