"""Explicit localization over the frames of a sequence, which Liu et al. (2019) name as their future work. Ours.

The background is what does not move: a running estimate b, which starts as the first frame's background and then
follows each frame x by a bounded step, so that it tends to the median of what a pixel shows (McFarlane & Schofield,
1995):

    b <- b + clip(x - b, -rate, rate)    except in the pixels of an object that has moved

A slot first looks for its object within a window's reach of where it was in the last frame, so objects keep their
slots; those that have moved come first. Slots without an object, or that found none there, then look anywhere, as in a
single frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.scene import Decomposition

if TYPE_CHECKING:
    from unscene.models.explicit_localization.model import ExplicitLocalization, Step

_MOVED = 2.0  # pixels: the location of a still object varies by less
_OWN = 0.5  # share of a pixel from which it is an object's


@dataclass(frozen=True)
class SequenceState:
    """What is kept of the frames so far."""

    background: Tensor  # b, [B, 3, H, W] in 0..1
    locations: Tensor  # [B, K-1, 2] y and x in 0..1 of the last frame's objects, zeros for an empty slot
    starts: Tensor  # [B, K-1, 2] where each slot found its object first
    moved: Tensor  # [B, K-1] bool, whether the object has been elsewhere since

    @staticmethod
    def start(background: Tensor, num_objects: int) -> SequenceState:
        """The state before the first frame, for K-1 slots of objects."""
        locations = background.new_zeros(len(background), num_objects, 2)
        return SequenceState(background.float(), locations, locations, locations.any(dim=2))


@torch.no_grad()
def decompose_next(
    model: ExplicitLocalization, images: Tensor, state: SequenceState | None
) -> tuple[Decomposition, SequenceState]:
    """Decompose the next frame [B, 3, size, size] of B sequences; the state of the first frames is None."""
    settings = model.settings
    check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
    ones = torch.ones_like(images[:, :1])
    background = model.background_step(images, sample=False)
    if state is None:
        state = SequenceState.start(background.reconstruction, settings.num_slots - 1)
    error = (state.background - images).square().sum(dim=1, keepdim=True)
    background = replace(background, reconstruction=state.background, error=error)
    s = 1 - model.quality(error, ones, settings.quality_variance)
    slots = _Slots(model, images, s)
    used = state.locations.any(dim=2)
    for slot in (2 * (~used).int() - state.moved.int()).argsort(dim=1, stable=True).unbind(dim=1):
        slots.look(slot, used, _around(_of_slot(state.locations, slot), images.shape[2:], settings.location.cutoff))
    for slot in slots.filled.int().argsort(dim=1, stable=True).unbind(dim=1):
        if not slots.look(slot, ~slots.filled, torch.ones_like(s, dtype=torch.bool)):
            break  # nothing is left
    objects = slots.steps()
    background = replace(background, mask=torch.stack([ones, *(-step.mask for step in objects)]).sum(dim=0))
    decomposition = model.decomposition([background, *objects])
    return decomposition, _next_state(state, decomposition, images, settings.background_rate)


class _Slots:
    """The slots of a frame, filled one by one; a step has one slot in each image, which may differ."""

    def __init__(self, model: ExplicitLocalization, images: Tensor, s: Tensor) -> None:
        self.model, self.images, self.s = model, images, s
        self.filled = torch.zeros(len(images), model.settings.num_slots - 1, dtype=torch.bool, device=images.device)
        self._steps: list[Step] = []
        self._step_of_slot = torch.zeros_like(self.filled, dtype=torch.long)  # from 1; 0 is an empty step

    def look(self, slot: Tensor, looks: Tensor, allowed: Tensor) -> bool:
        """Look for the object of a slot [B] at the `allowed` pixels, where that slot `looks` [B, K-1]; is any found?"""
        active = _of_slot(looks, slot)
        if not active.any():
            return False
        step, s = self.model.object_step(self.images, self.s * active.view(-1, 1, 1, 1), sample=False, allowed=allowed)
        self.s = torch.where(active.view(-1, 1, 1, 1), s, self.s)
        found = active & step.mask.flatten(1).any(dim=1)
        self._steps.append(step)
        rows = found.nonzero().squeeze(1)
        self.filled[rows, slot[rows]] = True
        self._step_of_slot[rows, slot[rows]] = len(self._steps)
        return bool(found.any())

    def steps(self) -> list[Step]:
        """The step of each slot; zeros for an empty one."""
        if not self._steps:
            return []
        rows, values = torch.arange(len(self.images), device=self.images.device)[:, None], {}
        for name in vars(self._steps[0]):
            steps = [getattr(step, name) for step in self._steps]
            values[name] = torch.stack([torch.zeros_like(steps[0]), *steps], dim=1)[rows, self._step_of_slot]
        return [
            replace(self._steps[0], **{name: value[:, slot] for name, value in values.items()})
            for slot in range(self.filled.shape[1])
        ]


def _of_slot(values: Tensor, slot: Tensor) -> Tensor:
    """The value of each image's slot: [B, K-1, ...] and [B] -> [B, ...]."""
    return values[torch.arange(len(slot), device=slot.device), slot]


def _next_state(state: SequenceState, decomposition: Decomposition, images: Tensor, rate: float) -> SequenceState:
    locations = decomposition.locations
    assert locations is not None
    known = (state.locations.any(dim=2) & locations.any(dim=2)).unsqueeze(2)
    starts = torch.where(known, state.starts, locations)
    distance = (locations - starts) * locations.new_tensor(images.shape[2:])
    moved = (state.moved & known.squeeze(2)) | (distance.norm(dim=2) > _MOVED)
    moving = (decomposition.masks()[:, 1:] * moved[:, :, None, None, None]).sum(dim=1) > _OWN
    change = (images - state.background).clamp(-rate, rate).masked_fill(moving, 0)
    return SequenceState((state.background + change).float(), locations, starts, moved)


def _around(locations: Tensor, size: torch.Size, reach: float) -> Tensor:
    """[B, 1, H, W] the pixels that are at most `reach` pixels up, down, left or right from locations [B, 2] in 0..1."""
    rows, columns = (
        (torch.arange(length, device=locations.device) + 0.5 - length * locations[:, axis : axis + 1]).abs() <= reach
        for axis, length in enumerate(size)
    )
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)
