"""devices: how many processes train, on what, and how many load their data."""

from __future__ import annotations

import os

import pytest
import torch

from unscene.distributed.processes import is_first_process
from unscene.errors import RecipeError
from unscene.models import model_class
from unscene.runs.trainer_settings import TrainerSettings
from unscene.training import devices
from unscene.training.devices import DeviceSetup, build_fabric, launch, loader_workers

IMAGE_WIDE = {"model.vae.encoder_region": "image", "model.vae.decoder_region": "image"}  # as detection's absence asks
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
ALLOCATION = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}
SLURM = ALLOCATION | {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}  # srun's


@pytest.fixture
def machine(monkeypatch):
    """`machine(gpus, environment)` imitates a machine with so many GPUs and such an environment."""
    for name in TORCHRUN | SLURM:
        monkeypatch.delenv(name, raising=False)

    def imitate(gpus: int, environment: dict[str, str] | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)

    return imitate


@pytest.mark.parametrize(
    ("gpus", "environment", "settings", "expected"),
    [
        (0, {}, {}, ("cpu", 1, 1)),
        (0, {}, {"devices": 3}, ("cpu", 3, 1)),
        (4, {}, {}, ("cuda", 4, 1)),
        (4, {}, {"num_nodes": 2}, ("cuda", 4, 2)),
        (4, {}, {"accelerator": "cpu"}, ("cpu", 1, 1)),
        (0, TORCHRUN, {}, ("cpu", 2, 3)),
        (4, TORCHRUN, {}, ("cuda", 2, 3)),
        (0, TORCHRUN, {"devices": 1}, ("cpu", 1, 1)),  # which Fabric refuses in words
        (0, SLURM, {}, ("cpu", 4, 2)),
        (0, SLURM | {"SLURM_JOB_NAME": "interactive"}, {}, ("cpu", 1, 1)),
        (0, SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, {}, ("cpu", 1, 1)),  # the shell of salloc
        (0, ALLOCATION, {}, ("cpu", 1, 1)),
        (0, SLURM | TORCHRUN, {}, ("cpu", 2, 3)),  # srun torchrun ...
    ],
)
def test_processes_are_those_that_were_started(machine, gpus, environment, settings, expected):
    machine(gpus, environment)
    assert DeviceSetup.from_settings(TrainerSettings(**settings)) == DeviceSetup(*expected)


def test_missing_gpu_is_refused(machine):
    machine(0)
    with pytest.raises(RecipeError, match=r"trainer\.accelerator is gpu, but PyTorch finds no GPU here"):
        DeviceSetup.from_settings(TrainerSettings(accelerator="gpu"))


@pytest.mark.parametrize(("processes", "strategy"), [(1, "auto"), (1, "ddp"), (2, "auto")])
def test_fabric_gets_devices_and_strategy(machine, processes, strategy):
    machine(0)
    fabric = build_fabric(TrainerSettings(devices=processes, strategy=strategy))
    assert (fabric.device.type, fabric.strategy.num_processes if processes > 1 else 1) == ("cpu", processes)
    assert ("DDP" in type(fabric.strategy).__name__) == (strategy == "ddp" or processes > 1)


def test_an_allocation_without_srun_trains_in_one_process(machine):
    machine(0, ALLOCATION | {"SLURM_PROCID": "3", "SLURM_LOCALID": "3"})
    assert is_first_process()
    fabric = build_fabric(TrainerSettings())
    launch(fabric)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
@pytest.mark.parametrize("detection", [True, False])
def test_every_parameter_has_a_gradient_with_and_without_detection(tiny, kind, detection):
    settings = tiny(IMAGE_WIDE | {"model.detection": detection, "model.head.kind": kind}).model
    model = model_class("rmonet")(settings)
    model.loss(torch.rand(2, 3, 32, 32), 0)[0].total.mean().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


REFUSED = "the machine cannot do what the trainer's settings ask for"


def test_slurm_without_tasks_per_node_is_refused(machine):
    machine(0, {name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"})
    with pytest.raises(RecipeError, match=f"{REFUSED}.*ntasks-per-node"):
        build_fabric(TrainerSettings())


def test_devices_other_than_torchruns_processes_are_refused(machine):
    machine(0, TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0"})
    fabric = build_fabric(TrainerSettings(devices=3))
    with pytest.raises(RecipeError, match=REFUSED):
        launch(fabric)


@pytest.mark.parametrize(
    ("cores", "gpus", "settings", "workers"),
    [
        (2, 0, {}, 0),
        (64, 0, {}, 0),
        (1, 1, {}, 0),
        (2, 1, {}, 1),
        (16, 1, {}, 8),
        (16, 4, {}, 3),
        (8, 8, {}, 0),
        (16, 2, {}, 7),
        (16, 2, {"accelerator": "cpu", "devices": 2}, 0),
        (16, 2, {"workers": 3}, 3),
    ],
)
def test_default_number_of_workers(machine, monkeypatch, cores, gpus, settings, workers):
    machine(gpus)
    monkeypatch.setattr(devices, "_available_cores", lambda: cores)
    assert loader_workers(TrainerSettings(**settings)) == workers


def test_cores_of_an_srun_task_are_not_shared(machine, monkeypatch):
    machine(2, SLURM | {"SLURM_CPUS_PER_TASK": "16"})
    monkeypatch.setattr(devices, "_available_cores", lambda: 16)
    assert loader_workers(TrainerSettings()) == 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_workers_follow_the_cpu_affinity(machine):
    machine(1)
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert loader_workers(TrainerSettings()) == 0
    finally:
        os.sched_setaffinity(0, before)


def test_more_processes_than_cores_are_refused_on_a_cpu(machine, monkeypatch):
    machine(0)
    monkeypatch.setattr(devices, "_available_cores", lambda: 2)
    assert DeviceSetup.from_settings(TrainerSettings(devices=8)).processes == 8
    with pytest.raises(RecipeError, match=r"trainer\.devices is 9, .* 2 cores here\. Set it to 8 or fewer"):
        DeviceSetup.from_settings(TrainerSettings(devices=9))
    monkeypatch.setattr(devices, "_available_cores", lambda: 64)
    assert DeviceSetup.from_settings(TrainerSettings(devices=64)).processes == 64
    machine(2)
    assert DeviceSetup.from_settings(TrainerSettings(devices=9)).processes == 9  # Fabric knows the GPUs
