"""Random numbers that are a hash of (seed, sample, draw), so that a sample can be drawn again, alone.

NumPy's generators are not used: their streams may change with its version, and a sample in the middle of a stream
needs all those before it.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

Seed = Annotated[int, Field(ge=0, lt=2**63)]  # of a generated data set

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def uniform_draws(seed: int, indices: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Return the first draws of every sample: a larger `draws` appends to them, and never changes them.

    Returns:
        [B, draws] for the samples `indices` [B], uniform in [0, 1), multiples of 2**-53.
    """
    bits = splitmix64(sample_keys(seed, indices)[:, None] + np.arange(draws, dtype=np.uint64) * _GOLDEN)
    return np.ldexp((bits >> np.uint64(11)).astype(np.float64), -53)


def sample_keys(seed: int, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return the keys [B] uint64 that the samples' draws are hashed from, for callers that draw one by one."""
    stream = splitmix64(np.array([seed], np.uint64))
    return splitmix64(stream + indices.astype(np.uint64) * _GOLDEN)


def splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the next number of the splitmix64 generator for states [...] (Steele, Lea and Flood, 2014).

    States have one axis or more: for a scalar NumPy would warn of the intended overflow.
    """
    mixed = state + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
