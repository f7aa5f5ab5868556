"""R-MONet (UNet) as one writes it from the paper with the usual libraries: the reference of ratios and of equality.

The layers, hence the parameters, are those of one of our models. What happens between them is plain: torchvision's RPN
with its loops over images, ROI masks drawn box by box, head and VAE slot by slot, scikit-image for the pseudo boxes.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from benchmarks.reference.component_vae import PlainVAE
from benchmarks.reference.pseudo_boxes import plain_pseudo_boxes
from benchmarks.reference.region_proposals import PlainProposals, Predicted
from unscene.errors import RecipeError
from unscene.models.common.mixture import MixtureOver
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.models.rmonet.model import RMONet
from unscene.models.rmonet.segmentation_heads import UNetHead
from unscene.models.rmonet.settings import RMONetSettings


class PlainRMONet(nn.Module):
    """The plain R-MONet with the parameters of one of ours.

    Args:
        model: with the UNet head; its parameters are shared, not copied. For an NCHW run give it a copy that is not
            channels-last: `copy.deepcopy(model).to(memory_format=torch.contiguous_format)`.

    Raises:
        RecipeError: a variant that the reference does not know.
    """

    def __init__(self, model: RMONet) -> None:
        super().__init__()
        settings = model.settings
        needed = {
            "model.head.kind": (settings.head.kind, "unet"),
            "model.detection": (settings.detection, True),
            "model.skip_empty_slots": (settings.skip_empty_slots, False),
            "model.pseudo_boxes.by_quality": (settings.pseudo_boxes.by_quality, False),
            "model.background_cells": (settings.background_cells, 0),
            "model.foreground_colours": (settings.foreground_colours, 0),
        }
        for name, (found, expected) in needed.items():
            if found != expected:
                raise RecipeError(f"the plain reference needs {name} to be {expected}, not {found}.")
        assert model.proposals is not None
        assert isinstance(model.head, UNetHead)
        self.model, self.head = model, model.head
        self.proposals = PlainProposals(model.proposals)
        self.vae = PlainVAE(model.vae)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] -> log masks [B, K, 1, H, W] and components [B, K, 3, H, W], latents at their means."""
        _, log_masks = self.infer_masks(images, self.model.settings)
        mean, _ = self.vae.encode(images, log_masks)
        components, _ = self.vae.decode(mean)
        return torch.stack(log_masks, dim=1), torch.stack(components, dim=1)

    def loss(self, images: Tensor, step: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """Eq. 3 for images [B, 3, H, W]: its five terms by name and their weighted sum, each [B]."""
        settings = self.model.settings.at(step)
        predicted, log_masks = self.infer_masks(images, settings)
        mean, log_variance = self.vae.encode(images, log_masks)
        latents = mean + torch.exp(log_variance / 2) * torch.randn(mean.shape, device=mean.device)
        components, mask_logits = self.vae.decode(latents)
        terms = {
            "reconstruction": -log_likelihood(
                images, components, log_masks, slot_scales(settings), settings.mixture_over
            ),
            "latent_kl": latent_kl(mean, log_variance),
            "mask_kl": categorical_kl(log_masks, mask_logits),
        }
        foreground = torch.cat(log_masks[:-1], dim=1).detach().exp()
        boxes = [found for found, _ in plain_pseudo_boxes(foreground, settings.pseudo_boxes)]
        targets = [found.to(images.device) for found in boxes]
        terms["objectness"], terms["regression"] = self.proposals.loss_by_image(predicted, targets)
        weights = settings.weights
        total = terms["reconstruction"] + weights.latent * terms["latent_kl"] + weights.mask * terms["mask_kl"]
        return terms, total + weights.objectness * terms["objectness"] + weights.regression * terms["regression"]

    def infer_masks(self, images: Tensor, settings: RMONetSettings) -> tuple[Predicted, list[Tensor]]:
        """Section 3.1: what the RPN says of its anchors, and the log masks [B, 1, H, W] of the K slots."""
        conv, pyramid = self.features(images)
        predicted = self.proposals.predict(images, pyramid)
        boxes = self.proposals.propose(predicted, settings.num_slots - 1, settings.proposals.score_threshold)
        alpha_logits = [self.alpha_logits(conv, pyramid, boxes, slot) for slot in range(settings.num_slots - 1)]
        return predicted, self.stick_breaking(alpha_logits, boxes)

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """conv1..conv5 of ResNet18, and the five maps of the pyramid."""
        backbone = self.model.backbone
        seen = (images - 0.5) / 0.5 if self.model.settings.normalise else images
        conv1 = F.relu(backbone.bn1(backbone.conv1(seen)))
        conv2 = backbone.layer1(backbone.maxpool(conv1))
        conv3 = backbone.layer2(conv2)
        conv4 = backbone.layer3(conv3)
        conv5 = backbone.layer4(conv4)
        pyramid = list(backbone.fpn(OrderedDict(conv2=conv2, conv3=conv3, conv4=conv4, conv5=conv5)).values())
        return [conv1, conv2, conv3, conv4, conv5], [*pyramid, F.max_pool2d(pyramid[-1], 1, 2)]

    def alpha_logits(self, conv: list[Tensor], pyramid: list[Tensor], boxes: list[Tensor], slot: int) -> Tensor:
        """The UNet head (Fig. 22) for one slot's box of each image -> [B, 1, H, W]."""
        head = self.head
        conv1, conv2, conv3, conv4, _ = conv

        def masked(features: Tensor, stride: int) -> Tensor:
            return features * roi_masks(boxes, slot, features, stride, head.expand)

        maps = head.mlp(pyramid[3]).unflatten(1, head.bottom_shape)
        maps = head.up4(torch.cat([_double(maps), conv4], dim=1))
        maps = head.up3(torch.cat([_double(maps), masked(conv3, 8)], dim=1))
        maps = head.up2(torch.cat([_double(maps), masked(conv2, 4)], dim=1))
        maps = head.up1(torch.cat([_double(maps), masked(conv1, 2)], dim=1))
        return F.pixel_shuffle(head.to_alpha(maps), 2)

    def stick_breaking(self, alpha_logits: list[Tensor], boxes: list[Tensor]) -> list[Tensor]:
        """Eq. 4-7, one slot after the other, in logs: the log masks [B, 1, H, W] of all K slots."""
        settings = self.model.settings
        log_scope = torch.zeros_like(alpha_logits[0])
        log_masks = []
        for slot, logits in enumerate(alpha_logits):
            gate = box_gate(boxes, slot, logits, settings.head.expand)
            log_masks.append(log_scope + torch.where(gate, F.logsigmoid(logits), LOG_ZERO))
            log_scope = log_scope + torch.where(gate, F.logsigmoid(-logits), 0.0)
        return [*log_masks, log_scope]


def roi_masks(boxes: list[Tensor], slot: int, features: Tensor, stride: int, expand: float) -> Tensor:
    """The ternary map [B, 1, h, w] of one slot's boxes, drawn box by box: -1 on the widened box, +1 inside, else 0."""
    maps = torch.zeros(len(boxes), 1, *features.shape[2:], device=features.device)
    for image, image_boxes in enumerate(boxes):
        if slot < len(image_boxes):
            _fill(maps[image, 0], image_boxes[slot], stride, expand, -1.0)
            _fill(maps[image, 0], image_boxes[slot], stride, 0.0, 1.0)
    return maps


def box_gate(boxes: list[Tensor], slot: int, like: Tensor, expand: float) -> Tensor:
    """[B, 1, H, W] where a slot may take pixels: in its widened box."""
    gate = torch.zeros(like.shape, device=like.device)
    for image, image_boxes in enumerate(boxes):
        if slot < len(image_boxes):
            _fill(gate[image, 0], image_boxes[slot], 1, expand, 1.0)
    return gate > 0


def _fill(grid: Tensor, box: Tensor, stride: int, expand: float, value: float) -> None:
    """Write a value into every cell of a grid [h, w] that the widened box touches."""
    x1, y1, x2, y2 = box.tolist()
    across, down = expand * (x2 - x1), expand * (y2 - y1)
    left, top = max(0, math.floor((x1 - across) / stride)), max(0, math.floor((y1 - down) / stride))
    grid[top : math.ceil((y2 + down) / stride), left : math.ceil((x2 + across) / stride)] = value


def slot_scales(settings: RMONetSettings) -> list[float]:
    """The standard deviations of the K slots' Gaussians, the background's last."""
    return [settings.sigma_foreground] * (settings.num_slots - 1) + [settings.sigma_background]


def log_likelihood(
    images: Tensor, components: list[Tensor], log_masks: list[Tensor], scales: list[float], over: MixtureOver
) -> Tensor:
    """log sum_k m_k N(x; X_k, sigma_k) of Eq. 3, summed over the image: [B]."""
    weighted = []
    for component, log_mask, scale in zip(components, log_masks, scales, strict=True):
        log_density = Normal(component, scale).log_prob(images)
        if over == "pixel":
            log_density = log_density.sum(dim=1, keepdim=True)
        weighted.append(log_mask + log_density)
    return torch.logsumexp(torch.stack(weighted), dim=0).sum(dim=(1, 2, 3))


def latent_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z | x, m) || N(0, 1)) of mean and log variance [B, K, D], summed over slots: [B]."""
    posterior = Normal(mean, torch.exp(log_variance / 2))
    prior = Normal(torch.zeros_like(mean), torch.ones_like(mean))
    return kl_divergence(posterior, prior).sum(dim=(1, 2))


def categorical_kl(log_masks: list[Tensor], mask_logits: list[Tensor]) -> Tensor:
    """KL(q(m | x) || p(m | z)) at every pixel, summed over the image: [B]."""
    log_decoded = torch.log_softmax(torch.stack(mask_logits), dim=0)
    divergence = torch.zeros(len(log_masks[0]), device=log_decoded.device)
    for log_mask, decoded in zip(log_masks, log_decoded, strict=True):
        divergence = divergence + (log_mask.exp() * (log_mask - decoded)).sum(dim=(1, 2, 3))
    return divergence


def _double(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
