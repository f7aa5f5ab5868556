from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from unscene.ops.mixture import categorical_kl, log_gaussian_mixture


def values_and_gradients(function, *inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    result = function(*leaves)
    return result, *torch.autograd.grad((result * torch.arange(1.0, 1 + len(result))).sum(), leaves)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    images, components = torch.rand(2, 3, 4, 5), torch.rand(2, 4, 3, 4, 5)
    return images, components, torch.randn(2, 4, 1, 4, 5).log_softmax(dim=1)


@pytest.mark.parametrize("by_pixel", [True, False])
def test_the_bodies_of_the_mixture_agree(by_pixel, parts, monkeypatch):
    def likelihood(*inputs):
        return log_gaussian_mixture(*inputs, torch.tensor([0.1, 0.2, 0.3, 0.4]), by_pixel)

    fast = values_and_gradients(likelihood, *parts)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert_close(fast, values_and_gradients(likelihood, *parts), rtol=1e-4, atol=1e-4)


def test_the_bodies_of_the_divergence_agree(parts, monkeypatch):
    logits = torch.randn(2, 4, 1, 4, 5)
    fast = values_and_gradients(categorical_kl, parts[2], logits)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    assert_close(fast, values_and_gradients(categorical_kl, parts[2], logits), rtol=1e-4, atol=1e-5)
