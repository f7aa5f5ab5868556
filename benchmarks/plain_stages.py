"""The stages of `model_stages`, in the plain reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.model_stages import (
    BACKBONE,
    DECODER,
    ENCODER,
    HEAD,
    LIKELIHOOD,
    PROPOSALS,
    PSEUDO_BOXES,
    RPN_LOSS,
    WHOLE,
    Stage,
    leaf,
)
from benchmarks.reference.pseudo_boxes import plain_pseudo_boxes
from benchmarks.reference.rmonet import PlainRMONet, categorical_kl, latent_kl, log_likelihood, slot_scales


class PlainStages:
    """The plain reference's stages, at a training's first step, in float32.

    Args:
        plain: with the weights of the model that `OurStages` is given.
        images: [B, 3, H, W] in 0..1.
    """

    def __init__(self, plain: PlainRMONet, images: Tensor) -> None:
        self.plain, self.images = plain, images
        self.settings = plain.model.settings.at(0)
        self.mixture = slot_scales(self.settings), self.settings.mixture_over
        with torch.no_grad():
            self._make_inputs()

    def _make_inputs(self) -> None:
        """Run the model once and keep what each stage reads."""
        plain = self.plain
        self.conv, self.pyramid = (list(map(leaf, maps)) for maps in plain.features(self.images))
        predictions = plain.proposals.predict(self.images, self.pyramid)
        self.anchors = predictions._replace(objectness=leaf(predictions.objectness), deltas=leaf(predictions.deltas))
        self.boxes = plain.proposals.propose(
            predictions, self.settings.num_slots - 1, self.settings.proposals.score_threshold
        )
        self.alpha_logits = list(map(leaf, self.head()))
        log_masks = plain.stick_breaking(self.alpha_logits, self.boxes)
        self.log_masks = list(map(leaf, log_masks))
        self.mean, self.log_variance = map(leaf, plain.vae.encode(self.images, log_masks))
        self.components, self.mask_logits = (list(map(leaf, maps)) for maps in plain.vae.decode(self.mean))
        self.masks = torch.cat(log_masks[:-1], dim=1).exp()
        self.targets = [boxes.to(self.images.device) for boxes in self.pseudo_boxes()]

    def by_name(self) -> dict[str, Stage]:
        """All stages, and the whole loss last."""
        return {
            BACKBONE: self.backbone,
            PROPOSALS: self.propose,
            HEAD: self.head,
            ENCODER: lambda: self.plain.vae.encode(self.images, self.log_masks),
            DECODER: self.decode,
            LIKELIHOOD: self.likelihood,
            PSEUDO_BOXES: self.pseudo_boxes,
            RPN_LOSS: lambda: self.plain.proposals.loss(self.anchors, self.targets),
            WHOLE: lambda: [self.plain.loss(self.images, 0)[1]],
        }

    def backbone(self) -> Sequence[Tensor]:
        """conv1..conv5 and the pyramid."""
        conv, pyramid = self.plain.features(self.images)
        return [*conv, *pyramid]

    def propose(self) -> Sequence[Tensor]:
        """Objectness and deltas; the boxes have no gradient."""
        predictions = self.plain.proposals.predict(self.images, self.pyramid)
        threshold = self.settings.proposals.score_threshold
        self.plain.proposals.propose(predictions, self.settings.num_slots - 1, threshold)
        return [predictions.objectness, predictions.deltas]

    def head(self) -> Sequence[Tensor]:
        """Alpha logits [B, 1, H, W] of each slot."""
        slots = range(self.settings.num_slots - 1)
        return [self.plain.alpha_logits(self.conv, self.pyramid, self.boxes, slot) for slot in slots]

    def decode(self) -> Sequence[Tensor]:
        """Components and mask logits of each slot."""
        components, mask_logits = self.plain.vae.decode(self.mean)
        return [*components, *mask_logits]

    def likelihood(self) -> Sequence[Tensor]:
        """The mixture's log-likelihood and both divergences."""
        log_masks = self.plain.stick_breaking(self.alpha_logits, self.boxes)
        fit = log_likelihood(self.images, self.components, log_masks, *self.mixture)
        return [fit, categorical_kl(log_masks, self.mask_logits), latent_kl(self.mean, self.log_variance)]

    def pseudo_boxes(self) -> Sequence[Tensor]:
        """The boxes of each image."""
        return [boxes for boxes, _ in plain_pseudo_boxes(self.masks, self.settings.pseudo_boxes)]
