"""What the generators share: random numbers by (seed, sample, draw), and occluder and crop of the shifted test sets.

A random number is a hash, so any sample can be generated again, alone. NumPy's generators are not used: their streams
may change with its version, and a sample in the middle of a stream needs all those before it.

Occluder and crop follow Dittadi et al. (ICML 2022, arXiv 2107.00637). They choose, of five random positions, the one
where the square hides least; here all positions are equally likely.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unscene.errors import RecipeError

Seed = Annotated[int, Field(ge=0, lt=2**63)]
CropShare = Annotated[float, Field(ge=0.25, le=1)]  # of the side; the work for a sprite grows as 1 / share ** 2
OccluderShare = Annotated[float, Field(ge=0, le=1)]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_OCCLUDER_STREAM = 0x8F63_6C75_6465_7273  # its top bit is set, so it differs from every seed, which is below 2**63


def shifts_with(unseen_shape: str, unseen_colours: str | tuple[str, ...]) -> Mapping[str, Mapping[str, Any]]:
    """The shifts of a generator: by name the settings that differ from those of training."""
    return MappingProxyType(
        {
            "more_objects": {"min_objects": 7, "max_objects": 10},
            "unseen_shape": {"shapes": (unseen_shape,)},
            "unseen_colour": {"colours": unseen_colours},
            "occlusion": {"occluder": 0.4},
            "crop": {"crop": 2 / 3},
        }
    )


def uniform_draws(seed: int, indices: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Return [B, draws] numbers for the samples `indices` [B], uniform in [0, 1), multiples of 2**-53.

    A larger `draws` appends to them, and never changes them.
    """
    bits = splitmix64(sample_keys(seed, indices)[:, None] + np.arange(draws, dtype=np.uint64) * GOLDEN)
    return np.ldexp((bits >> np.uint64(11)).astype(np.float64), -53)


def sample_keys(seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the keys [B] uint64 that the samples' draws are hashed from, for callers that draw one by one."""
    stream = splitmix64(np.array([seed], np.uint64))
    return splitmix64(stream + indices.astype(np.uint64) * GOLDEN)


def splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the next number of the splitmix64 generator for states [...] (Steele, Lea and Flood, 2014).

    States have one axis or more: for a scalar NumPy would warn of the intended overflow.
    """
    mixed = state + GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def occlude(
    images: NDArray[np.uint8], labels: NDArray[np.uint8], seed: int, indices: NDArray[np.int64], share: float, grey: int
) -> None:
    """Paint a grey square into images [B, size, size, 3] and label maps [B, size, size], in place, as background.

    Its side is `share` of the image's side; its position is uniform within the image. The position has random numbers
    of its own, so the scene behind the square is the one without an occluder.
    """
    size = labels.shape[1]
    side = round(share * size)
    corner = (uniform_draws(seed ^ _OCCLUDER_STREAM, indices, 2) * (size - side + 1)).astype(np.int64)  # [B, 2] x and y
    along = np.arange(size) - corner[..., None]  # [B, 2, size] from the square's first column, and row
    within = (along >= 0) & (along < side)
    hidden = within[:, 1, :, None] & within[:, 0, None, :]  # [B, size, size], rows first
    images[hidden] = grey
    labels[hidden] = 0


def central_part(view: tuple[float, float, float, float], share: float) -> tuple[float, float, float, float]:
    """The part `x1 y1 x2 y2` in the middle of a view that has `share` of its width and height."""
    x1, y1, x2, y2 = view
    across, down = (x2 - x1) * (1 - share) / 2, (y2 - y1) * (1 - share) / 2
    return x1 + across, y1 + down, x2 - across, y2 - down


def check_object_range(min_objects: int, max_objects: int) -> None:
    """Raise a RecipeError if a scene must have more objects than it may have."""
    if min_objects > max_objects:
        raise RecipeError(f"min_objects must be at most max_objects, {max_objects}, not {min_objects}.")
