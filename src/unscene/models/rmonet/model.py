"""R-MONet: region-based unsupervised scene decomposition (ICLR 2021 submission): its UNet, Lite and ROI Align variants.

An image's features give boxes; each box gives a foreground mask, what is left is the background; a VAE gives each mask
a latent, a component and a mask again. The masks in turn, cut up by Multi-Otsu thresholds, are the pseudo boxes that
the boxes learn from. Nothing is labelled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from unscene.errors import RecipeError, check_shape
from unscene.models.common.component_vae import ComponentVAE, ComponentVAESettings
from unscene.models.common.gaussian import sample_gaussian, unit_gaussian_kl
from unscene.models.common.mixture import MixtureOver, mask_kl, mixture_log_likelihood
from unscene.models.common.precision import at_least_float32
from unscene.models.common.resnet_fpn import IMAGENET_MEAN, IMAGENET_STD, BackboneSettings, ResNetFPN
from unscene.models.common.stick_breaking import softmax_masks, stick_breaking
from unscene.models.rmonet.proposals import AnchorPredictions, Proposals, ProposalSettings, RegionProposals
from unscene.models.rmonet.pseudo_boxes import PseudoBoxSettings, pseudo_boxes
from unscene.models.rmonet.roi_masking import inside_boxes, touched_pixels
from unscene.models.rmonet.segmentation_heads import LEVELS_READ, HeadSettings, segmentation_head
from unscene.models.rmonet.whole_image_attention import on_whole_images
from unscene.ops.slot_packing import SlotPacking
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
        empty_slots: `decoded` (the paper's): a slot without a box is encoded and decoded like any other, from an empty
            mask; its latent and the mask it decodes to count in the loss. `left_out` (ours): it is not computed at all,
            its latent costs nothing and its decoded mask is 0.
        detection: False is the paper's ablation (Fig. 20): no boxes and no pseudo-box loss, K-1 masks in parallel.
        mixture_over: the likelihood mixes each `pixel`, or each `channel` by itself.
        normalise: images enter the backbone as they are; with true as (x - .5) / .5 (the Lite variant's table); with
            `imagenet` by ImageNet's mean and standard deviation, which a pretrained backbone needs.
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
    empty_slots: Literal["decoded", "left_out"] = "decoded"
    detection: bool = True
    mixture_over: MixtureOver = "pixel"
    normalise: bool | Literal["imagenet"] = False
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
        if self.backbone.pretrained and self.normalise != "imagenet":
            raise RecipeError(
                "model.backbone.pretrained needs model.normalise imagenet: its weights know images of that mean and "
                "standard deviation."
            )
        if "roi" in (self.vae.encoder_region, self.vae.decoder_region) and not (
            self.detection and self.alpha_inside_box
        ):
            raise RecipeError(
                "model.vae.encoder_region and decoder_region can be roi only where a mask ends with its widened box: "
                "set model.detection and model.alpha_inside_box to true, or both regions to image."
            )

    def at(self, step: int) -> RMONetSettings:
        """The settings at a step of a training: these, but for what the warm-up has not yet let go."""
        warmup = self.warmup
        if step >= warmup.steps:
            return self
        share = step / warmup.steps

        def between(start: float, end: float) -> float:
            return start + (end - start) * share

        return replace(
            self,
            sigma_foreground=math.exp(between(math.log(warmup.sigma_foreground), math.log(self.sigma_foreground))),
            weights=replace(
                self.weights,
                latent=between(warmup.latent_weight, self.weights.latent),
                mask=between(warmup.mask_weight, self.weights.mask),
            ),
            proposals=replace(
                self.proposals, score_threshold=between(warmup.score_threshold, self.proposals.score_threshold)
            ),
        )

    def normalised(self, images: Tensor) -> Tensor:
        """[B, 3, size, size] in 0..1, as the backbone is to read them."""
        if self.normalise == "imagenet":
            seen: Tensor = normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
            return seen
        return (images - 0.5) / 0.5 if self.normalise else images

    def sigmas(self, like: Tensor) -> Tensor:
        """[K] standard deviations of the slots' Gaussians, the background's last, on the device of a tensor."""
        foreground = at_least_float32(like).new_full((self.num_slots - 1,), self.sigma_foreground)
        return F.pad(foreground, (0, 1), value=self.sigma_background)  # filled there: a copy would make the host wait


@dataclass(frozen=True)
class Attention:
    """What Section 3.1 infers of a batch of images.

    Attributes:
        log_masks: [B, K, 1, H, W], the background last.
        slots: those of the K that are encoded and decoded.
        regions: [S, 4] of the packed slots, whole pixels x1 y1 x2 y2: a mask is 0 outside of its region.
        boxes: of the foreground slots; None without detection.
        anchors: what was said of every anchor; None without detection.
    """

    log_masks: Tensor
    slots: SlotPacking
    regions: Tensor
    boxes: Proposals | None = None
    anchors: AnchorPredictions | None = None


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
        levels = LEVELS_READ[settings.head.kind]
        self.backbone = ResNetFPN(settings.backbone) if settings.detection else ResNetFPN(settings.backbone, 3, levels)
        objects = settings.num_slots - 1
        channels = settings.backbone.fpn_channels
        self.proposals = RegionProposals(settings.proposals, channels) if settings.detection else None
        maps = 1 if settings.detection else objects
        self.head = segmentation_head(settings.head, self.backbone, channels, settings.size, maps)
        self.vae = ComponentVAE(settings.vae, settings.size)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1, with each latent at its posterior's mean."""
        attention = self.infer_masks(images, self.settings)
        slots, regions = attention.slots, attention.regions
        mean, _ = self.vae.encode(images, attention.log_masks, slots, regions)
        components, _ = self.vae.decode(mean, slots, regions)
        return self._decomposition(attention, components, mean)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """Eq. 3 for images [B, 3, size, size]: its five terms, each [B], and the decomposition they are of."""
        settings = self.settings.at(step)
        attention = self.infer_masks(images, settings)  # q(m | x) and the boxes, Section 3.1
        log_masks, slots, regions = attention.log_masks, attention.slots, attention.regions
        mean, log_variance = self.vae.encode(images, log_masks, slots, regions)  # q(z | x, m)
        latents = sample_gaussian(mean, log_variance)
        components, mask_logits = self.vae.decode(latents, slots, regions)  # p(x | z) and p(m | z), Section 3.3
        terms = {
            "reconstruction": -mixture_log_likelihood(
                images, components, log_masks, settings.sigmas(images), settings.mixture_over
            ),
            "latent_kl": unit_gaussian_kl(mean, log_variance).sum(dim=1),
            "mask_kl": mask_kl(log_masks, mask_logits),
        }
        weights = {"reconstruction": 1.0, "latent_kl": settings.weights.latent, "mask_kl": settings.weights.mask}
        observed = {}
        if self.proposals is not None and attention.anchors is not None:  # self-supervised boxes, Section 3.4
            boxes, _, valid = pseudo_boxes(log_masks[:, :-1, 0].detach().exp(), settings.pseudo_boxes)
            terms["objectness"], terms["regression"] = self.proposals.loss(attention.anchors, boxes, valid)
            weights |= {"objectness": settings.weights.objectness, "regression": settings.weights.regression}
            observed["pseudo_boxes"] = valid.sum(dim=1).float()
        return Losses(terms, weights, observed), self._decomposition(attention, components, mean)

    def infer_masks(self, images: Tensor, settings: RMONetSettings) -> Attention:
        """Section 3.1: features, boxes, region-masked features, alpha maps, and the masks that share every pixel.

        Args:
            images: [B, 3, size, size].
            settings: the model's, as they are at this step of a training.

        Raises:
            ShapeError: images of another size than the model's.
        """
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        size = (settings.size, settings.size)
        features = self.backbone(settings.normalised(images).contiguous(memory_format=torch.channels_last))
        share = stick_breaking if settings.masks == "stick_breaking" else softmax_masks
        whole = F.pad(torch.full((2,), float(settings.size), device=images.device), (2, 0))  # [4]: x1 y1 x2 y2
        if self.proposals is None:  # Fig. 20: K-1 maps of the whole image
            log_masks = share(on_whole_images(self.head, features).unsqueeze(2).float())
            slots = SlotPacking.all_of(log_masks)
            return Attention(log_masks, slots, slots.pack(whole.expand(*slots.used.shape, 4)))
        anchors = self.proposals(tuple(features.pyramid.values()), size)
        boxes = self.proposals.propose(anchors, size, settings.num_slots - 1, settings.proposals.score_threshold)
        used = boxes.valid if settings.empty_slots == "left_out" else torch.ones_like(boxes.valid)
        objects = SlotPacking.of(used)
        alpha_logits = objects.unpack(self.head(features, objects.pack(boxes.boxes), objects, size).float())
        regions = touched_pixels(boxes.boxes, size, expand=settings.head.expand)
        gate = boxes.valid[..., None, None, None]
        if settings.alpha_inside_box:
            gate = gate & inside_boxes(boxes.boxes, size, expand=settings.head.expand)
        log_masks = share(alpha_logits, gate.expand_as(alpha_logits))
        slots = SlotPacking.of(F.pad(used, (0, 1), value=True))  # and the background
        regions = torch.cat([regions, whole.expand(len(images), 1, 4)], dim=1)
        return Attention(log_masks, slots, slots.pack(regions), boxes, anchors)

    def _decomposition(self, attention: Attention, components: Tensor, latents: Tensor) -> Decomposition:
        boxes = attention.boxes
        return Decomposition(
            log_masks=attention.log_masks,
            components=components,
            background=self.background,
            latents=latents,
            boxes=boxes.boxes if boxes else None,
            box_scores=boxes.scores if boxes else None,
            box_valid=boxes.valid if boxes else None,
        )
