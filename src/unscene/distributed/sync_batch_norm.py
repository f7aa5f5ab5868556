"""Batch normalisation over the batch of all processes (Ioffe & Szegedy, 2015), on a CPU as well.

PyTorch's own nn.SyncBatchNorm does this on a GPU and refuses a CPU's tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from unscene.distributed.processes import rank_and_world


def synchronise_batch_norm(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Let every nn.BatchNorm2d of a model see the batch of all processes, in place.

    Parameters and buffers stay the same tensors under the same names. On a GPU the layers become nn.SyncBatchNorm. The
    model, which is returned, must not be an nn.BatchNorm2d itself.
    """
    on_gpu = torch.device(device).type == "cuda"
    convert = nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else SynchronisedBatchNorm2d.from_layer
    return replace_batch_norm(model, convert)


def replace_batch_norm(model: nn.Module, convert: Callable[[nn.BatchNorm2d], nn.Module]) -> nn.Module:
    """Convert every nn.BatchNorm2d inside a model, in place, and return the model."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.BatchNorm2d:
                setattr(parent, name, convert(layer))
    return model


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose mean and variance in training are those of all processes' images together.

    The same state_dict. In evaluation, and where a process trains alone, it is nn.BatchNorm2d. The processes need not
    hold equally many images, but together more than one value a channel.
    """

    @classmethod
    def from_layer(cls, layer: nn.BatchNorm2d) -> SynchronisedBatchNorm2d:
        """The same layer, with the same tensors."""
        copy = cls(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
        copy.weight, copy.bias = layer.weight, layer.bias
        for name, buffer in layer.named_buffers():
            setattr(copy, name, buffer)
        return copy.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] of this process -> the same axes and type."""
        if not self.training or rank_and_world()[1] == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x, axes = input.float(), (0, 2, 3)
        count = _sum_over_processes(x.new_tensor(x.numel() // x.shape[1]))
        if count <= 1:
            raise ValueError("Expected more than 1 value per channel when training")  # as PyTorch's
        mean = _sum_over_processes(x.sum(axes)) / count  # [C]
        centred = x - mean[:, None, None]
        variance = _sum_over_processes(centred.square().sum(axes)) / count  # sums of x squared would cancel
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.detach(), share)
            self.running_var.lerp_(variance.detach() * count / (count - 1), share)
        gain = (variance + self.eps).rsqrt() * (self.weight if self.affine else 1)
        bias = self.bias if self.affine else torch.zeros_like(gain)
        return torch.addcmul(bias[:, None, None], centred, gain[:, None, None]).to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of all processes' tensors. Every process's loss depends on it, so the gradients add up too."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> Tensor:
        return _sum_over_processes(grad_total)


def _sum_over_processes(tensor: Tensor) -> Tensor:
    return _SumOverProcesses.apply(tensor)
