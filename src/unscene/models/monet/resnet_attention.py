"""The R-MONet paper's attention for MONet: R-MONet's ResNet18, FPN and segmentation head, on the whole image.

All passes of the recurrent attention share the weights, but not batch normalisation's running statistics.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unscene.distributed.sync_batch_norm import replace_batch_norm
from unscene.errors import RecipeError
from unscene.models.common.spatial_transformer import whole_image_box
from unscene.models.rmonet.resnet_fpn import ResNetFPN
from unscene.models.rmonet.segmentation_heads import LEVELS_READ, alpha_logits, segmentation_head
from unscene.models.rmonet.settings import BackboneSettings, HeadSettings


class ResNetAttention(nn.Module):
    """Map image and log scope to one logit a pixel; the one box is the whole image.

    "Change the input channel of the first convolution layer in ResNet18 from 3 to 4 and remove object detection branch"
    (Section 4.1). MONet applies the network `passes` times to an image. The paper does not mention their running
    statistics; with one set for all passes, evaluation breaks (foreground ARI .033 for .276, same weights).
    """

    def __init__(self, backbone: BackboneSettings, head: HeadSettings, size: int, passes: int) -> None:
        super().__init__()
        if size < 32 or size % 32:
            raise RecipeError(
                f"ResNet18's maps need images whose side is a multiple of 32, not {size}: set data.size to "
                f"{max(32, round(size / 32) * 32)}."
            )
        self.backbone = ResNetFPN(backbone, 4, LEVELS_READ[head.kind])
        self.head = segmentation_head(head, self.backbone, backbone.fpn_channels, size)
        replace_batch_norm(self, lambda layer: BatchNormPerPass(layer, passes))

    def forward(self, seen: Tensor, index: int) -> Tensor:
        """[B, 4, H, W] of pass `index`, from 0 -> logits [B, 1, H, W]."""
        for module in self.modules():
            if isinstance(module, BatchNormPerPass):
                module.index = index
        box = whole_image_box(seen.shape[2], seen.device).expand(len(seen), 1, 4)
        return alpha_logits(self.head, self.backbone(seen), box)[:, 0]


class BatchNormPerPass(nn.Module):
    """nn.BatchNorm2d with one set of running statistics for each pass; weight and bias are shared.

    Training computes what one shared nn.BatchNorm2d computes, bit for bit: it normalises by the batch. Evaluation
    differs: the passes read different inputs, so the average of their statistics fits none of them. Weight, bias,
    settings and initial running statistics are those of `layer`.
    """

    def __init__(self, layer: nn.BatchNorm2d, passes: int) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias
        self.passes = nn.ModuleList(
            nn.BatchNorm2d(layer.num_features, layer.eps, layer.momentum, affine=False) for _ in range(passes)
        )
        for norm in self.passes:
            norm.load_state_dict(dict(layer.named_buffers()))
        self.index = 0

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> the same axes, by the statistics of pass `index`."""
        affine: dict[str, Tensor] = {"weight": self.weight, "bias": self.bias}
        return torch.func.functional_call(self.passes[self.index], affine, (features,))
