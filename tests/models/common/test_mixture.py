from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch.distributions import Categorical, Normal, kl_divergence
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.models.common.mixture import mask_kl, mixture_log_likelihood, posterior_kl, posterior_log_masks
from unscene.models.common.stick_breaking import LOG_ZERO


def scene(seed: int, batch: int = 2, slots: int = 3, size: int = 3) -> tuple[torch.Tensor, ...]:
    """float64 images, components, log masks and scales."""
    noise = np.random.default_rng(seed)
    images = noise.random((batch, 3, size, size))
    components = noise.random((batch, slots, 3, size, size))
    masks = noise.dirichlet(np.full(slots, 0.5), (batch, 1, size, size)).transpose(0, 4, 1, 2, 3)
    scales = noise.uniform(0.05, 0.4, slots)
    return tuple(
        torch.from_numpy(np.ascontiguousarray(tensor)) for tensor in (images, components, np.log(masks), scales)
    )


def equation_2(images, components, masks, scales, over: str) -> list[float]:
    """log sum_k m_k N(x; X_k, sigma_k^2) with SciPy, one pixel (and one channel) after another."""
    outputs = []
    for image, parts, shares in zip(images, components, masks, strict=True):
        total = 0.0
        for y, x in np.ndindex(image.shape[1:]):
            density = norm.pdf(image[:, y, x], parts[:, :, y, x], scales[:, None])  # [K, 3]
            share = shares[:, 0, y, x]
            if over == "pixel":
                total += math.log(sum(share[k] * density[k].prod() for k in range(len(share))))
            else:
                total += sum(math.log(sum(share[k] * density[k, c] for k in range(len(share)))) for c in range(3))
        outputs.append(total)
    return outputs


@pytest.mark.parametrize("over", ["pixel", "channel"])
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(1, 4))
def test_likelihood_is_equation_2(over, seed, slots):
    images, components, log_masks, scales = scene(seed, slots=slots)
    likelihood = mixture_log_likelihood(images, components, log_masks, scales, over)
    reference = equation_2(images.numpy(), components.numpy(), log_masks.exp().numpy(), scales.numpy(), over)
    assert likelihood.dtype == torch.float64
    assert likelihood.tolist() == pytest.approx(reference, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_a_perfect_slot_alone_reaches_the_density_at_its_mean(over):
    images = torch.rand(1, 3, 4, 4)
    likelihood = mixture_log_likelihood(images, images[:, None], torch.zeros(1, 1, 1, 4, 4), torch.tensor([0.1]), over)
    assert likelihood.item() == pytest.approx(-48 * math.log(0.1 * math.sqrt(2 * math.pi)), rel=1e-5)


def test_channels_mixed_alone_may_be_shared_by_slots_that_fit_one_each():
    """The first slot fits red, the second green and blue: by channel each gets half, by pixel neither fits."""
    image = torch.zeros(1, 3, 1, 1)
    parts = torch.tensor([[0.0, 1, 1], [1, 0, 0]]).view(1, 2, 3, 1, 1)
    log_masks = torch.full((1, 2, 1, 1, 1), math.log(0.5))
    scales = torch.tensor([0.1, 0.1])
    by_channel = mixture_log_likelihood(image, parts, log_masks, scales, "channel").item()
    assert by_channel == pytest.approx(3 * (math.log(0.5) + norm.logpdf(0, 0, 0.1)), rel=1e-5)
    assert mixture_log_likelihood(image, parts, log_masks, scales, "pixel").item() < by_channel - 40


def test_half_precision_is_summed_in_float32():
    images, components, log_masks, scales = (tensor.bfloat16() for tensor in scene(0, size=8))
    half = mixture_log_likelihood(images, components, log_masks, scales)
    full = mixture_log_likelihood(images.double(), components.double(), log_masks.double(), scales.double())
    assert half.dtype == torch.float32
    assert half.tolist() == pytest.approx(full.tolist(), rel=1e-4)


def test_components_far_from_the_image_give_finite_likelihood_and_gradient():
    images, log_masks = torch.zeros(1, 3, 2, 2), torch.full((1, 2, 1, 2, 2), math.log(0.5))
    components = torch.full((1, 2, 3, 2, 2), 50.0, requires_grad=True)
    likelihood = mixture_log_likelihood(images, components, log_masks, torch.tensor([0.01, 0.01]))
    likelihood.sum().backward()
    assert torch.isfinite(likelihood).all()
    assert torch.isfinite(components.grad).all()
    assert components.grad.max() < 0


@pytest.mark.parametrize(("wrong", "message"), [(0, "images"), (1, "components"), (2, "log_masks"), (3, "scales")])
def test_likelihood_refuses_axes_that_do_not_fit(wrong, message):
    arguments = list(scene(0))
    arguments[wrong] = arguments[wrong][:1, ..., :1] if wrong < 3 else arguments[wrong][:2]
    if wrong == 0:
        arguments[0] = arguments[0][:, :2]
    with pytest.raises(ShapeError, match=message):
        mixture_log_likelihood(*arguments)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(1, 5))
def test_mask_kl_is_the_categorical_divergence_summed_over_pixels(seed, slots):
    _, _, log_masks, _ = scene(seed, slots=slots)
    logits = torch.from_numpy(np.random.default_rng(seed + 1).normal(0, 3, log_masks.shape))
    posterior = Categorical(logits=log_masks.movedim(1, -1))
    decoded = Categorical(logits=logits.movedim(1, -1))
    reference = kl_divergence(posterior, decoded).flatten(1).sum(dim=1)
    divergence = mask_kl(log_masks, logits)
    assert divergence.dtype == torch.float64
    assert divergence.tolist() == pytest.approx(reference.tolist(), rel=1e-9, abs=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(1, 4))
def test_posterior_masks_are_the_likelihoods_derivative(seed, slots):
    """d log sum_k m_k N_k / d log m_k is the posterior share of slot k, of Bayes' rule."""
    images, components, log_masks, scales = scene(seed, slots=slots)
    posterior = posterior_log_masks(images, components, log_masks, scales).exp()
    for image, drawn, masks, shown in zip(images, components, log_masks, posterior, strict=True):
        masks = masks[None].clone().requires_grad_()
        scale = fitted_scale(image[None], drawn[None], masks.detach(), scales)
        mixture_log_likelihood(image[None], drawn[None], masks, scale.expand(slots), "pixel").sum().backward()
        assert_close(shown, masks.grad[0], rtol=1e-6, atol=1e-9)


def fitted_scale(images, components, log_masks, scales):
    """The standard deviation of one image's error, weighted by the shares under `scales`."""
    density = Normal(components, scales.view(-1, 1, 1, 1)).log_prob(images.unsqueeze(1)).sum(dim=2, keepdim=True)
    shares = (log_masks + density).softmax(dim=1)
    squared = (images.unsqueeze(1) - components).square().mean(dim=2, keepdim=True)
    return (shares * squared).sum(dim=1).mean().sqrt()


def test_posterior_masks_by_hand():
    """One pixel, equal masks: a slot off by .2 in one channel, one in two. With sigma .1 their shares are e^2 to 1.

    The squared error is (.04 e^2 + .08) / (e^2 + 1), s^2 a third of it, and the odds exp(.04 / (2 s^2)).
    """
    images, components = torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 3, 1, 1)
    components[0, 0, 0], components[0, 1, :2] = 0.2, 0.2  # the third fits, but its mask is 0
    log_masks = torch.tensor([0.5, 0.5, 1.0]).log().view(1, 3, 1, 1, 1).clone()
    log_masks[0, 2] = LOG_ZERO
    posterior = posterior_log_masks(images, components, log_masks, torch.full((3,), 0.1))
    odds = math.exp(0.04 / (2 * (0.04 * math.exp(2) + 0.08) / (math.exp(2) + 1) / 3))
    assert posterior[0, 2].item() == LOG_ZERO
    assert posterior[0, :2].exp().flatten().tolist() == pytest.approx([odds / (1 + odds), 1 / (1 + odds)])


def test_the_posteriors_deviation_is_at_least_a_hundredth():
    """A pixel that the first slot draws exactly, and the second with an error of .01 in each channel: odds of e^1.5."""
    images, components = torch.zeros(1, 3, 1, 1), torch.zeros(1, 2, 3, 1, 1)
    components[0, 1] = 0.01
    log_masks = torch.tensor([0.5, 0.5]).log().view(1, 2, 1, 1, 1)
    odds = posterior_log_masks(images, components, log_masks, torch.full((2,), 0.1)).diff(dim=1).neg()
    assert odds.item() == pytest.approx(1.5, rel=1e-5)


def test_posterior_masks_of_what_no_slot_holds_and_of_an_empty_slot_out_of_range():
    """Neither spoils the image's other pixels."""
    images, components, log_masks, scales = scene(0, slots=3)
    log_masks[0, :, :, 0, 0] = LOG_ZERO
    assert posterior_log_masks(images, components, log_masks, scales)[0].isfinite().all()
    images, components, log_masks, scales = (tensor.float() for tensor in scene(0, slots=3))
    log_masks[:, 2], components[:, 2] = LOG_ZERO, 1e30
    shown = posterior_log_masks(images, components, log_masks, scales)
    assert_close(shown[:, :2], posterior_log_masks(images, components[:, :2], log_masks[:, :2], scales[:2]))
    assert (shown[:, 2] == LOG_ZERO).all()


def test_an_images_posterior_does_not_depend_on_its_batch():
    images, components, log_masks, scales = scene(0, slots=3)
    together = posterior_log_masks(images, components, log_masks, scales)
    assert_close(together[1:2], posterior_log_masks(images[1:2], components[1:2], log_masks[1:2], scales))


def test_posterior_masks_where_every_or_no_component_fits():
    """Where all are right, and where all are equally wrong, the masks stay."""
    log_masks = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1, 1).expand(1, 2, 1, 4, 4)
    for value in (1.0, -9.0):
        components, scales = torch.full((1, 2, 3, 4, 4), value), torch.tensor([0.1, 0.3])
        assert_close(posterior_log_masks(torch.ones(1, 3, 4, 4), components, log_masks, scales), log_masks)
    with pytest.raises(ShapeError, match="components"):
        posterior_log_masks(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), log_masks, torch.ones(2))


@given(seed=st.integers(0, 2**16), slots=st.integers(1, 5))
@settings(deadline=None)
def test_the_divergence_from_the_posterior_masks_moves_the_masks_towards_them(seed, slots):
    """KL(posterior || masks) as PyTorch's; d/d logits = masks - posterior; components have no gradient."""
    images, components, log_masks, scales = scene(seed, slots=slots)
    posterior = posterior_log_masks(images, components, log_masks, scales).exp()
    logits = log_masks.clone().requires_grad_()
    components.requires_grad_()
    divergence = posterior_kl(images, components, logits.log_softmax(dim=1), scales)
    by_pixel = [Categorical(masks.squeeze(2).movedim(1, -1)) for masks in (posterior, log_masks.exp())]
    assert_close(divergence, kl_divergence(*by_pixel).sum(dim=(1, 2)))
    divergence.sum().backward()
    assert_close(logits.grad, log_masks.exp() - posterior)
    assert components.grad is None


def test_mask_kl_by_hand():
    log_masks = torch.tensor([0.5, 0.5]).log().view(1, 2, 1, 1, 1).expand(1, 2, 1, 2, 2)
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 2, 2)  # p = 1/4, 3/4
    assert mask_kl(log_masks, logits).item() == pytest.approx(4 * 0.5 * (math.log(2) + math.log(2 / 3)), rel=1e-5)


def test_mask_kl_of_equal_masks_is_zero_whatever_is_added_to_the_logits():
    _, _, log_masks, _ = scene(3)
    assert mask_kl(log_masks, log_masks + 7).tolist() == pytest.approx([0, 0], abs=1e-9)


def test_mask_kl_of_an_empty_slot_is_finite():
    log_masks = torch.tensor([-40.0, 0.0]).view(1, 2, 1, 1, 1).requires_grad_()
    logits = torch.tensor([30.0, 0.0]).view(1, 2, 1, 1, 1).requires_grad_()
    divergence = mask_kl(log_masks, logits)
    divergence.sum().backward()
    assert divergence.item() == pytest.approx(30, rel=1e-5)
    assert torch.isfinite(log_masks.grad).all()
    assert logits.grad.flatten().tolist() == pytest.approx([1, -1], abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (2, 2, 1, 3, 3), (2, 3, 1, 3, 4)])
def test_mask_kl_refuses_axes_that_do_not_fit(shape):
    with pytest.raises(ShapeError, match="decoded_logits"):
        mask_kl(scene(0)[2], torch.zeros(shape))


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_gradients_of_the_likelihood_are_right(over):
    images, components, log_masks, scales = scene(3)
    for tensor in (images, components, log_masks):
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *parts: mixture_log_likelihood(*parts, scales, over), (images, components, log_masks)
    )


def test_gradients_of_the_mask_divergence_are_right():
    _, _, log_masks, _ = scene(4)
    logits = torch.randn(log_masks.shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mask_kl, (log_masks.requires_grad_(), logits))


def test_inputs_are_left_as_they_are():
    parts = scene(5)
    before = [tensor.clone() for tensor in parts]
    mixture_log_likelihood(*parts)
    mask_kl(parts[2], parts[2])
    assert all(torch.equal(mine, kept) for mine, kept in zip(parts, before, strict=True))


def values_and_gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    return result, *torch.autograd.grad((result * torch.arange(1.0, 1 + len(result))).sum(), leaves)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    images, components = torch.rand(2, 3, 4, 5), torch.rand(2, 4, 3, 4, 5)
    return images, components, torch.randn(2, 4, 1, 4, 5).log_softmax(dim=1)


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_the_bodies_of_the_mixture_agree(over, parts, monkeypatch):
    def likelihood(*inputs):
        return mixture_log_likelihood(*inputs, torch.tensor([0.1, 0.2, 0.3, 0.4]), over)

    fast = values_and_gradients(likelihood, *parts)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert_close(fast, values_and_gradients(likelihood, *parts), rtol=1e-4, atol=1e-4)


def test_the_bodies_of_the_divergence_agree(parts, monkeypatch):
    logits = torch.randn(2, 4, 1, 4, 5)
    fast = values_and_gradients(mask_kl, parts[2], logits)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert_close(fast, values_and_gradients(mask_kl, parts[2], logits), rtol=1e-4, atol=1e-5)
