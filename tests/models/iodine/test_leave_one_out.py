from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.models.iodine.leave_one_out import leave_one_out_log_likelihood, logsumexp_without_each


def one_after_another(log_densities: torch.Tensor, log_masks: torch.Tensor) -> torch.Tensor:
    """The mixture of the others' densities, with their masks divided by what they sum to, slot by slot."""
    answers = []
    for left_out in range(log_densities.shape[1]):
        others = [slot for slot in range(log_densities.shape[1]) if slot != left_out]
        masks = log_masks[:, others].softmax(dim=1)
        density = (masks * log_densities[:, others].exp()).sum(dim=1)  # [B, C, H, W]
        answers.append(density.log().sum(dim=1, keepdim=True))
    return torch.stack(answers, dim=1)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), slots=st.integers(2, 5), channels=st.sampled_from([1, 3]))
def test_likelihood_is_that_of_the_mixture_of_the_others(seed, slots, channels):
    chance = torch.Generator().manual_seed(seed)
    log_densities = 5 * torch.randn(2, slots, channels, 3, 2, dtype=torch.float64, generator=chance)
    log_masks = torch.randn(2, slots, 1, 3, 2, dtype=torch.float64, generator=chance).log_softmax(dim=1)
    answer = leave_one_out_log_likelihood(log_densities, log_masks)
    assert answer.shape == (2, slots, 1, 3, 2)
    assert_close(answer, one_after_another(log_densities, log_masks), rtol=1e-9, atol=1e-9)


def test_likelihood_by_hand():
    """Densities 1, 2 and 4 with shares 1/2, 1/4 and 1/4: without each (2 + 4) / 2, (2 + 4) / 3 and (2 + 2) / 3."""
    densities = torch.tensor([1.0, 2, 4]).view(1, 3, 1, 1, 1)
    shares = torch.tensor([0.5, 0.25, 0.25]).view(1, 3, 1, 1, 1)
    answer = leave_one_out_log_likelihood(densities.log(), shares.log()).exp()
    assert answer.flatten().tolist() == pytest.approx([3, (0.5 + 1) / 0.75, (0.5 + 0.5) / 0.75])


def test_of_two_slots_the_other_ones_density_is_left_whatever_its_mask():
    log_densities = torch.tensor([-300.0, 4.0]).view(1, 2, 1, 1, 1)
    log_masks = torch.tensor([0.0, -60.0]).view(1, 2, 1, 1, 1)
    answer = leave_one_out_log_likelihood(log_densities, log_masks)
    assert answer.flatten().tolist() == pytest.approx([4, -300], rel=1e-5)


@pytest.mark.parametrize("slots", [2, 3, 7])
def test_no_digit_is_lost_in_float32_where_one_slot_is_all_there_is(slots):
    values = torch.full((1, slots), -50.0)
    values[0, 1] = 3.0
    without = logsumexp_without_each(values)[0]
    assert without[1].item() == pytest.approx(-50 + math.log(slots - 1), rel=1e-6)
    assert without[0].item() == pytest.approx(3, rel=1e-6)


def test_equal_values_are_one_less():
    assert_close(logsumexp_without_each(torch.zeros(2, 5, 3)), torch.full((2, 5, 3), math.log(4)))


def test_gaussians_far_from_the_image_stay_finite():
    densities = torch.from_numpy(norm.logpdf(np.linspace(-40, 40, 6), scale=0.01).reshape(1, 6, 1, 1, 1)).float()
    answer = leave_one_out_log_likelihood(densities, torch.full((1, 6, 1, 1, 1), -math.log(6)))
    assert torch.isfinite(answer).all()


@pytest.mark.parametrize("shape", [(2, 1, 1, 3, 3), (2, 3, 3, 3), (2, 3, 1, 3, 4)])
def test_axes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ShapeError):
        leave_one_out_log_likelihood(torch.zeros(shape), torch.zeros(2, shape[1], 1, 3, 3))
