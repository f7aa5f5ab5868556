"""Batch normalisation over the batch of all processes (Ioffe & Szegedy, 2015), on a CPU as well.

PyTorch's own nn.SyncBatchNorm does this on a GPU and refuses a CPU's tensors.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from unscene.distributed.processes import rank_and_world


def synchronise_batch_norm(model: nn.Module, device: torch.device | str) -> nn.Module:
    """Let every nn.BatchNorm2d of a model see the batch of all processes, in place.

    Parameters and buffers stay the same tensors under the same names. On a GPU the layers become nn.SyncBatchNorm. The
    model, which is returned, must not be an nn.BatchNorm2d itself.
    """
    on_gpu = torch.device(device).type == "cuda"
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.BatchNorm2d:
                convert = nn.SyncBatchNorm.convert_sync_batchnorm if on_gpu else SynchronisedBatchNorm2d.from_layer
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
        normalised, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * count / (count - 1), share)
        return normalised  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias, with mean and variance of all processes' x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(x)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        axes = (0, 2, 3)
        centred, grad_y = x.float() - _per_channel(mean), grad_y.float()
        grad_bias, grad_weight = grad_y.sum(axes), (grad_y * centred).sum(axes) * scale  # this process's: DDP averages
        totals = torch.stack([grad_bias, grad_weight])
        distributed.all_reduce(totals)  # every process's loss reaches this x by way of mean and variance
        gain = scale if weight is None else scale * weight
        slope, offset = -gain * scale * totals[1] / count, -gain * totals[0] / count
        grad_x = centred.mul_(_per_channel(slope)).add_(_per_channel(offset)).addcmul_(grad_y, _per_channel(gain))
        if weight is None:
            return grad_x.to(x.dtype), None, None, None
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], variance [C] (of the batch, not its unbiased estimate) and number of values [1], of all processes.

    Computed from each process's mean and squared deviations from it (Chan et al., 1979): sums of squares cancel.
    """
    values = x.numel() // x.shape[1]
    if values:
        variance, mean = torch.var_mean(x.float(), (0, 2, 3), correction=0)
    else:
        variance = mean = torch.zeros(x.shape[1], device=x.device)
    local = torch.cat([mean, variance, mean.new_tensor([values])])
    gathered = [torch.empty_like(local) for _ in range(distributed.get_world_size())]
    distributed.all_gather(gathered, local)
    means, variances, counts = torch.stack(gathered).split([x.shape[1], x.shape[1], 1], dim=1)
    count = counts.sum(dim=0)  # [1]
    mean = (means * counts).sum(dim=0) / count
    return mean, ((variances + (means - mean).square()) * counts).sum(dim=0) / count, count


def _per_channel(channel: Tensor) -> Tensor:
    """[C] -> [C, 1, 1]."""
    return channel[:, None, None]
