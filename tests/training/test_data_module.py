"""data_module: how many processes load data, and what they are asked for."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch

from unscene.training import data_module
from unscene.training.data_module import SceneData, default_workers


@pytest.mark.parametrize(
    ("cores", "on_gpu", "processes", "workers"),
    [
        (2, False, 1, 0),
        (64, False, 1, 0),
        (1, True, 1, 0),
        (2, True, 1, 1),
        (16, True, 1, 8),
        (16, True, 4, 3),
        (8, True, 8, 0),
    ],
)
def test_workers_take_what_cores_the_training_leaves(monkeypatch, cores, on_gpu, processes, workers):
    monkeypatch.setattr(data_module, "_cores", lambda: cores)
    assert default_workers(on_gpu, processes) == workers


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_are_those_that_this_process_may_use():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert default_workers(on_gpu=True) == 0
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def asked(monkeypatch, tiny):
    """`asked("cuda", {...})`: what the training's batches are asked for."""
    seen: dict = {}

    def batches(source, sampler, workers, prefetch, pin_memory):
        seen.update(workers=workers, prefetch=prefetch, pin_memory=pin_memory, share=next(iter(sampler)).tolist())

    monkeypatch.setattr(data_module, "training_batches", batches)
    monkeypatch.setattr(data_module, "_cores", lambda: 16)

    def ask(device: str, changes: dict | None = None) -> dict:
        recipe = tiny(changes)
        data = SceneData(recipe, recipe.source(), recipe.source("validation"), 0)
        data.trainer = SimpleNamespace(
            strategy=SimpleNamespace(root_device=torch.device(device)), num_devices=2, global_rank=1, world_size=2
        )
        data.train_dataloader()
        return seen

    return ask


def test_a_cpu_draws_its_scenes_itself(asked):
    seen = asked("cpu")
    assert (seen["workers"], seen["pin_memory"]) == (0, False)
    assert len(seen["share"]) == 2


def test_a_gpu_has_workers_and_pinned_memory(asked):
    assert asked("cuda") | {"share": None} == {"workers": 7, "prefetch": 4, "pin_memory": True, "share": None}


def test_workers_and_prefetch_can_be_set(asked):
    seen = asked("cuda", {"trainer.workers": 3, "trainer.prefetch": 9})
    assert (seen["workers"], seen["prefetch"]) == (3, 9)


def test_cores_that_srun_has_parted_are_a_tasks_own(asked, monkeypatch):
    for name, value in {"NTASKS": "2", "JOB_NAME": "train", "CPUS_PER_TASK": "16"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert asked("cuda")["workers"] == 8
