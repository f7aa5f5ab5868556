"""One validation: metrics against the truth where it is known, the health, and a figure of the same few scenes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from unscene.distributed.processes import rank_and_world
from unscene.files import write_bytes, write_text
from unscene.metrics import Metric, new_metric
from unscene.metrics.health import Health
from unscene.report.slots import sample_figure
from unscene.runs.run_folder import RunFolder
from unscene.scene import Decomposition, Scene

MAX_BATCH = 32  # images in one batch: a validation needs no more memory than a training step
SCORE = "val/score"  # chooses the best checkpoint; higher is better
_DEFAULT_METRICS = ("ari_fg", "ari_fg_objects", "ari", "box_ap", "reconstruction")
_METRIC_OF_SCORE = {"map_50": "box_ap", "located": "object_locations"}  # where the names differ


@contextmanager
def evaluating(model: nn.Module, autocast: torch.autocast) -> Iterator[None]:
    """Evaluate without gradients; then restore training mode and random numbers, as if no validation had been due."""
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), autocast:
            yield
    finally:
        model.train()


def validate(
    model: nn.Module, batches: Iterable[dict[str, Tensor]], keep_best_by: str, device: torch.device
) -> tuple[dict[str, float], Health]:
    """Return scores by name (`val/ari_fg` ...) and the health, over the images of all processes, alike in all of them.

    `batches` are this process's share. `val/score` is the score `keep_best_by`, or where that does not apply
    `val/label_free`, which is `Health.score`; for it a tenth of the images are decomposed once more, mirrored.
    """
    chosen_by = () if keep_best_by == "last" else (_METRIC_OF_SCORE.get(keep_best_by, keep_best_by),)
    metrics = [new_metric(name) for name in dict.fromkeys([*_DEFAULT_METRICS, *chosen_by])]
    health = Health()
    for cpu_batch in batches:
        batch = {name: tensor.to(device, non_blocking=True) for name, tensor in cpu_batch.items()}
        scene = Scene.from_batch(batch)
        decomposition = model(scene.images)
        for metric in metrics:
            metric.update(scene, decomposition)
        few = scene.images[: max(1, len(scene) // 10)]
        health.update(scene.images, decomposition, mirrored=model(few.flip(-1)))
    metrics, health = _merge_over_processes(metrics, health)
    computed = [item for metric in metrics for item in metric.compute().items()]
    scores = {name: value for name, value in computed if isinstance(value, float)}  # counts are no curves
    scores["label_free"] = health.score() or 0.0
    score = scores.get(keep_best_by, scores["label_free"])
    return {f"val/{name}": value for name, value in scores.items()} | {SCORE: score}, health


def _merge_over_processes(metrics: list[Metric], health: Health) -> tuple[list[Metric], Health]:
    """Merge what all processes counted, in the order of their ranks."""
    gathered: list[Any] = [None] * rank_and_world()[1]
    if len(gathered) == 1:
        return metrics, health
    torch.distributed.all_gather_object(gathered, (metrics, health))
    (metrics, health), *others = gathered
    for other_metrics, other_health in others:
        for metric, other in zip(metrics, other_metrics, strict=True):
            metric.merge(other)
        health.merge(other_health)
    return metrics, health


def show_validation(
    run: RunFolder,
    step: int,
    scores: Mapping[str, float],
    health: Health,
    observed: Mapping[str, Tensor],
    images: Tensor,
    decomposition: Decomposition,
) -> None:
    """Write the sample figure of images [B, 3, H, W] and health.txt, and print the scores.

    `observed` are means over the last training batch; the health line ends with them.
    """
    means = (f", {name.replace('_', ' ')} {float(mean):.1f} an image" for name, mean in observed.items())
    verdict = health.verdict() + "".join(means)
    run.make_folders()  # somebody may have removed one
    content = io.BytesIO()
    sample_figure(images, decomposition, f"step {step:,}   {verdict}").savefig(content, format="png")
    write_bytes(run.samples / f"step_{step:07d}.png", content.getbuffer())
    write_text(run.health, f"step {step}: {verdict}\n")
    shown = ", ".join(f"{name.removeprefix('val/')} {value:.3f}" for name, value in scores.items())
    tqdm.write(f"step {step:,}: {shown}\n  health: {verdict}")
