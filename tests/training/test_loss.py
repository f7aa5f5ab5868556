"""loss: the mean over the batch, and a loss that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unscene.errors import TrainingError
from unscene.scene import Losses
from unscene.training import loss
from unscene.training.loss import BatchLoss, check_finite


class Broken(nn.Module):
    """A model whose loss terms are given."""

    def __init__(self, terms: dict[str, torch.Tensor], weights: dict[str, float]) -> None:
        super().__init__()
        self.terms, self.weights = terms, weights

    def loss(self, images: torch.Tensor, step: int) -> tuple[Losses, None]:
        return Losses(self.terms, self.weights), None


def loss_of(terms: dict[str, torch.Tensor], weight: float = 1.0) -> torch.Tensor:
    """The mean loss of a step, checked."""
    batch_loss = BatchLoss(Broken(terms, dict.fromkeys(terms, weight)), bfloat16=False)
    losses, _ = batch_loss(torch.zeros(2, 3, 32, 32), 0)
    total = losses["loss"].mean()
    check_finite(total, losses, step=12)
    return total


def test_a_finite_loss_is_the_mean_over_the_batch():
    total = loss_of({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([10.0, 20.0])}, weight=0.5)
    assert float(total) == 0.5 * (2 + 15)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_term_that_is_not_finite_is_named(value):
    terms = {"reconstruction": torch.tensor([1.0, 2.0]), "mask_kl": torch.tensor([1.0, value])}
    with pytest.raises(TrainingError, match=r"step 12: .* because of mask_kl \(reconstruction 1\.5, mask_kl .*Resume"):
        loss_of(terms)


def test_a_total_that_overflows_is_named():
    with pytest.raises(TrainingError, match="because of the weighted total"):
        loss_of({"a": torch.tensor([3e38, 3e38])}, weight=10.0)


def test_a_loss_that_is_not_finite_elsewhere_ends_every_process(monkeypatch):
    """Else this process would wait for the other one's gradients for ever."""
    monkeypatch.setattr(loss, "mean_over_processes", lambda values: values * float("nan"))
    with pytest.raises(TrainingError, match="step 12: the loss is not finite, because of mask_kl "):
        loss_of({"mask_kl": torch.tensor([1.0, 2.0])})
