"""The component VAE (MONet, Burgess et al., 2019): one latent for what a mask shows, and back to colour and mask."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.blocks.spatial_broadcast import Padding, SpatialBroadcastDecoder, keep_variance
from unscene.errors import RecipeError, check_shape

EncoderInput = Literal["image_and_log_mask", "masked_image_and_mask"]
LOWEST_LOG_MASK = -16.0  # the encoder reads log masks, and a far larger number for "nothing here" would drown the image


@dataclass(frozen=True)
class ComponentVAESettings:
    """Settings of the component VAE; the defaults are MONet's.

    Attributes:
        latent_dim: D.
        encoder_channels: one 3x3 convolution of stride 2 each.
        encoder_hidden: width of the fully connected layer.
        encoder_input: what the encoder reads. `image_and_log_mask` is the paper's; `masked_image_and_mask` is ours:
            the image is multiplied by the mask, so that a colour need not be told from its surroundings first.
        encoder_stride: image and mask are averaged over squares of this side before anything else (1: the paper's).
        decoder_channels: of the spatial broadcast decoder.
        decoder_layers: number of its 3x3 convolutions.
        decoder_padding: `valid` (the paper's) or `same`.
        decoder_stride: 1 (the paper's) or 2, see `SpatialBroadcastDecoder`.
        colour: `sigmoid` keeps the reconstruction in 0..1, `linear` leaves it free.
    """

    latent_dim: int = 16
    encoder_channels: tuple[int, ...] = field(default=(32, 32, 64, 64))
    encoder_hidden: int = 256
    encoder_input: EncoderInput = "image_and_log_mask"
    encoder_stride: int = 1
    decoder_channels: int = 32
    decoder_layers: int = 4
    decoder_padding: Padding = "valid"
    decoder_stride: int = 1
    colour: Literal["sigmoid", "linear"] = "sigmoid"


class ComponentVAE(nn.Module):
    """Encode (image, mask_k) to a diagonal Gaussian over z_k, decode z_k to the component X_k and its mask's logit.

    Args:
        settings: see `ComponentVAESettings`.
        size: height and width of the images.

    Raises:
        RecipeError: the image is too small for the encoder's strides, or not a multiple of `encoder_stride`.
    """

    def __init__(self, settings: ComponentVAESettings, size: int) -> None:
        super().__init__()
        self.settings = settings
        if size % settings.encoder_stride:
            raise RecipeError(
                f"images of {size} pixels cannot be averaged over squares of {settings.encoder_stride}: choose a "
                "model.vae.encoder_stride that divides data.size."
            )
        smallest = size // settings.encoder_stride // 2 ** len(settings.encoder_channels)
        if smallest < 1:
            raise RecipeError(
                f"images of {size} pixels are too small for {len(settings.encoder_channels)} encoder layers after "
                f"averaging {settings.encoder_stride} pixels: shorten model.vae.encoder_channels or enlarge data.size."
            )
        layers: list[nn.Module] = []
        before = 4
        for channels in settings.encoder_channels:
            layers += [nn.Conv2d(before, channels, 3, stride=2, padding=1), nn.ReLU()]
            before = channels
        left = -(-size // settings.encoder_stride // 2 ** len(settings.encoder_channels))
        self.encoder = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(before * left**2, settings.encoder_hidden),
            nn.ReLU(),
            nn.Linear(settings.encoder_hidden, 2 * settings.latent_dim),
        )
        if settings.encoder_input == "masked_image_and_mask":  # log masks, down to -16, would start it far too loud
            keep_variance(*list(self.encoder)[:-1])
        self.decoder = SpatialBroadcastDecoder(
            settings.latent_dim,
            out_channels=4,
            channels=settings.decoder_channels,
            layers=settings.decoder_layers,
            size=size,
            padding=settings.decoder_padding,
            stride=settings.decoder_stride,
        )

    def encode(self, images: Tensor, log_masks: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] and [B, K, 1, H, W] -> mean and log variance of q(z_k | x, m_k), [B, K, D] each.

        Raises:
            ShapeError: axes that do not fit together.
        """
        size = check_shape(log_masks, "B K 1 H W", "log_masks")
        check_shape(images, f"{size['B']} 3 {size['H']} {size['W']}", "images")
        stride = self.settings.encoder_stride
        images = F.avg_pool2d(images, stride)
        if self.settings.encoder_input == "image_and_log_mask":
            mask = F.avg_pool2d(log_masks.clamp_min(LOWEST_LOG_MASK).squeeze(2), stride).unsqueeze(2)
            shown = images[:, None].expand(-1, size["K"], -1, -1, -1)
        else:
            mask = F.avg_pool2d(log_masks.exp().squeeze(2), stride).unsqueeze(2)
            shown = images[:, None] * mask
        read = torch.cat([shown, mask], dim=2).flatten(0, 1)  # [B*K, 4, H', W']
        code = self.encoder(read.contiguous(memory_format=torch.channels_last))
        mean, log_variance = code.unflatten(0, (size["B"], size["K"])).float().chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """[B, K, D] -> components [B, K, 3, H, W] and mask logits [B, K, 1, H, W], float32."""
        slots = latents.shape[:2]
        drawn = self.decoder(latents.flatten(0, 1)).unflatten(0, slots).float()
        colour, mask_logits = drawn.split([3, 1], dim=2)
        return (colour.sigmoid() if self.settings.colour == "sigmoid" else colour), mask_logits
