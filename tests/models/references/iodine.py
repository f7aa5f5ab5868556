"""IODINE's loss for one image, written anew from Greff et al. (2019): Sections 2 and 3, Algorithm 1, and appendix B.

Plain, slow, float64. Nothing of `unscene` is used; weights come by the names under which the model saves them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.models.references.layers import Weights, convolve, dense, lstm_cell, tiled


def iodine_terms(
    image: Tensor,
    noise: Tensor,
    weights: Weights,
    sigma: float,
    beta: float,
    over: str = "pixel",
    read: str = "plain",
    linear: bool = False,
    padded: bool = True,
) -> dict[str, Tensor]:
    """The loss's two parts, sum_t t/T of -log p(x | z_t) and of the divergence.

    Step t's sample is drawn of the posterior after t refinements, t = 0..T.

    Args:
        image: [3, H, W].
        noise: [T + 1, K, D], the standard normal draws.
        weights: of the model.
        sigma: of all components.
        beta: what the divergence counts for in the loss that is differentiated for the refinement.
        over: `pixel`: a slot explains a pixel's three channels together; `channel`: each by itself.
        read: likelihoods as they are, `plain`, or their logarithms, `log`.
        linear: the components' colours are the decoder's own answer, not its sigmoid.
        padded: the decoder's convolutions after the first are.
    """
    steps, slots = len(noise) - 1, noise.shape[1]
    posteriors = [weights["first_posterior"].clone() for _ in range(slots)]  # lambda_k
    units = weights["refinement.lstm.weight_hh"].shape[1]
    states = [(image.new_zeros(units), image.new_zeros(units))] * slots
    reconstruction = latent_kl = torch.zeros((), dtype=image.dtype)
    for step in range(steps + 1):
        means, logits, divergence = [], [], torch.zeros((), dtype=image.dtype)
        for slot in range(slots):
            mean, log_variance = posteriors[slot].chunk(2)
            posterior = Normal(mean, torch.sqrt(torch.exp(log_variance)))
            divergence = divergence + kl_divergence(posterior, Normal(0.0, 1.0)).sum()
            latent = posterior.mean + posterior.stddev * noise[step, slot]
            slot_means, logit = decode(latent, image.shape[1:], weights, linear, padded)
            means.append(slot_means)
            logits.append(logit)
        exponentials = [torch.exp(logit) for logit in logits]
        masks = [each / torch.stack(exponentials).sum(dim=0) for each in exponentials]
        densities = [torch.exp(Normal(each, sigma).log_prob(image)) for each in means]
        likelihood = mixture(masks, densities, over)
        error = -torch.log(likelihood).sum()
        reconstruction = reconstruction + step / steps * error
        latent_kl = latent_kl + step / steps * divergence
        if step == steps:
            break
        gradients = torch.autograd.grad(error + beta * divergence, [*posteriors, *means, *masks], retain_graph=True)
        of_posteriors, of_means, of_masks = gradients[:slots], gradients[slots:-slots], gradients[-slots:]
        explained = [density.prod(dim=0) for density in densities]  # p(x | mu_k)
        refined = []
        for slot in range(slots):
            others = [other for other in range(slots) if other != slot]
            rest = torch.stack([masks[other] for other in others]).sum(dim=0)
            without = mixture([masks[other] / rest for other in others], [densities[other] for other in others], over)
            likelihoods = [likelihood, without]
            if read == "log":
                likelihoods = [torch.log(each) for each in likelihoods]
            of_pixels, of_others = (normed(each.detach()) for each in likelihoods)
            seen = torch.cat(
                [
                    image,
                    of_pixels[None],
                    tiled(image.new_zeros(0), *image.shape[1:]),
                    means[slot],
                    masks[slot][None],
                    logits[slot][None],
                    (explained[slot] / torch.stack(explained).sum(dim=0))[None],
                    normed(of_means[slot]),
                    normed(of_masks[slot])[None],
                    of_others[None],
                ]
            )
            update, states[slot] = refine(seen, posteriors[slot], normed(of_posteriors[slot]), states[slot], weights)
            refined.append(posteriors[slot] + update)
        posteriors = refined
    return {"reconstruction": reconstruction, "latent_kl": latent_kl}


def mixture(masks: list[Tensor], densities: list[Tensor], over: str) -> Tensor:
    """p(x | z) of every pixel: K of [H, W] and K of [3, H, W] -> [H, W]."""
    if over == "pixel":
        densities = [density.prod(dim=0, keepdim=True) for density in densities]
    shared = [mask * density for mask, density in zip(masks, densities, strict=True)]
    return torch.stack(shared).sum(dim=0).prod(dim=0)


def normed(values: Tensor) -> Tensor:
    """Layer normalisation without scale and offset."""
    return (values - values.mean()) / torch.sqrt(values.var(correction=0) + 1e-5)


def refine(
    seen: Tensor, posterior: Tensor, gradient: Tensor, state: tuple[Tensor, Tensor], weights: Weights
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """B.2: the refinement network: convolutions of stride 2, their average, a layer, the LSTM, a linear update."""
    layer = 0
    while f"refinement.convolutions.{layer}.weight" in weights:
        side = weights[f"refinement.convolutions.{layer}.weight"].shape[-1]
        seen = F.elu(convolve(seen, f"refinement.convolutions.{layer}", weights, stride=2, padding=side // 2))
        layer += 1
    hidden = F.elu(dense(seen.mean(dim=(1, 2)), "refinement.hidden", weights))
    state = lstm_cell(torch.cat([hidden, posterior, gradient]), state, "refinement.lstm", weights)
    return dense(state[0], "refinement.update", weights), state


def decode(latent: Tensor, size: torch.Size, weights: Weights, linear: bool, padded: bool) -> tuple[Tensor, Tensor]:
    """The broadcast decoder with ELU. [D] -> means [3, H, W] and mask logits [H, W]."""
    hidden = [name.removesuffix(".weight") for name in weights if "decoder.hidden" in name and "weight" in name]
    border = 2 if padded else 2 * (1 + len(hidden))
    features = F.elu(convolve(tiled(latent, size[0] + border, size[1] + border), "decoder.first", weights))
    for name in hidden:
        features = F.elu(convolve(features, name, weights, padding=1 if padded else 0))
    answer = convolve(features, "decoder.last", weights)
    return answer[:3] if linear else torch.sigmoid(answer[:3]), answer[3]
