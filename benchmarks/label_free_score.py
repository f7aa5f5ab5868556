"""Does the score that needs no label rank weights as the scores with labels do?

    python -m benchmarks.label_free_score rmonet_unet/multi_dsprites_cpu [RUN_OR_WEIGHTS ...] --noise 0 .05 .1 .2 .3

All models are scored on the same scenes of Multi-dSprites. `--noise` adds Gaussian noise to the kernels of each model,
in shares of their standard deviations, so that one model gives weights of falling quality.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy.stats import spearmanr
from torch import nn

import unscene
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.metrics import new_metric
from unscene.metrics.health import Health
from unscene.scene import Scene

WITHOUT_LABELS, WITH_LABELS = ("label_free", "-mse"), ("ari_fg", "map_50")


def with_noise(model: nn.Module, share: float) -> nn.Module:
    """A copy of a model whose kernels have noise of a share of their own standard deviation."""
    noisy, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in noisy.parameters():
            if weight.ndim > 1:
                weight.add_(share * weight.std() * torch.randn(weight.shape, generator=generator))
    return noisy


def scores(model: nn.Module, batches: Sequence[Scene]) -> dict[str, float]:
    """The scores of a model in evaluation mode on scenes, by name."""
    health, metrics = Health(), [new_metric(name) for name in ("ari_fg", "box_ap", "reconstruction")]
    for batch in batches:
        with torch.no_grad():
            decomposition, mirrored = model(batch.images), model(batch.images.flip(-1))
        health.update(batch.images, decomposition, mirrored)
        for metric in metrics:
            metric.update(batch, decomposition)
    numbers = {
        name: float(value) for metric in metrics for name, value in metric.compute().items() if value is not None
    }
    numbers |= {"label_free": health.score() or 0.0, "-mse": -numbers["reconstruction_mse"]}
    return {name: numbers[name] for name in (*WITHOUT_LABELS, *WITH_LABELS) if name in numbers}


def main(words: Sequence[str] | None = None) -> None:
    """Score, print a table and the rank correlations, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="RUN_OR_WEIGHTS")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0], metavar="SHARE")
    parser.add_argument("--scenes", type=int, default=64)
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/label_free_score.json"))
    arguments = parser.parse_args(words)
    rows = []
    for name in arguments.models:
        loaded = unscene.load(name)
        source = MultiDSprites(MultiDSpritesSettings(count=arguments.scenes, seed=5, size=loaded.size))
        indices = torch.arange(arguments.scenes).split(16)
        batches = [Scene.from_batch(source.batch(part.numpy())) for part in indices]
        for share in arguments.noise:
            rows.append({"model": name, "noise": share} | scores(with_noise(loaded.model, share), batches))
            print(
                "  ".join(
                    f"{key} {value}" if isinstance(value, str) else f"{key} {value:.3f}"
                    for key, value in rows[-1].items()
                )
            )
    correlations = {}
    for free in WITHOUT_LABELS:
        for labelled in WITH_LABELS:
            pairs = [(row[free], row[labelled]) for row in rows if labelled in row]
            if len(pairs) > 2 and all(len(set(column)) > 1 for column in zip(*pairs, strict=True)):
                correlations[f"{free}, {labelled}"] = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    print("\n".join(f"Spearman of {pair}: {value:.2f}" for pair, value in correlations.items()))
    arguments.json.write_text(json.dumps({"rows": rows, "spearman": correlations}, indent=2) + "\n")


if __name__ == "__main__":
    main()
