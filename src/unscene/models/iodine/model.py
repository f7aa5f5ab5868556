"""IODINE: multi-object representation learning with iterative variational inference (Greff et al., ICML 2019).

No encoder finds the objects. Each of K slots has a posterior over a latent; latents are drawn and decoded to components
and masks; and a network that sees how well they explain the image, and the gradients of the loss, betters every
posterior. T such steps are one inference, and all that they are made of is learnt through them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unscene.errors import RecipeError, check_shape
from unscene.models.common.gaussian import sample_gaussian, unit_gaussian_kl
from unscene.models.common.mixture import MixtureOver, mixture_log_likelihood
from unscene.models.common.precision import at_least_float32
from unscene.models.common.spatial_broadcast_decoder import Padding, SpatialBroadcastDecoder, coordinate_grid
from unscene.models.iodine.gradient_mode import ordinary, outside_inference_mode
from unscene.models.iodine.leave_one_out import leave_one_out_log_likelihood
from unscene.models.iodine.refinement_network import RefinementNetwork, RefinementSettings, State
from unscene.scene import Decomposition, Losses

SHARED_INPUTS = 6  # image, pixelwise likelihood, coordinates
SLOT_INPUTS = 11  # means, mask, its logit, mask posterior, gradients by means and by mask, leave-one-out likelihood
_SMALLEST_MASK = 1e-12  # the gradient by a mask that is smaller is that by a mask of this size


@dataclass(frozen=True)
class IODINESettings:
    """Every setting of IODINE; the defaults are R-MONet's for it on Multi-dSprites.

    Attributes:
        size: height and width of the images.
        num_slots: K; none of them is known to be the background.
        iterations: T, how often the posteriors are refined.
        latent_dim: D.
        sigma: standard deviation of every component's Gaussian, for images in 0..1.
        mixture_over: the likelihood mixes each `pixel`, or each `channel` by itself.
        likelihood_inputs: the refinement network reads pixelwise and leave-one-out likelihoods as they are (`plain`,
            which is how the paper writes them) or their logarithms (`log`; the authors' program has the logarithm of
            the first, and by how much that exceeds the logarithm of the second).
        latent_weight: beta, of the divergence from the prior; 1 is the paper's.
        decoder_channels: of the spatial broadcast decoder.
        decoder_layers: number of its 3x3 convolutions.
        decoder_padding: `same` (as in the authors' program) or `valid`, see `SpatialBroadcastDecoder`.
        decoder_stride: 1 (the paper's) or more, see `SpatialBroadcastDecoder`.
        colour: `sigmoid` keeps the components in 0..1, `linear` (the paper's) leaves them free.
        refinement: of the refinement network.
        checkpointing: in training, the decoder's maps are not kept through the T steps but computed again for each
            pass backward: two more passes forward a step, for most of the memory. The numbers are the same.

    Raises:
        RecipeError: a value that cannot be.
    """

    size: int = 64
    num_slots: int = 6
    iterations: int = 5
    latent_dim: int = 16
    sigma: float = 0.1
    mixture_over: MixtureOver = "pixel"
    likelihood_inputs: Literal["plain", "log"] = "plain"
    latent_weight: float = 1.0
    decoder_channels: int = 32
    decoder_layers: int = 5
    decoder_padding: Padding = "same"
    decoder_stride: int = 1
    colour: Literal["sigmoid", "linear"] = "sigmoid"
    refinement: RefinementSettings = field(default_factory=RefinementSettings)
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.num_slots < 2 or self.iterations < 1:
            raise RecipeError(
                "model.num_slots must be 2 or more and iterations 1 or more, not "
                f"{self.num_slots} and {self.iterations}."
            )
        if min(self.latent_dim, self.decoder_channels, self.size) < 1 or self.sigma <= 0 or self.latent_weight < 0:
            raise RecipeError(
                "model.latent_dim, decoder_channels and size must be 1 or more, sigma above 0 and latent_weight 0 or "
                f"more, not {self.latent_dim}, {self.decoder_channels}, {self.size}, {self.sigma} and "
                f"{self.latent_weight}."
            )


@dataclass(frozen=True)
class Drawn:
    """What a sample of the posteriors is decoded to, and what it costs.

    Attributes:
        components: [B, K, 3, H, W], mu_k.
        mask_logits: [B, K, 1, H, W].
        log_masks: [B, K, 1, H, W], their log softmax over K.
        reconstruction: [B] -log p(x | z), nats for an image.
        divergence: [B] of the K posteriors from the prior, nats.
    """

    components: Tensor
    mask_logits: Tensor
    log_masks: Tensor
    reconstruction: Tensor
    divergence: Tensor


class IODINE(nn.Module):
    """The decoder, the refinement network and the first posterior. Which slot is the background it does not say.

    Args:
        settings: see `IODINESettings`.
    """

    Settings = IODINESettings
    background = None

    def __init__(self, settings: IODINESettings) -> None:
        super().__init__()
        self.settings = settings
        self.first_posterior = nn.Parameter(torch.zeros(2 * settings.latent_dim))  # lambda_0: mean and log variance
        self.decoder = SpatialBroadcastDecoder(
            settings.latent_dim,
            out_channels=4,
            channels=settings.decoder_channels,
            layers=settings.decoder_layers,
            size=settings.size,
            padding=settings.decoder_padding,
            stride=settings.decoder_stride,
            activation="elu",
        )
        self.refinement = RefinementNetwork(
            settings.refinement, SHARED_INPUTS, SLOT_INPUTS, settings.latent_dim, settings.size
        )
        shape = (settings.iterations, settings.num_slots, settings.latent_dim)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu")
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("coordinates", coordinate_grid(settings.size), persistent=False)

    noise: Tensor
    coordinates: Tensor

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1; what is answered are the last posteriors' means, decoded.

        All slots begin with one posterior, and only what is drawn of it tells them apart. The T draws that the steps
        need are the same noise for every image, made once from a seed: the same image is always answered alike, alone
        or in any batch, and no random number is spent. Works under `torch.no_grad` and `torch.inference_mode` too.
        """
        with outside_inference_mode():
            images, posterior = self._begin(images)
            state = None
            for noise in self.noise:
                _, posterior, state = self._refined(images, posterior, state, noise)
            mean, _ = posterior.chunk(2, dim=2)
            return self._decomposition(*self._decoded(mean), mean)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """The loss for images [B, 3, size, size]: its terms, each [B], and the decomposition of the last step.

        L = sum_{t=1}^{T} t/T (-log p(x | z_t) + beta sum_k KL(q(z_k | lambda_t) || p(z)))

        lambda_t is the posterior after t refinements, z_t is drawn of it. So T + 1 samples are decoded; the first, of
        lambda_0, is only what the first refinement looks at: its weight is 0. (As in the authors' program. Algorithm 1
        of the paper counts the first sample as t = 1 and the last refinement has no term.)
        """
        total = self.settings.iterations
        with outside_inference_mode():
            images, posterior = self._begin(images)
            state = None
            reconstruction = divergence = images.new_zeros(len(images))
            for t in range(total):
                drawn, posterior, state = self._refined(images, posterior, state)
                reconstruction = reconstruction + t / total * drawn.reconstruction
                divergence = divergence + t / total * drawn.divergence
            last = self._drawn(images, posterior)
        terms = {"reconstruction": reconstruction + last.reconstruction, "latent_kl": divergence + last.divergence}
        weights = {"reconstruction": 1.0, "latent_kl": self.settings.latent_weight}
        observed = {"last_reconstruction": last.reconstruction, "last_latent_kl": last.divergence}
        mean, _ = posterior.chunk(2, dim=2)
        return Losses(terms, weights, observed), self._decomposition(last.components, last.mask_logits, mean)

    def _begin(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images, checked, and lambda_0 of each slot, [B, K, 2 D]."""
        settings = self.settings
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        posterior = self.first_posterior.expand(len(images), settings.num_slots, -1)
        return at_least_float32(ordinary(images)), posterior

    def _refined(
        self, images: Tensor, posterior: Tensor, state: State | None, noise: Tensor | None = None
    ) -> tuple[Drawn, Tensor, State]:
        """One step: draw and decode, differentiate, refine.

        Args:
            images: [B, 3, H, W].
            posterior: [B, K, 2 D], lambda.
            state: of the LSTM.
            noise: [K, D] of the draw; None: drawn at random.

        Returns:
            What was drawn, the next lambda, and the LSTM's next state.
        """
        learning = torch.is_grad_enabled()  # else the graph of this step is let go at once
        with torch.enable_grad():
            at = posterior if learning and posterior.requires_grad else posterior.detach().requires_grad_()
            drawn = self._drawn(images, at, noise)
            loss = drawn.reconstruction + self.settings.latent_weight * drawn.divergence
            inner = (at, drawn.components, drawn.log_masks)
            gradients = torch.autograd.grad(loss.sum(), inner, retain_graph=learning)
        of_posterior, of_components, of_log_masks = gradients  # constants: no second derivative is taken
        of_masks = of_log_masks / drawn.log_masks.detach().exp().clamp_min(_SMALLEST_MASK)
        shared, own = self._inputs(images, drawn, of_components, of_masks)
        update, state = self.refinement(shared, own, posterior, _normalised(of_posterior), state)
        return drawn, posterior + update, state

    def _drawn(self, images: Tensor, posterior: Tensor, noise: Tensor | None = None) -> Drawn:
        """z ~ q(z | lambda), decoded, and the two terms of its loss; `noise` as in `_refined`."""
        mean, log_variance = posterior.chunk(2, dim=2)
        latents = sample_gaussian(mean, log_variance) if noise is None else mean + (0.5 * log_variance).exp() * noise
        components, mask_logits = self._decoded(latents)
        log_masks = mask_logits.log_softmax(dim=1)
        scales = images.new_full((self.settings.num_slots,), self.settings.sigma)
        likelihood = mixture_log_likelihood(images, components, log_masks, scales, self.settings.mixture_over)
        divergence = unit_gaussian_kl(mean, log_variance).sum(dim=1)
        return Drawn(components, mask_logits, log_masks, -likelihood, divergence)

    def _decoded(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, K, D] -> components [B, K, 3, H, W] and mask logits [B, K, 1, H, W]."""
        flat = latents.flatten(0, 1)
        if self.settings.checkpointing and self.training:
            decoded = checkpoint(self.decoder, flat, use_reentrant=False, preserve_rng_state=False)
        else:
            decoded = self.decoder(flat)
        colour, mask_logits = at_least_float32(decoded).unflatten(0, latents.shape[:2]).split([3, 1], dim=2)
        return colour.sigmoid() if self.settings.colour == "sigmoid" else colour, mask_logits

    def _inputs(self, images: Tensor, drawn: Drawn, of_components: Tensor, of_masks: Tensor) -> tuple[Tensor, Tensor]:
        """What the refinement network reads of images: [B, 6, H, W] alike for all slots, and [B, K, 11, H, W].

        Gradients and likelihoods are constants and layer-normalised; the rest is as it is and is learnt through.
        """
        settings = self.settings
        squared = (images.unsqueeze(1) - drawn.components).square()
        log_densities = -0.5 / settings.sigma**2 * squared - math.log(settings.sigma * math.sqrt(2 * math.pi))
        explained = log_densities.sum(dim=2, keepdim=True)  # log N_k of a pixel, [B, K, 1, H, W]
        with torch.no_grad():
            mixed = explained if settings.mixture_over == "pixel" else log_densities
            log_likelihood = (mixed + drawn.log_masks).logsumexp(dim=1).sum(dim=1, keepdim=True)  # [B, 1, H, W]
            leave_one_out = leave_one_out_log_likelihood(mixed, drawn.log_masks)
            if settings.likelihood_inputs == "plain":
                log_likelihood, leave_one_out = log_likelihood.exp(), leave_one_out.exp()
        places = self.coordinates.to(images).expand(len(images), -1, -1, -1)
        shared = [images, _normalised(log_likelihood.unsqueeze(1)).squeeze(1), places]
        own = [
            drawn.components,
            drawn.log_masks.exp(),
            drawn.mask_logits,
            explained.softmax(dim=1),  # mask posterior p(m_k | x, mu), of equal masks
            _normalised(of_components),
            _normalised(of_masks),
            _normalised(leave_one_out),
        ]
        # joined with the channels last, which is how the convolutions want them
        return torch.cat(shared, dim=1), torch.cat([each.movedim(2, -1) for each in own], dim=-1).movedim(-1, 2)

    def _decomposition(self, components: Tensor, mask_logits: Tensor, mean: Tensor) -> Decomposition:
        return Decomposition(
            log_masks=mask_logits.log_softmax(dim=1), components=components, background=None, latents=mean
        )


def _normalised(values: Tensor) -> Tensor:
    """Each slot's values [B, K, ...] with mean 0 and variance 1. The layer that reads them has the affine part."""
    return F.layer_norm(values, values.shape[2:])
