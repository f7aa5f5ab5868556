from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from unscene.models.common.coarse_background import coarse_background


@pytest.mark.parametrize("background", [0, -1])
def test_one_cell_is_the_mean_colour_and_other_slots_stay(background):
    components = torch.rand(2, 4, 3, 8, 8)
    result = coarse_background(components, background, 1)
    mean = components[:, background].mean(dim=(2, 3), keepdim=True)
    assert_close(result[:, background], mean.expand(2, 3, 8, 8))
    others = [slot for slot in range(4) if slot != background % 4]
    assert torch.equal(result[:, others], components[:, others])


def test_two_cells_keep_a_step_from_left_to_right_and_lose_a_spot():
    components = torch.zeros(1, 2, 1, 8, 8)
    components[0, 0, 0, :, 4:] = 1
    coarse = coarse_background(components, 0, 2)[0, 0, 0]
    assert_close(coarse[:, 0], torch.zeros(8))
    assert_close(coarse[:, -1], torch.ones(8))
    components[0, 0, 0, 2, 1] = 1  # one of 16 pixels of a cell
    assert coarse_background(components, 0, 2)[0, 0, 0, 0, 0] == pytest.approx(1 / 16)


def test_no_cells_change_nothing():
    components = torch.rand(1, 2, 3, 4, 4)
    assert coarse_background(components, 0, 0) is components
