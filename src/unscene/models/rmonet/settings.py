"""Every setting of R-MONet and its parts; the defaults are the paper's UNet variant on Multi-dSprites."""

from __future__ import annotations

from dataclasses import field, replace
from typing import Annotated, Literal

import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torchvision.transforms.functional import normalize

from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed, WarmupSettings
from unscene.models.common.component_vae import ColourLimits, ComponentVAESettings
from unscene.models.common.mixture import MaskOutput, MixtureOver
from unscene.ops.dispatch import at_least_float32
from unscene.settings import settings_dataclass

Share = Annotated[float, Field(ge=0, le=1)]
IMAGENET_WIDTH = 64  # of ResNet18
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that its weights saw


@settings_dataclass
class BackboneSettings:
    """Settings of the backbone."""

    # channels of conv1 and conv2; conv3, conv4, conv5 have 2, 4 and 8 times as many (64: ResNet18)
    width: PositiveInt = 64
    fpn_channels: PositiveInt = 256  # channels of every map of the pyramid
    # Start from torchvision's ImageNet weights (the paper's Fig. 21); needs `width` 64 and a download on first use. The
    # pyramid has no such weights. No layer and no batch normalisation is frozen.
    pretrained: bool = False

    def __post_init__(self) -> None:
        if self.pretrained and self.width != IMAGENET_WIDTH:
            raise RecipeError(
                f"pretrained needs width {IMAGENET_WIDTH}, not {self.width}: set pretrained to false, or width to "
                f"{IMAGENET_WIDTH}."
            )


@settings_dataclass
class HeadSettings:
    """Settings of the segmentation head."""

    # `unet` (Section 3.2), `lite` (S4Net's head on the stride-8 map), `roi_align` (Mask R-CNN's)
    kind: Literal["unet", "lite", "roi_align"] = "unet"
    channels: PositiveInt = 64  # channels of its convolutions
    convolutions: PositiveInt = 1  # 3x3 convolutions a level of the UNet head
    # normalise after each convolution; False has a bias instead and is a sixth of the step cheaper
    group_norm: bool = True
    # Width of the ROI mask's ring, as a share of the box ("expand ratio sigma"). ROI Align sees no ring: 0.
    expand: NonNegativeFloat = 0.3
    bottleneck: PositiveInt = 128  # units of the UNet head's multilayer perceptron
    align_size: PositiveInt = 14  # side of the map that ROI Align cuts out; its output is twice as large

    def __post_init__(self) -> None:
        if self.group_norm and self.channels % min(8, self.channels):
            raise RecipeError(
                f"channels must be 1 to 8 or a multiple of 8 for equal groups, not {self.channels}: choose another, "
                "or set group_norm to false."
            )


@settings_dataclass
class ProposalSettings:
    """Settings of the region proposal network; the names in quotes are the appendix tables'."""

    # side of the anchors in pixels, one a pyramid level ("anchor size")
    anchor_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=5, max_length=5)] = (16, 32, 64, 128, 256)
    anchor_ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)  # height / width ("anchor aspect ratio")
    # IoU above which the lower-scored box of a level is dropped ("NMS threshold inside each layer")
    level_nms_threshold: Share = 0.3
    top_n_before: PositiveInt = 100  # boxes of a level that enter its NMS ("pre layer NMS top n")
    # boxes of an image that leave it ("post layer NMS top n"; as torchvision counts: of all levels)
    top_n_after: PositiveInt = 20
    score_threshold: Share = 0.5  # boxes that do not score above it are dropped ("prediction score threshold")
    final_nms_threshold: Share = 0.3  # threshold of the NMS over all levels ("NMS threshold for output bbox")
    # Boxes with a longer side, in pixels, are dropped; None drops none. Ours, for objects of about one size: then no
    # box holds two of them.
    max_side: PositiveFloat | None = None
    foreground_iou: Share = 0.7  # anchors that overlap a pseudo box at least so much are positive
    background_iou: Share = 0.3  # anchors that overlap every pseudo box less are negative; those between are left out
    batch_size: PositiveInt = 256  # anchors sampled from an image ("batch size per image")
    positive_fraction: Share = 0.5  # share of positive ones among them, at most
    # N_reg of Eq. 3, by which the regression's sum is divided: all `anchors` of the image (the paper's text) or the
    # `sampled` ones (torchvision, old and new; four times the weight at 64 pixels).
    regression_normaliser: Literal["anchors", "sampled"] = "anchors"
    # where the regression loss turns from square to linear: 1 in Girshick (2015), which the paper names, 1/9 in
    # torchvision, 0 in its version 0.4.1, a plain L1
    smooth_l1_beta: NonNegativeFloat = 1.0


@settings_dataclass
class PseudoBoxSettings:
    """How masks become boxes; the defaults are R-MONet's for Multi-dSprites (CLEVR: `min_side=5`)."""

    floor: NonNegativeFloat = 0.001  # mask values under this count as 0
    classes: Annotated[int, Field(ge=2)] = 3  # classes of Multi-Otsu; there are `classes - 1` thresholds a mask
    bins: PositiveInt = 5  # bins of Multi-Otsu's histogram
    min_side: NonNegativeInt = 3  # least width and height of a box, in pixels
    max_ratio: Annotated[float, Field(ge=1)] = 3.0  # a box's longer side is at most this many times the shorter one
    # Boxes with a lower score are dropped. 0 is the paper's. The thresholds are relative to a mask's own range, so with
    # 0 the faint values that an unused slot keeps become boxes.
    min_score: NonNegativeFloat = 0.0
    # False (the paper's): boxes of the foreground's masks. True (ours, for objects of one colour): boxes of what each
    # slot explains and of what it leaves unexplained, see `maps_by_quality`.
    by_quality: bool = False
    # of two boxes of an image that overlap by more than this IoU, the one with the lower score is dropped
    nms_threshold: Share = 0.7
    max_boxes: PositiveInt = 32  # N, the boxes returned for an image; of more, the best scores stay
    # boxes of an image that enter the suppression; of more (noise), the best scores enter
    max_candidates: PositiveInt = 256


@settings_dataclass
class LossWeights:
    """Factors of the loss terms (Eq. 3): beta `latent`, gamma `mask`, delta `objectness`, lambda `regression`."""

    latent: NonNegativeFloat = 0.5
    mask: NonNegativeFloat = 0.5
    objectness: NonNegativeFloat = 1.0
    regression: NonNegativeFloat = 1.0
    # of the masks' divergence from the posterior ones, KL(p(m | x, X) || q(m | x)), over the steps; 0 is the paper's.
    # The posterior ones see the image's own error, the likelihood only sigma_k. Ours.
    posterior: Annealed = field(default_factory=Annealed)

    def __post_init__(self) -> None:
        if self.posterior.values[0] < 0:
            raise RecipeError(f"posterior must be 0 or more, not {self.posterior.values[0]:g}.")


@settings_dataclass
class RMONetSettings:
    """Settings of the model and its parts."""

    # height and width of the images, a multiple of 32, so that every map of the backbone covers the image
    size: int = 64
    num_slots: Annotated[int, Field(ge=2)] = 6  # K, the background included
    sigma_background: PositiveFloat = 0.09  # standard deviation of the background's Gaussian, for images in 0..1
    sigma_foreground: PositiveFloat = 0.11  # standard deviation of the foreground's Gaussians
    # False (the paper's): a slot without a box is encoded and decoded like any other, from an empty mask; its latent
    # and the mask it decodes to count in the loss. True (ours): it is not computed at all, its latent costs nothing and
    # its decoded mask is 0.
    skip_empty_slots: bool = False
    # False is the paper's ablation (Fig. 20): no boxes and no pseudo-box loss, K-1 masks in parallel.
    detection: bool = True
    mixture_over: MixtureOver = "pixel"  # the likelihood mixes each `pixel`, or each `channel` by itself
    # masks of the output: `inferred` are the papers', q(m | x); `posterior` (ours) weighs them by how well each slot's
    # component fits the pixel, see `posterior_log_masks`. The loss is the same with both;
    # a validation, and so the choice of the best weights, sees the shown masks.
    masks: MaskOutput = "inferred"
    # images enter the backbone as they are; with true as (x - .5) / .5 (the Lite variant's table); with `imagenet` by
    # ImageNet's mean and standard deviation, which a pretrained backbone needs
    normalise: bool | Literal["imagenet"] = False
    weights: LossWeights = field(default_factory=LossWeights)  # weights of the loss terms
    warmup: WarmupSettings = field(default_factory=WarmupSettings)  # see `WarmupSettings`; the papers have none
    # 0 (the paper's): the background's component is free; otherwise it is a map of so many cells in either direction,
    # see `coarse`, and cannot draw objects. 1 is one colour. Ours.
    background_cells: NonNegativeInt = 0
    # 0 (the papers'): an object's component is free. With 1 an object has one colour; with 2 or more it has so many,
    # and each pixel takes the nearest, see `nearest_colours`. Ours.
    foreground_colours: NonNegativeInt = 0
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    proposals: ProposalSettings = field(default_factory=ProposalSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    vae: ComponentVAESettings = field(default_factory=ComponentVAESettings)
    pseudo_boxes: PseudoBoxSettings = field(default_factory=PseudoBoxSettings)

    def __post_init__(self) -> None:
        if self.size < 32 or self.size % 32:
            raise RecipeError(
                f"size must be a multiple of 32, not {self.size}: set data.size to "
                f"{max(32, round(self.size / 32) * 32)}."
            )
        if self.detection and self.num_slots - 1 > self.proposals.top_n_after:
            raise RecipeError(
                f"num_slots {self.num_slots} needs {self.num_slots - 1} boxes, but proposals.top_n_after is "
                f"{self.proposals.top_n_after}: raise it, or take fewer slots."
            )
        if self.backbone.pretrained and self.normalise != "imagenet":
            raise RecipeError("backbone.pretrained needs normalise imagenet: its weights were trained on such images.")
        if "roi" in (self.vae.encoder_region, self.vae.decoder_region) and not self.detection:
            raise RecipeError(
                "vae.encoder_region and vae.decoder_region can be roi only where slots have boxes: set "
                "detection to true, or both regions to image."
            )

    def at(self, step: int) -> RMONetSettings:
        """Return the settings at a step of a training: these, or during the warm-up values on the way to them."""
        warmup, weights, proposals = self.warmup, self.weights, self.proposals
        if step >= warmup.steps:
            return self
        free = warmup.free_colours
        return replace(
            self,
            background_cells=0 if free else self.background_cells,
            foreground_colours=0 if free else self.foreground_colours,
            pseudo_boxes=replace(self.pseudo_boxes, by_quality=self.pseudo_boxes.by_quality and not free),
            sigma_foreground=warmup.sigma(step, self.sigma_foreground),
            weights=replace(
                weights,
                latent=warmup.linear(step, warmup.latent_weight, weights.latent),
                mask=warmup.linear(step, warmup.mask_weight, weights.mask),
            ),
            proposals=replace(
                proposals, score_threshold=warmup.linear(step, warmup.score_threshold, proposals.score_threshold)
            ),
        )

    def normalised(self, images: Tensor) -> Tensor:
        """Return images [B, 3, size, size] in 0..1 as the backbone reads them."""
        if self.normalise == "imagenet":
            return normalize(images, list(IMAGENET_MEAN), list(IMAGENET_STD))
        return (images - 0.5) / 0.5 if self.normalise else images

    @property
    def limits(self) -> ColourLimits:
        """What the slots' components may show."""
        return ColourLimits(-1, self.background_cells, self.foreground_colours)

    def sigmas(self, like: Tensor) -> Tensor:
        """Return the [K] standard deviations of the slots' Gaussians, the background's last, on a tensor's device."""
        foreground = at_least_float32(like).new_full((self.num_slots - 1,), self.sigma_foreground)
        return F.pad(foreground, (0, 1), value=self.sigma_background)  # no copy from the host, which would wait
