from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from unscene.models.common.layers import kaiming_init_, mlp


def test_a_perceptron_is_its_matrices_and_relus():
    layers = mlp(3, 5, 2)
    x = torch.randn(4, 3)
    hidden = (x @ layers[0].weight.T + layers[0].bias).clamp_min(0)
    assert_close(nn.Sequential(*layers)(x), (hidden @ layers[2].weight.T + layers[2].bias).clamp_min(0))


def test_initialisation_keeps_the_variance_through_many_layers():
    torch.manual_seed(0)
    layers = [nn.Linear(512, 512) for _ in range(6)]
    kaiming_init_(*layers, nn.ReLU())
    signal = torch.randn(256, 512)
    for layer in layers:
        signal = layer(signal.relu())
    assert signal.std().item() == pytest.approx(1, rel=0.2)  # the first input, too, passes a ReLU
    assert all(layer.bias.abs().max() == 0 for layer in layers)


def test_initialisation_of_a_convolution_is_hes():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 64, 3)
    kaiming_init_(layer)
    assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / (64 * 9)), rel=0.02)
