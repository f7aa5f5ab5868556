"""R-MONet: region-based unsupervised scene decomposition (ICLR 2021 submission): its UNet, Lite and ROI Align variants.

An image's features give boxes; each box gives a foreground mask, what is left is the background; a VAE gives each mask
a latent, a component and a mask again. The masks in turn, cut up by Multi-Otsu thresholds, are the pseudo boxes that
the boxes learn from. Nothing is labelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from unscene.blocks.component_vae import ComponentVAE, ComponentVAESettings
from unscene.blocks.gaussian_latent import sample_gaussian, unit_gaussian_kl
from unscene.blocks.mixture import MixtureOver, mask_kl, mixture_log_likelihood
from unscene.blocks.resnet_fpn import BackboneSettings, ResNetFPN
from unscene.blocks.stick_breaking import softmax_masks, stick_breaking
from unscene.errors import RecipeError, check_shape
from unscene.regions.proposals import AnchorPredictions, Proposals, ProposalSettings, RegionProposals
from unscene.regions.pseudo_boxes import PseudoBoxSettings, pseudo_boxes
from unscene.regions.roi_masking import inside_boxes
from unscene.regions.segmentation_heads import HeadSettings, segmentation_head
from unscene.scene import Decomposition, Losses


@dataclass(frozen=True)
class LossWeights:
    """Factors of the loss terms (Eq. 3): beta, gamma, delta and lambda of the appendix tables.

    Attributes:
        latent: beta, of the latents' divergence from the prior.
        mask: gamma, of the masks' divergence from the decoded masks.
        objectness: delta, of the anchors' classification.
        regression: lambda, of the anchors' regression.
    """

    latent: float = 0.5
    mask: float = 0.5
    objectness: float = 1.0
    regression: float = 1.0


@dataclass(frozen=True)
class WarmupSettings:
    """Values that a training begins with and leaves behind over its first `steps`. Ours; 0 steps: the paper's letter.

    Before the VAE knows colours, no component fits an object better than the background does: masks fade, pseudo boxes
    vanish with them, and a slot without a box never learns again ("everything background"). A wide foreground Gaussian
    instead takes whatever the background does not explain, as a model of outliers does, and narrows as colours are
    learnt.

    Attributes:
        steps: length; each value then is the one of the model's settings.
        sigma_foreground: at step 0, from there on geometrically.
        latent_weight: beta at step 0, from there on linearly.
        mask_weight: gamma at step 0, from there on linearly.
        score_threshold: of the boxes at step 0, from there on linearly.
    """

    steps: int = 0
    sigma_foreground: float = 0.3
    latent_weight: float = 0.0
    mask_weight: float = 0.0
    score_threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 0 or self.sigma_foreground <= 0:
            raise RecipeError(
                "model.warmup needs steps of 0 or more and a sigma_foreground above 0, not "
                f"{self.steps} and {self.sigma_foreground}."
            )


@dataclass(frozen=True)
class RMONetSettings:
    """Every setting of R-MONet; the defaults are the paper's UNet variant on Multi-dSprites.

    Attributes:
        size: height and width of the images, a multiple of 32: of other sides the backbone's maps would not lie where
            anchors and heads take them to.
        num_slots: K, the background included.
        sigma_background: standard deviation of the background's Gaussian, for images in 0..1.
        sigma_foreground: of the foreground's.
        masks: how alpha maps become masks.
        alpha_inside_box: a slot takes pixels within its widened box only; False lets alpha reach everywhere.
        detection: False is the paper's ablation (Fig. 20): no boxes and no pseudo-box loss, K-1 masks in parallel.
        mixture_over: the likelihood mixes each `pixel`, or each `channel` by itself.
        normalise: images enter the backbone as (x - .5) / .5 (the Lite variant's table), or as they are.
        weights: of the loss terms.
        warmup: see `WarmupSettings`.
        backbone, proposals, head, vae, pseudo_boxes: of the parts.

    Raises:
        RecipeError: a value that cannot be, or values that cannot be together.
    """

    size: int = 64
    num_slots: int = 6
    sigma_background: float = 0.09
    sigma_foreground: float = 0.11
    masks: Literal["stick_breaking", "softmax"] = "stick_breaking"
    alpha_inside_box: bool = True
    detection: bool = True
    mixture_over: MixtureOver = "pixel"
    normalise: bool = False
    weights: LossWeights = field(default_factory=LossWeights)
    warmup: WarmupSettings = field(default_factory=WarmupSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    vae: ComponentVAESettings = field(default_factory=ComponentVAESettings)
    pseudo_boxes: PseudoBoxSettings = field(default_factory=PseudoBoxSettings)

    def __post_init__(self) -> None:
        if self.num_slots < 2:
            raise RecipeError(f"model.num_slots must be 2 or more (one is the background), not {self.num_slots}.")
        if min(self.sigma_background, self.sigma_foreground) <= 0:
            raise RecipeError("model.sigma_background and model.sigma_foreground must be above 0 (paper: .09, .11).")
        if self.size < 32 or self.size % 32:
            raise RecipeError(
                f"model.size must be a multiple of 32, not {self.size}: set data.size to "
                f"{max(32, round(self.size / 32) * 32)}."
            )
        if self.detection and self.num_slots - 1 > self.proposals.top_n_after:
            raise RecipeError(
                f"model.num_slots {self.num_slots} asks for {self.num_slots - 1} boxes, but "
                f"model.proposals.top_n_after lets {self.proposals.top_n_after} through: raise it, or take fewer slots."
            )


class RMONet(nn.Module):
    """R-MONet. The background is the last slot; box n is of slot n.

    Args:
        settings: see `RMONetSettings`.
    """

    Settings = RMONetSettings
    background = -1

    def __init__(self, settings: RMONetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = ResNetFPN(settings.backbone)
        objects = settings.num_slots - 1
        channels = settings.backbone.fpn_channels
        self.proposals = RegionProposals(settings.proposals, channels) if settings.detection else None
        maps = 1 if settings.detection else objects
        self.head = segmentation_head(settings.head, self.backbone, channels, settings.size, maps)
        self.vae = ComponentVAE(settings.vae, settings.size)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1, with each latent at its posterior's mean."""
        log_masks, proposals, _ = self.infer_masks(images)
        mean, _ = self.vae.encode(images, log_masks)
        components, _ = self.vae.decode(mean)
        return self._decomposition(log_masks, components, mean, proposals)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """Eq. 3 for images [B, 3, size, size]: its five terms, each [B], and the decomposition they are of."""
        log_masks, proposals, predicted = self.infer_masks(images, step)
        mean, log_variance = self.vae.encode(images, log_masks)
        latents = sample_gaussian(mean, log_variance)
        components, mask_logits = self.vae.decode(latents)

        weights = self.settings.weights
        beta = self._warmed(step, self.settings.warmup.latent_weight, weights.latent)
        gamma = self._warmed(step, self.settings.warmup.mask_weight, weights.mask)
        terms = {
            "reconstruction": -mixture_log_likelihood(
                images, components, log_masks, self.sigmas(step), self.settings.mixture_over
            ),
            "latent_kl": unit_gaussian_kl(mean, log_variance).sum(dim=1),
            "mask_kl": mask_kl(log_masks, mask_logits),
        }
        factors = {"reconstruction": 1.0, "latent_kl": beta, "mask_kl": gamma}
        observed = {}
        if self.proposals is not None and predicted is not None:
            foreground = log_masks[:, :-1, 0].detach().exp()
            boxes, _, valid = pseudo_boxes(foreground, self.settings.pseudo_boxes)
            terms["objectness"], terms["regression"] = self.proposals.loss(predicted, boxes, valid)
            factors |= {"objectness": weights.objectness, "regression": weights.regression}
            observed["pseudo_boxes"] = valid.sum(dim=1).float()
        return Losses(terms, factors, observed), self._decomposition(log_masks, components, mean, proposals)

    def sigmas(self, step: int) -> Tensor:
        """[K] standard deviations of the slots' Gaussians at a step; the background's is last."""
        settings = self.settings
        start, end = math.log(settings.warmup.sigma_foreground), math.log(settings.sigma_foreground)
        foreground = math.exp(self._warmed(step, start, end))
        return torch.tensor([foreground] * (settings.num_slots - 1) + [settings.sigma_background], device=self.device)

    def _warmed(self, step: int, start: float, end: float) -> float:
        """A value at a step of the warm-up, on the line from `start` to `end`."""
        steps = self.settings.warmup.steps
        return start + (end - start) * min(1.0, step / steps) if steps else end

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.conv1.weight.device

    def infer_masks(
        self, images: Tensor, step: int | None = None
    ) -> tuple[Tensor, Proposals | None, AnchorPredictions | None]:
        """Section 3.1: features, boxes, region-masked features, alpha maps, and the masks that share every pixel.

        Args:
            images: [B, 3, size, size].
            step: of the training; None when the model is used.

        Returns:
            log_masks [B, K, 1, H, W]; the boxes of the foreground slots; what the anchors said. Without detection the
            last two are None.

        Raises:
            ShapeError: images of another size than the model's.
        """
        settings = self.settings
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        size = (settings.size, settings.size)
        seen = (images - 0.5) / 0.5 if settings.normalise else images
        features = self.backbone(seen.contiguous(memory_format=torch.channels_last))
        gate = predicted = proposals = None
        if self.proposals is not None:
            predicted = self.proposals(features.pyramid, size)
            threshold = settings.proposals.score_threshold
            if step is not None:
                threshold = self._warmed(step, settings.warmup.score_threshold, threshold)
            proposals = self.proposals.propose(predicted, size, settings.num_slots - 1, threshold)
            alpha_logits = self.head(features, proposals.boxes, size)
            gate = proposals.valid[..., None, None, None]
            if settings.alpha_inside_box:
                gate = gate & inside_boxes(proposals.boxes, size, expand=settings.head.expand)
            gate = gate.expand_as(alpha_logits)
        else:
            whole = images.new_tensor([0.0, 0.0, settings.size, settings.size]).expand(len(images), 1, 4)
            alpha_logits = self.head(features, whole, size).transpose(1, 2)
        share = stick_breaking if settings.masks == "stick_breaking" else softmax_masks
        return share(alpha_logits.float(), gate), proposals, predicted

    def _decomposition(
        self, log_masks: Tensor, components: Tensor, latents: Tensor, proposals: Proposals | None
    ) -> Decomposition:
        return Decomposition(
            log_masks=log_masks,
            components=components,
            background=self.background,
            latents=latents,
            boxes=proposals.boxes if proposals else None,
            box_scores=proposals.scores if proposals else None,
            box_valid=proposals.valid if proposals else None,
        )
