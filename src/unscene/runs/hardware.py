"""What the machine is and what it is fast at."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

PACKAGES = ("unscene", "torch", "torchvision", "lightning", "numpy", "scipy", "scikit-learn", "pycocotools", "h5py")


def fast_at_bfloat16(device: torch.device | str) -> bool:
    """Whether bfloat16 is faster than float32 there: AMX or AVX512-bf16 on a CPU, compute capability 8 on a GPU."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)


def use_bfloat16(precision: Literal["auto", "bf16", "float32"], device: torch.device | str) -> bool:
    """What a precision setting means on a device."""
    return precision == "bf16" or (precision == "auto" and fast_at_bfloat16(device))


def describe_machine() -> dict[str, Any]:
    """Versions, commit, hardware, command and date, flat and ready for JSON."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": git_commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": platform.platform(),
    }


def cpu_name() -> str:
    """The processor's model name."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_commit() -> str | None:
    """The commit of this source tree, with `-dirty` after it when files differ; None for an installed package."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    return None


def _version(package: str) -> str | None:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return None
