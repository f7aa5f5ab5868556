from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from unscene.errors import ShapeError
from unscene.models.space.boundary_loss import boundary_loss


def test_one_pixel_by_hand():
    """Two boxes' borders meet where alpha is .5: o = 1000 / 1024 (1 + .25) .5."""
    borders = torch.zeros(1, 1, 3, 3)
    borders[0, 0, 1, 1] = 1.0 + 0.25
    alpha = torch.full((1, 1, 3, 3), 0.5)
    overlap = 1000 / 1024 * 1.25 * 0.5
    assert float(boundary_loss(borders, alpha)) == pytest.approx(overlap**2 / (2 * 0.49))


def test_it_is_the_authors_gaussian_but_for_its_constant():
    torch.manual_seed(0)
    borders, alpha = torch.rand(3, 1, 6, 5), torch.rand(3, 1, 6, 5)
    overlap = 1000 * borders / 32**2 * alpha
    expected = (Normal(0, 0.7).log_prob(torch.zeros(())) - Normal(0, 0.7).log_prob(overlap)).sum(dim=(1, 2, 3))
    assert torch.allclose(boundary_loss(borders, alpha), expected, rtol=1e-4)


def test_nothing_there_costs_nothing():
    assert boundary_loss(torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)).tolist() == [0, 0]
    assert boundary_loss(torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)).tolist() == [0, 0]


def test_other_axes_are_refused():
    with pytest.raises(ShapeError, match="alpha"):
        boundary_loss(torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4))
