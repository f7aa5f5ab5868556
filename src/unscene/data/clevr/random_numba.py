"""The numbers of `generated_scenes`, one at a time, compiled by numba. Without numba this module cannot be imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscene.ops.numba_jit import compiled_part

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_UNIT = 2.0**-53


@compiled_part
def splitmix64(state: Any) -> Any:
    """`generated_scenes.splitmix64` of one uint64."""
    mixed = state + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return mixed ^ (mixed >> np.uint64(31))


@compiled_part
def bits_of_draw(key: Any, draw: int) -> Any:
    """The 64 bits behind a sample's draw; `key` is one of `generated_scenes.sample_keys`."""
    return splitmix64(key + np.uint64(draw) * _GOLDEN)


@compiled_part
def uniform_draw(key: Any, draw: int) -> Any:
    """The number that `generated_scenes.uniform_draws` has at [sample, draw]."""
    return (bits_of_draw(key, draw) >> np.uint64(11)) * _UNIT
