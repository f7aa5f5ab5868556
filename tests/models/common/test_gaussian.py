from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.models.common.gaussian import gaussian_kl, sample_gaussian, softplus_gaussian


@settings(deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    spread=st.sampled_from([0.01, 1.0, 6.0]),
)
def test_divergence_is_that_of_torch_distributions(seed, shape, spread):
    noise = np.random.default_rng(seed)
    mean, log_variance = (torch.from_numpy(noise.normal(0, spread, shape)) for _ in range(2))
    posterior = Normal(mean, (0.5 * log_variance).exp())
    reference = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum(dim=-1)
    divergence = gaussian_kl(mean, log_variance)
    assert divergence.dtype == torch.float64
    assert_close(divergence, reference, rtol=1e-9, atol=1e-9)


def test_divergence_by_hand():
    """A unit Gaussian moved by 1 in each of three directions: 3/2; the prior itself: 0."""
    mean = torch.stack([torch.ones(3), torch.zeros(3)])
    assert gaussian_kl(mean, torch.zeros(2, 3)).tolist() == pytest.approx([1.5, 0])


def test_a_sample_is_the_mean_and_scaled_noise():
    mean, log_variance = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    torch.manual_seed(5)
    sample = sample_gaussian(mean, log_variance)
    torch.manual_seed(5)
    noise = torch.randn(2, 3, 4)
    assert_close(sample, mean + log_variance.exp().sqrt() * noise)


def test_samples_have_the_mean_and_the_variance():
    torch.manual_seed(0)
    samples = sample_gaussian(torch.full((50_000, 2), 3.0), torch.tensor([0.0, np.log(4.0)]).float().expand(50_000, 2))
    assert samples.mean(dim=0).tolist() == pytest.approx([3, 3], abs=0.05)
    assert samples.var(dim=0).tolist() == pytest.approx([1, 4], rel=0.05)


def test_the_gradient_reaches_mean_and_variance():
    mean, log_variance = torch.zeros(1, 5, requires_grad=True), torch.zeros(1, 5, requires_grad=True)
    sample = sample_gaussian(mean, log_variance)
    sample.sum().backward()
    assert mean.grad.tolist() == [[1.0] * 5]
    assert_close(log_variance.grad, 0.5 * sample.detach())


@pytest.mark.parametrize("function", [sample_gaussian, gaussian_kl])
def test_different_axes_are_refused_not_broadcast(function):
    with pytest.raises(ShapeError, match="log_variance"):
        function(torch.zeros(2, 4), torch.zeros(4))


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0])
def test_divergence_from_another_gaussian_is_that_of_torch_distributions(spread):
    noise = torch.Generator().manual_seed(0)
    mean, log_variance, prior_mean, prior_log_variance = (
        spread * torch.randn(4, 5, 3, generator=noise, dtype=torch.float64) for _ in range(4)
    )
    posterior = Normal(mean, (0.5 * log_variance).exp())
    reference = kl_divergence(posterior, Normal(prior_mean, (0.5 * prior_log_variance).exp())).sum(dim=-1)
    assert_close(gaussian_kl(mean, log_variance, prior_mean, prior_log_variance), reference)
    reference = kl_divergence(posterior, Normal(-1.0, 0.1)).sum(dim=-1)
    assert_close(gaussian_kl(mean, log_variance, -1.0, 2 * np.log(0.1)), reference)


def test_standard_deviation_is_softplus_and_above_zero():
    output = torch.tensor([[1.0, -2.0, 0.0, -200.0]], requires_grad=True)
    mean, log_variance = softplus_gaussian(output)
    assert mean.tolist() == [[1.0, -2.0]]
    assert (0.5 * log_variance).exp().flatten().tolist() == pytest.approx([np.log(2) + 1e-4, 1e-4])
    gaussian_kl(mean, log_variance, 0.0, 0.0).sum().backward()
    assert torch.isfinite(output.grad).all()
    assert softplus_gaussian(output.bfloat16())[0].dtype == torch.float32
