"""ReDO: unsupervised object segmentation by redrawing (Chen, Artieres & Denoyer, NeurIPS 2019).

Masks divide the image among K regions. If a region gets other colours and textures and the image still looks real, the
region is an object. A generator for each region redraws it inside its mask, one region at a time, and a discriminator
judges the image. A further network must read the code from the drawing, so that the generator cannot ignore the code.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call

from unscene.distributed.processes import shared_noise
from unscene.errors import check_shape
from unscene.models.redo.networks import RegionGenerator, ResidualEncoder
from unscene.models.redo.region_masks import RegionMasks
from unscene.ops.dispatch import at_least_float32
from unscene.scene import Decomposition, Losses
from unscene.settings import settings_dataclass


@settings_dataclass
class ReDOSettings:
    """Settings of the model; the defaults are those of the Flowers."""

    size: PositiveInt = 128  # height and width of the images, 4 times a power of 2 and at least 16
    num_slots: Annotated[int, Field(ge=2)] = 2  # K regions; none of them is known to be the background
    latent_dim: PositiveInt = 32  # length of each region's code z
    mask_channels: Annotated[int, Field(ge=4, multiple_of=4)] = 64  # channels of the mask network, a multiple of 4
    mask_blocks: NonNegativeInt = 3  # residual blocks of the mask network
    generator_channels: PositiveInt = 32  # channels of each generator's largest map
    discriminator_channels: PositiveInt = 64  # channels of the discriminator's first block
    code_channels: PositiveInt = 64  # channels of the first block of the code network
    attention: bool = True  # self-attention in the generators and the discriminator
    temperature: PositiveFloat = 1.0  # temperature of the masks
    code_weight: NonNegativeFloat = 5.0  # lambda_z, of the codes' reconstruction


class ReDO(nn.Module):
    """Mask network, generators, code network and discriminator. No region is known to be the background.

    One step trains all of them by one loss. The generators' term treats the discriminator's weights as constants, the
    discriminator's term treats the drawing as constant. (The authors' program makes the discriminator's step after the
    others', on new drawings.) Each network has its own learning rate in the recipe.
    """

    Settings = ReDOSettings
    background = None

    def __init__(self, settings: ReDOSettings) -> None:
        super().__init__()
        self.settings = settings
        size, latent_dim = settings.size, settings.latent_dim
        self.masks = RegionMasks(settings.num_slots, settings.mask_channels, settings.mask_blocks, settings.temperature)
        self.generators = nn.ModuleList(
            RegionGenerator(size, settings.generator_channels, latent_dim, settings.attention)
            for _ in range(settings.num_slots)
        )
        self.codes = ResidualEncoder(size, settings.code_channels, settings.num_slots * latent_dim)
        self.discriminator = ResidualEncoder(size, settings.discriminator_channels, 1, settings.attention)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1; the components are drawn from the codes read from the images."""
        real = self._normalise(images)
        log_masks = self.masks(real)
        codes = self._read(real)
        return self._decomposition(log_masks, self._draw(log_masks.exp(), codes), codes)

    def redraw(self, images: Tensor, latents: Tensor) -> Decomposition:
        """Draw the regions of the images from codes [B, K, D]."""
        log_masks = self.masks(self._normalise(images))
        return self._decomposition(log_masks, self._draw(log_masks.exp(), latents), latents)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """The three terms for images [B, 3, size, size], and the decomposition with the redrawn regions.

        redrawing: -D of the image with one region redrawn, mean over the regions.
        code_reconstruction: mean squared error of the codes read from the image with all regions redrawn.
        discriminator: hinge loss of D, real images against redrawn ones.
        """
        real = self._normalise(images)
        batch, slots, size = len(images), self.settings.num_slots, self.settings.size
        log_masks = self.masks(real)
        masks = log_masks.exp()
        shape = (batch, slots, self.settings.latent_dim)
        codes = shared_noise(torch.randn, shape, dtype=images.dtype, device=images.device)
        drawings = self._draw(masks, codes)  # [B, K, 3, H, W]
        redrawn = (masks * drawings + (1 - masks) * real.unsqueeze(1)).view(-1, 3, size, size)  # one region in each
        constants = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        scores = functional_call(self.discriminator, constants, (redrawn,))
        decoded_codes = self._read((masks * drawings).sum(dim=1))
        all_scores = (scores, self.discriminator(real), self.discriminator(redrawn.detach()))
        scores, real_score, redrawn_scores = (at_least_float32(score).view(batch, -1) for score in all_scores)
        terms = {
            "redrawing": -scores.mean(dim=1),
            "code_reconstruction": (codes - decoded_codes).square().mean(dim=(1, 2)),
            "discriminator": F.relu(1 - real_score).squeeze(1) + F.relu(1 + redrawn_scores).mean(dim=1),
        }
        weights = {"redrawing": 1.0, "code_reconstruction": self.settings.code_weight, "discriminator": 1.0}
        return Losses(terms, weights), self._decomposition(log_masks, drawings, codes)

    def _normalise(self, images: Tensor) -> Tensor:
        """The images in -1..1."""
        check_shape(images, f"B 3 {self.settings.size} {self.settings.size}", "images")
        return images * 2 - 1

    def _draw(self, masks: Tensor, codes: Tensor) -> Tensor:
        """[B, K, 3, H, W] in -1..1, each region drawn from its mask [B, K, 1, H, W] and code [B, K, D]."""
        regions = [generator(masks[:, k], codes[:, k]) for k, generator in enumerate(self.generators)]
        return at_least_float32(torch.stack(regions, dim=1))

    def _read(self, images: Tensor) -> Tensor:
        """[B, K, D] the codes of an image in -1..1."""
        codes: Tensor = self.codes(images)
        return at_least_float32(codes.unflatten(1, (self.settings.num_slots, -1)))

    def _decomposition(self, log_masks: Tensor, drawings: Tensor, codes: Tensor) -> Decomposition:
        return Decomposition(log_masks=log_masks, components=(drawings + 1) / 2, background=None, latents=codes)
