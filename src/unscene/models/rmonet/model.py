"""R-MONet: region-based unsupervised scene decomposition (ICLR 2021 submission), in the order of its Section 3.

Section 3.1, Eq. 1: {m_k}, {t_k} = f_psi(x)   `RMONet.infer_masks`: `resnet_fpn`, `proposals`,
                                              `segmentation_heads`, and `models.common.stick_breaking` (Eq. 4-7)
Section 3.1, q(z_k | x, m_k)                  `models.common.component_vae`, `encode`
Section 3.2, the segmentation heads           `segmentation_heads`
Section 3.3, Eq. 2: p(x | {z_k}), p(m | z_k)  `component_vae`, `decode`, and `models.common.mixture`
Section 3.4, pseudo boxes                     `pseudo_boxes`, with `multi_otsu`
Section 3.5, Eq. 3: the five terms            `RMONet.loss`; its last two: `proposals.RegionProposals.loss`
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import check_shape
from unscene.models.common.component_vae import ComponentVAE
from unscene.models.common.gaussian import gaussian_kl, sample_gaussian
from unscene.models.common.mixture import mask_kl, mixture_log_likelihood, posterior_kl, posterior_log_masks
from unscene.models.common.spatial_transformer import whole_image_box
from unscene.models.common.stick_breaking import stick_breaking
from unscene.models.rmonet.proposals import AnchorPredictions, Proposals, RegionProposals
from unscene.models.rmonet.pseudo_boxes import maps_by_quality, pseudo_boxes
from unscene.models.rmonet.resnet_fpn import ResNetFPN
from unscene.models.rmonet.segmentation_heads import (
    LEVELS_READ,
    alpha_logits,
    inside_boxes,
    segmentation_head,
    touched_cells,
)
from unscene.models.rmonet.settings import RMONetSettings
from unscene.ops.dispatch import at_least_float32
from unscene.scene import Decomposition, Losses


class Attention(NamedTuple):
    """The masks and boxes that Eq. 1 infers; without detection there are only masks, of the whole image."""

    log_masks: Tensor  # [B, K, 1, H, W] log m_k, the background last
    used: Tensor | None = None  # [B, K] bool, the slots to encode and decode; None: all
    regions: Tensor | None = None  # [B, K, 4] x1 y1 x2 y2 in whole pixels: a mask is 0 outside its region
    boxes: Proposals | None = None  # t_k of the foreground slots
    anchors: AnchorPredictions | None = None  # p_i and t_i of every anchor


class RMONet(nn.Module):
    """R-MONet. The background is the last slot; box n is of slot n."""

    Settings = RMONetSettings
    background = -1

    def __init__(self, settings: RMONetSettings) -> None:
        super().__init__()
        self.settings = settings
        levels = LEVELS_READ[settings.head.kind]
        self.backbone = ResNetFPN(settings.backbone) if settings.detection else ResNetFPN(settings.backbone, 3, levels)
        channels = settings.backbone.fpn_channels
        self.proposals = RegionProposals(settings.proposals, channels) if settings.detection else None
        maps = 1 if settings.detection else settings.num_slots - 1
        self.head = segmentation_head(settings.head, self.backbone, channels, settings.size, maps)
        self.vae = ComponentVAE(settings.vae, settings.size)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1, with each latent at its posterior's mean."""
        attention = self.infer_masks(images, self.settings)
        mean, _ = self.vae.encode(images, attention.log_masks, attention.used, attention.regions)
        components, _ = self.vae.decode(mean, attention.used, attention.regions, self.settings.limits, images)
        if self.settings.masks == "posterior":
            sigmas = self.settings.sigmas(images)
            attention = attention._replace(
                log_masks=posterior_log_masks(images, components, attention.log_masks, sigmas)
            )
        return self._decomposition(attention, components, mean)

    def redraw(self, images: Tensor, latents: Tensor) -> Decomposition:
        """Decode latents [B, K, D] in the boxes of the images; the masks are the decoded ones, p(m | z_k)."""
        attention = self.infer_masks(images, self.settings)
        components, mask_logits = self.vae.decode(
            latents, attention.used, attention.regions, self.settings.limits, images
        )
        return self._decomposition(attention._replace(log_masks=mask_logits.log_softmax(dim=1)), components, latents)

    def infer_masks(self, images: Tensor, settings: RMONetSettings) -> Attention:
        """Section 3.1, Eq. 1: {m_k}, k in [1, K], and {t_k}, k in [1, K-1], = f_psi(x), for images [B, 3, size, size].

        `settings` are the model's, as they are at this step of a training.
        """
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        size = (settings.size, settings.size)
        whole = whole_image_box(settings.size, images.device).expand(len(images), 1, 4)
        features = self.backbone(settings.normalised(images))  # ResNet18 and FPN
        if self.proposals is None:  # Fig. 20, the ablation: K-1 alpha maps of the whole image
            alpha = at_least_float32(alpha_logits(self.head, features, whole))  # [B, 1, K-1, H, W]
            return Attention(stick_breaking(alpha.transpose(1, 2)))
        anchors = self.proposals(tuple(features.pyramid.values()), size)  # the RPN's p_i and t_i
        boxes = self.proposals.propose(anchors, size, settings.num_slots - 1, settings.proposals.score_threshold)  # t_k
        used = F.pad(boxes.valid | (not settings.skip_empty_slots), (0, 1), value=True)  # [B, K], and the background
        alpha = at_least_float32(alpha_logits(self.head, features, boxes.boxes, used[:, :-1]))  # Section 3.2
        gate = inside_boxes(boxes.boxes, size, expand=settings.head.expand)  # alpha_k is 0 outside the widened box
        regions = torch.cat([touched_cells(boxes.boxes, size, expand=settings.head.expand), whole], dim=1)
        return Attention(stick_breaking(alpha, gate), used, regions, boxes, anchors)  # Eq. 4-7

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """Section 3.5, Eq. 3: its five terms, each [B] in nats, and the decomposition that they score.

        -log sum_k m_k p(x | z_k) + beta KL(q(z_k | x, m_k) || p(z_k)) + gamma KL(q(m | x) || p(m | z_k))
        + delta sum_i L_cls(p_i, p^_i) + lambda / N_reg sum_i p^_i L_reg(t_i, t^_i)

        The images x are [B, 3, size, size] in 0..1; the warm-up depends on the step of the training.
        """
        settings = self.settings.at(step)
        attention = self.infer_masks(images, settings)  # q(m | x) and t_k, Section 3.1
        log_masks, used, regions = attention.log_masks, attention.used, attention.regions
        mean, log_variance = self.vae.encode(images, log_masks, used, regions)  # q(z_k | x, m_k), Section 3.1
        latents = sample_gaussian(mean, log_variance)  # z_k
        components, mask_logits = self.vae.decode(latents, used, regions, settings.limits, images)  # X_k, p(m | z_k)
        terms = {
            "reconstruction": -mixture_log_likelihood(  # Eq. 2
                images, components, log_masks, settings.sigmas(images), settings.mixture_over
            ),
            "latent_kl": gaussian_kl(mean, log_variance).sum(dim=1),
            "mask_kl": mask_kl(log_masks, mask_logits),
        }
        beta, gamma = settings.weights.latent, settings.weights.mask
        weights = {"reconstruction": 1.0, "latent_kl": beta, "mask_kl": gamma}
        if weight := settings.weights.posterior.at(step):
            terms["posterior_kl"] = posterior_kl(images, components, log_masks, settings.sigmas(images))
            weights["posterior_kl"] = weight
        observed = {}
        if self.proposals is not None and attention.anchors is not None:  # Section 3.4; no gradient through the masks
            masks = log_masks.detach().exp()
            maps = masks[:, :-1, 0]
            if settings.pseudo_boxes.by_quality:
                maps = maps_by_quality(images, components.detach(), masks, settings.sigma_foreground)
            targets, _, valid = pseudo_boxes(maps, settings.pseudo_boxes)  # t^_i
            terms["objectness"], terms["regression"] = self.proposals.loss(attention.anchors, targets, valid)
            weights |= {"objectness": settings.weights.objectness, "regression": settings.weights.regression}
            observed["pseudo_boxes"] = valid.sum(dim=1).float()
        return Losses(terms, weights, observed), self._decomposition(attention, components, mean)

    def _decomposition(self, attention: Attention, components: Tensor, latents: Tensor) -> Decomposition:
        boxes, scores, valid = attention.boxes or (None, None, None)
        return Decomposition(attention.log_masks, components, self.background, latents, boxes, scores, valid)
