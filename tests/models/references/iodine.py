"""IODINE's loss for one image, written anew from Greff et al. (2019), Algorithm 1 and the list of inputs.

Plain, slow, float64. Nothing of `unscene` is used; weights come by the names under which the model saves them.
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
    """What the loss is computed with.

    Attributes:
        sigma: of all components.
        beta: what the divergence counts for in the loss that is differentiated for the refinement.
        over: `pixel`: a slot explains a pixel's three channels together; `channel`: each by itself.
        read: likelihoods as they are, `plain`, or their logarithms, `log`.
        linear: the components' colours are the decoder's own answer, not its sigmoid.
        padded: the decoder's convolutions after the first are.
    """

    sigma: float
    beta: float
    over: str = "pixel"
    read: str = "plain"
    linear: bool = False
    padded: bool = True


@dataclass(frozen=True)
class Sample:
    """What is decoded of one draw, for each slot, and how likely the image is by it.

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
    """The loss's two parts, sum_t t/T of -log p(x | z_t) and of the divergence.

    Step t's sample is drawn of the posterior after t refinements, t = 0..T.

    Args:
        image: [3, H, W].
        noise: [T + 1, K, D], the standard normal draws.
        weights: of the model.
        numbers: see there.
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
        wanted = [*posteriors, *sample.means, *sample.masks]
        gradients = torch.autograd.grad(error + numbers.beta * divergence, wanted, retain_graph=True)
        of_posteriors, of_means, of_masks = gradients[:slots], gradients[slots:-slots], gradients[-slots:]
        refined = []
        for slot, posterior in enumerate(posteriors):
            seen = maps(image, sample, slot, of_means[slot], of_masks[slot], numbers)
            update, states[slot] = refine(seen, posterior, normed(of_posteriors[slot]), states[slot], weights)
            refined.append(posterior + update)
        posteriors = refined
    return {"reconstruction": reconstruction, "latent_kl": latent_kl}


def decoded(
    image: Tensor, posteriors: list[Tensor], noise: Tensor, weights: Weights, numbers: IodineNumbers
) -> tuple[Sample, Tensor]:
    """A draw of the posteriors, decoded, and their divergence from the prior."""
    means, logits, divergence = [], [], torch.zeros((), dtype=image.dtype)
    for slot, parameters in enumerate(posteriors):
        mean, log_variance = parameters.chunk(2)
        posterior = Normal(mean, torch.sqrt(torch.exp(log_variance)))
        divergence = divergence + kl_divergence(posterior, Normal(0.0, 1.0)).sum()
        drawn, logit = decode(posterior.mean + posterior.stddev * noise[slot], image.shape[1:], weights, numbers)
        means.append(drawn)
        logits.append(logit)
    exponentials = [torch.exp(logit) for logit in logits]
    masks = [each / torch.stack(exponentials).sum(dim=0) for each in exponentials]
    densities = [torch.exp(Normal(each, numbers.sigma).log_prob(image)) for each in means]
    return Sample(means, masks, logits, densities, mixture(masks, densities, numbers.over)), divergence


def mixture(masks: list[Tensor], densities: list[Tensor], over: str) -> Tensor:
    """p(x | z) of every pixel: K of [H, W] and K of [3, H, W] -> [H, W]."""
    if over == "pixel":
        densities = [density.prod(dim=0, keepdim=True) for density in densities]
    shared = [mask * density for mask, density in zip(masks, densities, strict=True)]
    return torch.stack(shared).sum(dim=0).prod(dim=0)


def maps(image: Tensor, sample: Sample, slot: int, of_means: Tensor, of_mask: Tensor, numbers: IodineNumbers) -> Tensor:
    """The paper's image-sized inputs of a slot's refinement, in the order in which the model stacks them."""
    others = [other for other in range(len(sample.masks)) if other != slot]
    rest = torch.stack([sample.masks[other] for other in others]).sum(dim=0)
    without = mixture(
        [sample.masks[other] / rest for other in others], [sample.densities[other] for other in others], numbers.over
    )
    likelihoods = [sample.likelihood, without]
    if numbers.read == "log":
        likelihoods = [torch.log(each) for each in likelihoods]
    of_pixels, of_others = (normed(each.detach()) for each in likelihoods)
    explained = [density.prod(dim=0) for density in sample.densities]  # p(x | mu_k)
    return torch.cat(
        [
            image,
            of_pixels[None],
            tiled(image.new_zeros(0), *image.shape[1:]),
            sample.means[slot],
            sample.masks[slot][None],
            sample.logits[slot][None],
            (explained[slot] / torch.stack(explained).sum(dim=0))[None],
            normed(of_means),
            normed(of_mask)[None],
            of_others[None],
        ]
    )


def normed(values: Tensor) -> Tensor:
    """Layer normalisation without scale and offset."""
    return (values - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-5)


def refine(
    seen: Tensor, posterior: Tensor, gradient: Tensor, state: tuple[Tensor, Tensor], weights: Weights
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The refinement network: convolutions of stride 2, their average, a layer, the LSTM, a linear update."""
    for name in layers_of("refinement.convolutions", weights):
        side = weights[f"{name}.weight"].shape[-1]
        seen = F.elu(convolve(seen, name, weights, stride=2, padding=side // 2))
    hidden = F.elu(dense(seen.mean(dim=(1, 2)), "refinement.hidden", weights))
    state = lstm_cell(torch.cat([hidden, posterior, gradient]), state, "refinement.lstm", weights)
    return dense(state[0], "refinement.update", weights), state


def decode(latent: Tensor, size: torch.Size, weights: Weights, numbers: IodineNumbers) -> tuple[Tensor, Tensor]:
    """The broadcast decoder with ELU. [D] -> means [3, H, W] and mask logits [H, W]."""
    hidden = layers_of("decoder.hidden", weights)
    border = 2 if numbers.padded else 2 * (1 + len(hidden))
    features = F.elu(convolve(tiled(latent, size[0] + border, size[1] + border), "decoder.first", weights))
    for name in hidden:
        features = F.elu(convolve(features, name, weights, padding=1 if numbers.padded else 0))
    answer = convolve(features, "decoder.last", weights)
    return answer[:3] if numbers.linear else torch.sigmoid(answer[:3]), answer[3]
