"""The processes of a training: which one this is, what started them, and their mean."""

from __future__ import annotations

import os
import signal

import torch
from torch import Tensor

from unscene.distributed.noise import place_among_processes

_NAMES = ("SIGINT", "SIGTERM", "SIGUSR1")  # Windows has no third
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))  # each ends a training in order


def is_first_process() -> bool:
    """Whether this process writes the run's folder: all but the first of a distributed training do not.

    Lightning, torchrun and SLURM say so in the environment, before any process group exists.
    """
    rank = next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), "0")
    return int(rank) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


def started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def started_by_srun() -> bool:
    """Whether SLURM's srun started this process, as one of a batch job; srun's interactive shells do not count."""
    named = os.environ.get("SLURM_JOB_NAME")
    return "SLURM_NTASKS" in os.environ and named not in ("bash", "interactive") and not started_by_torchrun()


def processes_started() -> tuple[int, int] | None:
    """Processes on this machine, and machines, as torchrun or srun started them; None where neither did."""
    environment = os.environ
    if started_by_torchrun():
        here = int(environment["LOCAL_WORLD_SIZE"])
        return here, int(environment["WORLD_SIZE"]) // here
    if started_by_srun():
        machines = int(environment.get("SLURM_NNODES", "1"))
        return int(environment.get("SLURM_NTASKS_PER_NODE", int(environment["SLURM_NTASKS"]) // machines)), machines
    return None


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes of the training, alike in each of them."""
    world = place_among_processes()[1]
    if world == 1:
        return values
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total / world


def leave_to_parent(worker: int) -> None:
    """In a process that loads data, leave the signals to the process that trains."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
