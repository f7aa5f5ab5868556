"""counter_random: the published splitmix64 sequence, and draws that do not depend on their neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from unscene.data.hashed_random import splitmix64, uniform_draws

GOLDEN = 0x9E3779B97F4A7C15


def test_splitmix64_gives_the_reference_sequence():
    # the first five outputs of Vigna's splitmix64.c with the state 1234567
    states = np.array([(1234567 + step * GOLDEN) % 2**64 for step in range(5)], np.uint64)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(states).tolist() == expected


def test_first_draws_stay_when_more_are_asked_for():
    indices = np.arange(5)
    assert np.array_equal(uniform_draws(3, indices, 4), uniform_draws(3, indices, 9)[:, :4])


def test_a_sample_does_not_depend_on_the_others():
    assert np.array_equal(uniform_draws(3, np.array([7, 2, 7]), 4), uniform_draws(3, np.arange(8), 4)[[7, 2, 7]])


def test_draws_are_uniform_and_unrelated():
    drawn = uniform_draws(0, np.arange(20000), 4)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts = np.stack([np.histogram(drawn[:, draw], bins=10, range=(0, 1))[0] for draw in range(4)])
    chi_square = ((counts - 2000) ** 2 / 2000).sum(axis=1)
    assert chi_square.max() < 27.9  # 9 degrees of freedom, p = .001
    neighbours = np.column_stack([drawn[:-1], drawn[1:]])  # each draw against the others, and the next sample's
    between = np.corrcoef(neighbours.T) - np.eye(8)
    assert np.abs(between).max() < 0.03  # four standard errors


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_every_seed_gives_its_own_stream(seed):
    other = (seed + 1) % 2**64
    assert not np.isin(uniform_draws(seed, np.arange(100), 8), uniform_draws(other, np.arange(100), 8)).any()


def test_no_sample_gives_no_draw():
    assert uniform_draws(0, np.array([], np.int64), 3).shape == (0, 3)
