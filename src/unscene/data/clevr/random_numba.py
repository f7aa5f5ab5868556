"""The numbers of `generated_scenes`, one at a time, compiled by numba. Without numba this module cannot be imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from unscene.data import generated_scenes
from unscene.data.generated_scenes import GOLDEN
from unscene.ops.numba_jit import compiled_part

_UNIT = 2.0**-53

splitmix64: Any = compiled_part(generated_scenes.splitmix64)  # of one uint64


@compiled_part
def bits_of_draw(key: Any, draw: int) -> Any:
    """The 64 random bits of a sample's draw; `key` is one of `generated_scenes.sample_keys`."""
    return splitmix64(key + np.uint64(draw) * GOLDEN)


@compiled_part
def uniform_draw(key: Any, draw: int) -> Any:
    """The number that `generated_scenes.uniform_draws` has at [sample, draw]."""
    return (bits_of_draw(key, draw) >> np.uint64(11)) * _UNIT
