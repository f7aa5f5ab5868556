from __future__ import annotations

import pytest
import torch

from unscene.models.iodine.gradient_mode import outside_inference_mode, without_inference_mode


@pytest.mark.parametrize(
    ("mode", "wanted"), [(torch.enable_grad, True), (torch.no_grad, False), (torch.inference_mode, False)]
)
def test_gradients_are_on_only_if_they_were(mode, wanted):
    with mode(), outside_inference_mode():
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled() == wanted


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_what_was_made_in_any_mode_can_be_differentiated(mode):
    with mode():
        made = torch.full((3,), 2.0)
        with outside_inference_mode(), torch.enable_grad():
            weight = torch.ones(3, requires_grad=True)
            (gradient,) = torch.autograd.grad((without_inference_mode(made) * weight).sum(), weight)
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)
    assert gradient.tolist() == [2, 2, 2]


def test_an_without_inference_mode_tensor_is_not_copied():
    tensor = torch.ones(3)
    assert without_inference_mode(tensor) is tensor
