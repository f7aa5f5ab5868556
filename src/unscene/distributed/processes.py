"""The processes of a training: which one this is, what started them, their mean, and noise that they share.

Every process has the same generator in the same state (they are seeded alike), draws the noise of the whole batch, and
takes the rows of its own scenes: the `rank::world` of `data.batches.StepSampler`. So two processes compute what one
computes with the whole batch, a checkpoint of one number of processes serves any other, and a single process draws what
`torch.randn` and `torch.rand` draw. The price is that each process draws the noise, some thousand numbers an image, of
all of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed

# Each ends a training in order. Windows has no SIGUSR1.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))


def rank_and_world() -> tuple[int, int]:
    """The rank of this process and the number of processes in the training: 0 and 1 where it trains alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def shared_noise(draw: Callable[..., Tensor], shape: Sequence[int], **options: Any) -> Tensor:
    """Return this process's rows of the whole batch's noise: `draw(shape, **options)`, for instance of `torch.randn`.

    Every block that draws noise in training draws it here, with the same shape [B, ...] in all processes (B scenes in
    each), so that their generators stay in the same state.
    """
    rank, world = rank_and_world()
    if world == 1:
        return draw(tuple(shape), **options)
    return draw((shape[0] * world, *shape[1:]), **options)[rank::world]


def normal_like(tensor: Tensor) -> Tensor:
    """Standard normal noise of a tensor's shape [B, ...], type and device; see `shared_noise`."""
    return shared_noise(torch.randn, tensor.shape, dtype=tensor.dtype, device=tensor.device)


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes of the training; every process gets it."""
    if (world := rank_and_world()[1]) == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / world


def rows_of_all_processes(rows: Tensor) -> Tensor:
    """The whole batch [world * B, ...] of the training, of the rows [B, ...] that each process has of it."""
    if (world := rank_and_world()[1]) == 1:
        return rows
    shares = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world)]
    distributed.all_gather(shares, rows.contiguous())
    return torch.stack(shares, dim=1).flatten(0, 1)  # as `rank::world` parted it


def is_first_process() -> bool:
    """Whether this process writes the run's folder: all but the first of a distributed training do not.

    Lightning, torchrun and srun set the rank in the environment, before any process group exists.
    """
    names = ("RANK", "LOCAL_RANK", *(["SLURM_PROCID"] if started_by_srun() else []))
    rank = next((os.environ[name] for name in names if name in os.environ), "0")
    return int(rank) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0


def started_by_srun() -> bool:
    """Whether SLURM's srun started this process, as one of a batch job.

    An allocation alone (sbatch or salloc without srun) starts one process, whatever SLURM_NTASKS is, and so does
    srun's interactive shell. Only a step's own variables tell.
    """
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment or environment.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return False
    return "SLURM_STEP_ID" in environment and environment.get("SLURM_STEP_NUM_TASKS") == environment.get("SLURM_NTASKS")


def processes_started() -> tuple[int, int] | None:
    """Processes on this machine, and machines, as torchrun or srun started them; None without either."""
    environment = os.environ
    if "TORCHELASTIC_RUN_ID" in environment:
        here = int(environment["LOCAL_WORLD_SIZE"])
        return here, int(environment["WORLD_SIZE"]) // here
    if started_by_srun():
        machines = int(environment.get("SLURM_NNODES", "1"))
        return int(environment.get("SLURM_NTASKS_PER_NODE", int(environment["SLURM_NTASKS"]) // machines)), machines
    return None


def leave_to_parent(worker: int) -> None:
    """In a process that loads data, leave the signals to the process that trains."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
