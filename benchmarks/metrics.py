"""Foreground ARI of 1,600 scenes against scikit-learn's loop, and box AP against pycocotools as it is.

    python -m benchmarks.metrics

The ARI is measured twice: from label maps, where both ways get the same, and from masks, as `unscene evaluate` counts
it batch by batch: there the metric also checks the masks, takes the argmax, and counts without the background's slot.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.command import finish, option_parser, run, started
from benchmarks.reference.ari import plain_foreground_ari
from benchmarks.reference.box_ap import plain_box_ap
from benchmarks.timing import Comparison, Subject, measure
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.errors import TrainingError
from unscene.metrics import new_metric
from unscene.metrics.ari import adjusted_rand_index
from unscene.metrics.contingency import contingency_table
from unscene.scene import Decomposition, Scene

SLOTS = 6
SCIKIT_LEARN, COCO = "scikit-learn, image by image", "pycocotools as it is"


def scenes_and_answers(count: int, seed: int = 0) -> tuple[Scene, Decomposition]:
    """Generated scenes, and what a model of middling quality might make of them: masks and boxes near the truth."""
    sprites = MultiDSprites(MultiDSpritesSettings(count=count, seed=11)).batch(range(count))
    labels, boxes = torch.from_numpy(sprites["labels"]), torch.from_numpy(sprites["boxes"])
    random = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.one_hot(labels.long(), SLOTS).permute(0, 3, 1, 2).float().roll(-1, dims=1)
    log_masks = (2 * truth + torch.randn(truth.shape, generator=random)).log_softmax(dim=1).unsqueeze(2)
    size = labels.shape[1]
    nothing = torch.zeros(1, 1, 1, 1, 1).expand(count, SLOTS, 3, size, size)
    found = (boxes + 2 * torch.randn(boxes.shape, generator=random)).clamp(0, size)
    scores = torch.rand(boxes.shape[:2], generator=random)
    valid = (found[..., 2:] > found[..., :2]).all(dim=-1)
    decomposition = Decomposition(log_masks, nothing, -1, boxes=found, box_scores=scores, box_valid=valid)
    return Scene(torch.zeros(1, 1, 1, 1).expand(count, 3, size, size), labels, boxes), decomposition


def by_metric(
    name: str, scene: Scene, decomposition: Decomposition, batch: int
) -> Callable[[], dict[str, float | int | None]]:
    """A registered metric, fed in batches as `unscene evaluate` feeds it."""
    starts = range(0, len(scene), batch)
    batches = [
        (
            scene_part(scene, slice(first, first + batch)),
            decomposition.map(operator.itemgetter(slice(first, first + batch))),
        )
        for first in starts
    ]

    def computed() -> dict[str, float | int | None]:
        metric = new_metric(name)
        for part, answer in batches:
            metric.update(part, answer)
        return metric.compute()

    return computed


def scene_part(scene: Scene, rows: slice) -> Scene:
    """Some of the scenes of a batch with labels and boxes."""
    assert scene.labels is not None
    assert scene.boxes is not None
    return Scene(scene.images[rows], scene.labels[rows], scene.boxes[rows])


def foreground_ari(labels: Tensor, predicted: Tensor) -> Tensor:
    """[B] from label maps, in one call; an image without objects has 1."""
    return adjusted_rand_index(contingency_table(labels, predicted)[:, 1:])


def compared_ari(scene: Scene, decomposition: Decomposition, rounds: int, seconds: float) -> list[Comparison]:
    """Measure the foreground ARI from label maps and from masks.

    Raises:
        TrainingError: the two ways differ by more than 1e-9.
    """
    assert scene.labels is not None
    labels, predicted = scene.labels, decomposition.labels()
    true, guessed = labels.numpy(), predicted.numpy()
    expected = [1.0 if score is None else score for score in plain_foreground_ari(true, guessed)]
    error = float(np.abs(foreground_ari(labels, predicted).numpy() - expected).max())
    if error > 1e-9:
        raise TrainingError(f"the foreground ARI differs from scikit-learn's by {error:.1e}, which is more than 1e-9.")
    label_subjects: dict[str, Subject] = {"one call": lambda: foreground_ari(labels, predicted)}
    for batch in (32, 64):
        parts = list(zip(labels.split(batch), predicted.split(batch), strict=True))
        label_subjects[f"batches of {batch}"] = lambda parts=parts: [foreground_ari(*part) for part in parts]  # type: ignore[misc]
    label_subjects[SCIKIT_LEARN] = lambda: plain_foreground_ari(true, guessed)
    mask_subjects: dict[str, Subject] = {
        f"unscene evaluate, batches of {batch}": by_metric("ari_fg", scene, decomposition, batch) for batch in (32, 64)
    }
    mask_subjects["unscene evaluate, one call"] = by_metric("ari_fg", scene, decomposition, len(scene))
    mask_subjects[SCIKIT_LEARN] = lambda: plain_foreground_ari(
        true, decomposition.log_masks.argmax(dim=1)[:, 0].numpy()
    )
    comparisons = []
    for what, subjects in (("label maps", label_subjects), ("masks", mask_subjects)):
        timed = measure(subjects, rounds, seconds)
        comparisons.append(Comparison(f"foreground ARI from {what}", timed, SCIKIT_LEARN, len(scene), "scenes"))
    return comparisons


def compared_box_ap(scene: Scene, decomposition: Decomposition, rounds: int, seconds: float) -> Comparison:
    """Measure the box AP.

    Raises:
        TrainingError: the two ways differ.
    """
    ours = by_metric("box_ap", scene, decomposition, 64)
    found, expected = ours()["map_50_95"], plain_box_ap(scene, decomposition)
    if found is None or abs(found - expected) > 1e-9:
        raise TrainingError(f"the box AP is {found}, but pycocotools says {expected}.")
    subjects: dict[str, Subject] = {"unscene evaluate": ours, COCO: lambda: plain_box_ap(scene, decomposition)}
    return Comparison("box AP", measure(subjects, rounds, seconds), COCO, len(scene), "scenes")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("metrics", __doc__)
    parser.add_argument("--count", type=int, default=1600, help="of scenes")
    options = started(parser, words)
    scene, decomposition = scenes_and_answers(options.count)
    comparisons = compared_ari(scene, decomposition, options.rounds, options.seconds)
    comparisons.append(compared_box_ap(scene, decomposition, options.rounds, options.seconds))
    print(*(comparison.table() for comparison in comparisons), sep="\n\n")
    finish(options, comparisons, scenes=options.count)


if __name__ == "__main__":
    run(main)
