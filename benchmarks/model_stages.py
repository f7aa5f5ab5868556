"""R-MONet's stages, each by itself, and what a stage is.

A stage is a function that returns its outputs. It reads tensors computed once, detached from their graph, and
that want gradients where the training needs them; so a stage can be timed forwards, and forwards and backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unscene.models.common.gaussian import gaussian_kl
from unscene.models.common.mixture import mask_kl, mixture_log_likelihood
from unscene.models.common.stick_breaking import stick_breaking
from unscene.models.rmonet.model import RMONet
from unscene.models.rmonet.proposals import AnchorPredictions
from unscene.models.rmonet.pseudo_boxes import pseudo_boxes
from unscene.models.rmonet.resnet_fpn import Features
from unscene.models.rmonet.segmentation_heads import alpha_logits, inside_boxes

Stage = Callable[[], Sequence[Tensor]]

BACKBONE, PROPOSALS, HEAD = "backbone", "proposals: forward and propose", "ROI masking and head"
ENCODER, DECODER, LIKELIHOOD = "VAE encoder", "broadcast decoder", "stick-breaking, likelihood, KLs"
PSEUDO_BOXES, RPN_LOSS, WHOLE = "pseudo boxes", "RPN loss", "the whole loss"


class OurStages:
    """The stages of a model of ours, at a training's first step.

    Args:
        model: with boxes and masks by stick-breaking, on the images' device.
        images: [B, 3, H, W] in 0..1.
        bfloat16: by autocast, as in training.
    """

    def __init__(self, model: RMONet, images: Tensor, bfloat16: bool) -> None:
        self.model, self.images, self.bfloat16 = model, images, bfloat16
        self.settings = model.settings.at(0)
        self.size = (self.settings.size, self.settings.size)
        assert model.proposals is not None
        self.proposals = model.proposals
        seen = (images - 0.5) / 0.5 if self.settings.normalise else images
        self.seen = seen.contiguous(memory_format=torch.channels_last)
        with self._autocast(), torch.no_grad():
            self._make_inputs()

    def _make_inputs(self) -> None:
        """Run the model once and keep what each stage reads."""
        model, settings = self.model, self.settings
        features = model.backbone(self.seen)
        pyramid = {level: leaf(level_features) for level, level_features in features.pyramid.items()}
        self.features = Features(self.seen, tuple(map(leaf, features.conv)), pyramid)
        attention = model.infer_masks(self.images, settings)
        assert attention.boxes is not None
        assert attention.anchors is not None
        assert attention.used is not None
        self.boxes, self.used, self.regions = attention.boxes, attention.used, attention.regions
        predictions = attention.anchors
        self.anchors = AnchorPredictions(
            leaf(predictions.objectness), leaf(predictions.deltas), predictions.anchors, predictions.levels
        )
        self.alpha_logits = leaf(self.head()[0])
        self.gate = inside_boxes(self.boxes.boxes, self.size, expand=settings.head.expand)
        self.log_masks = leaf(attention.log_masks)
        self.mean, self.log_variance = map(leaf, self.encode())
        self.components, self.mask_logits = map(leaf, self.decode())
        self.masks = attention.log_masks[:, :-1, 0].exp()
        self.targets, _, self.valid_targets = pseudo_boxes(self.masks, settings.pseudo_boxes)

    def by_name(self) -> dict[str, Stage]:
        """All stages, and the whole loss last."""
        stages: dict[str, Stage] = {
            BACKBONE: self.backbone,
            PROPOSALS: self.propose,
            HEAD: self.head,
            ENCODER: self.encode,
            DECODER: self.decode,
            LIKELIHOOD: self.likelihood,
            PSEUDO_BOXES: lambda: pseudo_boxes(self.masks, self.settings.pseudo_boxes),
            RPN_LOSS: lambda: self.proposals.loss(self.anchors, self.targets, self.valid_targets),
            WHOLE: lambda: [self.model.loss(self.images, 0)[0].total],
        }
        return {name: self._cast(stage) for name, stage in stages.items()}

    def backbone(self) -> Sequence[Tensor]:
        """conv1..conv5 and the pyramid."""
        features = self.model.backbone(self.seen)
        return [*features.conv, *features.pyramid.values()]

    def propose(self) -> Sequence[Tensor]:
        """Objectness and deltas; the boxes have no gradient."""
        predictions = self.proposals(tuple(self.features.pyramid.values()), self.size)
        self.proposals.propose(
            predictions, self.size, self.settings.num_slots - 1, self.settings.proposals.score_threshold
        )
        return [predictions.objectness, predictions.deltas]

    def head(self) -> Sequence[Tensor]:
        """Alpha logits [B, K-1, 1, H, W]."""
        return [alpha_logits(self.model.head, self.features, self.boxes.boxes, self.used[:, :-1]).float()]

    def encode(self) -> Sequence[Tensor]:
        """Mean and log variance."""
        return self.model.vae.encode(self.images, self.log_masks, self.used, self.regions)

    def decode(self) -> Sequence[Tensor]:
        """Components and mask logits."""
        return self.model.vae.decode(self.mean, self.used, self.regions)

    def likelihood(self) -> Sequence[Tensor]:
        """The mixture's log-likelihood and both divergences."""
        log_masks = stick_breaking(self.alpha_logits, self.gate)
        sigmas = self.settings.sigmas(self.images)
        fit = mixture_log_likelihood(self.images, self.components, log_masks, sigmas, self.settings.mixture_over)
        return [fit, mask_kl(log_masks, self.mask_logits), gaussian_kl(self.mean, self.log_variance)]

    def _cast(self, stage: Stage) -> Stage:
        def cast() -> Sequence[Tensor]:
            with self._autocast():
                return stage()

        return cast

    def _autocast(self) -> torch.autocast:
        # no cache, as Lightning has it: each use of a weight is a copy of its own
        return torch.autocast(self.images.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)


def backwards(stage: Stage) -> Callable[[], None]:
    """The stage forwards and backwards, from gradients of ones; a stage without gradients stays as it is."""
    gradients = [torch.ones_like(output) for output in stage() if output.requires_grad]

    def there_and_back() -> None:
        outputs = [output for output in stage() if output.requires_grad]
        if outputs:
            torch.autograd.backward(outputs, gradients)

    return there_and_back


def leaf(tensor: Tensor) -> Tensor:
    """Detach a tensor and let it require a gradient."""
    return tensor.detach().clone().requires_grad_()
