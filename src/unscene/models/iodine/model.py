"""IODINE: multi-object representation learning with iterative variational inference (Greff et al., ICML 2019).

Each of K slots has a posterior over a latent, lambda_k. One step samples the latents, decodes them to components and
masks, and feeds the likelihood, its gradients and the maps to a refinement network, which returns an update of lambda_k
(Algorithm 1). An inference is T steps. Training differentiates through all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, replace
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unscene.errors import check_shape
from unscene.models.common.gaussian import gaussian_kl, sample_gaussian
from unscene.models.common.mixture import MaskOutput, MixtureOver, mixture_log_likelihood, posterior_log_masks
from unscene.models.common.spatial_broadcast_decoder import Padding, SpatialBroadcastDecoder, coordinate_grid
from unscene.models.iodine.refinement_network import (
    RefinementNetwork,
    RefinementSettings,
    State,
    pixel_likelihoods,
)
from unscene.ops.dispatch import at_least_float32
from unscene.scene import Decomposition, Losses
from unscene.settings import settings_dataclass

SHARED_INPUTS = 4  # image and pixelwise likelihood; the coordinates come on top
SLOT_INPUTS = 11  # means, mask, its logit, mask posterior, gradients of means and of mask, leave-one-out likelihood
_SMALLEST_MASK = 1e-12  # bounds the gradient of a mask, which divides by it


@settings_dataclass
class IODINESettings:
    """Settings of IODINE; the defaults are R-MONet's for it on Multi-dSprites."""

    size: PositiveInt = 64  # height and width of the images
    num_slots: Annotated[int, Field(ge=2)] = 6  # K; none of them is known to be the background
    iterations: PositiveInt = 5  # T, refinements of the posteriors
    latent_dim: PositiveInt = 16  # D
    sigma: PositiveFloat = 0.1  # standard deviation of every component's Gaussian, for images in 0..1
    mixture_over: MixtureOver = "pixel"  # the likelihood has one mixture for a `pixel` or one for each `channel`
    # masks of the output: `inferred` are the paper's, decoded from the latents; `posterior` (ours) weighs them by how
    # well each slot's component fits the pixel, see `posterior_log_masks`. The loss is the same
    # with both; a validation, and so the choice of the best weights, sees the shown masks.
    masks: MaskOutput = "inferred"
    # maps of the pixels' positions that the refinement network reads: `linear` (the paper's), y and x; `cosine` (the
    # authors' program on Multi-dSprites), cos(pi f y) cos(pi g x) for f and g of 0, 1 and 2
    coordinates: Literal["linear", "cosine"] = "linear"
    # Beta, weight of the divergence from the prior; the paper's is 1. The divergence does not shrink with the image:
    # with half the side, 0.25 keeps its share of the loss.
    latent_weight: NonNegativeFloat = 1.0
    latent_warmup: NonNegativeInt = 0  # steps over which beta rises linearly from 0; 0 (the paper's): no warm-up
    decoder_channels: PositiveInt = 32  # channels of the spatial broadcast decoder
    decoder_layers: PositiveInt = 5  # number of its convolutions
    decoder_kernel: PositiveInt = 3  # side of their kernels, odd; 5 in the authors' program on Multi-dSprites
    decoder_padding: Padding = "same"  # `same` (the authors' program's) or `valid`, see `SpatialBroadcastDecoder`
    decoder_stride: PositiveInt = 1  # 1 (the paper's) or more, see `SpatialBroadcastDecoder`
    # `sigmoid` keeps the components in 0..1, `linear` (the paper's) leaves them free
    colour: Literal["sigmoid", "linear"] = "sigmoid"
    # A slot has one colour, the mean of what the decoder draws, as sprites and their ground have; so it cannot draw two
    # objects. Ours; the paper's components are free.
    one_colour: bool = False
    refinement: RefinementSettings = field(default_factory=RefinementSettings)  # settings of the refinement network
    # in training, compute the decoder's maps again in each backward pass instead of storing them for T steps: 1.5 times
    # the time, a fraction of the memory, the same numbers
    checkpointing: bool = False

    def latent_weight_at(self, step: int) -> float:
        return self.latent_weight * (min(1.0, step / self.latent_warmup) if self.latent_warmup else 1.0)


class Sample(NamedTuple):
    """A sample z of the posteriors, what it decodes to, and the two terms of its loss."""

    components: Tensor  # mu_k, [B, K, 3, H, W]
    mask_logits: Tensor  # [B, K, 1, H, W]
    log_masks: Tensor  # their log softmax over K
    reconstruction: Tensor  # -log p(x | z) in nats, [B]
    divergence: Tensor  # of the K posteriors from the prior in nats, [B]


class IODINE(nn.Module):
    """IODINE: the decoder, the refinement network and lambda_0. No slot is known to be the background."""

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
            kernel=settings.decoder_kernel,
        )
        coordinates = coordinate_grid(settings.size) if settings.coordinates == "linear" else cosine_grid(settings.size)
        shared_inputs = SHARED_INPUTS + coordinates.shape[1]
        self.refinement = RefinementNetwork(
            settings.refinement, shared_inputs, SLOT_INPUTS, settings.latent_dim, settings.size
        )
        shape = (settings.iterations, settings.num_slots, settings.latent_dim)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0), device="cpu")
        self.register_buffer("noise", noise, persistent=False)
        self.register_buffer("coordinates", coordinates, persistent=False)

    noise: Tensor
    coordinates: Tensor

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1 by decoding the means of the last posteriors.

        All slots start with the same posterior; only their samples differ. The T samples use a fixed noise, the same
        for every image, so an image has the same result alone and in any batch, and no random number is used. Works
        under `torch.no_grad` and `torch.inference_mode`.
        """
        beta = self.settings.latent_weight
        with _outside_inference_mode():
            images, posterior = self._start(images)
            state = None
            for noise in self.noise:
                _, posterior, state = self._refine(images, posterior, state, beta, noise)
            mean, _ = posterior.chunk(2, dim=2)
            decomposition = self._decomposition(*self._decode(mean), mean)
        if self.settings.masks == "inferred":
            return decomposition
        components, masks, sigmas = decomposition.components, decomposition.log_masks, self._sigmas(images)
        return replace(decomposition, log_masks=posterior_log_masks(images, components, masks, sigmas))

    def redraw(self, images: Tensor, latents: Tensor) -> Decomposition:
        """Decode latents [B, K, D]."""
        return self._decomposition(*self._decode(latents), latents)

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """The loss for images [B, 3, size, size]: its terms, each [B], and the decomposition of the last sample.

        L = sum_{t=1}^{T} t/T (-log p(x | z_t) + beta sum_k KL(q(z_k | lambda_t) || p(z)))

        lambda_t is the posterior after t refinements and z_t a sample of it. T + 1 samples are decoded. The first, of
        lambda_0, has weight 0: only the first refinement reads it. This is the authors' program; Algorithm 1 of the
        paper counts the first sample as t = 1 and has no term for the last refinement.
        """
        total, beta = self.settings.iterations, self.settings.latent_weight_at(step)
        with _outside_inference_mode():
            images, posterior = self._start(images)
            state = None
            reconstruction = divergence = images.new_zeros(len(images))
            for t in range(total):
                sample, posterior, state = self._refine(images, posterior, state, beta)
                reconstruction = reconstruction + t / total * sample.reconstruction
                divergence = divergence + t / total * sample.divergence
            last = self._sample(images, posterior)
        terms = {"reconstruction": reconstruction + last.reconstruction, "latent_kl": divergence + last.divergence}
        weights = {"reconstruction": 1.0, "latent_kl": beta}
        observed = {"last_reconstruction": last.reconstruction, "last_latent_kl": last.divergence}
        mean, _ = posterior.chunk(2, dim=2)
        return Losses(terms, weights, observed), self._decomposition(last.components, last.mask_logits, mean)

    def _start(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The images, checked, and lambda_0 for each slot, [B, K, 2 D]."""
        settings = self.settings
        check_shape(images, f"B 3 {settings.size} {settings.size}", "images")
        posterior = self.first_posterior.expand(len(images), settings.num_slots, -1)
        images = images.clone() if images.is_inference() else images  # autograd cannot save an inference tensor
        return at_least_float32(images), posterior

    def _refine(
        self, images: Tensor, posterior: Tensor, state: State | None, beta: float, noise: Tensor | None = None
    ) -> tuple[Sample, Tensor, State]:
        """One iteration of Algorithm 1: sample and decode, differentiate, update lambda [B, K, 2 D].

        The gradients that the refinement network reads are constants: there is no second derivative.
        """
        training = torch.is_grad_enabled()  # if not, the graph of this step is freed
        with torch.enable_grad():
            leaf = posterior if training and posterior.requires_grad else posterior.detach().requires_grad_()
            sample = self._sample(images, leaf, noise)
            loss = sample.reconstruction + beta * sample.divergence
            grad_posterior, grad_components, grad_log_masks = torch.autograd.grad(
                loss.sum(), (leaf, sample.components, sample.log_masks), retain_graph=training
            )
        grad_masks = grad_log_masks / sample.log_masks.detach().exp().clamp_min(_SMALLEST_MASK)
        shared, own = self._refinement_inputs(images, sample, grad_components, grad_masks)
        update, state = self.refinement(shared, own, posterior, _layer_norm(grad_posterior, 2), state)
        return sample, posterior + update, state

    def _sample(self, images: Tensor, posterior: Tensor, noise: Tensor | None = None) -> Sample:
        """z ~ q(z | lambda), by random noise or by `noise` [K, D]."""
        mean, log_variance = posterior.chunk(2, dim=2)
        latents = sample_gaussian(mean, log_variance) if noise is None else mean + (0.5 * log_variance).exp() * noise
        components, mask_logits = self._decode(latents)
        log_masks = mask_logits.log_softmax(dim=1)
        likelihood = mixture_log_likelihood(
            images, components, log_masks, self._sigmas(images), self.settings.mixture_over
        )
        divergence = gaussian_kl(mean, log_variance).sum(dim=1)
        return Sample(components, mask_logits, log_masks, -likelihood, divergence)

    def _sigmas(self, like: Tensor) -> Tensor:
        """[K] standard deviations of the slots' Gaussians, on the device of a tensor."""
        return like.new_full((self.settings.num_slots,), self.settings.sigma)

    def _decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, K, D] -> components [B, K, 3, H, W] and mask logits [B, K, 1, H, W]."""
        flat = latents.flatten(0, 1)
        if self.settings.checkpointing and self.training:
            maps = checkpoint(self.decoder, flat, use_reentrant=False, preserve_rng_state=False)
        else:
            maps = self.decoder(flat)
        colour, mask_logits = at_least_float32(maps).unflatten(0, latents.shape[:2]).split([3, 1], dim=2)
        if self.settings.colour == "sigmoid":
            colour = colour.sigmoid()
        if self.settings.one_colour:
            colour = colour.mean(dim=(3, 4), keepdim=True).expand_as(colour)
        return colour, mask_logits

    def _refinement_inputs(
        self, images: Tensor, sample: Sample, grad_components: Tensor, grad_masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the refinement network reads: [B, 4, H, W] and coordinates for all slots, and [B, K, 11, H, W].

        Gradients and likelihoods are constants and layer-normalised. The loss is differentiated through the rest.
        """
        settings, masks = self.settings, sample.log_masks.exp()
        exponents = -0.5 / settings.sigma**2 * (images.unsqueeze(1) - sample.components).square()
        pixel_exponents = exponents.sum(dim=2, keepdim=True)  # log N_k of a pixel, without its constant
        mixed = pixel_exponents if settings.mixture_over == "pixel" else exponents
        densities = mixed.detach().exp() * (settings.sigma * math.sqrt(2 * math.pi)) ** (-3 / mixed.shape[2])
        likelihood, leave_one_out = pixel_likelihoods(densities, masks.detach())
        coordinates = self.coordinates.to(images).expand(len(images), -1, -1, -1)
        shared = [images, _layer_norm(likelihood), coordinates]
        own = [
            sample.components,
            masks,
            sample.mask_logits,
            pixel_exponents.softmax(dim=1),  # mask posterior p(m_k | x, mu), for equal prior masks
            _layer_norm(grad_components, 2),
            _layer_norm(grad_masks, 2),
            _layer_norm(leave_one_out, 2),
        ]
        # concatenated in the channels-last layout that the convolutions read
        return torch.cat(shared, dim=1), torch.cat([maps.movedim(2, -1) for maps in own], dim=-1).movedim(-1, 2)

    def _decomposition(self, components: Tensor, mask_logits: Tensor, mean: Tensor) -> Decomposition:
        return Decomposition(mask_logits.log_softmax(dim=1), components, background=None, latents=mean)


def cosine_grid(size: int) -> Tensor:
    """[1, 8, size, size] cos(pi f y) cos(pi g x), with y and x in 0..1, for f and g of 0, 1, 2 but not both 0."""
    waves = torch.outer(torch.arange(3.0), torch.linspace(0, math.pi, size)).cos()
    return (waves[:, None, :, None] * waves[None, :, None, :]).flatten(0, 1)[None, 1:]


def _layer_norm(values: Tensor, axis: int = 1) -> Tensor:
    """Values normalised over the axes from `axis` on, without an affine part: the next layer has one."""
    return F.layer_norm(values, values.shape[axis:])


@contextmanager
def _outside_inference_mode() -> Iterator[None]:
    """Leave `torch.inference_mode`, which forbids all differentiation. Gradients stay on or off as they were."""
    enabled = torch.is_grad_enabled()  # False in inference mode; leaving that mode would turn gradients on
    with torch.inference_mode(False), torch.set_grad_enabled(enabled):
        yield
