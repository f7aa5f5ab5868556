"""Compute only the slots of a batch that are in use: a slot without an object needs neither a mask nor a decoder."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.dispatch import host_may_read, use_plain

MULTIPLE = 16  # the packed length is rounded up to it, since a CPU's convolutions compile for every new shape


@dataclass(frozen=True)
class SlotPacking:
    """Slots [B, K, ...] laid out end to end, [S, ...], without those that are not used.

    On a GPU the host would wait for the number of used slots. So S is B * K there, and only `unpack` leaves slots out;
    its result is the same.
    """

    used: Tensor  # [B, K] bool
    index: Tensor | None  # [S] int64, index of each packed slot among the B * K; None: all of them, in order
    count: int | None  # they come first, the others are padding; None: the host does not know the number

    @classmethod
    def from_used(cls, used: Tensor | None, slots: Tensor) -> SlotPacking:
        """The packing of the slots [B, K, ...] that are used, [B, K] bool; None: all of them."""
        if used is None:
            used = torch.ones(slots.shape[:2], dtype=torch.bool, device=slots.device)
            return cls(used, None, used.numel())
        check_shape(used, "B K", "used")
        if use_plain() or not host_may_read(used):
            return cls(used, None, None)
        count = int(used.sum())
        packed = max(1, -(-count // MULTIPLE)) * MULTIPLE  # some convolutions of an empty batch have no gradient
        if packed >= used.numel():
            return cls(used, None, count)
        used_first = used.flatten().logical_not().byte().argsort(stable=True)
        return cls(used, used_first[:packed], count)

    @property
    def image(self) -> Tensor:
        """[S] the image of each packed slot."""
        index = torch.arange(self.used.numel(), device=self.used.device) if self.index is None else self.index
        return index // self.used.shape[1]

    def pack(self, slots: Tensor) -> Tensor:
        """[B, K, ...] -> [S, ...]."""
        flat = slots.flatten(0, 1)
        return flat if self.index is None else flat.index_select(0, self.index)

    def pack_images(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [S, C, H, W], each slot's image; channels last if the images are."""
        if not images.is_contiguous(memory_format=torch.channels_last):
            return images.index_select(0, self.image)
        return images.permute(0, 2, 3, 1).index_select(0, self.image).permute(0, 3, 1, 2)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """[S, ...] -> [B, K, ...]; a slot that is not used holds `fill`."""
        if self.index is not None:
            filled = packed.new_full((self.used.numel(), *packed.shape[1:]), fill)
            slots = filled.index_copy(0, self.index[: self.count], packed[: self.count])
        else:
            slots = packed
        slots = slots.view(*self.used.shape, *slots.shape[1:])
        if self.index is not None or self.count == self.used.numel():
            return slots
        return torch.where(self.used.view(*self.used.shape, *[1] * (slots.ndim - 2)), slots, fill)
