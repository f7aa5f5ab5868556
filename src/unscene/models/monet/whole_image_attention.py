"""R-MONet's attention network without its boxes: ResNet18, FPN and a segmentation head that sees the whole image."""

from __future__ import annotations

from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.resnet_fpn import BackboneSettings, ResNetFPN
from unscene.models.common.spatial_transformer import whole_image_box
from unscene.models.rmonet.segmentation_heads import LEVELS_READ, HeadSettings, alpha_logits, segmentation_head


class WholeImageAttention(nn.Module):
    """Images, and what is seen beside them, to alpha logits, the whole image being the one box of each.

    Args:
        backbone: of the features.
        head: of the alpha maps.
        in_channels: 3; 4 where the log scope is read too ("change the input channel of the first convolution layer in
            ResNet18 from 3 to 4 and remove object detection branch", Section 4.1).
        size: height and width of the images, a multiple of 32.
        maps: alpha maps an image.

    Raises:
        RecipeError: another size.
    """

    def __init__(
        self, backbone: BackboneSettings, head: HeadSettings, in_channels: int, size: int, maps: int = 1
    ) -> None:
        super().__init__()
        if size < 32 or size % 32:
            raise RecipeError(
                f"ResNet18's maps need images whose side is a multiple of 32, not {size}: set data.size to "
                f"{max(32, round(size / 32) * 32)}."
            )
        self.backbone = ResNetFPN(backbone, in_channels, LEVELS_READ[head.kind])
        self.head = segmentation_head(head, self.backbone, backbone.fpn_channels, size, maps)

    def forward(self, seen: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, maps, H, W]."""
        check_shape(seen, "B C H W", "seen")
        box = whole_image_box(seen.shape[2], seen.device).expand(len(seen), 1, 4)
        return alpha_logits(self.head, self.backbone(seen), box)[:, 0]
