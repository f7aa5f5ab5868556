"""The contract, over every registered metric."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from math import isfinite

import pytest
import torch
from torch import Tensor

from unscene.metrics import METRICS, default_metrics, mean_of_counted, new_metric
from unscene.scene import Decomposition, Scene

BOXES = ("boxes", "box_scores", "box_valid")


def random_batch(
    seed: int, batch: int = 5, num_slots: int = 4, background: int | None = -1
) -> tuple[Scene, Decomposition]:
    """Scenes of two objects; the last one has none. Scores differ, so that COCO's ranking knows no ties."""
    rng = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng)

    labels = torch.randint(0, 3, (batch, 8, 8), generator=rng)
    truth = torch.cat([start := rand(batch, 2, 2) * 3, start + 1 + rand(batch, 2, 2) * 4], dim=-1)
    labels[-1:], truth[-1:] = 0, 0
    foreground = num_slots - (background is not None)
    boxes = truth[:, torch.arange(foreground) % 2] + rand(batch, foreground, 4) * 0.5
    return Scene(rand(batch, 3, 8, 8), labels, truth, torch.tensor([[4, 2]]).expand(batch, 2)), Decomposition(
        torch.randn(batch, num_slots, 1, 8, 8, generator=rng).log_softmax(dim=1),
        rand(batch, num_slots, 3, 8, 8),
        background,
        boxes=boxes,
        box_scores=rand(batch, foreground),
        box_valid=rand(batch, foreground) < 0.8,
        locations=torch.tensor([0.5, 0.5]) + 0.1 * rand(batch, foreground, 2),
    )


def part(batch: tuple[Scene, Decomposition], rows: slice) -> tuple[Scene, Decomposition]:
    scene, decomposition = batch
    fields = (scene.images, scene.labels, scene.boxes, scene.categories)
    return Scene(*(array[rows] for array in fields)), decomposition.map(lambda t: t[rows])


@pytest.fixture(params=METRICS)
def make(request):
    return partial(new_metric, request.param)


def test_numbers_and_values_of_images(make):
    metric = make()
    metric.update(*random_batch(0))
    assert all(value is not None and isfinite(value) for value in metric.compute().values())
    assert len(metric.per_image()) == 5


def test_metric_without_images_is_none(make):
    metric = make()
    assert metric.per_image() == []
    assert set(metric.compute().values()) == {None}
    metric.update(*random_batch(0, batch=0))
    assert metric.per_image() == []
    assert set(metric.compute().values()) == {None}


LABELS, OWN_BOXES, LOCATIONS = "labels", "boxes", "locations"  # of the scene; of the decomposition
NEEDS = {
    "ari_fg": {LABELS},
    "ari_fg_objects": {LABELS},
    "ari": {LABELS},
    "ami_fg": {LABELS},
    "box_ap": {"true boxes", OWN_BOXES},
    "mask_ap": {LABELS, OWN_BOXES},
    "instance_matching": {LABELS},
    "mean_best_overlap": {LABELS},
    "corloc": {"true boxes"},
    "mask_iou": {LABELS},
    "iou_polarity": {LABELS},
    "object_locations": {LABELS, LOCATIONS},
    "reconstruction": set(),
}


def without(batch: tuple[Scene, Decomposition], field: str) -> tuple[Scene, Decomposition]:
    scene, decomposition = batch
    if field in (LABELS, "true boxes"):
        return replace(scene, **{field.removeprefix("true "): None}), decomposition
    return scene, replace(decomposition, **dict.fromkeys(BOXES if field == OWN_BOXES else [field]))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("field", [LABELS, "true boxes", OWN_BOXES, LOCATIONS])
def test_metric_is_not_applicable_only_without_a_field_that_it_needs(name, field):
    full, bare = new_metric(name), new_metric(name)
    full.update(*random_batch(0))
    bare.update(*without(random_batch(0), field))
    if field in NEEDS[name]:
        assert set(bare.compute().values()) == {None}
        assert bare.per_image() == [None] * 5
    else:
        assert bare.compute() == full.compute()


def test_merged_processes_equal_one_process(make):
    everything = random_batch(1, batch=7)
    whole, first, second = make(), make(), make()
    whole.update(*everything)
    for rows in (slice(0, 1), slice(1, 4)):
        first.update(*part(everything, rows))
    second.update(*part(everything, slice(4, 7)))
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-6)
    assert first.per_image() == [value and pytest.approx(value, rel=1e-6) for value in whole.per_image()]


def test_batch_of_one_without_objects_and_with_one_slot_is_never_nan(make):
    for background in (0, None):
        scene, decomposition = random_batch(4, batch=1, num_slots=1, background=background)
        assert not scene.labels.any()
        metric = make()
        metric.update(scene, decomposition)
        values = [*metric.compute().values(), *metric.per_image()]
        assert all(value is None or isfinite(value) for value in values)


def test_default_metrics_are_new_and_have_unique_names():
    first, second = ([*default_metrics().values()] for _ in range(2))
    assert len(first) == len(METRICS)
    assert not {id(metric) for metric in first} & {id(metric) for metric in second}
    names = [name for metric in first for name in metric.compute()]
    assert len(names) == len(set(names))


def test_mean_of_counted_ignores_none():
    assert mean_of_counted([1.0, None, 0.0]) == 0.5
    assert mean_of_counted([None]) is None


def test_listing_the_metrics_imports_neither_pycocotools_nor_lightning():
    heavy = ("pycocotools", "lightning", "matplotlib")
    code = f"import sys, unscene.metrics; print([name for name in {heavy} if name in sys.modules])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"
