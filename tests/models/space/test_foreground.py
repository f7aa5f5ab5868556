"""foreground: density and KL divergence of the relaxed Bernoulli, and the boundary loss."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.testing import assert_close

from unscene.models.space import foreground
from unscene.models.space.foreground import Cells, SpaceForeground, bernoulli_kl, sample_relaxed_bernoulli
from unscene.models.space.settings import ForegroundSettings


def density(y: torch.Tensor, logit: float, temperature: float) -> torch.Tensor:
    """Of the relaxed sample at y in 0..1: Maddison et al. (2017), Eq. 24, with alpha = exp(logit)."""
    alpha = math.exp(logit)
    up = temperature * alpha * y ** (-temperature - 1) * (1 - y) ** (-temperature - 1)
    return up / (alpha * y**-temperature + (1 - y) ** -temperature) ** 2


@pytest.mark.parametrize(("logit", "temperature"), [(0.0, 1.0), (-1.5, 2.5), (0.8, 0.5)])
def test_samples_have_the_papers_density(logit, temperature):
    torch.manual_seed(0)
    samples = sample_relaxed_bernoulli(torch.full((200_000,), logit, dtype=torch.float64), temperature)
    y = torch.linspace(0, 1, 200_001, dtype=torch.float64)[1:-1]
    mass = density(y, logit, temperature)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (y > low) & (y <= high)
        share = ((samples > low) & (samples <= high)).double().mean()
        assert float(share) == pytest.approx(float(mass[inside].mean() * inside.double().mean()), abs=0.006)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_samples_exceed_a_half_as_often_as_the_bernoulli_is_one(temperature):
    torch.manual_seed(0)
    samples = sample_relaxed_bernoulli(torch.full((100_000,), -0.7), temperature)
    assert float((samples > 0.5).float().mean()) == pytest.approx(1 / (1 + math.exp(0.7)), abs=0.006)


def test_low_temperature_gives_samples_near_0_or_1():
    torch.manual_seed(0)
    logits = torch.zeros(10_000)
    distance = [
        float((sample_relaxed_bernoulli(logits, temperature) - 0.5).abs().mean()) for temperature in (0.05, 1.0, 20.0)
    ]
    assert distance[0] > 0.47
    assert distance[2] < 0.03
    assert distance == sorted(distance, reverse=True)


def test_bernoulli_kl_by_hand_and_as_pytorch():
    assert float(bernoulli_kl(torch.zeros(1, dtype=torch.float64), 0.1)) == pytest.approx(
        0.5 * math.log(0.5 / 0.1) + 0.5 * math.log(0.5 / 0.9)
    )
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    for prior in (0.01, 0.5, 0.9):
        expected = kl_divergence(Bernoulli(logits=logits), Bernoulli(torch.tensor(prior, dtype=torch.float64)))
        assert_close(bernoulli_kl(logits, prior), expected)


def test_bernoulli_kl_is_the_mean_log_ratio_of_samples():
    torch.manual_seed(0)
    logit, prior = 0.6, 0.1
    present = torch.rand(400_000, dtype=torch.float64) < 1 / (1 + math.exp(-logit))
    p = 1 / (1 + math.exp(-logit))
    ratios = torch.where(present, math.log(p / prior), math.log((1 - p) / (1 - prior)))
    assert float(bernoulli_kl(torch.tensor([logit]), prior)) == pytest.approx(float(ratios.mean()), abs=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_give_finite_values_and_gradients(dtype):
    logits = torch.tensor([-1e4, -200.0, 0.0, 200.0, 1e4], dtype=dtype, requires_grad=True)
    divergence = bernoulli_kl(logits, 1e-10)
    torch.manual_seed(0)
    samples = sample_relaxed_bernoulli(logits.expand(5000, 5), 0.01)
    (divergence.sum() + samples.sum()).backward()
    for values in (divergence, samples, logits.grad):
        assert torch.isfinite(values).all()
    assert divergence.min() >= 0


@pytest.fixture
def boundary_loss(monkeypatch):
    """The boundary loss of borders and alpha, [B, 1, H, W]; the boxes do not matter."""

    def loss(borders: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        monkeypatch.setattr(foreground, "paste_borders", lambda *_: borders)
        nothing = torch.zeros(len(borders), 64)
        pair = (nothing, nothing)
        cells = Cells(nothing, pair, pair, pair, pair, nothing, nothing, nothing, nothing)
        return SpaceForeground(ForegroundSettings(), 128).boundary_loss(cells, alpha, 0)

    return loss


def test_boundary_loss_of_one_pixel_by_hand(boundary_loss):
    """Two boxes' borders meet where alpha is .5: o = 1000 / 1024 (1 + .25) .5."""
    borders = torch.zeros(1, 1, 3, 3)
    borders[0, 0, 1, 1] = 1.0 + 0.25
    overlap = 1000 / 1024 * 1.25 * 0.5
    assert float(boundary_loss(borders, torch.full((1, 1, 3, 3), 0.5))) == pytest.approx(overlap**2 / (2 * 0.49))


def test_boundary_loss_is_the_authors_gaussian_without_its_constant(boundary_loss):
    torch.manual_seed(0)
    borders, alpha = torch.rand(3, 1, 6, 5), torch.rand(3, 1, 6, 5)
    overlap = 1000 * borders / 32**2 * alpha
    expected = (Normal(0, 0.7).log_prob(torch.zeros(())) - Normal(0, 0.7).log_prob(overlap)).sum(dim=(1, 2, 3))
    assert torch.allclose(boundary_loss(borders, alpha), expected, rtol=1e-4)


def test_boundary_loss_without_borders_or_objects_is_zero(boundary_loss):
    assert boundary_loss(torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)).tolist() == [0, 0]
    assert boundary_loss(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).tolist() == [0, 0]
