"""How fast several models decompose the same images, measured side by side."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_ROUNDS, _FEWEST = 15, 3
_SECONDS = 10.0  # for each model; then no further round begins


def interleaved_timings(models: Sequence[LoadedModel], images: Tensor) -> list[list[float]]:
    """Return the seconds that each model takes for a batch, a number a round.

    A shared machine is now fast, now slow: so all models take their turn in every round, after one that warms up.

    Args:
        models: at least one, all of the images' size.
        images: [B, 3, H, W] in 0..1, decomposed at once.
    """
    for model in models:
        model.decompose(images, batch_size=len(images))
    seconds: list[list[float]] = [[] for _ in models]
    until = perf_counter() + _SECONDS * len(models)
    while len(seconds[0]) < _ROUNDS and (len(seconds[0]) < _FEWEST or perf_counter() < until):
        for model, taken in zip(models, seconds, strict=True):
            began = perf_counter()
            model.decompose(images, batch_size=len(images))
            taken.append(perf_counter() - began)
    return seconds
