"""compiled_random: the numbers of counter_random, bit for bit."""

from __future__ import annotations

import numpy as np

from unscene.data.clevr.random_numba import splitmix64, uniform_draw
from unscene.data.generated_scenes import sample_keys, uniform_draws
from unscene.data.generated_scenes import splitmix64 as splitmix64_of_arrays


def test_scalar_and_array_numbers_are_equal():
    keys, draws = sample_keys(7, np.array([0, 3, 10**9])), uniform_draws(7, np.array([0, 3, 10**9]), 40)
    assert [[uniform_draw(key, draw) for draw in range(40)] for key in keys] == draws.tolist()


def test_a_state_is_mixed_the_same():
    states = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    assert [splitmix64(state) for state in states] == splitmix64_of_arrays(states).tolist()
