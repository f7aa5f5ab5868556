from __future__ import annotations

import copy

import torch
from torch import nn
from torch.testing import assert_close

from unscene.distributed.sync_batch_norm import SynchronisedBatchNorm2d, replace_batch_norm, synchronise_batch_norm
from unscene.models.monet.resnet_attention import BatchNormPerPass


def test_training_is_that_of_one_shared_layer_bit_for_bit():
    plain = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    ours = replace_batch_norm(copy.deepcopy(plain), lambda layer: BatchNormPerPass(layer, passes=2))
    inputs = torch.rand(2, 4, 2, 6, 6)
    for network in (plain, ours):
        total = torch.zeros(())
        for index, x in enumerate(inputs):
            if network is ours:
                ours[1].index = index
            total = total + network(x).square().sum() * (index + 1)
        total.backward()
    assert torch.equal(ours(inputs[0]), plain(inputs[0]))
    for weight, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(weight.grad, expected.grad)


def test_evaluation_normalises_each_pass_by_its_own_statistics():
    norm = BatchNormPerPass(nn.BatchNorm2d(3), passes=2)
    inputs = torch.rand(64, 3, 4, 4), 5 * torch.rand(64, 3, 4, 4) - 20
    for index, x in enumerate(inputs * 100):
        norm.index = index % 2
        trained = norm(x)
        assert_close(trained.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    norm.eval()
    for norm.index, x in enumerate(inputs):
        evaluated = norm(x)
        assert_close(evaluated.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-2)
        assert_close(evaluated.var(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-2)


def test_affine_weights_are_saved_once_and_statistics_by_pass():
    saved = BatchNormPerPass(nn.BatchNorm2d(3), passes=2).state_dict()
    assert [name for name in saved if "num" not in name] == [
        "weight",
        "bias",
        "passes.0.running_mean",
        "passes.0.running_var",
        "passes.1.running_mean",
        "passes.1.running_var",
    ]


def test_layers_that_several_processes_share_are_found_inside():
    network = nn.Sequential(BatchNormPerPass(nn.BatchNorm2d(3), passes=2))
    x, names = torch.rand(4, 3, 5, 5), list(network.state_dict())
    expected = copy.deepcopy(network)(x)
    synchronise_batch_norm(network, "cpu")
    assert all(type(norm) is SynchronisedBatchNorm2d for norm in network[0].passes)
    assert torch.equal(network(x), expected)
    assert list(network.state_dict()) == names
