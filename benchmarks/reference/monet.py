"""MONet as one writes it from the paper: float32, NCHW, slot by slot, every map drawn.

The layers, hence the parameters, are those of one of our models.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.reference.component_vae import PlainVAE
from benchmarks.reference.rmonet import categorical_kl, latent_kl, log_likelihood
from unscene.errors import RecipeError
from unscene.models.common.component_vae import LOWEST_LOG_MASK
from unscene.models.monet.attention_unet import AttentionUNet
from unscene.models.monet.model import MONet
from unscene.ops.group_norm_relu import GroupNormReLU


class PlainMONet(nn.Module):
    """The plain MONet with the parameters of one of ours.

    Args:
        model: with its own UNet; its parameters are shared, not copied.

    Raises:
        RecipeError: another attention network.
    """

    def __init__(self, model: MONet) -> None:
        super().__init__()
        if not isinstance(model.attention, AttentionUNet):
            raise RecipeError("the plain reference needs model.attention to be unet.")
        self.model, self.attention = model, model.attention
        self.vae = PlainVAE(model.vae)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] -> log masks [B, K, 1, H, W] and components [B, K, 3, H, W], latents at their means."""
        log_masks = self.infer_masks(images)
        mean, _ = self.vae.encode(images, log_masks)
        components, _ = self.vae.decode(mean)
        return torch.stack(log_masks, dim=1), torch.stack(components, dim=1)

    def loss(self, images: Tensor, step: int = 0) -> tuple[dict[str, Tensor], Tensor]:
        """The three terms of images [B, 3, H, W] by name, and their weighted sum, each [B]."""
        settings = self.model.settings.at(step)
        log_masks = self.infer_masks(images)
        mean, log_variance = self.vae.encode(images, log_masks)
        latents = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        components, mask_logits = self.vae.decode(latents)
        scales = [settings.sigma_background] + [settings.sigma_foreground] * (settings.num_slots - 1)
        terms = {
            "reconstruction": -log_likelihood(images, components, log_masks, scales, settings.mixture_over),
            "latent_kl": latent_kl(mean, log_variance),
            "mask_kl": categorical_kl(log_masks, mask_logits),
        }
        weighted = settings.latent_weight * terms["latent_kl"] + settings.mask_weight * terms["mask_kl"]
        return terms, terms["reconstruction"] + weighted

    def infer_masks(self, images: Tensor) -> list[Tensor]:
        """The recurrent attention: the log masks [B, 1, H, W] of the K slots."""
        log_scope = torch.zeros_like(images[:, :1])
        log_masks = []
        for _ in range(self.model.settings.num_slots - 1):
            logits = self.alpha_logits(torch.cat([images, log_scope.clamp(min=LOWEST_LOG_MASK)], dim=1))
            log_masks.append(log_scope + F.logsigmoid(logits))
            log_scope = log_scope + F.logsigmoid(-logits)
        return [*log_masks, log_scope]

    def alpha_logits(self, seen: Tensor) -> Tensor:
        """The UNet: [B, 4, H, W] -> [B, 1, H, W], resized by nearest neighbours, skips joined by concatenation."""
        skips: list[Tensor] = []
        seen = F.pixel_unshuffle(seen, self.attention.patch)
        for block in self.attention.down:
            seen = _block(block, F.interpolate(seen, scale_factor=0.5, mode="nearest") if skips else seen)
            skips.append(seen)
        seen = self.attention.bottom(seen).view(seen.shape)
        for level, block in enumerate(self.attention.up):
            coarse = F.interpolate(seen, scale_factor=2.0, mode="nearest") if level else seen
            seen = _block(block, torch.cat([coarse, skips[-1 - level]], dim=1))
        return F.pixel_shuffle(self.attention.to_logit(seen), self.attention.patch)


def _block(layers: nn.Module, seen: Tensor) -> Tensor:
    """Convolution, instance normalisation, ReLU."""
    assert isinstance(layers, nn.Sequential)
    convolution, normalise = layers
    assert isinstance(normalise, GroupNormReLU)
    return F.relu(F.instance_norm(convolution(seen), weight=normalise.weight, bias=normalise.bias))
