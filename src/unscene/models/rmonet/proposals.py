"""The region proposal network (Ren et al., 2015): `propose()` gives each image its boxes, `loss()` compares the anchors
with pseudo boxes. Anchors and head are torchvision's; the rest computes all images of a batch together."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.rpn import RPNHead

from unscene.distributed.processes import shared_noise
from unscene.models.rmonet.settings import ProposalSettings
from unscene.ops.boxes import batched_nms, clip_boxes, decode_boxes, encode_boxes, pairwise_iou
from unscene.ops.dispatch import at_least_float32


class AnchorPredictions(NamedTuple):
    """The head's outputs for every anchor."""

    objectness: Tensor  # p_i, [B, A] logits
    deltas: Tensor  # t_i, [B, A, 4], how the anchor moves to become the box
    anchors: Tensor  # [A, 4] boxes in pixels
    levels: tuple[int, ...]  # number of anchors of each pyramid level


class Proposals(NamedTuple):
    """The boxes of each image, best first; rows that are not valid stand for "no object" and hold a zero box."""

    boxes: Tensor  # [B, N, 4] x1 y1 x2 y2 in pixels, within the image
    scores: Tensor  # [B, N] in 0..1
    valid: Tensor  # [B, N] bool


class RegionProposals(nn.Module):
    """Anchors, head and settings of the RPN; `channels` are those of the feature pyramid."""

    def __init__(self, settings: ProposalSettings, channels: int) -> None:
        super().__init__()
        self.settings = settings
        self.anchor_generator = AnchorGenerator(
            tuple((size,) for size in settings.anchor_sizes), (settings.anchor_ratios,) * len(settings.anchor_sizes)
        )
        self.head = RPNHead(channels, len(settings.anchor_ratios))
        self._cached_anchors: tuple[tuple, Tensor, tuple[int, ...]] | None = None  # of the latest sizes and device

    def forward(self, pyramid: tuple[Tensor, ...], size: tuple[int, int]) -> AnchorPredictions:
        """Five maps [B, C, h, w] of images of `size` -> AnchorPredictions."""
        anchors, levels = self._anchors(tuple((level.shape[2], level.shape[3]) for level in pyramid), size, pyramid[0])
        objectness, deltas = self.head(list(pyramid))
        return AnchorPredictions(
            objectness=at_least_float32(torch.cat([_by_anchor(level, 1) for level in objectness], dim=1).squeeze(-1)),
            deltas=at_least_float32(torch.cat([_by_anchor(level, 4) for level in deltas], dim=1)),
            anchors=anchors,
            levels=levels,
        )

    def _anchors(
        self, grids: tuple[tuple[int, int], ...], size: tuple[int, int], like: Tensor
    ) -> tuple[Tensor, tuple[int, ...]]:
        """[A, 4] the anchors of all levels, on a tensor's device, and the number of each level's.

        Computed once: the host waits for a copy of numbers to the device.
        """
        key = (grids, size, like.device)
        if self._cached_anchors is None or self._cached_anchors[0] != key:
            with torch.inference_mode(False):  # training must be able to use a validation's anchors
                strides = [[torch.tensor(size[0] // rows), torch.tensor(size[1] // columns)] for rows, columns in grids]
                self.anchor_generator.set_cell_anchors(torch.float32, like.device)
                levels = self.anchor_generator.grid_anchors([list(grid) for grid in grids], strides)
                self._cached_anchors = (key, torch.cat(levels), tuple(len(level) for level in levels))
        return self._cached_anchors[1:]

    @torch.no_grad()
    def propose(
        self, predicted: AnchorPredictions, size: tuple[int, int], num_boxes: int, score_threshold: float | None = None
    ) -> Proposals:
        """Return the `num_boxes` best boxes of each image of `size` (Section 3.1; K-1 boxes in R-MONet).

        Score threshold (another than the settings' during a warm-up), NMS of each level, final NMS, highest scores.
        """
        settings = self.settings
        threshold = settings.score_threshold if score_threshold is None else score_threshold
        logits, order = _top_of_each_level(predicted.objectness, predicted.levels, settings.top_n_before)  # [B, L, n]
        anchors = order.flatten(1)
        boxes = clip_boxes(decode_boxes(_take(predicted.deltas, anchors), predicted.anchors[anchors]), *size)
        scores = logits.sigmoid().flatten(1)
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = (sides >= 1e-3).all(dim=-1) & (scores > threshold) & (logits.flatten(1) > -torch.inf)
        if settings.max_side is not None:
            valid &= sides.amax(dim=-1) <= settings.max_side
        levels = logits.flatten(0, 1).shape  # each level of each image is a group of its own
        grouped = boxes.view(*levels, 4), scores.view(levels), valid.view(levels)
        keep = batched_nms(*grouped, settings.level_nms_threshold)
        counts = [min(logits.shape[2], level) for level in predicted.levels]
        boxes, scores, keep = (
            torch.cat([level[:, :count] for level, count in zip(all_levels.unbind(1), counts, strict=True)], dim=1)
            for all_levels in (boxes.view(*logits.shape, 4), scores.view_as(logits), keep.view_as(logits))
        )  # without the rows that fill up short levels: `topk` orders equal scores by the number of rows
        best = self._best(boxes, scores, keep, settings.top_n_after)
        keep = batched_nms(best.boxes, best.scores, best.valid, settings.final_nms_threshold)
        return self._best(best.boxes, best.scores, keep, num_boxes)

    @staticmethod
    def _best(boxes: Tensor, scores: Tensor, keep: Tensor, count: int) -> Proposals:
        """The `count` kept boxes of highest score; missing ones are zero rows."""
        ranked, order = scores.masked_fill(~keep, -1.0).topk(min(count, scores.shape[1]), dim=1)
        missing = count - order.shape[1]
        valid = F.pad(ranked >= 0, (0, missing))
        boxes = F.pad(_take(boxes, order), (0, 0, 0, missing)) * valid[..., None]
        return Proposals(boxes, F.pad(ranked, (0, missing)).clamp_min(0), valid)

    def loss(self, predicted: AnchorPredictions, boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The last two terms of Eq. 3, of the pseudo boxes [B, M, 4]; `valid` [B, M] is False for the unused rows.

        objectness [B]: mean binary cross-entropy of the sampled anchors. As in torchvision, which the paper adapts, it
        is a mean, not Eq. 3's plain sum over all anchors.
        regression [B]: smooth L1 of the sampled positive anchors' deltas, summed, divided by N_reg.
        """
        settings = self.settings
        limits = settings.foreground_iou, settings.background_iou
        labels, matched = assign_anchors(predicted.anchors, boxes, valid, *limits)
        positive, negative = sample_anchors(labels, settings.batch_size, settings.positive_fraction)
        sampled = positive | negative
        count = sampled.sum(dim=1).clamp_min(1)
        cross_entropy = F.binary_cross_entropy_with_logits(
            predicted.objectness, positive.to(predicted.objectness.dtype), reduction="none"
        )
        objectness = (cross_entropy * sampled).sum(dim=1) / count
        boxes = F.pad(boxes, (0, 0, 0, 1))  # a row for `matched` to name where M is 0
        target = encode_boxes(_take(boxes, matched).to(predicted.deltas.dtype), predicted.anchors)  # t^_i
        target = torch.where(positive[..., None], target, predicted.deltas.detach())  # no distance, so no loss
        distance = F.smooth_l1_loss(predicted.deltas, target, beta=settings.smooth_l1_beta, reduction="none")
        n_reg = count if settings.regression_normaliser == "sampled" else len(predicted.anchors)
        return objectness, distance.sum(dim=(1, 2)) / n_reg


@torch.no_grad()
def assign_anchors(
    anchors: Tensor, boxes: Tensor, valid: Tensor, foreground_iou: float, background_iou: float
) -> tuple[Tensor, Tensor]:
    """Label anchors [A, 4] by boxes [B, M, 4], of which `valid` [B, M] are boxes (Ren et al., 3.1.2).

    labels [B, A]: 1 (positive) where the IoU with a box is at least `foreground_iou`, or the largest that the box has
    with any anchor; 0 (negative) where the IoU with every box is below `background_iou`; -1 (not used) elsewhere.
    matched [B, A]: the index of the box of largest IoU.
    """
    if boxes.shape[1] == 0:
        nothing = torch.zeros(len(boxes), len(anchors), dtype=torch.long, device=anchors.device)
        return nothing, nothing
    iou = pairwise_iou(anchors, boxes).masked_fill(~valid[:, None], -1.0)  # [B, A, M]
    overlap, matched = iou.max(dim=2)
    labels = torch.where(overlap < background_iou, 0, -1)
    labels = torch.where(overlap >= foreground_iou, 1, labels)
    best_of_box = iou.amax(dim=1, keepdim=True).clamp_min(1e-6)  # a box that touches no anchor claims none
    claimed = ((iou >= best_of_box) & valid[:, None]).any(dim=2)
    return torch.where(claimed, 1, labels), matched


@torch.no_grad()
def sample_anchors(labels: Tensor, batch_size: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Sample `batch_size` anchors an image by their labels [B, A]: which positive and negative ones, [B, A] bool each.

    At most `positive_fraction` of the sample are positive; negatives fill it up.
    """
    chance = shared_noise(torch.rand, labels.shape, device=labels.device)

    def sample(candidates: Tensor, quota: Tensor) -> Tensor:
        order = chance.masked_fill(~candidates, 2.0).argsort(dim=1)
        ranks = torch.arange(order.shape[1], device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, ranks)
        return candidates & (rank < quota[:, None])

    most_positive = torch.full((len(labels),), int(batch_size * positive_fraction), device=labels.device)
    positive = sample(labels == 1, most_positive)
    return positive, sample(labels == 0, batch_size - positive.sum(dim=1))


def _top_of_each_level(objectness: Tensor, levels: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest logits of each level, [B, L, n] falling, and their anchors' indices, of objectness [B, A].

    A level with fewer anchors is filled up with the logit -inf and the index 0.
    """
    tops, first = [], 0
    for level in objectness.split(levels, dim=1):
        logits, order = level.topk(min(count, level.shape[1]), dim=1)
        missing = (0, min(count, max(levels)) - logits.shape[1])
        tops.append((F.pad(logits, missing, value=-torch.inf), F.pad(order + first, missing)))
        first += level.shape[1]
    return torch.stack([logits for logits, _ in tops], dim=1), torch.stack([order for _, order in tops], dim=1)


def _by_anchor(level: Tensor, values: int) -> Tensor:
    """[B, anchors * values, h, w] -> [B, h * w * anchors, values], the order of torchvision's anchors."""
    by_cell: Tensor = level.unflatten(1, (-1, values)).permute(0, 3, 4, 1, 2)  # [B, h, w, anchors, values]
    return by_cell.flatten(1, 3)


def _take(rows: Tensor, order: Tensor) -> Tensor:
    """rows [B, N, 4] at order [B, M] -> [B, M, 4]."""
    return rows.gather(1, order[..., None].expand(-1, -1, 4))
