"""The component VAE (MONet, Burgess et al., 2019): one latent for what a mask shows, and back to colour and mask."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.layers import kaiming_init_
from unscene.models.common.spatial_broadcast_decoder import Padding, SpatialBroadcastDecoder
from unscene.models.common.spatial_transformer import crop_boxes, paste_boxes, whole_image_box
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.ops.dispatch import at_least_float32
from unscene.ops.slot_packing import SlotPacking
from unscene.settings import settings_dataclass

EncoderInput = Literal["image_and_log_mask", "masked_image_and_mask"]
LOWEST_LOG_MASK = -16.0  # of what a network reads: the log of 0 is far larger, and would drown the image


@settings_dataclass
class ComponentVAESettings:
    """Settings of the component VAE; the defaults are MONet's."""

    latent_dim: PositiveInt = 16  # D
    encoder_channels: tuple[PositiveInt, ...] = (32, 32, 64, 64)  # one 3x3 convolution of stride 2 each
    encoder_hidden: PositiveInt = 256  # width of the fully connected layer
    # `image_and_log_mask` is the paper's; `masked_image_and_mask` is ours: the image times the mask
    encoder_input: EncoderInput = "image_and_log_mask"
    encoder_stride: PositiveInt = 1  # image and mask are first averaged over squares of this side (1: the paper's)
    # Of the posterior, added to its initial bias. 0: PyTorch's; ours: -3, so that the decoder reads latents with little
    # noise from the first step.
    initial_log_variance: float = 0.0
    decoder_channels: PositiveInt = 32  # channels of the spatial broadcast decoder
    decoder_layers: PositiveInt = 4  # number of its 3x3 convolutions
    decoder_padding: Padding = "valid"  # `valid` (the paper's) or `same`
    decoder_stride: PositiveInt = 1  # 1 (the paper's) or more, see `SpatialBroadcastDecoder`
    # `sigmoid` keeps the reconstruction in 0..1, `linear` leaves it free
    colour: Literal["sigmoid", "linear"] = "sigmoid"
    # `image` (the paper's): a slot is encoded from the whole image; `roi` (ours): from its region, resampled to the
    # size that the encoder would read of the whole image
    encoder_region: Literal["image", "roi"] = "image"
    # `image` (the paper's): a slot is decoded on the whole image; `roi` (ours): on its region only, as a map of
    # `roi_size` that is pasted bilinearly. Outside of it the slot's colour and mask are 0. The background, whose region
    # is the whole image, is decoded at `roi_size` and enlarged.
    decoder_region: Literal["image", "roi"] = "image"
    roi_size: PositiveInt = 32  # height and width of that map


class ColourLimits(NamedTuple):
    """What the components may show; 0 leaves them free, as in the papers. Ours."""

    background_slot: int
    background_cells: int  # see `coarse`
    foreground_colours: int  # see `nearest_colours`


NO_LIMITS = ColourLimits(0, 0, 0)


class ComponentVAE(nn.Module):
    """Encode (image, mask_k) to a diagonal Gaussian over z_k, decode z_k to the component X_k and its mask's logit.

    A RecipeError where images of `size` are too small for the encoder's strides, or not a multiple of `encoder_stride`.
    """

    def __init__(self, settings: ComponentVAESettings, size: int) -> None:
        super().__init__()
        self.settings = settings
        self.size = size
        if size % settings.encoder_stride:
            raise RecipeError(f"encoder_stride {settings.encoder_stride} must divide the images' {size} pixels.")
        smallest = size // settings.encoder_stride // 2 ** len(settings.encoder_channels)
        if smallest < 1:
            raise RecipeError(
                f"images of {size} pixels are too small for {len(settings.encoder_channels)} encoder layers at "
                f"encoder_stride {settings.encoder_stride}: shorten encoder_channels or enlarge the images."
            )
        layers: list[nn.Module] = []
        c_in = 4
        for c_out in settings.encoder_channels:
            layers += [nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            c_in = c_out
        map_size = -(-size // settings.encoder_stride // 2 ** len(settings.encoder_channels))
        self.encoder = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Linear(c_in * map_size**2, settings.encoder_hidden),
            nn.ReLU(),
            nn.Linear(settings.encoder_hidden, 2 * settings.latent_dim),
        )
        with torch.no_grad():
            self.encoder[-1].bias[settings.latent_dim :] += settings.initial_log_variance  # type: ignore[index,operator]
        if settings.encoder_input == "masked_image_and_mask":  # log masks, down to -16, would start it too large
            kaiming_init_(*list(self.encoder)[:-1])
        self.decoder = SpatialBroadcastDecoder(
            settings.latent_dim,
            out_channels=4,
            channels=settings.decoder_channels,
            layers=settings.decoder_layers,
            size=settings.roi_size if settings.decoder_region == "roi" else size,
            padding=settings.decoder_padding,
            stride=settings.decoder_stride,
        )

    def encode(
        self, images: Tensor, log_masks: Tensor, used: Tensor | None = None, regions: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z_k | x, m_k), [B, K, D] each, float32 or better; zeros for unused slots.

        Of images [B, 3, H, W] and log_masks [B, K, 1, H, W]. `used` [B, K] bool: the slots to encode; None: all.
        `regions` [B, K, 4] in pixels, read where `encoder_region` is `roi`; None: the whole image.
        """
        size = check_shape(log_masks, "B K 1 H W", "log_masks")
        check_shape(images, f"{size['B']} 3 {size['H']} {size['W']}", "images")
        slots = SlotPacking.from_used(used, log_masks)
        log_mask = slots.pack(log_masks)  # [S, 1, H, W]
        shown = slots.pack_images(images)
        if self.settings.encoder_input == "image_and_log_mask":
            read = torch.cat([shown, log_mask.clamp_min(LOWEST_LOG_MASK)], dim=1)
        else:
            mask = log_mask.exp()
            read = torch.cat([shown * mask, mask], dim=1)
        side = self.size // self.settings.encoder_stride
        if self.settings.encoder_region == "roi":
            read = crop_boxes(read, self._regions(regions, slots), (side, side))
        elif self.settings.encoder_stride > 1:
            read = F.avg_pool2d(read, self.settings.encoder_stride)
        code = at_least_float32(self.encoder(read.contiguous(memory_format=torch.channels_last)))
        mean, log_variance = slots.unpack(code).chunk(2, dim=-1)
        return mean, log_variance

    def decode(
        self,
        latents: Tensor,
        used: Tensor | None = None,
        regions: Tensor | None = None,
        limits: ColourLimits = NO_LIMITS,
        images: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return components [B, K, 3, H, W] and mask logits [B, K, 1, H, W] of latents [B, K, D], float32 or better.

        `used` and `regions` as in `encode`; a slot that is not used has the colour 0 and the logit LOG_ZERO. The images
        [B, 3, H, W] choose among an object's colours; they are needed where the limits give it several.
        """
        slots = SlotPacking.from_used(used, latents)
        colour, mask_logits = at_least_float32(self.decoder(slots.pack(latents))).split([3, 1], dim=1)
        if self.settings.colour == "sigmoid":
            colour = colour.sigmoid()
        K = latents.shape[1]
        slot = torch.arange(K, device=latents.device).expand(latents.shape[:2])  # [B, K]
        is_background = slots.pack(slot == limits.background_slot % K).view(-1, 1, 1, 1)
        if limits.background_cells:
            colour = torch.where(is_background, coarse(colour, limits.background_cells), colour)
        if limits.foreground_colours == 1:
            colour = torch.where(is_background, colour, coarse(colour, 1))
        pasted, size, boxes = colour, (self.size, self.size), self._regions(regions, slots)
        if self.settings.decoder_region == "roi":
            pasted = paste_boxes(colour, boxes, size)
            mask_logits = paste_boxes(mask_logits, boxes, size, outside=LOG_ZERO)
        if limits.foreground_colours > 1:
            assert images is not None
            nearest = nearest_colours(colour, slots.pack_images(images), limits.foreground_colours)
            if self.settings.decoder_region == "roi":
                nearest = nearest * paste_boxes(torch.ones_like(colour[:, :1]), boxes, size)
            pasted = torch.where(is_background, pasted, nearest)
        return slots.unpack(pasted), slots.unpack(mask_logits, LOG_ZERO)

    def _regions(self, regions: Tensor | None, slots: SlotPacking) -> Tensor:
        """The regions [S, 4] of the packed slots; the whole image where there are none."""
        if regions is not None:
            return slots.pack(regions)
        return whole_image_box(self.size, slots.used.device).expand(len(slots.image), 4)


def coarse(colour: Tensor, cells: int) -> Tensor:
    """Average colours [S, C, H, W] over cells x cells rectangles, enlarged bilinearly to [S, C, H, W].

    Such a component has few colours, with 1 cell one: a background cannot draw objects, and an object cannot draw
    another beside it or its own blurred edge. Ours; the papers' components are free.
    """
    averages = F.adaptive_avg_pool2d(colour, cells)
    return F.interpolate(averages, size=colour.shape[-2:], mode="bilinear", align_corners=False)


def nearest_colours(colour: Tensor, images: Tensor, num_colours: int) -> Tensor:
    """At each pixel of images [S, C, H, W], that of the colours which is nearest to the image: [S, C, H, W].

    The colours are the averages of `num_colours` vertical strips of what the decoder draws, colour [S, C, h, w]. So a
    component has stripes, checks or spots without drawing them. A colour learns from its pixels only. Ours.
    """
    colours = F.adaptive_avg_pool2d(colour, (1, num_colours)).squeeze(2)[..., None, None]  # [S, C, num_colours, 1, 1]
    with torch.no_grad():
        distance = (images.unsqueeze(2) - colours).square().sum(dim=1)  # [S, num_colours, H, W]
        nearest = (distance == distance.amin(dim=1, keepdim=True)).to(colours)
        nearest /= nearest.sum(dim=1, keepdim=True)  # equal colours share a pixel
    return (nearest.unsqueeze(1) * colours).sum(dim=2)
