"""The loss of a batch: as one forward pass, and the check that it is finite."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from unscene.distributed.processes import mean_over_processes
from unscene.errors import TrainingError
from unscene.scene import Losses

RESUME_HINT = (
    "Resume the run, whose last checkpoint is from before it, with a lower --optimizer.learning_rate, with "
    "--optimizer.clip_norm 10, or with --trainer.precision float32."
)


def autocast(device: torch.device, bfloat16: bool) -> torch.autocast:
    """The precision of a training: bfloat16 where convolutions and products allow it, or float32.

    Without a cache: where a weight is used several times, its gradients are added in float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False)


class BatchLoss(nn.Module):
    """The loss of a batch as a forward pass, which is where DistributedDataParallel averages the gradients.

    Args:
        model: any registered model.
        bfloat16: see `autocast`.
    """

    def __init__(self, model: nn.Module, bfloat16: bool) -> None:
        super().__init__()
        self.model, self.in_bfloat16 = model, bfloat16

    def forward(self, images: Tensor, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the loss and its terms, and what else the model observed.

        Args:
            images: [B, 3, H, W] in 0..1.
            step: of the annealing.

        Returns:
            `loss` and every term by name, [B] each; and `Losses.observed`, [B] each.
        """
        with autocast(images.device, self.in_bfloat16):
            losses: Losses = self.model.loss(images, step)[0]  # type: ignore[operator]
            return {"loss": losses.total, **losses.terms}, losses.observed


def check_finite(total: Tensor, losses: dict[str, Tensor], step: int) -> None:
    """Check the mean loss of a batch, in all processes alike.

    Args:
        total: the mean loss.
        losses: `loss` and its terms, [B] each.
        step: for the message.

    Raises:
        TrainingError: it is not finite in one of the processes; the message names the terms that are not.
    """
    if torch.isfinite(mean_over_processes(total.detach())):
        return
    means = {name: float(mean_over_processes(term.detach().double().mean())) for name, term in losses.items()}
    del means["loss"]
    cause = " and ".join(name for name, mean in means.items() if not math.isfinite(mean)) or "the weighted total"
    shown = ", ".join(f"{name} {mean:.6g}" for name, mean in means.items())
    raise TrainingError(f"step {step:,}: the loss is not finite, because of {cause} ({shown}). {RESUME_HINT}")
