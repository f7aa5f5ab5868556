"""Noise that does not depend on how many processes share a batch.

Every process has the same generator in the same state (they are seeded alike), draws the noise of the whole batch, and
takes the rows of its own scenes: the `rank::world` of `data.batches.StepSampler`. So two processes compute what one
computes with the whole batch, a checkpoint of one number of processes serves any other, and a single process draws what
`torch.randn` and `torch.rand` draw. The price is that the noise, some thousand numbers an image, is drawn `world` times
over.

A generator keyed by the scene would save that, but would change what a single process draws, and a block would have to
be told which scenes it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def shared_noise(draw: Callable[..., Tensor], shape: Sequence[int], **options: Any) -> Tensor:
    """Return this process's rows of the whole batch's noise.

    Every block that draws noise in training draws it here, with the same shape in all processes, so that their
    generators stay in the same state.

    Args:
        draw: `torch.randn`, `torch.rand` or their like; it is called with a shape.
        shape: [B, ...], B being the scenes of this process.
        options: for `draw`, for instance `dtype` and `device`.

    Returns:
        [B, ...].
    """
    rank, world = place_among_processes()
    if world == 1:
        return draw(tuple(shape), **options)
    return draw((shape[0] * world, *shape[1:]), **options)[rank::world]


def place_among_processes() -> tuple[int, int]:
    """The rank of this process and the number of those that train together; 0 and 1 where it trains alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def normal_like(tensor: Tensor) -> Tensor:
    """Standard normal noise of a tensor's shape [B, ...], type and device; see `shared_noise`."""
    return shared_noise(torch.randn, tensor.shape, dtype=tensor.dtype, device=tensor.device)
