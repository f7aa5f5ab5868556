"""MONet's loss for one image, rewritten from Burgess et al. (2019): Section 2 and appendix B. Plain, slow, float64.

Nothing of `unscene` is used; weights come by the names under which the model saves them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from tests.models.references.layers import Weights, convolve, dense, layers_of, tiled


def monet_terms(
    image: Tensor, noise: Tensor, weights: Weights, sigmas: list[float], over: str = "pixel"
) -> dict[str, Tensor]:
    """The three terms of Eq. 3, unweighted.

    Args:
        image: [3, H, W].
        noise: [K, D], the standard normal draw of each slot's latent.
        weights: of the model.
        sigmas: K standard deviations.
        over: `pixel`: a slot explains a pixel's three channels together; `channel`: each by itself.
    """
    masks, latent_kl, means, mask_logits = [], torch.zeros((), dtype=image.dtype), [], []
    scope = torch.ones_like(image[0])
    for slot in range(len(sigmas)):
        if slot < len(sigmas) - 1:
            alpha = torch.sigmoid(attention_logits(image, scope.log(), weights))
            mask, scope = scope * alpha, scope * (1 - alpha)  # Eq. 1 and the definition of m_k
        else:
            mask = scope
        masks.append(mask)
        posterior = encode(image, mask.log(), weights)
        latent_kl = latent_kl + kl_divergence(posterior, Normal(0.0, 1.0)).sum()
        mean, logit = decode(posterior.mean + posterior.stddev * noise[slot], image.shape[1:], weights)
        means.append(mean)
        mask_logits.append(logit)
    shares = torch.stack(masks, dim=-1)  # [H, W, K]
    return {
        "reconstruction": -mixture(image, shares, means, sigmas, over),
        "latent_kl": latent_kl,
        "mask_kl": kl_divergence(Categorical(shares), Categorical(logits=torch.stack(mask_logits, dim=-1))).sum(),
    }


def mixture(image: Tensor, shares: Tensor, means: list[Tensor], sigmas: list[float], over: str) -> Tensor:
    """log sum_k m_k N(x; X_k, sigma_k), summed over the pixels (and the channels, mixed one by one)."""
    scale = torch.tensor(sigmas, dtype=image.dtype)
    if over == "pixel":
        slots = Normal(torch.stack(means, dim=0).permute(2, 3, 0, 1), scale[:, None])  # [H, W, K, 3]
        return MixtureSameFamily(Categorical(shares), Independent(slots, 1)).log_prob(image.permute(1, 2, 0)).sum()
    total = torch.zeros((), dtype=image.dtype)
    for channel in range(3):
        slots = Normal(torch.stack([mean[channel] for mean in means], dim=-1), scale)  # [H, W, K]
        total = total + MixtureSameFamily(Categorical(shares), slots).log_prob(image[channel]).sum()
    return total


def attention_logits(image: Tensor, log_scope: Tensor, weights: Weights) -> Tensor:
    """B.2: the UNet. [3, H, W] and [H, W] -> [H, W]."""
    depth = len(layers_of("attention.down", weights)) // 2  # a convolution and a normalisation each
    features = torch.cat([image, log_scope[None]])
    skips = []
    for level in range(depth):
        features = unet_block(features, f"attention.down.{level}", weights)
        skips.append(features)  # "after the ReLU"
        if level < depth - 1:  # "no resizing occurs in the last block of each path"
            features = resized(features, 0.5)
    vector = features.flatten()
    for layer in (1, 3, 5):  # "a ReLU follows all three"
        vector = F.relu(dense(vector, f"attention.bottom.{layer}", weights))
    features = vector.reshape(features.shape)
    for level in range(depth):
        features = unet_block(torch.cat([features, skips.pop()]), f"attention.up.{level}", weights)
        if level < depth - 1:
            features = resized(features, 2)
    return convolve(features, "attention.to_logit", weights)[0]


def unet_block(features: Tensor, name: str, weights: Weights) -> Tensor:
    """A 3x3 convolution without bias, instance normalisation and ReLU."""
    assert f"{name}.0.bias" not in weights
    features = F.conv2d(features[None], weights[f"{name}.0.weight"], padding=1)[0]
    channels = []
    for channel, scale, bias in zip(features, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"], strict=True):
        deviation = torch.sqrt(channel.var(correction=0) + 1e-5)
        channels.append((channel - channel.mean()) / deviation * scale + bias)
    return F.relu(torch.stack(channels))


def resized(features: Tensor, factor: float) -> Tensor:
    """The nearest pixels of a map, half or twice as many along each side."""
    return F.interpolate(features[None], scale_factor=factor, mode="nearest")[0]


def encode(image: Tensor, log_mask: Tensor, weights: Weights, vae: str = "vae") -> Normal:
    """B.1: q(z | x, m) from image and log mask, the second half of the output is the log variance."""
    features, layer = torch.cat([image, log_mask[None]]), 0
    while f"{vae}.encoder.{layer}.weight" in weights:  # up to the flattening, which has none
        features = F.relu(convolve(features, f"{vae}.encoder.{layer}", weights, stride=2, padding=1))
        layer += 2
    hidden = F.relu(dense(features.flatten(), f"{vae}.encoder.{layer + 1}", weights))
    mean, log_variance = dense(hidden, f"{vae}.encoder.{layer + 3}", weights).chunk(2)
    return Normal(mean, torch.sqrt(torch.exp(log_variance)))


def decode(latent: Tensor, size: torch.Size, weights: Weights, vae: str = "vae") -> tuple[Tensor, Tensor]:
    """B.1: the broadcast decoder on a tiling larger than the image by 2 pixels a layer. [D] -> [3, H, W] and [H, W]."""
    hidden = layers_of(f"{vae}.decoder.hidden", weights)
    height, width = (side + 2 * (1 + len(hidden)) for side in size)
    features = tiled(latent, height, width)
    for name in [f"{vae}.decoder.first", *hidden]:
        features = F.relu(convolve(features, name, weights))
    output = convolve(features, f"{vae}.decoder.last", weights)
    return torch.sigmoid(output[:3]), output[3]  # the sigmoid is ours, and other public code's: images are in 0..1
