"""Where a training runs: its device, the processes that train together, and the processes that load their data."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from unscene.distributed.processes import processes_started, started_by_srun
from unscene.errors import RecipeError
from unscene.runs.trainer_settings import TrainerSettings

_REFUSED = "the machine cannot do what the trainer's settings ask for: {}"
_FEW = 8  # processes, which also fewer cores may train with, for a trial


class DeviceSetup(NamedTuple):
    """Where a training runs: `cuda` or `cpu`, processes on this machine with one device each, and machines."""

    device: str
    processes: int
    machines: int

    @classmethod
    def from_settings(cls, settings: TrainerSettings) -> DeviceSetup:
        """Return what the settings ask for; with `devices` auto, the processes that torchrun or srun have started."""
        on_gpu = torch.cuda.is_available()
        if settings.accelerator == "gpu" and not on_gpu:
            raise RecipeError("trainer.accelerator is gpu, but PyTorch finds no GPU here. Set it to auto or cpu.")
        device = "cuda" if on_gpu and settings.accelerator != "cpu" else "cpu"
        if settings.devices != "auto":
            most = max(_FEW, _available_cores())
            if device == "cpu" and settings.devices > most:
                raise RecipeError(
                    f"trainer.devices is {settings.devices}, each a process, but there are {_available_cores()} cores "
                    f"here. Set it to {most} or fewer."
                )
            return cls(device, settings.devices, settings.num_nodes)
        alone = (torch.cuda.device_count() if device == "cuda" else 1, settings.num_nodes)
        return cls(device, *(processes_started() or alone))


def build_fabric(settings: TrainerSettings) -> Fabric:
    """Return the engine that starts the processes and averages their gradients. It has started none yet.

    Its precision stays float32, since `training.step.autocast` sets that of a training.
    """
    device, processes, machines = DeviceSetup.from_settings(settings)
    # Without this, Fabric takes an allocation of SLURM for processes that srun started, and waits for them.
    environment = None if processes_started() else LightningEnvironment()
    try:
        return Fabric(
            accelerator=device, strategy=settings.strategy, devices=processes, num_nodes=machines, plugins=environment
        )
    except (ValueError, RuntimeError) as error:
        raise RecipeError(_REFUSED.format(error)) from error


def launch(fabric: Fabric) -> None:
    """Start and connect the other processes; a RecipeError if torchrun or srun started another number of them."""
    try:
        fabric.launch()
    except ValueError as error:
        raise RecipeError(_REFUSED.format(error)) from error


def loader_workers(settings: TrainerSettings) -> int:
    """Processes that load data, for each process that trains: `trainer.workers`, or where that is -1 the default.

    The default on a CPU is none, since a step takes far longer than loading its scenes. Beside a GPU it is the cores
    less one, at most eight. The processes of a machine share its cores, unless srun gave every process its own.
    """
    setup = DeviceSetup.from_settings(settings)
    if settings.workers >= 0:
        return settings.workers
    own_cores = started_by_srun() and "SLURM_CPUS_PER_TASK" in os.environ
    cores = _available_cores() // (1 if own_cores else setup.processes)
    return min(8, max(0, cores - 1)) if setup.device == "cuda" else 0


def _available_cores() -> int:
    """Cores that this process may use: a batch system may grant it only some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
