from __future__ import annotations

import torch
from torch.testing import assert_close

from unscene.ops.tiled_conv import convolve_tiled


def test_the_bodies_agree(monkeypatch):
    torch.manual_seed(0)
    inputs = torch.randn(3, 5), torch.randn(1, 2, 6, 7), torch.randn(4, 7, 3, 3), torch.randn(4)
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    weights = torch.randn(3, 4, 4, 5, dtype=torch.float64)
    results = []
    for plain in ("0", "1"):
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        result = convolve_tiled(*inputs)
        results.append((result, *torch.autograd.grad((result * weights).sum(), inputs)))
    assert_close(*results)


def test_by_hand():  # kernel of ones: nine times the latent, and the sum of nine coordinates
    result = convolve_tiled(torch.tensor([[2.0]]), torch.arange(9.0).view(1, 1, 3, 3), torch.ones(1, 2, 3, 3), None)
    assert result.item() == 9 * 2 + sum(range(9))
