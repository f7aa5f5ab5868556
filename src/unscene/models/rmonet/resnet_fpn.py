"""ResNet18 with a feature pyramid, and the raw maps conv1..conv5 beside it (R-MONet, Fig. 22a)."""

from __future__ import annotations

import http.client
import pickle
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet18_Weights
from torchvision.ops import FeaturePyramidNetwork

from unscene.errors import CheckpointError
from unscene.models.rmonet.settings import BackboneSettings
from unscene.ops.convolutions import SmallMapConv2d


class Features(NamedTuple):
    """The backbone's maps of a batch of images."""

    images: Tensor  # [B, in_channels, H, W], what the backbone read
    conv: tuple[Tensor, ...]  # conv1..conv5: [B, width * (1, 1, 2, 4, 8), ...] at H/2, H/4, H/8, H/16, H/32
    pyramid: dict[int, Tensor]  # [B, fpn_channels, ...] by level: 0..3 from conv2..conv5, 4 pooled, at H/64


class ResNetFPN(nn.Module):
    """ResNet18 (He et al., 2016) from torchvision's blocks, of any width, with torchvision's FPN (Lin et al., 2017).

    It reads 3 channels, or 4 with the log scope (MONet with this backbone). Only the given `levels` of the pyramid are
    computed and have weights.
    """

    def __init__(
        self, settings: BackboneSettings, in_channels: int = 3, levels: Collection[int] = (0, 1, 2, 3, 4)
    ) -> None:
        super().__init__()
        width = settings.width
        self.channels = (width, width, 2 * width, 4 * width, 8 * width)
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.levels = sorted(levels)
        self.smoothed = {min(level, 3) for level in levels}  # level 4 is pooled from conv5's
        self.fpn = FeaturePyramidNetwork(list(self.channels[1:]), settings.fpn_channels)
        for level in range(4):
            if level < min(self.smoothed):
                self.fpn.inner_blocks[level] = nn.Identity()
            if level not in self.smoothed:
                self.fpn.layer_blocks[level] = nn.Identity()
        for module in self.modules():  # as torchvision's ResNet; its pyramid starts quieter than ours
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if settings.pretrained:
            self._load_imagenet_weights()
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            for block in stage.children():
                assert isinstance(block, BasicBlock)
                block.conv1, block.conv2 = SmallMapConv2d(block.conv1), SmallMapConv2d(block.conv2)

    def _load_imagenet_weights(self) -> None:
        weights = {name: tensor for name, tensor in imagenet_weights().items() if not name.startswith("fc.")}
        missing, surplus = self.load_state_dict(weights, strict=False)
        missing = [name for name in missing if not name.startswith("fpn.")]
        if missing or surplus:
            raise CheckpointError(
                f"the downloaded ImageNet weights are not ResNet18's: missing {missing[:2]}, surplus {surplus[:2]}. "
                f"Delete them from {torch.hub.get_dir()}/checkpoints and start again."
            )

    def forward(self, images: Tensor) -> Features:
        """[B, in_channels, H, W] -> Features."""
        images = images.contiguous(memory_format=torch.channels_last)
        conv1 = self.bn1(self.conv1(images)).relu_()
        conv2 = self.layer1(self.maxpool(conv1))
        conv3 = self.layer2(conv2)
        conv4 = self.layer3(conv3)
        conv5 = self.layer4(conv4)
        maps = (conv1, conv2, conv3, conv4, conv5)
        return Features(images=images, conv=maps, pyramid=self._pyramid(maps))

    def _pyramid(self, conv: tuple[Tensor, ...]) -> dict[int, Tensor]:
        """The levels of the pyramid: from the coarsest down, each map is added to the next finer one, then smoothed."""
        found = {}
        added = self.fpn.inner_blocks[3](conv[4])
        for level in range(3, min(self.smoothed) - 1, -1):
            if level < 3:
                inner = self.fpn.inner_blocks[level](conv[level + 1])
                added = inner + F.interpolate(added, size=inner.shape[-2:], mode="nearest")
            if level in self.smoothed:
                found[level] = self.fpn.layer_blocks[level](added)
        if 4 in self.levels:
            found[4] = F.max_pool2d(found[3], 1, 2)
        return {level: found[level] for level in self.levels}


def imagenet_weights() -> dict[str, Tensor]:
    """Return torchvision's ResNet18 weights by name, from torch.hub's folder, or downloaded into it.

    A CheckpointError where they cannot be downloaded, or the file is damaged.
    """
    url = ResNet18_Weights.IMAGENET1K_V1.url
    try:
        weights: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(
            f"pretrained: torchvision's ImageNet weights could not be read ({reason}). Start once with a "
            f"connection, or put a good {Path(url).name}, from {url}, into {torch.hub.get_dir()}/checkpoints, or set "
            "it to false."
        ) from error
    return weights


def _stage(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    """Two basic blocks, the first of which may halve the map."""
    shortcut = None
    if stride != 1 or c_in != c_out:
        shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
    return nn.Sequential(BasicBlock(c_in, c_out, stride, shortcut), BasicBlock(c_out, c_out))
