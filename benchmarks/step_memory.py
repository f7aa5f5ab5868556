"""The memory of a few training steps, taken in a process of their own.

The process is new, since one that has worked keeps memory. On a CPU its peak is the kernel's count of its resident
pages (`VmHWM`): `ru_maxrss`, the portable number, begins with what the *parent* held when it started the child.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.recipe_step import RecipeStep, add_set_option, recipe_to_measure
from unscene.errors import TrainingError, UnsceneError
from unscene.ops.cpu_tuning import tune_cpu

ROOT = Path(__file__).resolve().parents[1]
FULL, KILLED = 3, -9  # what the process returns where its device's memory did not suffice; where the system ended it


@dataclass(frozen=True)
class StepMemory:
    """What a few training steps took.

    Attributes:
        batch_size: images a step.
        peak: bytes at most: of the process, on a GPU of PyTorch's tensors. None where there was not so much.
        baseline: bytes of the process before the model was built; 0 on a GPU.
    """

    batch_size: int
    peak: int | None
    baseline: int = 0

    @property
    def step(self) -> int | None:
        """Bytes of model, optimiser, gradients and activations; None as `peak`."""
        return None if self.peak is None else self.peak - self.baseline

    def fits(self, limit: float) -> bool:
        """Whether all of it stays within a limit, in bytes."""
        return self.peak is not None and self.peak <= limit


def step_memory(
    recipe: str, batch_size: int, changes: Sequence[str] = (), device: str = "cpu", threads: int = 0, steps: int = 3
) -> StepMemory:
    """Measure in a new process.

    Args:
        recipe: its name, or the path of a YAML file.
        batch_size: images a step; 0: the recipe's.
        changes: of the recipe's settings, as `model.num_slots=7`.
        device: `cpu` or `cuda`.
        threads: of the CPU; 0: PyTorch's choice.
        steps: at least 2: the first makes the optimiser's state, the next has the gradients of the one before, too.

    Raises:
        TrainingError: the process failed for another reason than too little memory; its last words are the message's.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.step_memory",
        recipe,
        str(batch_size),
        device,
        str(threads),
        str(steps),
    ]
    command += [word for change in changes for word in ("--set", change)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode in (FULL, KILLED):
        return StepMemory(batch_size, None)
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"the memory of {recipe} at batch {batch_size} could not be measured: {last}")
    return StepMemory(**json.loads(ran.stdout.splitlines()[-1]))


def resident_bytes(peak: bool = False) -> int:
    """Bytes of memory that this process holds, or at most held."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # where there is no /proc: macOS counts in bytes
    return most if sys.platform == "darwin" else most * 1024


def _measured(options: argparse.Namespace) -> StepMemory:
    if options.threads:
        torch.set_num_threads(options.threads)
    tune_cpu()
    recipe = recipe_to_measure(options.recipe, options.set)
    on_gpu = torch.device(options.device).type == "cuda"
    baseline = 0 if on_gpu else resident_bytes()
    step = RecipeStep(recipe, options.batch, options.device)
    for _ in range(options.steps):
        step()
    peak = torch.cuda.max_memory_allocated() if on_gpu else resident_bytes(peak=True)
    return StepMemory(step.batch_size, peak, baseline)


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.step_memory", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("recipe")
    parser.add_argument("batch", type=int)
    parser.add_argument("device")
    parser.add_argument("threads", type=int)
    parser.add_argument("steps", type=int)
    add_set_option(parser)
    try:
        print(json.dumps(asdict(_measured(parser.parse_args()))))
    except torch.OutOfMemoryError:
        sys.exit(FULL)
    except UnsceneError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    _main()
