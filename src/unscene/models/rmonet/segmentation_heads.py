"""Three heads from features and boxes to an alpha map a box: UNet, Lite and ROI Align (R-MONet, 3.2, Fig. 22).

UNet and Lite mask the region instead of cutting it out (S4Net, Fan et al., 2019): `roi_mask` is a ternary map of a box.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from unscene.errors import check_shape
from unscene.models.common.layers import kaiming_init_, mlp
from unscene.models.common.spatial_transformer import paste_boxes
from unscene.models.rmonet.resnet_fpn import Features, ResNetFPN
from unscene.models.rmonet.settings import HeadSettings
from unscene.ops.boxes import clip_boxes
from unscene.ops.convolutions import convolve_doubled_and_skip
from unscene.ops.group_norm_relu import GroupNormReLU
from unscene.ops.slot_packing import SlotPacking


def alpha_logits(head: nn.Module, features: Features, boxes: Tensor, used: Tensor | None = None) -> Tensor:
    """Return a head's alpha maps before the sigmoid, [B, N, maps, H, W], of boxes [B, N, 4].

    Boxes that are not used, [B, N] bool, are not computed and have zeros.
    """
    slots = SlotPacking.from_used(used, boxes)
    height, width = features.images.shape[2:]
    return slots.unpack(head(features, slots.pack(boxes), slots, (height, width)))


class UNetHead(nn.Module):
    """The improved head: the pyramid's conv5 map through an MLP, then upwards with skips from conv4 and, region-masked,
    from conv3, conv2 and conv1 (Fig. 22a). What does not depend on the region is computed once an image.

    Images have a `size` that is a multiple of 32. A box has one of the alpha `maps`, except in the ablation without
    boxes.
    """

    def __init__(
        self, settings: HeadSettings, conv_channels: tuple[int, ...], fpn_channels: int, size: int, maps: int = 1
    ) -> None:
        super().__init__()
        width = settings.channels
        self.expand = settings.expand
        self.bottom_shape = (width, size // 32, size // 32)
        units = width * (size // 32) ** 2
        hidden = settings.bottleneck
        self.mlp = nn.Sequential(nn.Flatten(), *mlp(fpn_channels * (size // 32) ** 2, hidden, hidden, units))
        self.up4 = _level(width + conv_channels[3], settings)
        self.up3 = _level(width + conv_channels[2], settings)
        self.up2 = _level(width + conv_channels[1], settings)
        self.up1 = _level(width + conv_channels[0], settings)
        self.to_alpha = nn.Conv2d(width, 4 * maps, 3, padding=1)

    def forward(self, features: Features, boxes: Tensor, slots: SlotPacking, size: tuple[int, int]) -> Tensor:
        """Packed boxes [S, 4] of images of `size` -> alpha logits [S, maps, H, W]."""
        conv1, conv2, conv3, conv4, _ = features.conv

        def region(conv: Tensor, stride: int) -> Tensor:
            return _region(conv, boxes, slots, stride, self.expand)

        bottom = self.mlp(features.pyramid[3]).unflatten(1, self.bottom_shape)
        image_wide = _raised(self.up4, bottom, conv4)
        maps = slots.pack_images(image_wide)  # one copy a box
        maps = _raised(self.up3, maps, region(conv3, 8))
        maps = _raised(self.up2, maps, region(conv2, 4))
        maps = _raised(self.up1, maps, region(conv1, 2))
        return F.pixel_shuffle(self.to_alpha(maps), 2)


class LiteHead(nn.Module):
    """S4Net's head on the stride-8 map: conv, ROI masking, max-pool, residual, dilated conv, residual, 1x1 conv."""

    def __init__(self, settings: HeadSettings, fpn_channels: int, maps: int = 1) -> None:
        super().__init__()
        width = settings.channels
        self.expand = settings.expand
        self.reduce = _block(fpn_channels, width, settings.group_norm)
        self.first = _Residual(width, settings.group_norm)
        self.dilated = _block(width, width, settings.group_norm, dilation=2)
        self.second = _Residual(width, settings.group_norm)
        self.to_alpha = nn.Conv2d(width, maps, 1)

    def forward(self, features: Features, boxes: Tensor, slots: SlotPacking, size: tuple[int, int]) -> Tensor:
        """Packed boxes [S, 4] of images of `size` -> alpha logits [S, maps, H, W]."""
        reduced = self.reduce(features.pyramid[1])
        maps = _region(reduced, boxes, slots, 8, self.expand)
        maps = self.first(F.max_pool2d(maps, 3, stride=1, padding=1))
        maps = self.second(self.dilated(maps))
        return F.interpolate(self.to_alpha(maps), size=size, mode="bilinear", align_corners=False)


class ROIAlignHead(nn.Module):
    """Mask R-CNN's head: ROI Align on the stride-4 map, four convolutions, doubled, and pasted back into the image."""

    def __init__(self, settings: HeadSettings, fpn_channels: int, maps: int = 1) -> None:
        super().__init__()
        width = settings.channels
        self.align_size = settings.align_size
        self.body = nn.Sequential(
            _block(fpn_channels, width, settings.group_norm),
            *(_block(width, width, settings.group_norm) for _ in range(3)),
        )
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.to_alpha = nn.Conv2d(width, maps, 1)

    def forward(self, features: Features, boxes: Tensor, slots: SlotPacking, size: tuple[int, int]) -> Tensor:
        """Packed boxes [S, 4] of images of `size` -> alpha logits [S, maps, H, W]."""
        aligned = roi_align(
            features.pyramid[0].float(),
            torch.cat([slots.image.unsqueeze(1).float(), boxes.float()], dim=1),
            self.align_size,
            spatial_scale=1 / 4,
            sampling_ratio=2,
            aligned=True,
        )
        alpha = self.to_alpha(F.relu(self.upsample(self.body(_channels_last(aligned)))))
        return paste_boxes(alpha, boxes, size, outside=None)


LEVELS_READ = {"unet": (3,), "lite": (1,), "roi_align": (0,)}  # of the pyramid, by the head's kind


def segmentation_head(
    settings: HeadSettings, backbone: ResNetFPN, fpn_channels: int, size: int, maps: int = 1
) -> nn.Module:
    match settings.kind:
        case "unet":
            return UNetHead(settings, backbone.channels, fpn_channels, size, maps)
        case "lite":
            return LiteHead(settings, fpn_channels, maps)
        case "roi_align":
            return ROIAlignHead(settings, fpn_channels, maps)


class _Residual(nn.Module):
    """x + block(block(x)), with ReLU."""

    def __init__(self, channels: int, group_norm: bool) -> None:
        super().__init__()
        self.blocks = nn.Sequential(_block(channels, channels, group_norm), _block(channels, channels, group_norm))

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(features + self.blocks(features))


def _block(c_in: int, channels: int, group_norm: bool, dilation: int = 1) -> nn.Sequential:
    """3x3 convolution, group normalisation if asked for (the regions of a batch share no statistics), ReLU."""
    convolution = nn.Conv2d(c_in, channels, 3, padding=dilation, dilation=dilation, bias=not group_norm)
    kaiming_init_(convolution)
    normalise = GroupNormReLU(min(8, channels), channels) if group_norm else nn.ReLU(inplace=True)
    return nn.Sequential(convolution, normalise)


def _level(c_in: int, settings: HeadSettings) -> nn.Sequential:
    widths = (c_in, *[settings.channels] * settings.convolutions)
    blocks = (_block(*pair, settings.group_norm) for pair in pairwise(widths))
    return nn.Sequential(*(layer for block in blocks for layer in block))


def _raised(level: nn.Sequential, coarse: Tensor, skip: Tensor) -> Tensor:
    """A level of the UNet head applied to cat([coarse doubled, skip])."""
    first, *others = level
    assert isinstance(first, nn.Conv2d)
    features = convolve_doubled_and_skip(coarse, skip, first.weight, first.bias)
    for layer in others:
        features = layer(features)
    return features


def _region(maps: Tensor, boxes: Tensor, slots: SlotPacking, stride: int, expand: float) -> Tensor:
    """ROI masking: [B, C, h, w] -> [S, C, h, w], the map of each packed box's image times the box's ternary map."""
    height, width = maps.shape[2:]
    ternary = roi_mask(boxes.unsqueeze(0), (height, width), stride, expand)[0]  # [S, 1, h, w]
    return slots.pack_images(_channels_last(maps)).mul(ternary.to(maps.dtype))


def _channels_last(features: Tensor) -> Tensor:
    return features.contiguous(memory_format=torch.channels_last)


def inside_boxes(boxes: Tensor, size: tuple[int, int], stride: int = 1, expand: float = 0.0) -> Tensor:
    """Return which cells of a grid of `size` the boxes [B, N, 4] touch, [B, N, 1, *size] bool, after widening them.

    Each side of a box moves outwards by the share `expand` of the box's width or height. A cell has `stride` pixels on
    a side; column i counts where floor(x1 / stride) <= i < ceil(x2 / stride), so no box is lost on a coarse grid. A box
    without area touches nothing. The part outside of the image is cut off (S4Net's public code loses the ring at the
    top and left edge instead).
    """
    first, end = touched_cells(boxes, size, stride, expand).chunk(2, dim=-1)
    columns = torch.arange(size[1], device=boxes.device, dtype=boxes.dtype)
    rows = torch.arange(size[0], device=boxes.device, dtype=boxes.dtype)
    across = (columns >= first[..., :1]) & (columns < end[..., :1])  # [B, N, W]
    down = (rows >= first[..., 1:]) & (rows < end[..., 1:])  # [B, N, H]
    return (down[..., :, None] & across[..., None, :]).unsqueeze(2)


def touched_cells(boxes: Tensor, size: tuple[int, int], stride: int = 1, expand: float = 0.0) -> Tensor:
    """Return the cells that each widened box touches, [B, N, 4] in whole cells within the grid; see `inside_boxes`."""
    check_shape(boxes, "B N 4", "boxes")
    corner, opposite = boxes[..., :2], boxes[..., 2:]
    side = opposite - corner
    first = ((corner - expand * side) / stride).floor()
    end = ((opposite + expand * side) / stride).ceil()
    end = torch.where((side > 0).all(-1, keepdim=True), end, first)
    return clip_boxes(torch.cat([first, end], dim=-1), *size)


def roi_mask(boxes: Tensor, size: tuple[int, int], stride: int = 1, expand: float = 0.3) -> Tensor:
    """Return the ternary map of each box, [B, N, 1, *size]: +1 inside, -1 on the ring, 0 elsewhere (Fig. 22b).

    Arguments as `inside_boxes`; `expand` is the ring's width, the paper's sigma.
    """
    inner = inside_boxes(boxes, size, stride)
    outer = inside_boxes(boxes, size, stride, expand)
    return 2 * inner.to(boxes.dtype) - outer.to(boxes.dtype)
