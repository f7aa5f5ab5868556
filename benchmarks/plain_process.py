"""The plain reference's training step in a process of its own, as a plain script would run it.

`unscene train` tells the C library to keep freed memory and asks for huge pages (`training/cpu_tuning.py`), which holds
for the whole process: side by side in one, the reference would have it as well, and be a third faster for it than the
script that it stands for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import torch

from benchmarks.plain_step import PlainStep, plain_model
from benchmarks.recipe_step import recipe_to_measure
from unscene.errors import TrainingError

ROOT = Path(__file__).resolve().parents[1]


class PlainProcess:
    """Each call takes one step of the plain reference in the other process and waits for it.

    Args:
        name: of the recipe.
        changes: its settings, as `recipe_to_measure` takes them.
        batch_size: images a step.
        threads: of the CPU.
    """

    def __init__(self, name: str, changes: list[str], batch_size: int, threads: int) -> None:
        words = [sys.executable, "-m", "benchmarks.plain_process", name, str(batch_size), str(threads), *changes]
        environment = os.environ | {"THP_MEM_ALLOC_ENABLE": "0"}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )

    def __call__(self) -> float:
        """Take one step and return the mean loss before it.

        Raises:
            TrainingError: the process has ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print("step", file=self.process.stdin, flush=True)
            return float(self.process.stdout.readline())
        except (BrokenPipeError, ValueError):
            raise TrainingError(
                f"the plain reference's process ended with status {self.process.wait()}; what it said stands above. "
                "Lower --batch, or leave it out with --no-reference."
            ) from None

    def __enter__(self) -> PlainProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def main(words: list[str]) -> None:
    """The other process: a step for every line that comes."""
    name, batch_size, threads, *changes = words
    torch.set_num_threads(int(threads))
    torch.set_flush_denormal(True)  # without this, denormal numbers make a CPU slow
    recipe = recipe_to_measure(name, changes)
    plain = plain_model(recipe)
    if plain is None:
        raise SystemExit(f"{name} has no plain reference.")
    step = PlainStep(plain, recipe, int(batch_size), "cpu")
    for _ in sys.stdin:
        print(float(step()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
