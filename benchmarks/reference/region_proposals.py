"""R-MONet's boxes by torchvision's RegionProposalNetwork as it is, and a last NMS image by image."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, concat_box_prediction_layers
from torchvision.ops import nms

from unscene.models.rmonet.proposals import RegionProposals


class Predicted(NamedTuple):
    """What the RPN's head says of every anchor.

    Attributes:
        objectness: [B * A, 1] logits.
        deltas: [B * A, 4].
        anchors: [A, 4] for each image.
        levels: anchors a pyramid level.
        images: the images with their sizes, as torchvision hands them around.
    """

    objectness: Tensor
    deltas: Tensor
    anchors: list[Tensor]
    levels: list[int]
    images: ImageList


class PlainProposals:
    """torchvision's RPN with the head, hence the parameters, of one of ours.

    Args:
        proposals: of an R-MONet.
    """

    def __init__(self, proposals: RegionProposals) -> None:
        settings = proposals.settings
        self.settings = settings
        self.rpn = RegionProposalNetwork(
            AnchorGenerator(
                tuple((size,) for size in settings.anchor_sizes), (settings.anchor_ratios,) * len(settings.anchor_sizes)
            ),
            proposals.head,
            fg_iou_thresh=settings.foreground_iou,
            bg_iou_thresh=settings.background_iou,
            batch_size_per_image=settings.batch_size,
            positive_fraction=settings.positive_fraction,
            pre_nms_top_n={"training": settings.top_n_before, "testing": settings.top_n_before},
            post_nms_top_n={"training": settings.top_n_after, "testing": settings.top_n_after},
            nms_thresh=settings.level_nms_threshold,
            score_thresh=settings.score_threshold,
        )

    def predict(self, images: Tensor, pyramid: list[Tensor]) -> Predicted:
        """Objectness and deltas of all anchors of images [B, 3, H, W]."""
        listed = ImageList(images, [(images.shape[2], images.shape[3])] * len(images))
        objectness, deltas = self.rpn.head(pyramid)
        anchors = self.rpn.anchor_generator(listed, pyramid)
        levels = [level[0].numel() for level in objectness]
        objectness, deltas = concat_box_prediction_layers(objectness, deltas)
        return Predicted(objectness, deltas, anchors, levels, listed)

    @torch.no_grad()
    def propose(self, predicted: Predicted, num_boxes: int, score_threshold: float) -> list[Tensor]:
        """The best boxes [n, 4] of each image, n <= num_boxes: torchvision's filter, then NMS over all levels."""
        self.rpn.score_thresh = score_threshold
        decoded = self.rpn.box_coder.decode(predicted.deltas.detach(), predicted.anchors)
        decoded = decoded.view(len(predicted.anchors), -1, 4)
        boxes, scores = self.rpn.filter_proposals(
            decoded, predicted.objectness, predicted.images.image_sizes, predicted.levels
        )
        best = []
        for image_boxes, score in zip(boxes, scores, strict=True):
            best.append(image_boxes[nms(image_boxes, score, self.settings.final_nms_threshold)[:num_boxes]])
        return best

    def loss(self, predicted: Predicted, pseudo_boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The means over the batch of objectness and regression loss, as torchvision computes them.

        The regression's beta and divisor are those of the settings.

        Args:
            predicted: of `predict`.
            pseudo_boxes: [m, 4] of each image.
        """
        labels, matched = self.rpn.assign_targets_to_anchors(
            predicted.anchors, [{"boxes": boxes} for boxes in pseudo_boxes]
        )
        targets = self.rpn.box_coder.encode(matched, predicted.anchors)
        found = self.rpn.fg_bg_sampler(labels)
        positive, negative = (torch.cat(masks).nonzero().squeeze(1) for masks in found)
        sampled = torch.cat([positive, negative])
        logits, label = predicted.objectness.flatten(), torch.cat(labels)
        objectness = F.binary_cross_entropy_with_logits(logits[sampled], label[sampled])
        beta = self.settings.smooth_l1_beta
        moved = F.smooth_l1_loss(predicted.deltas[positive], torch.cat(targets)[positive], beta=beta, reduction="sum")
        divisor = len(sampled) if self.settings.regression_normaliser == "sampled" else len(logits)
        return objectness, moved / divisor

    def loss_by_image(self, predicted: Predicted, pseudo_boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Objectness [B] and regression [B]: torchvision's loss of one image after the other."""
        objectness = predicted.objectness.view(len(pseudo_boxes), -1, 1)
        deltas = predicted.deltas.view(len(pseudo_boxes), -1, 4)
        losses = []
        for image, boxes in enumerate(pseudo_boxes):
            alone = predicted._replace(
                objectness=objectness[image], deltas=deltas[image], anchors=predicted.anchors[image : image + 1]
            )
            losses.append(self.loss(alone, [boxes]))
        objectness_losses, regression_losses = zip(*losses, strict=True)
        return torch.stack(objectness_losses), torch.stack(regression_losses)
