"""A 3x3 convolution of maps of a few pixels, as one matrix product.

On a CPU a convolution of 512 channels on 2 x 2 pixels is all preparation: its weights are laid out anew for every
direction. Written as a product of the pixels' surroundings and the weights, it is about four times as fast, and the
numbers are the same but for the order of adding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.ops.plain import use_plain

FEW_PIXELS = 16  # of the output; beyond, copying the surroundings costs more than it saves


class SmallMapConv2d(nn.Module):
    """In place of a padded 3x3 `nn.Conv2d` without bias: the same parameter by the same name.

    On a GPU, and where the output has more than 16 pixels, it is the convolution itself.

    Args:
        convolution: whose weights it takes over.

    Raises:
        RecipeError: another kernel, padding, dilation or grouping, or a bias.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        form = (convolution.kernel_size, convolution.padding, convolution.dilation, convolution.groups)
        if form != ((3, 3), (1, 1), (1, 1), 1) or convolution.bias is not None:
            raise RecipeError(f"only a padded 3x3 convolution without bias can be a SmallMapConv2d, not {convolution}.")
        self.weight = convolution.weight
        self.stride = convolution.stride[0]

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C', H / stride, W / stride]."""
        height, width = (-(-side // self.stride) for side in features.shape[2:])
        if height * width > FEW_PIXELS or features.device.type != "cpu" or use_plain():
            return F.conv2d(features, self.weight, stride=self.stride, padding=1)
        padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))  # [B, H + 2, W + 2, C]
        rows, columns = (slice(0, self.stride * count, self.stride) for count in (height, width))
        shifted = [padded[:, y:, x:][:, rows, columns] for y in range(3) for x in range(3)]
        surroundings = torch.cat(shifted, dim=3)  # [B, H', W', 9 C]
        return F.linear(surroundings, self.weight.permute(0, 2, 3, 1).flatten(1)).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        """The channels, for printing."""
        c_out, c_in = self.weight.shape[:2]
        return f"{c_in}, {c_out}, stride={self.stride}"
