"""processes: which of a distributed training's processes writes, and what they say together."""

from __future__ import annotations

import pytest
import torch

from unscene.distributed import processes
from unscene.distributed.processes import is_first_process, mean_over_processes

NAMES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),  # Lightning's own
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun, second machine
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "2"}, False),
    ],
)
def test_the_environment_says(monkeypatch, environment, first):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


def test_a_mean_over_one_process_is_the_values():
    values = torch.tensor([1.0, 2.0])
    assert mean_over_processes(values) is values


def test_a_mean_over_processes_leaves_this_ones_values(monkeypatch):
    monkeypatch.setattr(processes, "place_among_processes", lambda: (0, 4))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(10.0))
    values = torch.tensor([2.0, 6.0])
    assert mean_over_processes(values).tolist() == [3.0, 4.0]
    assert values.tolist() == [2.0, 6.0]
