"""IODINE's loss for one image, from Algorithm 1 and the list of inputs of Greff et al. (2019) alone.

Plain, slow, float64. It imports nothing of `unscene`; weights have the names of the model's state_dict.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.models.references.layers import Weights, convolve, dense, layers_of, lstm_cell, tiled


@dataclass(frozen=True)
class IodineNumbers:
    """Settings of the loss.

    Attributes:
        sigma: of all components.
        beta: weight of the divergence in the loss whose gradients the refinement reads.
        over: one mixture for a `pixel`, or one for each `channel`.
        linear: colours without a sigmoid.
        padded: the decoder's convolutions after the first are padded.
    """

    sigma: float
    beta: float
    over: str = "pixel"
    linear: bool = False
    padded: bool = True


@dataclass(frozen=True)
class Sample:
    """The decoded slots of one sample, and the likelihood of the image.

    Attributes:
        means: K of [3, H, W].
        masks, logits: K of [H, W], after and before the softmax.
        densities: K of [3, H, W], N(x; means, sigma).
        likelihood: [H, W], p(x | z) of every pixel.
    """

    means: list[Tensor]
    masks: list[Tensor]
    logits: list[Tensor]
    densities: list[Tensor]
    likelihood: Tensor


def iodine_terms(image: Tensor, noise: Tensor, weights: Weights, numbers: IodineNumbers) -> dict[str, Tensor]:
    """The two terms of the loss, sum_t t/T of -log p(x | z_t) and of the divergence.

    z_t is a sample of the posterior after t refinements, t = 0..T.

    Args:
        image: [3, H, W].
        noise: [T + 1, K, D], standard normal.
        weights: of the model.
        numbers: see `IodineNumbers`.
    """
    steps, slots = len(noise) - 1, noise.shape[1]
    posteriors = [weights["first_posterior"].clone() for _ in range(slots)]  # lambda_k
    units = weights["refinement.lstm.weight_hh"].shape[1]
    states = [(image.new_zeros(units), image.new_zeros(units))] * slots
    reconstruction = latent_kl = torch.zeros((), dtype=image.dtype)
    for step in range(steps + 1):
        sample, divergence = decoded(image, posteriors, noise[step], weights, numbers)
        error = -torch.log(sample.likelihood).sum()
        reconstruction = reconstruction + step / steps * error
        latent_kl = latent_kl + step / steps * divergence
        if step == steps:
            break
        inputs = [*posteriors, *sample.means, *sample.masks]
        gradients = torch.autograd.grad(error + numbers.beta * divergence, inputs, retain_graph=True)
        grad_posteriors, grad_means, grad_masks = gradients[:slots], gradients[slots:-slots], gradients[-slots:]
        refined = []
        for slot, posterior in enumerate(posteriors):
            features = maps(image, sample, slot, grad_means[slot], grad_masks[slot], numbers)
            update, states[slot] = refine(features, posterior, normed(grad_posteriors[slot]), states[slot], weights)
            refined.append(posterior + update)
        posteriors = refined
    return {"reconstruction": reconstruction, "latent_kl": latent_kl}


def decoded(
    image: Tensor, posteriors: list[Tensor], noise: Tensor, weights: Weights, numbers: IodineNumbers
) -> tuple[Sample, Tensor]:
    """A sample of the posteriors, decoded, and their divergence from the prior."""
    means, logits, divergence = [], [], torch.zeros((), dtype=image.dtype)
    for slot, parameters in enumerate(posteriors):
        mean, log_variance = parameters.chunk(2)
        posterior = Normal(mean, torch.sqrt(torch.exp(log_variance)))
        divergence = divergence + kl_divergence(posterior, Normal(0.0, 1.0)).sum()
        mean, logit = decode(posterior.mean + posterior.stddev * noise[slot], image.shape[1:], weights, numbers)
        means.append(mean)
        logits.append(logit)
    exponentials = [torch.exp(logit) for logit in logits]
    masks = [exponential / torch.stack(exponentials).sum(dim=0) for exponential in exponentials]
    densities = [torch.exp(Normal(mean, numbers.sigma).log_prob(image)) for mean in means]
    return Sample(means, masks, logits, densities, mixture(masks, densities, numbers.over)), divergence


def mixture(masks: list[Tensor], densities: list[Tensor], over: str) -> Tensor:
    """p(x | z) of every pixel: K of [H, W] and K of [3, H, W] -> [H, W]."""
    if over == "pixel":
        densities = [density.prod(dim=0, keepdim=True) for density in densities]
    shared = [mask * density for mask, density in zip(masks, densities, strict=True)]
    return torch.stack(shared).sum(dim=0).prod(dim=0)


def maps(
    image: Tensor, sample: Sample, slot: int, grad_means: Tensor, grad_mask: Tensor, numbers: IodineNumbers
) -> Tensor:
    """The paper's image-sized inputs of a slot's refinement, in the model's order."""
    others = [other for other in range(len(sample.masks)) if other != slot]
    rest = torch.stack([sample.masks[other] for other in others]).sum(dim=0)
    without = mixture(
        [sample.masks[other] / rest for other in others], [sample.densities[other] for other in others], numbers.over
    )
    pixelwise, leave_one_out = (normed(likelihood.detach()) for likelihood in (sample.likelihood, without))
    explained = [density.prod(dim=0) for density in sample.densities]  # p(x | mu_k)
    return torch.cat(
        [
            image,
            pixelwise[None],
            tiled(image.new_zeros(0), *image.shape[1:]),
            sample.means[slot],
            sample.masks[slot][None],
            sample.logits[slot][None],
            (explained[slot] / torch.stack(explained).sum(dim=0))[None],
            normed(grad_means),
            normed(grad_mask)[None],
            leave_one_out[None],
        ]
    )


def normed(values: Tensor) -> Tensor:
    """Layer normalisation without scale and offset."""
    return (values - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-5)


def refine(
    features: Tensor, posterior: Tensor, gradient: Tensor, state: tuple[Tensor, Tensor], weights: Weights
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The refinement network: convolutions of stride 2, their average, a layer, the LSTM, a linear update."""
    for name in layers_of("refinement.convolutions", weights):
        side = weights[f"{name}.weight"].shape[-1]
        features = F.elu(convolve(features, name, weights, stride=2, padding=side // 2))
    hidden = F.elu(dense(features.mean(dim=(1, 2)), "refinement.hidden", weights))
    state = lstm_cell(torch.cat([hidden, posterior, gradient]), state, "refinement.lstm", weights)
    return dense(state[0], "refinement.update", weights), state


def decode(latent: Tensor, size: torch.Size, weights: Weights, numbers: IodineNumbers) -> tuple[Tensor, Tensor]:
    """The broadcast decoder with ELU. [D] -> means [3, H, W] and mask logits [H, W]."""
    hidden = layers_of("decoder.hidden", weights)
    border = 2 if numbers.padded else 2 * (1 + len(hidden))
    features = F.elu(convolve(tiled(latent, size[0] + border, size[1] + border), "decoder.first", weights))
    for name in hidden:
        features = F.elu(convolve(features, name, weights, padding=1 if numbers.padded else 0))
    maps = convolve(features, "decoder.last", weights)
    return maps[:3] if numbers.linear else torch.sigmoid(maps[:3]), maps[3]
