"""batches: every epoch a permutation, a step's scenes a function of (seed, step), and errors as what they were."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unscene.data.batches import BatchDataset, StepSampler, ordered_batches, training_batches
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.errors import DataError, RecipeError

SCENES = MultiDSprites(MultiDSpritesSettings(count=10, size=16))


def steps(number: int, **settings: int) -> list[list[int]]:
    return [batch.tolist() for batch in islice(StepSampler(**settings), number)]


@given(st.integers(1, 40), st.integers(1, 8), st.integers(0, 5), st.integers(0, 2))
def test_an_epoch_shows_every_scene_at_most_once(count, batch_size, seed, epoch):
    batch_size = min(batch_size, count)
    per_epoch = count // batch_size
    batches = steps(per_epoch, count=count, batch_size=batch_size, seed=seed, first_step=epoch * per_epoch)
    shown = [scene for batch in batches for scene in batch]
    assert all(len(batch) == batch_size for batch in batches)
    assert len(set(shown)) == len(shown) == per_epoch * batch_size
    assert set(shown) <= set(range(count))


def test_epochs_and_seeds_differ():
    first, second = (steps(1, count=50, batch_size=50, seed=0, first_step=step)[0] for step in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert steps(1, count=50, batch_size=50, seed=1)[0] != first


@given(st.integers(0, 30))
def test_a_resumed_sampler_continues_the_same_order(step):
    unbroken = steps(36, count=23, batch_size=4, seed=3)
    assert steps(36 - step, count=23, batch_size=4, seed=3, first_step=step) == unbroken[step:]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_processes_share_the_batch(world):
    whole = steps(7, count=20, batch_size=6, seed=1)
    shares = [steps(7, count=20, batch_size=6, seed=1, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert all(len(part) == 6 // world for part in parts)
        assert sorted(scene for part in parts for scene in part) == sorted(batch)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(RecipeError, match=r"trainer\.batch_size is 11, but there are only 10 images: lower it"):
        StepSampler(10, 11, 0)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(RecipeError, match=r"batch_size 10 cannot be shared by 3 processes: choose a multiple of 3"):
        StepSampler(100, 10, 0, world=3)


def test_a_batch_holds_the_scenes_of_its_indices():
    batch = BatchDataset(SCENES)[np.array([7, 2])]
    expected = SCENES.batch([7, 2])
    assert sorted(batch) == ["boxes", "image", "labels"]
    assert torch.equal(batch["image"], torch.from_numpy(expected["image"]))
    assert torch.equal(batch["labels"], torch.from_numpy(expected["labels"]))
    assert torch.equal(batch["boxes"], torch.from_numpy(expected["boxes"]))


def test_training_batches_follow_the_sampler():
    sampler = StepSampler(10, 3, seed=0)
    loaded = [batch["image"] for batch in islice(training_batches(SCENES, sampler, workers=0), 5)]
    expected = [torch.from_numpy(SCENES.batch(indices)["image"]) for indices in islice(sampler, 5)]
    assert all(torch.equal(a, b) for a, b in zip(loaded, expected, strict=True))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ordered_batches_show_the_first_scenes_once(world):
    shares = [torch.cat([b["image"] for b in ordered_batches(SCENES, 8, 3, rank, world)]) for rank in range(world)]
    expected = torch.from_numpy(SCENES.batch(range(8))["image"])
    assert all(torch.equal(share, expected[rank::world]) for rank, share in enumerate(shares))
    assert sum(len(share) for share in shares) == 8


class Damaged:
    """A source whose images cannot be read."""

    def __len__(self) -> int:
        return 8

    def batch(self, indices):
        raise DataError("photo.jpg cannot be read.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_error_keeps_its_type_and_message(workers):
    with pytest.raises(DataError) as caught:
        next(iter(training_batches(Damaged(), StepSampler(8, 4, 0), workers)))
    assert str(caught.value) == "photo.jpg cannot be read."  # no traceback of the process that loads data
