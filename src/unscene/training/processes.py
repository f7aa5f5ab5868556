"""Which of a training's processes this is; only the first one writes files."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process writes the run's folder: all but the first of a distributed training do not.

    Lightning, torchrun and SLURM say so in the environment, before any process group exists.
    """
    rank = next((os.environ[name] for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID") if name in os.environ), "0")
    return int(rank) == 0 and int(os.environ.get("NODE_RANK", "0")) == 0
