"""Where a training runs: device, processes on this machine, machines, and what makes them compute as one would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.plugins import LayerSync
from torch import nn

from unscene.distributed.processes import processes_started, started_by_srun
from unscene.distributed.sync_batch_norm import synchronise_batch_norm
from unscene.errors import RecipeError
from unscene.runs.trainer_settings import TrainerSettings


@dataclass(frozen=True)
class Placement:
    """Where a training runs.

    Attributes:
        device: `cuda` or `cpu`.
        processes: on this machine; one device each.
        machines: that train together.
    """

    device: str
    processes: int
    machines: int

    @classmethod
    def of(cls, settings: TrainerSettings) -> Placement:
        """What the settings ask for here; with `devices` auto, what torchrun or srun have started.

        Raises:
            RecipeError: a GPU is asked for, but there is none.
        """
        on_gpu = torch.cuda.is_available()
        if settings.accelerator == "gpu" and not on_gpu:
            raise RecipeError("trainer.accelerator is gpu, but PyTorch finds no GPU here. Set it to auto or cpu.")
        device = "cuda" if on_gpu and settings.accelerator != "cpu" else "cpu"
        started = processes_started()
        if settings.devices != "auto":
            return cls(device, settings.devices, settings.num_nodes)
        if started is not None:
            return cls(device, *started)
        return cls(device, torch.cuda.device_count() if device == "cuda" else 1, settings.num_nodes)

    def options(self, settings: TrainerSettings) -> dict[str, Any]:
        """What Lightning's Trainer is told of it.

        Args:
            settings: of the strategy.

        Raises:
            RecipeError: srun started several processes, but it was not said how many a machine.
        """
        plugins: list[Any] = [SynchronisedLayers(self.device)]
        if started_by_srun():
            try:
                plugins.append(SLURMEnvironment(auto_requeue=False))  # last.ckpt is ours, and the job's script requeues
            except RuntimeError as error:
                raise RecipeError(f"srun's processes cannot train together: {error}") from error
        return {
            "accelerator": self.device,
            "devices": self.processes,
            "num_nodes": self.machines,
            "strategy": settings.strategy,
            "plugins": plugins,
        }


class SynchronisedLayers(LayerSync):
    """Lightning's way of batch normalisation over all processes, with ours where PyTorch's does not work.

    Args:
        device: `cuda` or `cpu`.
    """

    def __init__(self, device: str) -> None:
        self.device = device

    def apply(self, model: nn.Module) -> nn.Module:
        """Convert the layers before several processes train."""
        return synchronise_batch_norm(model, self.device)

    def revert(self, model: nn.Module) -> nn.Module:
        """Leave them: in one process they are nn.BatchNorm2d."""
        return model
