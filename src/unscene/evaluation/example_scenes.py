"""Scenes to look at: the best, the median and the worst of an evaluation, each as a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from unscene.data import Source, object_names
from unscene.errors import DataError
from unscene.metrics import Metric
from unscene.metrics.object_locations import label_centres, match_locations
from unscene.report.figures import png_bytes, scene_figure
from unscene.report.results import ExampleScene, Picture, Rank, SlotLocation
from unscene.scene import Decomposition, Scene

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

PER_RANK = 3  # scenes shown of the best, the median and the worst


def read_scenes(source: Source, indices: Sequence[int], size: int) -> Scene:
    """Read scenes of a source as the models and metrics take them.

    Raises:
        DataError: they are not `size` pixels square.
    """
    sample = source.batch(list(indices))
    height, width = sample["image"].shape[1:3]
    if (height, width) != (size, size):
        raise DataError(
            f"the scenes are {width} x {height} pixels, but the model takes {size} x {size}. "
            f"Set --data.size {size}, or convert the data to that size."
        )
    return Scene.from_batch(sample)


def scores_to_rank_by(metrics: dict[str, Metric]) -> tuple[str, list[float | None]]:
    """The name and the scores by which scenes are ranked: foreground ARI, or the reconstruction without any truth."""
    scores = metrics["ari_fg"].per_image()
    if any(score is not None for score in scores):
        return "ari_fg", scores
    return "reconstruction_psnr", metrics["reconstruction"].per_image()


def chosen_scenes(scores: list[float | None], number: int = PER_RANK) -> list[tuple[Rank, int]]:
    """The best, median and worst scenes by score, no scene twice; scenes without a score are passed over.

    Returns:
        Pairs of rank and index, the best first; of equal scores the lower index first.
    """
    order = sorted((-score, index) for index, score in enumerate(scores) if score is not None)
    best = [index for _, index in order[:number]]
    worst = [index for _, index in order[max(len(order) - number, len(best)) :]]
    first = max((len(order) - number) // 2, len(best))
    middle = [index for _, index in order[first : min(first + number, len(order) - len(worst))]]
    return [*(("best", i) for i in best), *(("median", i) for i in middle), *(("worst", i) for i in worst)]


def example_scenes(loaded: LoadedModel, source: Source, scores: list[float | None]) -> Iterator[ExampleScene]:
    """Draw the best, median and worst scenes; they are read and decomposed once more, so none had to be kept."""
    chosen = chosen_scenes(scores)
    scene = read_scenes(source, [index for _, index in chosen], loaded.size)
    decomposition = loaded.decompose(scene.images)
    describe, names = _described(scene, decomposition), object_names(source)
    for row, (rank, index) in enumerate(chosen):
        picture = Picture(
            png_bytes(scene_figure(scene, decomposition, row)),
            f"Scene {index}: {describe(row)}",
            locations=slot_locations(scene, decomposition, row, names),
        )
        yield ExampleScene(index, rank, scores[index], picture)


def slot_locations(
    scene: Scene, decomposition: Decomposition, row: int, names: Sequence[str]
) -> tuple[SlotLocation, ...]:
    """Where the model says that the objects of one scene are, of the slots that win a pixel (the paper's Table 2)."""
    if decomposition.locations is None:
        return ()
    locations = decomposition.locations[row].double().numpy()
    labels = decomposition.labels()[row]
    named: dict[int, str] = {}
    if names and scene.labels is not None:
        centres = label_centres(scene.labels[row])
        matched, _ = match_locations(np.array([*centres.values()]).reshape(-1, 2), locations)
        named = {int(slot): names[label - 1] for label, slot in zip(centres, matched, strict=True) if slot >= 0}
    return tuple(
        SlotLocation(slot + 1, float(y), float(x), named.get(slot, ""))
        for slot, (y, x) in enumerate(locations)
        if (labels == slot + 1).any() or slot in named
    )


def _described(scene: Scene, decomposition: Decomposition) -> Callable[[int], str]:
    """What is seen in the figure of a scene, in words."""
    labels = decomposition.labels()
    background = 0 if decomposition.background is not None else -1

    def words(row: int) -> str:
        slots = [int(slot) for slot in labels[row].unique() if int(slot) != background]
        true = "" if scene.labels is None else f" of {int((scene.labels[row].unique() > 0).sum())} true objects"
        boxes = "" if decomposition.box_valid is None else f", {int(decomposition.box_valid[row].sum())} boxes"
        return (
            f"image{boxes}, reconstruction, segmentation into {len(slots)} object slots{true}, and each slot's mask "
            "and component."
        )

    return words
