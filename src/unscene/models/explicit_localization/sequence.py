"""Explicit localization over the frames of a sequence, which Liu et al. (2019) name as their future work. Ours.

The background is what does not move: a running estimate b, which starts as the network's reconstruction of the first
frame and then follows each frame x by a bounded step, so that it tends to the median of what a pixel shows
(McFarlane & Schofield, 1995):

    b <- b + clip(x - b, -rate, rate)

A slot first looks for its object within a window's reach of where it was in the last frame, so objects keep their
slots. Slots without an object then look anywhere, as in a single frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from unscene.errors import check_shape
from unscene.ops.dispatch import host_may_read
from unscene.scene import Decomposition

if TYPE_CHECKING:
    from unscene.models.explicit_localization.model import ExplicitLocalization


@dataclass(frozen=True)
class SequenceState:
    """What is kept of the frames so far."""

    background: Tensor  # b, [B, 3, H, W] in 0..1
    locations: Tensor  # [B, K-1, 2] y and x in 0..1 of the last frame's objects, zeros for an empty slot


@torch.no_grad()
def decompose_next(
    model: ExplicitLocalization, images: Tensor, state: SequenceState | None
) -> tuple[Decomposition, SequenceState]:
    """Decompose the next frame [B, 3, size, size] of B sequences; the state of the first frames is None."""
    settings = model.settings
    check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
    ones = torch.ones_like(images[:, :1])
    background = model.reconstruct(images, ones, images, sample=False)
    if state is None:
        state = SequenceState(
            background.reconstruction.float(), images.new_zeros(len(images), settings.num_slots - 1, 2)
        )
    error = (state.background - images).square().sum(dim=1, keepdim=True)
    background = replace(background, reconstruction=state.background, error=error)
    s = 1 - model.quality(error, ones, settings.quality_variance)
    used = state.locations.any(dim=2)
    order = (~used).int().argsort(dim=1, stable=True)  # [B, K-1] slots with an object first
    m, objects = ones, []
    for slots in order.unbind(dim=1):
        rows = torch.arange(len(slots), device=slots.device)
        known = used[rows, slots]
        allowed = _around(state.locations[rows, slots], images.shape[2:], settings.location.cutoff)
        step, s = model.object_step(images, s, sample=False, allowed=allowed | ~known.view(-1, 1, 1, 1))
        objects.append(step)
        m = m - step.mask
        if host_may_read(step.mask) and not known.any() and not step.mask.any():
            break  # s is as before, so that the next steps would find nothing either
    decomposition = model.decomposition([replace(background, mask=m), *objects])
    slot_of_step = torch.cat([torch.zeros_like(order[:, :1]), order + 1], dim=1)
    decomposition = _in_slots(decomposition, slot_of_step.argsort(dim=1))
    assert decomposition.locations is not None
    change = (images - state.background).clamp(-settings.background_rate, settings.background_rate)
    return decomposition, SequenceState((state.background + change).float(), decomposition.locations)


def _around(locations: Tensor, size: torch.Size, reach: float) -> Tensor:
    """[B, 1, H, W] the pixels that are at most `reach` pixels up, down, left or right from locations [B, 2] in 0..1."""
    rows, columns = (
        (torch.arange(length, device=locations.device) + 0.5 - length * locations[:, axis : axis + 1]).abs() <= reach
        for axis, length in enumerate(size)
    )
    return (rows[:, :, None] & columns[:, None, :]).unsqueeze(1)


def _in_slots(decomposition: Decomposition, steps: Tensor) -> Decomposition:
    """Put step `steps[b, k]` of image b into slot k; slot 0 is the background's and stays."""
    rows = torch.arange(len(steps), device=steps.device)[:, None]
    assert decomposition.latents is not None
    assert decomposition.locations is not None
    return replace(
        decomposition,
        log_masks=decomposition.log_masks[rows, steps],
        components=decomposition.components[rows, steps],
        latents=decomposition.latents[rows, steps],
        locations=decomposition.locations[rows, steps[:, 1:] - 1],
    )
