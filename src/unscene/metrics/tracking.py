"""Scores of tracks: label maps of the frames of clips, whose labels mean the same object in all frames of a clip.

A true object and a track match in a frame if the IoU of their masks is above .5, so each has one partner at most. With
the matches TP, the true objects without one FN, the tracks without one FP, summed over all frames:

    MOTA = 1 - (FN + FP + IDSW) / (TP + FN)               (Bernardin and Stiefelhagen, 2008; masks: MOTSA, CVPR 2019)
    IDF1 = 2 IDTP / (true + predicted)                    (Ristani et al., 2016)
    HOTA = mean over a = .05, .10 .. .95 of sqrt(sum of A(c) over TP_a / (true + predicted - TP_a))    (Luiten, 2021)

IDSW counts how often an object's partner is another one than at its last match; a minute has 1,800 frames. IDTP are the
matches if every object has one track in the clip, at best. TP_a are the matches of an IoU of a or more, and A(c) is the
IoU of the match's two tracks over time. Hidden pixels are in no mask (Voigtlaender et al., MOTS, CVPR 2019). Masks of 5
pixels or fewer are left out on both sides, as on Video Multi-dSprites (Weis et al., 2021).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from unscene.metrics import mean_of_counted
from unscene.metrics.ari import adjusted_rand_index
from unscene.metrics.contingency import contingency_table

FEWEST_PIXELS = 6
_FRAMES_PER_MINUTE = 1800  # of a video of 30 frames a second
_LEVELS = np.arange(1, 20) / 20


class TrackingScores:
    """The scores of all clips that were added."""

    def __init__(self) -> None:
        self.frames = self.true = self.predicted = self.matched = self.switches = self.id_matched = 0
        self._level_matched, self._level_association = np.zeros(len(_LEVELS)), np.zeros(len(_LEVELS))
        self._ari: list[float | None] = []

    def add_clip(self, true: NDArray[np.integer], predicted: NDArray[np.integer]) -> None:
        """Add label maps [T, H, W] of a clip: 0 is the background; true pixels of -1 do not count."""
        tables = contingency_table(torch.from_numpy(true), torch.from_numpy(predicted)).numpy()
        self._ari.append(_foreground_ari(tables.sum(axis=0)))
        true_pixels, predicted_pixels = tables.sum(axis=2)[:, 1:, None], tables.sum(axis=1)[:, None, 1:]
        seen = (true_pixels >= FEWEST_PIXELS) & (predicted_pixels >= FEWEST_PIXELS)
        shared = tables[:, 1:, 1:] * seen
        iou = shared / np.maximum(true_pixels + predicted_pixels - shared, 1)  # [T, M, N]
        true_frames = (true_pixels >= FEWEST_PIXELS).sum(axis=0)  # [M, 1]
        predicted_frames = (predicted_pixels >= FEWEST_PIXELS).sum(axis=0)  # [1, N]
        self.frames += len(tables)
        self.true += int(true_frames.sum())
        self.predicted += int(predicted_frames.sum())

        matches = iou > 0.5
        self.matched += int(matches.sum())
        for partners in (np.nonzero(matches[:, row])[1] for row in range(matches.shape[1])):
            self.switches += int(np.count_nonzero(np.diff(partners)))
        together = matches.sum(axis=0)
        self.id_matched += int(together[linear_sum_assignment(-together)].sum())
        self._add_levels(iou, true_frames + predicted_frames)

    def _add_levels(self, iou: NDArray[np.float64], frames: NDArray[np.int64]) -> None:
        """Match each frame for HOTA, so that tracks which agree over the clip come first; `frames` [M, N] of both."""
        either = iou.sum(axis=1, keepdims=True) + iou.sum(axis=2, keepdims=True) - iou
        agreement = np.divide(iou, either, out=np.zeros_like(iou), where=either > 0).sum(axis=0)
        alignment = agreement / np.maximum(frames - agreement, 1)
        paired = np.zeros_like(iou)
        for similarity, chosen in zip(iou, paired, strict=True):
            pairs = linear_sum_assignment(-alignment * similarity)
            chosen[pairs] = similarity[pairs]
        for index, level in enumerate(_LEVELS):
            together = (paired >= level - 1e-12).sum(axis=0)
            self._level_matched[index] += together.sum()
            self._level_association[index] += (together * together / np.maximum(frames - together, 1)).sum()

    def compute(self) -> dict[str, float | int | None]:
        """The scores by name; None where they are not defined: without a true object, or any object."""
        objects = self.true + self.predicted
        errors = objects - 2 * self.matched + self.switches
        hota = np.sqrt(self._level_association / np.maximum(objects - self._level_matched, 1))
        return {
            "mota": 1 - errors / self.true if self.true else None,
            "idf1": 2 * self.id_matched / objects if objects else None,
            "hota": float(hota.mean()) if objects else None,
            "video_ari_fg": mean_of_counted(self._ari),
            "id_switches": self.switches,
            "id_switches_per_minute": _FRAMES_PER_MINUTE * self.switches / self.frames if self.frames else None,
            "missed_objects": self.true - self.matched,
            "false_objects": self.predicted - self.matched,
        }


def _foreground_ari(table: NDArray[np.int64]) -> float | None:
    """The adjusted Rand index of the pixels of true objects in all frames; None without any."""
    return float(adjusted_rand_index(torch.from_numpy(table[None, 1:]))) if table[1:].any() else None
