"""The order of the data: (seed, step) determines the scenes of a step, so a resumed run sees the same scenes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from unscene.data import Source
from unscene.distributed.processes import leave_to_parent
from unscene.errors import RecipeError, UnsceneError


class StepSampler(Sampler[NDArray[np.int64]]):
    """Yields the indices of one batch for each step, from `first_step`, without end, for a source of `count` scenes.

    `seed` gives each epoch a new permutation. Scenes at its end that do not fill a batch are left out. `batch_size`
    counts the scenes of all `world` processes; process `rank` takes every world-th scene of a batch. RecipeError: the
    batch is larger than the data, or cannot be shared evenly.
    """

    def __init__(
        self, count: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        if batch_size > count:
            raise RecipeError(f"trainer.batch_size is {batch_size}, but there are only {count} images: lower it.")
        if batch_size % world:
            message = f"trainer.batch_size {batch_size} cannot be shared by {world} processes"
            raise RecipeError(f"{message}: choose a multiple of {world}.")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.first_step, self.rank, self.world = first_step, rank, world

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        per_epoch = self.count // self.batch_size
        step, ordered_epoch, order = self.first_step, -1, np.empty(0, np.int64)
        while True:
            epoch, position = divmod(step, per_epoch)
            if epoch != ordered_epoch:
                ordered_epoch, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.count)
            yield order[position * self.batch_size : (position + 1) * self.batch_size][self.rank :: self.world]
            step += 1


def consecutive_frames(
    frames: int, clip_length: int, batch_size: int, seed: int, first_step: int = 0, rank: int = 0, world: int = 1
) -> Iterator[NDArray[np.int64]]:
    """Yield batches as `StepSampler`, whose second half are the frames after those of the first half, in their clips.

    Raises:
        RecipeError: the data has no clips, the batch is odd, or as `StepSampler`.
    """
    if clip_length < 2 or batch_size % 2:
        raise RecipeError(
            "trainer.temporal needs frames of clips and an even trainer.batch_size, but the clips have "
            f"{clip_length} frame{'s' * (clip_length > 1)} and the batch size is {batch_size}. Set both weights of "
            "trainer.temporal to 0, or give data with clips."
        )
    starts = np.arange(frames - 1)
    starts = starts[(starts + 1) % clip_length > 0]
    for chosen in StepSampler(len(starts), batch_size // 2, seed, first_step, rank, world):
        yield np.concatenate([starts[chosen], starts[chosen] + 1])


class BatchDataset(Dataset[dict[str, Any]]):
    """A source whose items are batches of tensors: `image`, `labels` and `boxes`, for `Scene.from_batch`."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        try:
            sample = self.source.batch(indices)
        except UnsceneError as error:
            if get_worker_info() is None:
                raise
            return {"error": error}  # if a worker raised it, PyTorch would add the traceback to its message
        return {name: torch.from_numpy(sample[name]) for name in ("image", "labels", "boxes") if name in sample}


def training_batches(
    source: Source, sampler: Iterable[NDArray[np.int64]], workers: int, prefetch: int = 4, pin_memory: bool = False
) -> Iterator[dict[str, Tensor]]:
    """Return the training's batches, one for each step.

    `workers` processes (0: this one) read them and keep `prefetch` batches ready. With `pin_memory` a GPU copies a
    batch while it computes.
    """
    loader = DataLoader(
        BatchDataset(source),
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=leave_to_parent,
    )
    return _checked(loader)


def ordered_batches(
    source: Source, count: int, batch_size: int, rank: int = 0, world: int = 1
) -> Iterator[dict[str, Tensor]]:
    """The first `count` scenes of a source once, in order; process `rank` of `world` takes every world-th scene."""
    own = np.arange(rank, count, world)
    slices = [own[first : first + batch_size] for first in range(0, len(own), batch_size)]
    return _checked(DataLoader(BatchDataset(source), sampler=slices, batch_size=None))


def _checked(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Tensor]]:
    """A loader's batches; an error of a worker is raised here with its own type and message."""
    for batch in loader:
        if "error" in batch:
            raise batch["error"]
        yield batch
