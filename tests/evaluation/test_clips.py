"""clips: tracks of a model on moving sprites, linked anew in each clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.errors import RecipeError
from unscene.evaluation.clips import ClipTracking
from unscene.evaluation.evaluate import _ClipDecomposition, measure
from unscene.scene import Decomposition, Scene

SETTINGS = MultiDSpritesSettings(count=24, clip_length=8, min_objects=2, max_objects=3, max_speed=0.01, seed=4)


def true_masks(scene: Scene, orders: list[list[int]]) -> Decomposition:
    """The true masks in slots whose order differs from frame to frame; the last slot is the background."""
    assert scene.labels is not None
    slots = [
        torch.stack([labels == label for label in (*order, 0)])
        for labels, order in zip(scene.labels, orders, strict=True)
    ]
    log_masks = torch.stack(slots)[:, :, None].float().clamp_min(1e-9).log()
    return Decomposition(log_masks, torch.zeros(*log_masks.shape[:2], 3, 64, 64), background=-1)


def test_true_masks_in_any_slots_give_the_true_tracks():
    scene = Scene.from_batch(MultiDSprites(SETTINGS).batch(range(24)))
    rng = np.random.default_rng(0)
    orders = [(rng.permutation(3) + 1).tolist() for _ in range(24)]
    clips = ClipTracking(8, min_contrast=0)
    for first in range(0, 24, 6):  # batches that end within clips
        part = Scene(scene.images[first : first + 6], scene.labels[first : first + 6])
        clips.update(part, true_masks(part, orders[first : first + 6]))
    scores = clips.compute()
    assert (scores["missed_objects"], scores["false_objects"]) == (0, 0)
    assert scores["mota"] == scores["idf1"] == 1


def test_an_evaluation_of_clips_has_the_scores_of_tracks(loaded):
    how = {"count": 10, "batch_size": 4, "description_of_data": {}, "progress": False, "examples": False}
    result = measure(loaded, MultiDSprites(SETTINGS), objects={"min_area": 4}, **how)
    metrics = result.metrics
    assert result.provenance["evaluation"]["tracks"]["min_area"] == 4
    assert 0 < metrics["hota"] <= 1
    assert metrics["missed_objects"] >= 0
    assert "mota" not in measure(loaded, MultiDSprites(MultiDSpritesSettings(count=10)), **how).metrics


def test_tiles_are_refused_for_clips(loaded):
    with pytest.raises(RecipeError, match="tile: only for a model that decomposes images at their own sizes"):
        measure(loaded, MultiDSprites(SETTINGS), count=8, description_of_data={}, progress=False, objects={"tile": 32})


def test_boxes_alone_are_scored_by_their_f_score():
    scene = Scene.from_batch(MultiDSprites(SETTINGS).batch(range(8)))
    clips = ClipTracking(8, min_contrast=0)
    unlabelled = Scene(scene.images, boxes=torch.cat([scene.boxes, torch.tensor([[[0.0, 0, 2, 2]]] * 8)], dim=1))
    clips.update(unlabelled, true_masks(scene, [[1, 2, 3]] * 8))
    scores, true = clips.compute(), int(scene.boxes.any(dim=2).sum())
    assert "mota" not in scores
    assert scores["box_precision_50"] == 1
    assert scores["box_recall_50"] == pytest.approx(true / (true + 8))
    assert scores["box_ap_50"] == pytest.approx(true / (true + 8), abs=0.01)  # all that is found is right


def test_a_model_with_a_state_sees_a_clip_from_its_first_frame(loaded, monkeypatch):
    source = MultiDSprites(SETTINGS)
    images = Scene.from_batch(source.batch(range(24))).images
    seen: list[list[int]] = []

    def for_frames(self):
        seen.append([])
        return Recorder()

    class Recorder:
        def decompose(self, image):
            seen[-1].append(int((images == image).flatten(1).all(dim=1).nonzero()[0]))
            return loaded.decompose(image)

    monkeypatch.setattr(type(loaded), "for_frames", for_frames)
    decompose = _ClipDecomposition(loaded, source, 8)
    for indices in (range(5), range(5, 10), [18], [20], [17]):  # the last three are drawn, after the scores
        found = decompose(Scene(images[list(indices)]), indices)
        assert torch.equal(found.log_masks, loaded.decompose(images[list(indices)]).log_masks)
    assert seen == [[*range(8)], [8, 9], [16, 17, 18, 19, 20], [16, 17]]
