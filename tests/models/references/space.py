"""SPACE's loss for one image, rewritten from Lin et al. (2020). Plain, slow, float64.

Nothing of `unscene` is used; weights come by the names under which the model saves them. Where the paper leaves a
number open it is the authors' (presence logits within 8.8, importance times 100, the boundary's 1000 / 32^2 and .7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Normal, kl_divergence

from tests.models.references import monet
from tests.models.references.layers import Weights, convolve, dense, layers_of, lstm_cell


@dataclass(frozen=True)
class SpaceNumbers:
    """What the loss is computed with: the model's settings, those that are annealed at one step of a training.

    Attributes:
        grid: cells on a side.
        glimpse: pixels of a glimpse on a side.
        border: of the boundary loss, in pixels of a glimpse.
        sigmas: of foreground and background.
        presence: prior probability.
        scale: prior mean and standard deviation of a box's scale.
        temperature: of the relaxed presences.
        alpha: the foreground's share where it is fixed.
        darkened: the foreground's colour is multiplied by its alpha before the mixture is (ours: it need not be).
        over: `pixel`: a part explains a pixel's three channels together; `channel`: each by itself.
    """

    grid: int
    glimpse: int
    border: int
    sigmas: tuple[float, float]
    presence: float
    scale: tuple[float, float]
    temperature: float
    alpha: float | None = None
    darkened: bool = True
    over: str = "pixel"


@dataclass(frozen=True)
class Cell:
    """One cell's object, pasted on the image, and the divergences of its latents.

    Attributes:
        image: [3, H, W], its colour times its alpha.
        alpha: [1, H, W].
        importance: [1, H, W], what a softmax over the cells is taken of.
        border: [1, H, W], of its box, times its presence.
        divergences: by the names of the loss's terms.
    """

    image: Tensor
    alpha: Tensor
    importance: Tensor
    border: Tensor
    divergences: dict[str, Tensor]


def space_terms(image: Tensor, noise: dict[str, Tensor], weights: Weights, numbers: SpaceNumbers) -> dict[str, Tensor]:
    """The terms of the loss.

    Args:
        image: [3, H, W], enlarged.
        noise: `presence` [N] uniform; standard normal `depth` [N, 1], `scale` and `shift` [N, 2], `what` [N, D],
            `masks` [K, D], `components` [K, D].
        weights: of the model.
        numbers: see there.
    """
    outputs = cell_outputs(image, weights)
    cells = []
    for index in range(numbers.grid**2):
        row, column = divmod(index, numbers.grid)
        own = {name: values[index] for name, values in noise.items() if name not in ("masks", "components")}
        cells.append(infer_cell(image, outputs[:, row, column], (column, row), own, weights, numbers))
    terms = {name: sum(cell.divergences[name] for cell in cells) for name in cells[0].divergences}
    won = torch.softmax(torch.stack([cell.importance for cell in cells]), dim=0)  # a cell's weight at every pixel
    foreground = sum(weight * cell.image for weight, cell in zip(won, cells, strict=True))
    alpha = sum(weight * cell.alpha for weight, cell in zip(won, cells, strict=True))
    if not numbers.darkened:  # the mean of the cells' colours, by their shares of the pixel
        shares = [weight * cell.alpha / alpha.clamp(min=1e-6) for weight, cell in zip(won, cells, strict=True)]
        colours = [cell.image / cell.alpha.clamp(min=1e-30) for cell in cells]
        foreground = sum(share * colour for share, colour in zip(shares, colours, strict=True))
    overlap = 1000 / 32**2 * sum(cell.border for cell in cells) * alpha
    resting = Normal(*torch.tensor([0.0, 0.7], dtype=image.dtype))
    terms["boundary"] = -(resting.log_prob(overlap) - resting.log_prob(torch.zeros_like(overlap))).sum()
    masks, components, terms["background_mask_kl"], terms["background_component_kl"] = background(
        image, noise["masks"], noise["components"], weights
    )
    if numbers.alpha is not None:
        alpha = torch.full_like(alpha, numbers.alpha)
    terms["reconstruction"] = -log_likelihood(image, foreground, alpha[0], masks, components, numbers)
    return terms


def infer_cell(
    image: Tensor,
    output: Tensor,
    location: tuple[int, int],
    noise: dict[str, Tensor],
    weights: Weights,
    numbers: SpaceNumbers,
) -> Cell:
    """The object of the cell (column, row): sampled from its posteriors, decoded and pasted at its location."""
    logit = 8.8 * torch.tanh(output[0])
    depth, scale, shift = gaussian(output[1:3]), gaussian(output[3:7]), gaussian(output[7:11])
    logistic = torch.log(noise["presence"]) - torch.log(1 - noise["presence"])
    presence = torch.sigmoid((logit + logistic) / numbers.temperature)
    share = torch.sigmoid(sample(scale, noise["scale"]))  # of the image's width and height
    middle = torch.tensor(location, dtype=image.dtype) + 0.5
    centre = 2 / numbers.grid * (middle + torch.tanh(sample(shift, noise["shift"]))) - 1
    glimpse = warped(image, share, centre, (numbers.glimpse, numbers.glimpse))
    what = gaussian(vector_of(glimpse, "foreground.glimpse_encoder", weights))
    decoded = torch.sigmoid(drawn_map(sample(what, noise["what"]), "foreground.glimpse_decoder", weights))
    colour, alpha = decoded[:3], presence * decoded[3:]
    nearness = torch.sigmoid(-sample(depth, noise["depth"]))
    back = (1 / share, -centre / share, image.shape[1:])
    presence_prior = Bernoulli(torch.tensor(numbers.presence, dtype=image.dtype))
    scale_prior = Normal(*torch.tensor(numbers.scale, dtype=image.dtype))
    divergences = {
        "presence_kl": kl_divergence(Bernoulli(logits=logit), presence_prior),
        "scale_kl": kl_divergence(scale, scale_prior).sum(),
        "shift_kl": kl_divergence(shift, Normal(0.0, 1.0)).sum(),
        "depth_kl": kl_divergence(depth, Normal(0.0, 1.0)).sum(),
        "what_kl": kl_divergence(what, Normal(0.0, 1.0)).sum(),
    }
    return Cell(
        image=warped(alpha * colour, *back),
        alpha=warped(alpha, *back),
        importance=warped(100 * alpha * nearness, *back),
        border=warped(presence * border_of(numbers).to(image.dtype), *back),
        divergences=divergences,
    )


def log_likelihood(
    image: Tensor,
    foreground: Tensor,
    alpha: Tensor,
    masks: list[Tensor],
    components: list[Tensor],
    numbers: SpaceNumbers,
) -> Tensor:
    """log(alpha p(x | z_fg) + (1 - alpha) sum_k pi_k p(x | z_bg,k)), summed; alpha is kept 1e-5 from 0 and 1 (ours)."""
    alpha = 1e-5 + (1 - 2e-5) * alpha

    def density(mean: Tensor, sigma: float) -> Tensor:
        densities = torch.exp(Normal(mean, sigma).log_prob(image))
        return densities.prod(dim=0) if numbers.over == "pixel" else densities

    behind = sum(
        mask * density(component, numbers.sigmas[1]) for mask, component in zip(masks, components, strict=True)
    )
    return torch.log(alpha * density(foreground, numbers.sigmas[0]) + (1 - alpha) * behind).sum()


def background(
    image: Tensor, mask_noise: Tensor, component_noise: Tensor, weights: Weights
) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
    """The K masks [H, W] and components [3, H, W], and the divergences of the two kinds of latents."""
    seen = vector_of(image, "background.encoder", weights)
    state, prior_state = (tuple(weights[f"background.{name}_state"]) for name in ("posterior", "prior"))
    latent = weights["background.first_mask"]
    scope = torch.ones_like(image[0])
    masks, components = [], []
    mask_kl = component_kl = torch.zeros((), dtype=image.dtype)
    for slot in range(len(mask_noise)):
        prior = gaussian(dense(prior_state[0], "background.to_prior", weights))  # p(z_m,k | z_m,<k)
        state = lstm_cell(torch.cat([latent, seen]), state, "background.posterior", weights)
        posterior = gaussian(dense(state[0], "background.to_posterior", weights))  # q(z_m,k | z_m,<k, x)
        mask_kl = mask_kl + kl_divergence(posterior, prior).sum()
        latent = sample(posterior, mask_noise[slot])
        prior_state = lstm_cell(latent, prior_state, "background.prior", weights)
        mask = scope
        if slot < len(mask_noise) - 1:
            mask = scope * torch.sigmoid(drawn_map(latent, "background.mask_decoder", weights)[0])
        scope = scope - mask
        masks.append(mask)
        hidden = latent
        for layer in (0, 2):
            hidden = F.celu(dense(hidden, f"background.component_prior.{layer}", weights))
        prior = gaussian(dense(hidden, "background.component_prior.4", weights))  # p(z_c,k | z_m,k)
        posterior = monet.encode(image, torch.log(mask), weights, "background.vae")  # q(z_c,k | m_k, x)
        component_kl = component_kl + kl_divergence(posterior, prior).sum()
        code = sample(posterior, component_noise[slot])
        components.append(monet.decode(code, image.shape[1:], weights, "background.vae")[0])
    return masks, components, mask_kl, component_kl


def cell_outputs(image: Tensor, weights: Weights) -> Tensor:
    """[11, G, G]: of each cell one presence logit, then mean and deviation of depth (1), scale (2) and shift (2)."""
    features = normed(image, "foreground.encoder", weights)
    joined = torch.cat([features, normed(features, "foreground.lateral", weights)])
    return convolve(normed(joined, "foreground.joined", weights), "foreground.to_cells", weights)


def vector_of(image: Tensor, name: str, weights: Weights) -> Tensor:
    """An encoder: convolutions, a layer, a linear output."""
    features = normed(image, f"{name}.convolutions", weights)
    hidden = F.celu(dense(features.flatten(), f"{name}.to_vector.1", weights))
    return dense(group_normed(hidden, f"{name}.to_vector.3", weights), f"{name}.to_vector.4", weights)


def normed(features: Tensor, name: str, weights: Weights) -> Tensor:
    """Convolutions, each with CELU and then group normalisation; a 4x4 one halves the map."""
    layers = layers_of(name, weights)
    for convolution, normalisation in zip(layers[::2], layers[1::2], strict=True):
        side = weights[f"{convolution}.weight"].shape[-1]
        stride = 2 if side == 4 else 1
        features = F.celu(convolve(features, convolution, weights, stride=stride, padding=(side - 1) // 2))
        features = group_normed(features, normalisation, weights)
    return features


def drawn_map(latent: Tensor, name: str, weights: Weights) -> Tensor:
    """A decoder of sub-pixel convolutions from one pixel to a map."""
    first, first_normalisation, *levels, last = layers_of(f"{name}.layers", weights)
    features = F.celu(convolve(latent[:, None, None], first, weights))
    features = group_normed(features, first_normalisation, weights)
    for level in range(0, len(levels), 4):
        finer, normalisation, convolution, second_normalisation = levels[level : level + 4]
        features = convolve(features, finer, weights)
        factor = math.isqrt(len(features) // len(weights[f"{normalisation}.weight"]))
        features = group_normed(F.celu(F.pixel_shuffle(features, factor)), normalisation, weights)
        features = F.celu(convolve(features, convolution, weights, padding=1))
        features = group_normed(features, second_normalisation, weights)
    return convolve(features, last, weights, padding=1)


def group_normed(features: Tensor, name: str, weights: Weights) -> Tensor:
    """Group normalisation, by groups of four channels (our choice, for up to 64 of them)."""
    groups = []
    for group in features.split(4):
        groups.append((group - group.mean()) / torch.sqrt(group.var(correction=0) + 1e-5))
    ones = [1] * (features.ndim - 1)
    scale, offset = (weights[f"{name}.{part}"].view(-1, *ones) for part in ("weight", "bias"))
    return torch.cat(groups) * scale + offset


def warped(image: Tensor, scale: Tensor, location: Tensor, size: tuple[int, ...]) -> Tensor:
    """A spatial transformer: an output of a size reads the image at scale * (x, y) + shift, both in -1..1."""
    zero = torch.zeros((), dtype=image.dtype)
    rows = [torch.stack([scale[0], zero, location[0]]), torch.stack([zero, scale[1], location[1]])]
    grid = F.affine_grid(torch.stack(rows)[None], [1, 1, *size], align_corners=False)
    return F.grid_sample(image[None], grid, padding_mode="zeros", align_corners=False)[0]


def border_of(numbers: SpaceNumbers) -> Tensor:
    """[1, glimpse, glimpse], 1 at the border."""
    border = torch.zeros(1, numbers.glimpse, numbers.glimpse)
    for row in range(numbers.glimpse):
        for column in range(numbers.glimpse):
            edge = min(row, column, numbers.glimpse - 1 - row, numbers.glimpse - 1 - column)
            border[0, row, column] = float(edge < numbers.border)
    return border


def gaussian(output: Tensor) -> Normal:
    """Mean, and a standard deviation by softplus, at least 1e-4."""
    mean, deviation = output.chunk(2)
    return Normal(mean, F.softplus(deviation) + 1e-4)


def sample(posterior: Normal, noise: Tensor) -> Tensor:
    """Its sample."""
    return posterior.mean + posterior.stddev * noise
