"""The image as a spatial mixture of Gaussians, and the divergence between two ways to share its pixels.

Each has a plain body, its definition, and a fast one that makes fewer passes over the pixels than autograd does. Axes
that do not fit together are a ShapeError.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from unscene.errors import check_shape
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.ops.dispatch import at_least_float32, use_plain

MixtureOver = Literal["pixel", "channel"]
MaskOutput = Literal["inferred", "posterior"]
LEAST_SCALE = 0.01  # of an image that is drawn without error, in its range of 0 to 1: three of 256 levels
NEGLIGIBLE = -80.0  # nats; e^-80 is 2e-35, still a normal number in float32


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
    """
    images, components, log_masks, scales = _checked(images, components, log_masks, scales)
    if not use_plain():
        return _LogGaussianMixture.apply(images, components, log_masks, scales, over == "pixel")
    log_density = -0.5 * ((images.unsqueeze(1) - components) / scales) ** 2 - torch.log(scales * math.sqrt(2 * math.pi))
    if over == "pixel":
        log_density = log_density.sum(dim=2, keepdim=True)
    return (log_masks + log_density).logsumexp(dim=1).sum(dim=(1, 2, 3))


def mask_kl(log_masks: Tensor, decoded_logits: Tensor) -> Tensor:
    """Return KL(q(m | x) || p(m | z)), the third term of R-MONet's Eq. 3: categorical over slots, at every pixel.

    Args:
        log_masks: [B, K, 1, H, W], log q, sums to 1 over K after exp.
        decoded_logits: [B, K, 1, H, W] of the decoder; p is their softmax over K.

    Returns:
        [B] divergence in nats, summed over the pixels, float32 or better.
    """
    check_shape(log_masks, "B K 1 H W", "log_masks")
    check_shape(decoded_logits, " ".join(map(str, log_masks.shape)), "decoded_logits")
    log_masks, logits = at_least_float32(log_masks), at_least_float32(decoded_logits)
    if not use_plain():
        return _CategoricalKL.apply(log_masks, logits)
    return (log_masks.exp() * (log_masks - logits.log_softmax(dim=1))).sum(dim=(1, 2, 3, 4))


def posterior_log_masks(images: Tensor, components: Tensor, log_masks: Tensor, scales: Tensor) -> Tensor:
    """Return log m_k N(x; X_k, s^2) / sum_j m_j N(x; X_j, s^2), each slot's share of a seen pixel.

    The masks m_k are what is known before the pixel's colour is compared with the components'. The Gaussian is of all
    three channels. Its s is the image's own: sigma_k only weighs a training's terms, and is several times the error
    that is left. s^2 is the squared error, a mean over pixels and channels, weighted by the shares with sigma_k and at
    least .01^2: one step of expectation maximisation towards the likeliest variance that all slots have in common. With
    one slot it is the mean squared error, the optimal variance of a Gaussian decoder. Where components cannot draw what
    they hold, s is wide, and the masks decide. A slot whose mask is 0 keeps it.
    Ours as an output: the papers give the inferred masks.

    Args:
        images: [B, 3, H, W].
        components: [B, K, 3, H, W], the means X_k.
        log_masks: [B, K, 1, H, W].
        scales: [K] standard deviations sigma_k of the training.

    Returns:
        [B, K, 1, H, W] log masks, float32 or better; exp sums to 1 over K.
    """
    images, components, log_masks, scales = _checked(images, components, log_masks, scales)
    squared = (images.unsqueeze(1) - components).square().sum(dim=2, keepdim=True)
    empty = log_masks < LOG_ZERO + 0.01  # exp and log of LOG_ZERO in float32 are not exactly it
    prior = log_masks.masked_fill(empty & ~empty.all(dim=1, keepdim=True), -torch.inf)
    shares = (prior - 0.5 * squared / scales**2 - 3 * scales.log()).softmax(dim=1)
    error = (shares * squared.masked_fill(shares == 0, 0)).sum(dim=1, keepdim=True).mean(dim=(2, 3, 4), keepdim=True)
    variance = (error / 3).clamp_min(LEAST_SCALE**2)
    return (prior - 0.5 * squared / variance).log_softmax(dim=1).clamp_min(LOG_ZERO)


def posterior_kl(images: Tensor, components: Tensor, log_masks: Tensor, scales: Tensor) -> Tensor:
    """Return KL(p(m | x, X) || q(m | x)), the masks' divergence from `posterior_log_masks` of the same, [B] in nats.

    Only the masks have a gradient, so they learn which slot fits a pixel's colour, and the components stay as they are.
    """
    with torch.no_grad():
        posterior = posterior_log_masks(images, components, log_masks, scales)
    log_masks = at_least_float32(log_masks)
    return (posterior.exp() * (posterior - log_masks)).sum(dim=(1, 2, 3, 4))


def _checked(images: Tensor, components: Tensor, log_masks: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
    """The four in float32 or better, with axes that fit together; the scales are [K, 1, 1, 1]."""
    size = check_shape(images, "B 3 H W", "images")
    slots = check_shape(components, f"{size['B']} K 3 {size['H']} {size['W']}", "components")["K"]
    check_shape(log_masks, f"{size['B']} {slots} 1 {size['H']} {size['W']}", "log_masks")
    check_shape(scales, str(slots), "scales")
    images, components, log_masks = (at_least_float32(values) for values in (images, components, log_masks))
    return images, components, log_masks, scales.to(components).view(-1, 1, 1, 1)


class _LogGaussianMixture(Function):
    """d/d log m_k = r_k and d/d X_k = r_k (x - X_k) / sigma_k^2; responsibilities r_k = m_k N_k / sum_j m_j N_j."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, components: Tensor, log_masks: Tensor, scales: Tensor, by_pixel: bool
    ) -> Tensor:
        difference = images.unsqueeze(1) - components  # [B, K, C, H, W]
        log_constant = -torch.log(scales) - 0.5 * math.log(2 * math.pi)
        if by_pixel:
            first, *others = difference.split(1, dim=2)  # summed without a copy of the input
            squared = first.square()  # [B, K, 1, H, W]
            for channel in others:
                squared.addcmul_(channel, channel)
            log_constant = difference.shape[2] * log_constant
        else:
            squared = difference.square()
        joint = squared.mul_(-0.5 / scales**2).add_(log_constant).add_(log_masks)
        greatest = joint.amax(dim=1, keepdim=True)
        # a CPU's exp is many times slower where it underflows, and e^-80 of the best slot's share counts for nothing
        shares = joint.sub_(greatest).clamp_min_(NEGLIGIBLE).exp_()
        total = shares.sum(dim=1, keepdim=True)
        ctx.save_for_backward(difference, shares.div_(total), scales)
        return total.log().add_(greatest).sum(dim=(1, 2, 3, 4))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        difference, responsibilities, scales = ctx.saved_tensors
        grad_joint = responsibilities * grad.view(-1, 1, 1, 1, 1)
        grad_components = (grad_joint / scales**2) * difference
        grad_images = -grad_components.sum(dim=1) if ctx.needs_input_grad[0] else None
        grad_masks = grad_joint if grad_joint.shape[2] == 1 else grad_joint.sum(dim=2, keepdim=True)
        return grad_images, grad_components, grad_masks, None, None


class _CategoricalKL(Function):
    """d/d log q = q (log q - log p) + q and d/d logit_k = p_k sum_j q_j - q_k."""

    @staticmethod
    def forward(ctx: Any, log_masks: Tensor, logits: Tensor) -> Tensor:
        masks = log_masks.exp()
        log_decoded = torch.log_softmax(logits, dim=1)
        terms = (log_masks - log_decoded).mul_(masks)
        ctx.save_for_backward(masks, log_decoded, terms)
        return terms.sum(dim=(1, 2, 3, 4))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        masks, log_decoded, terms = ctx.saved_tensors
        grad = grad.view(-1, 1, 1, 1, 1)
        grad_logits = log_decoded.exp().mul_(masks.sum(dim=1, keepdim=True)).sub_(masks).mul_(grad)
        return (terms + masks).mul_(grad), grad_logits
