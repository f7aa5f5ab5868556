"""The image as a spatial mixture of Gaussians, and the divergence between two ways to share its pixels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from unscene.errors import check_shape
from unscene.models.common.precision import at_least_float32
from unscene.ops.mixture import categorical_kl, log_gaussian_mixture

MixtureOver = Literal["pixel", "channel"]


def mixture_log_likelihood(
    images: Tensor, components: Tensor, log_masks: Tensor, scales: Tensor, over: MixtureOver = "pixel"
) -> Tensor:
    """Return log sum_k m_k N(x; X_k, sigma_k^2), summed over the image (R-MONet, Eq. 2 and the first term of Eq. 3).

    The sum over k holds all K slots. (The paper's Eq. 8 prints a product of a background and a foreground sum: a slip.)
    Differentiable once, in everything but the scales.

    Args:
        images: [B, 3, H, W].
        components: [B, K, 3, H, W], the means X_k.
        log_masks: [B, K, 1, H, W].
        scales: [K] standard deviations sigma_k.
        over: `pixel`: a slot explains all three channels of a pixel together, N is a 3-dimensional diagonal Gaussian.
            `channel`: every channel is mixed by itself, as the field's public code does; a pixel can then be shared
            by a slot that fits its red and one that fits its green.

    Returns:
        [B] log-likelihood of each image in nats, float32 or better.

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(images, "B 3 H W", "images")
    slots = check_shape(components, f"{size['B']} K 3 {size['H']} {size['W']}", "components")["K"]
    check_shape(log_masks, f"{size['B']} {slots} 1 {size['H']} {size['W']}", "log_masks")
    check_shape(scales, str(slots), "scales")
    images, components, log_masks = (at_least_float32(values) for values in (images, components, log_masks))
    return log_gaussian_mixture(images, components, log_masks, scales.to(components), by_pixel=over == "pixel")


def mask_kl(log_masks: Tensor, decoded_logits: Tensor) -> Tensor:
    """Return KL(q(m | x) || p(m | z)), the third term of R-MONet's Eq. 3: categorical over slots, at every pixel.

    Args:
        log_masks: [B, K, 1, H, W], log q, sums to 1 over K after exp.
        decoded_logits: [B, K, 1, H, W] of the decoder; p is their softmax over K.

    Returns:
        [B] divergence in nats, summed over the pixels, float32 or better.

    Raises:
        ShapeError: axes that do not fit together.
    """
    check_shape(log_masks, "B K 1 H W", "log_masks")
    check_shape(decoded_logits, " ".join(map(str, log_masks.shape)), "decoded_logits")
    return categorical_kl(at_least_float32(log_masks), at_least_float32(decoded_logits))
