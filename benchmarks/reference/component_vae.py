"""MONet's component VAE slot by slot, and the spatial broadcast decoder on a tiled latent, as the papers draw them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.common.component_vae import LOWEST_LOG_MASK, ComponentVAE


class PlainVAE:
    """The component VAE with the layers of one of ours.

    Args:
        vae: of an R-MONet.

    Raises:
        RecipeError: a VAE that works on regions.
    """

    def __init__(self, vae: ComponentVAE) -> None:
        if "roi" in (vae.settings.encoder_region, vae.settings.decoder_region):
            raise RecipeError("the reference encodes and decodes whole images: set model.vae.*_region to image.")
        self.vae = vae

    def encode(self, images: Tensor, log_masks: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] and the log masks [B, 1, H, W] of the slots -> mean and log variance [B, K, D]."""
        settings = self.vae.settings
        codes = []
        for log_mask in log_masks:
            if settings.encoder_input == "image_and_log_mask":
                seen = torch.cat([images, log_mask.clamp(min=LOWEST_LOG_MASK)], dim=1)
            else:
                seen = torch.cat([images * log_mask.exp(), log_mask.exp()], dim=1)
            if settings.encoder_stride > 1:
                seen = F.avg_pool2d(seen, settings.encoder_stride)
            codes.append(self.vae.encoder(seen))
        code = torch.stack(codes, dim=1)
        return code[..., : settings.latent_dim], code[..., settings.latent_dim :]

    def decode(self, latents: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Latents [B, K, D] -> components [B, 3, H, W] and mask logits [B, 1, H, W] of each slot."""
        components, mask_logits = [], []
        for latent in latents.unbind(dim=1):
            decoded = self.broadcast_decoded(latent)
            colour = decoded[:, :3]
            components.append(torch.sigmoid(colour) if self.vae.settings.colour == "sigmoid" else colour)
            mask_logits.append(decoded[:, 3:])
        return components, mask_logits

    def broadcast_decoded(self, latents: Tensor) -> Tensor:
        """Latents [B, D] of one slot -> [B, 4, H, W]: tiled over the grid, with y and x, and convolved."""
        decoder = self.vae.decoder
        settings = self.vae.settings
        inner = self.vae.size // settings.decoder_stride
        side = inner + 2 * (settings.decoder_layers if settings.decoder_padding == "valid" else 1)
        line = torch.linspace(-1, 1, side, device=latents.device)
        y, x = torch.meshgrid(line, line, indexing="ij")
        places = torch.stack([y, x]).expand(len(latents), 2, side, side)
        tiled = latents[:, :, None, None].expand(-1, -1, side, side)
        features = torch.cat([tiled, places], dim=1)
        features = F.relu(F.conv2d(features, decoder.first.weight, decoder.first.bias))
        for layer in decoder.hidden:
            assert isinstance(layer, nn.Conv2d)
            padding = 0 if settings.decoder_padding == "valid" else 1
            features = F.relu(F.conv2d(features, layer.weight, layer.bias, padding=padding))
        decoded = F.conv2d(features, decoder.last.weight, decoder.last.bias)
        return F.pixel_shuffle(decoded, settings.decoder_stride)
