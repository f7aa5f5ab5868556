from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from unscene.ops.cpu_tuning import tune_cpu

STEPS = """
import resource, sys, torch
from unscene.ops.cpu_tuning import tune_cpu
if sys.argv[1] == "tuned":
    tune_cpu()
def step():
    for _ in range(3):
        torch.ones(4_000_000).add_(1)  # 16 MB, freed at once
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    return int(subprocess.run([sys.executable, "-c", STEPS, how], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep freed memory")
def test_freed_memory_is_kept_for_the_next_tensor():
    """Fifteen tensors of 3,900 pages: asked for anew each time, or found where the last one was."""
    assert page_faults("tuned") < 1000
    assert page_faults("as it is") > 15 * 200  # at least huge pages' worth, and 58,000 without them


def test_denormal_numbers_are_flushed():
    tune_cpu()
    assert (torch.full((8,), 1e-30) * 1e-12).abs().max() == 0
