from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, kl_divergence
from torch.testing import assert_close

from unscene.models.space.relaxed_bernoulli import bernoulli_kl, sample_relaxed_bernoulli


def density(y: torch.Tensor, logit: float, temperature: float) -> torch.Tensor:
    """Of the relaxed sample at y in 0..1: Maddison et al. (2017), Eq. 24, with alpha = exp(logit)."""
    alpha = math.exp(logit)
    up = temperature * alpha * y ** (-temperature - 1) * (1 - y) ** (-temperature - 1)
    return up / (alpha * y**-temperature + (1 - y) ** -temperature) ** 2


@pytest.mark.parametrize(("logit", "temperature"), [(0.0, 1.0), (-1.5, 2.5), (0.8, 0.5)])
def test_samples_have_the_density_of_the_paper(logit, temperature):
    torch.manual_seed(0)
    samples = sample_relaxed_bernoulli(torch.full((200_000,), logit, dtype=torch.float64), temperature)
    y = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    mass = density(y, logit, temperature)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (y > low) & (y <= high)
        seen = ((samples > low) & (samples <= high)).double().mean()
        assert float(seen) == pytest.approx(float(mass[inside].mean() * inside.double().mean()), abs=0.006)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_it_is_above_a_half_as_often_as_the_bernoulli_is_one(temperature):
    torch.manual_seed(0)
    samples = sample_relaxed_bernoulli(torch.full((100_000,), -0.7), temperature)
    assert float((samples > 0.5).float().mean()) == pytest.approx(1 / (1 + math.exp(0.7)), abs=0.006)


def test_a_low_temperature_decides_and_a_high_one_does_not():
    torch.manual_seed(0)
    logits = torch.zeros(10_000)
    decided = [float((sample_relaxed_bernoulli(logits, each) - 0.5).abs().mean()) for each in (0.05, 1.0, 20.0)]
    assert decided[0] > 0.47
    assert decided[2] < 0.03
    assert decided == sorted(decided, reverse=True)


def test_divergence_by_hand_and_as_pytorch_has_it():
    assert float(bernoulli_kl(torch.zeros(1, dtype=torch.float64), 0.1)) == pytest.approx(
        0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9)
    )
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for prior in (0.01, 0.5, 0.9):
        expected = kl_divergence(Bernoulli(logits=logits), Bernoulli(torch.tensor(prior, dtype=torch.float64)))
        assert_close(bernoulli_kl(logits, prior), expected)


def test_divergence_is_the_mean_of_the_samples_log_ratio():
    torch.manual_seed(0)
    logit, prior = 0.6, 0.1
    there = torch.rand(400_000, dtype=torch.float64) < 1 / (1 + math.exp(-logit))
    p = 1 / (1 + math.exp(-logit))
    ratios = torch.where(there, math.log(p / prior), math.log((1 - p) / (1 - prior)))
    assert float(bernoulli_kl(torch.tensor([logit]), prior)) == pytest.approx(float(ratios.mean()), abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_is_ever_infinite(dtype):
    logits = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4], dtype=dtype, requires_grad=True)
    divergence = bernoulli_kl(logits, 1e-10)
    torch.manual_seed(0)
    samples = sample_relaxed_bernoulli(logits.expand(5000, 5), 0.01)
    (divergence.sum() + samples.sum()).backward()
    for each in (divergence, samples, logits.grad):
        assert torch.isfinite(each).all()
    assert divergence.min() >= 0
