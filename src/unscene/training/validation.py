"""One validation: metrics against the truth where it is known, and the health, over all processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unscene.distributed.noise import place_among_processes
from unscene.metrics import Metric, new_metric
from unscene.metrics.health import Health
from unscene.scene import Scene

MAX_BATCH = 32  # images at once: on every machine a validation needs no more memory than a training step
SCORE = "val/score"
_DEFAULT_METRICS = ("ari_fg", "ari_fg_objects", "ari", "box_ap", "reconstruction")
_METRIC_OF_SCORE = {"map_50": "box_ap", "located": "object_locations"}  # where the names differ


@dataclass(frozen=True)
class ValidationResult:
    """What a validation found.

    Attributes:
        scores: by name, `val/ari_fg` ...; `val/score` chooses the best checkpoint, higher is better.
        health: of the same images.
    """

    scores: dict[str, float]
    health: Health


@contextmanager
def evaluating(model: nn.Module, autocast: torch.autocast) -> Iterator[None]:
    """The model in evaluation mode, without gradients. Training mode and random numbers are restored on exit, so that
    the training does not depend on when a validation was due.

    Args:
        model: in training mode.
        autocast: the precision of the training.
    """
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), autocast:
            yield
    finally:
        model.train()


def validate(
    model: nn.Module, batches: Iterable[dict[str, Tensor]], keep_best_by: str, device: torch.device
) -> ValidationResult:
    """Score a model.

    Args:
        model: in evaluation mode; see `evaluating`.
        batches: this process's share of the validation.
        keep_best_by: the score that chooses the best checkpoint. Where it is not applicable, minus the reconstruction's
            error is the score.
        device: of the model.

    Returns:
        The result over the images of all processes, the same in each of them.
    """
    metric_name = _METRIC_OF_SCORE.get(keep_best_by, keep_best_by)
    metrics = [new_metric(name) for name in dict.fromkeys([*_DEFAULT_METRICS, metric_name])]
    health = Health()
    for cpu_batch in batches:
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in cpu_batch.items()}
        scene = Scene.from_batch(batch)
        decomposition = model(scene.images)
        for metric in metrics:
            metric.update(scene, decomposition)
        health.update(decomposition)
    metrics, health = _merge_over_processes(metrics, health)
    computed = [item for metric in metrics for item in metric.compute().items()]
    scores = {name: value for name, value in computed if isinstance(value, float)}  # counts are no curves
    score = scores.get(keep_best_by, -scores["reconstruction_mse"])
    return ValidationResult({f"val/{name}": value for name, value in scores.items()} | {SCORE: score}, health)


def _merge_over_processes(metrics: list[Metric], health: Health) -> tuple[list[Metric], Health]:
    """Merge what all processes counted, in the order of their ranks."""
    world = place_among_processes()[1]
    if world == 1:
        return metrics, health
    gathered: list[Any] = [None] * world
    torch.distributed.all_gather_object(gathered, (metrics, health))
    (metrics, health), *others = gathered
    for other_metrics, other_health in others:
        for metric, other in zip(metrics, other_metrics, strict=True):
            metric.merge(other)
        health.merge(other_health)
    return metrics, health
