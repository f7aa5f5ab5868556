"""The refinement network f_phi of IODINE (Greff et al., 2019), and the likelihoods that it reads."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.common.layers import kaiming_init_
from unscene.ops.dispatch import at_least_float32
from unscene.settings import settings_dataclass

State = tuple[Tensor, Tensor]  # of the LSTM, [B * K, units] each


@settings_dataclass
class RefinementSettings:
    """Settings of the refinement network; the defaults are R-MONet's for IODINE on Multi-dSprites."""

    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (32, 32, 32)  # channels of the convolutions
    kernel: PositiveInt = 3  # side of their kernels, odd
    stride: PositiveInt = 2  # stride of every convolution
    averaged: PositiveInt = 1  # the maps are first averaged over squares of this side; 1 (the paper's) leaves them
    # `average` (the paper's) averages the last map over its pixels, so that only the coordinate inputs carry locations;
    # `flatten` (ours) keeps all of it
    pooling: Literal["average", "flatten"] = "average"
    hidden: PositiveInt = 128  # units of the fully connected layer
    lstm: PositiveInt = 128  # units of the LSTM

    def __post_init__(self) -> None:
        if self.kernel % 2 == 0:
            raise RecipeError(f"kernel must be odd, not {self.kernel}.")


class RefinementNetwork(nn.Module):
    """Convolutions and a fully connected layer on maps, concatenated with vectors, an LSTM, and the update of lambda_k.

    Every slot is refined separately, with the same weights. Maps that all slots of an image read are given once: the
    first convolution is linear, so its response to them is computed once an image and added.
    """

    def __init__(
        self, settings: RefinementSettings, shared_channels: int, slot_channels: int, latent_dim: int, size: int
    ) -> None:
        super().__init__()
        self.settings = settings
        if size % settings.averaged:
            raise RecipeError(f"averaged must divide the size of the images, {size}, but is {settings.averaged}.")
        self.channels = [shared_channels, slot_channels]
        c_in = (shared_channels + slot_channels, *settings.channels[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*channels, settings.kernel, settings.stride, padding=settings.kernel // 2)
            for channels in zip(c_in, settings.channels, strict=True)
        )
        size //= settings.averaged
        for _ in settings.channels:
            size = -(-size // settings.stride)
        units = settings.channels[-1] * (size**2 if settings.pooling == "flatten" else 1)
        self.hidden = nn.Linear(units, settings.hidden)
        self.lstm = nn.LSTMCell(settings.hidden + 4 * latent_dim, settings.lstm)
        self.update = nn.Linear(settings.lstm, 2 * latent_dim)
        kaiming_init_(*self.convolutions, self.hidden)

    def forward(
        self, shared: Tensor, own: Tensor, posterior: Tensor, grad_posterior: Tensor, state: State | None
    ) -> tuple[Tensor, State]:
        """The update of lambda, [B, K, 2 D] in float32 or better, and the LSTM's next state (None at first).

        `shared` maps [B, shared_channels, H, W] are for all slots of an image, `own` are [B, K, slot_channels, H, W];
        `posterior` [B, K, 2 D] is lambda (means and log variances), `grad_posterior` the gradient of the loss by it.
        """
        features = self._first_map(shared, own)
        for layer in list(self.convolutions)[1:]:
            features = F.elu_(layer(features))
        pooled = features.mean(dim=(2, 3)) if self.settings.pooling == "average" else features.flatten(1)
        hidden = F.elu(self.hidden(pooled))
        with torch.autocast(hidden.device.type, enabled=False):  # the state is carried through T steps
            vectors = [at_least_float32(hidden), posterior.flatten(0, 1), grad_posterior.flatten(0, 1)]
            state = self.lstm(torch.cat(vectors, dim=1), state)
            update = self.update(state[0])
        return update.unflatten(0, own.shape[:2]), state

    def _first_map(self, shared: Tensor, own: Tensor) -> Tensor:
        """[B * K, C, H', W'] after the first convolution and its ELU, channels last."""
        first = self.convolutions[0]
        assert isinstance(first, nn.Conv2d)
        stride, padding = self.settings.stride, self.settings.kernel // 2
        weight_shared, weight_own = first.weight.split(self.channels, dim=1)
        slots = own.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        images = shared.contiguous(memory_format=torch.channels_last)
        if self.settings.averaged > 1:
            slots, images = (F.avg_pool2d(maps, self.settings.averaged) for maps in (slots, images))
        from_images = F.conv2d(images, weight_shared, first.bias, stride, padding).permute(0, 2, 3, 1)
        from_slots = F.conv2d(slots, weight_own, None, stride, padding).permute(0, 2, 3, 1).unflatten(0, own.shape[:2])
        return F.elu_(from_slots + from_images.unsqueeze(1)).flatten(0, 1).permute(0, 3, 1, 2)


@torch.no_grad()
def pixel_likelihoods(densities: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """p(x | z) of every pixel, [B, 1, H, W], and p(x | z_j, j != k) without each slot k, [B, K, 1, H, W].

    sum_j m_j N_j and sum_{j != k} m_j N_j / sum_{j != k} m_j, of densities N [B, K, C, H, W] and masks [B, K, 1, H, W];
    the product over C, which is 1 where a slot explains a pixel's channels together. 0 where the others have no share.
    """
    joint = masks * densities
    others = 1 - torch.eye(masks.shape[1], dtype=joint.dtype, device=joint.device)  # sums, exact; a difference is not
    with torch.autocast(joint.device.type, enabled=False):
        joint_others, mask_others = ((others @ maps.flatten(2)).view_as(maps) for maps in (joint, masks))
    leave_one_out = joint_others / mask_others.clamp_min(torch.finfo(masks.dtype).tiny)
    return joint.sum(dim=1).prod(dim=1, keepdim=True), leave_one_out.prod(dim=2, keepdim=True)
