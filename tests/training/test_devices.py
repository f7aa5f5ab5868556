"""placement: how many processes train, on what, and what Lightning is told of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from unscene.distributed.sync_batch_norm import SynchronisedBatchNorm2d
from unscene.errors import RecipeError
from unscene.models import model_class
from unscene.runs.trainer_settings import TrainerSettings
from unscene.training.devices import Placement, SynchronisedLayers

IMAGE_WIDE = {"model.vae.encoder_region": "image", "model.vae.decoder_region": "image"}  # as detection's absence asks
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"}
SLURM = {"SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.fixture
def machine(monkeypatch):
    """`machine(gpus, environment)` is what this one then seems to be."""
    for name in TORCHRUN | SLURM:
        monkeypatch.delenv(name, raising=False)

    def seem(gpus: int, environment: dict[str, str] | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        for name, value in (environment or {}).items():
            monkeypatch.setenv(name, value)

    return seem


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
        (0, TORCHRUN, {"devices": 1}, ("cpu", 1, 1)),  # which Lightning will refuse in words
        (0, SLURM, {}, ("cpu", 4, 2)),
        (0, SLURM | {"SLURM_JOB_NAME": "interactive"}, {}, ("cpu", 1, 1)),
        (0, SLURM | TORCHRUN, {}, ("cpu", 2, 3)),  # srun torchrun ...
    ],
)
def test_processes_are_those_that_were_started(machine, gpus, environment, settings, expected):
    machine(gpus, environment)
    assert Placement.of(TrainerSettings(**settings)) == Placement(*expected)


def test_a_gpu_that_is_not_there_is_refused(machine):
    machine(0)
    with pytest.raises(RecipeError, match=r"trainer\.accelerator is gpu, but PyTorch finds no GPU here"):
        Placement.of(TrainerSettings(accelerator="gpu"))


@pytest.mark.parametrize(("processes", "strategy"), [(1, "auto"), (1, "ddp"), (2, "auto")])
def test_lightning_is_told_of_devices_machines_and_strategy(machine, processes, strategy):
    machine(0)
    settings = TrainerSettings(devices=processes, strategy=strategy)
    options = Placement.of(settings).options(settings)
    assert (options["accelerator"], options["devices"], options["num_nodes"]) == ("cpu", processes, 1)
    assert options["strategy"] == strategy


@pytest.mark.parametrize("kind", ["unet", "lite", "roi_align"])
@pytest.mark.parametrize("detection", [True, False])
def test_no_parameter_is_idle_with_detection_or_without(tiny, kind, detection):
    settings = tiny(IMAGE_WIDE | {"model.detection": detection, "model.head.kind": kind}).model
    model = model_class("rmonet")(settings)
    model.loss(torch.rand(2, 3, 32, 32), 0)[0].total.mean().backward()
    assert not [name for name, each in model.named_parameters() if each.grad is None]


def test_slurms_tasks_are_not_requeued_by_lightning(machine, tiny):
    machine(0, SLURM)
    settings = TrainerSettings()
    plugins = Placement.of(settings).options(settings)["plugins"]
    assert [plugin.auto_requeue for plugin in plugins if hasattr(plugin, "auto_requeue")] == [False]


def test_slurms_tasks_without_their_number_a_machine_are_refused_in_words(machine, tiny, monkeypatch):
    machine(0, {name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"})
    settings = TrainerSettings()
    with pytest.raises(RecipeError, match="ntasks-per-node"):
        Placement.of(settings).options(settings)


def test_layers_are_synchronised_for_their_device():
    def made() -> nn.Module:
        return nn.Sequential(nn.BatchNorm2d(2))

    assert isinstance(SynchronisedLayers("cpu").apply(made())[0], SynchronisedBatchNorm2d)
    layers = SynchronisedLayers("cuda")
    assert isinstance(layers.revert(layers.apply(made()))[0], nn.SyncBatchNorm)
