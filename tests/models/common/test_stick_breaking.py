from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.models.common.stick_breaking import LOG_ZERO, stick_breaking


def by_equations_4_to_7(alpha: np.ndarray) -> np.ndarray:
    """s_0 = 1, m_k = s_{k-1} a_k, s_k = s_{k-1} (1 - a_k), m_K = s_{K-1}: one pixel and one slot after another."""
    batch, slots, _, height, width = alpha.shape
    masks = np.zeros((batch, slots + 1, 1, height, width))
    for b, y, x in np.ndindex(batch, height, width):
        scope = 1.0
        for k in range(slots):
            masks[b, k, 0, y, x] = scope * alpha[b, k, 0, y, x]
            scope *= 1 - alpha[b, k, 0, y, x]
        masks[b, slots, 0, y, x] = scope
    return masks


@st.composite
def logits_and_gate(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor | None]:
    shape = (draw(st.integers(1, 2)), draw(st.integers(0, 5)), 1, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = noise.normal(0, draw(st.sampled_from([0.1, 3.0, 30.0])), shape)
    gate = torch.from_numpy(noise.random(shape) < 0.6) if draw(st.booleans()) else None
    return torch.from_numpy(logits), gate


def test_even_odds_halve_what_is_left():
    masks = stick_breaking(torch.zeros(1, 2, 1, 1, 1)).exp()
    assert masks.flatten().tolist() == pytest.approx([0.5, 0.25, 0.25])


def test_a_share_of_zero_is_log_zero_and_never_less():
    """With the scope's log before it, which is at most 0: the bound that the mixture documents."""
    gate = torch.tensor([True, False]).view(1, 2, 1, 1, 1)
    log_masks = stick_breaking(torch.full((1, 2, 1, 1, 1), -30.0), gate).flatten()
    assert log_masks[1].item() == pytest.approx(LOG_ZERO, abs=1e-6)
    assert log_masks[2].item() == pytest.approx(0, abs=1e-6)


def test_a_closed_gate_takes_no_share():
    gate = torch.tensor([True, False, True]).view(1, 3, 1, 1, 1)
    masks = stick_breaking(torch.zeros(1, 3, 1, 1, 1, dtype=torch.float64), gate).exp()
    assert masks.flatten().tolist() == pytest.approx([0.5, 0, 0.25, 0.25], abs=1e-15)


@settings(deadline=None)
@given(logits_and_gate())
def test_stick_breaking_is_equations_4_to_7(logits_gate):
    logits, gate = logits_gate
    alpha = 1 / (1 + np.exp(-logits.numpy()))
    if gate is not None:
        alpha = np.where(gate.numpy(), alpha, 0.0)
    masks = stick_breaking(logits, gate).exp()
    assert masks.dtype == torch.float64
    np.testing.assert_allclose(masks.numpy(), by_equations_4_to_7(alpha), atol=1e-12)


@settings(deadline=None)
@given(logits_gate=logits_and_gate())
def test_masks_share_every_pixel(logits_gate):
    logits, gate = logits_gate
    total = stick_breaking(logits.float(), gate).exp().sum(dim=1)
    assert_close(total, torch.ones_like(total))


def test_without_a_foreground_slot_the_last_has_every_pixel():
    assert stick_breaking(torch.zeros(2, 0, 1, 3, 3)).tolist() == torch.zeros(2, 1, 1, 3, 3).tolist()


def test_closed_gates_leave_every_pixel_to_the_last_slot():
    logits = torch.full((1, 3, 1, 2, 2), 9.0, dtype=torch.float64)
    masks = stick_breaking(logits, torch.zeros(1, 3, 1, 2, 2, dtype=torch.bool)).exp()
    assert_close(masks[:, 3], torch.ones_like(masks[:, 3]), atol=1e-15, rtol=0)
    assert masks[:, :3].max() < 1e-15


def test_no_gradient_passes_a_closed_gate():
    logits = torch.ones(1, 2, 1, 1, 2, requires_grad=True)
    gate = torch.tensor([[True, False], [True, True]]).view(1, 2, 1, 1, 2)
    stick_breaking(logits, gate).square().sum().backward()
    assert (logits.grad != 0).flatten().tolist() == [True, False, True, True]


def test_extreme_logits_give_finite_masks_and_gradients():
    logits = torch.tensor([1e4, -1e4, 1e4, 0.0]).view(1, 4, 1, 1, 1).requires_grad_()
    log_masks = stick_breaking(logits)
    log_masks.sum().backward()
    assert torch.isfinite(log_masks).all()
    assert torch.isfinite(logits.grad).all()
    assert log_masks.exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 3, 2, 8, 8)])
def test_other_axes_are_refused(shape):
    with pytest.raises(ShapeError, match=r"alpha_logits must have the axes \[B, K, 1, H, W\]"):
        stick_breaking(torch.zeros(shape))


def test_a_gate_of_another_shape_is_refused():
    with pytest.raises(ShapeError, match="gate"):
        stick_breaking(torch.zeros(1, 2, 1, 4, 4), torch.ones(1, 1, 1, 4, 4, dtype=torch.bool))
