"""SPACE's foreground (Lin et al., ICLR 2020): a grid of cells, each with at most one object of its own."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.distributed.processes import shared_noise
from unscene.models.common.gaussian import Gaussian, gaussian_kl, sample_gaussian, softplus_gaussian
from unscene.models.common.layers import kaiming_init_
from unscene.models.space.networks import StridedEncoder, SubpixelDecoder, normed_conv, strided_convs
from unscene.models.space.settings import ForegroundSettings
from unscene.ops.dispatch import at_least_float32
from unscene.ops.glimpses import composite_glimpses, cut_glimpses, paste_borders

MAX_LOGIT = 8.8  # of a presence: probabilities from .00015 to .99985
MIN_ALPHA = 1e-6  # smallest divisor of a colour: below the share of a lone faint object among all cells
NEARNESS_SCALE = 100.0  # factor of alpha sigmoid(-z_depth) in the softmax over the cells: the nearest object wins
BOUNDARY_SCALE = 1000 / 32**2  # of the borders in the boundary loss; this and the next are the authors' numbers
BOUNDARY_SIGMA = 0.7


class Cells(NamedTuple):
    """The posteriors and samples of the N = G^2 cells, in reading order; a Gaussian is its mean and log variance."""

    logits: Tensor  # of z_pres, [B, N]
    scale: Gaussian  # first part of z_where before the sigmoid, [B, N, 2], x before y
    shift: Gaussian  # second part of z_where before the tanh, [B, N, 2], x before y
    depth: Gaussian  # z_depth, [B, N, 1]
    what: Gaussian  # z_what, [B, N, D]
    presence: Tensor  # sample of z_pres, [B, N]
    boxes: Tensor  # sample of z_where as x1 y1 x2 y2 in pixels, not clipped to the image, [B, N, 4]
    nearness: Tensor  # sigmoid of minus a sample of z_depth, [B, N]
    code: Tensor  # sample of z_what, [B, N, D]


class Objects(NamedTuple):
    """The objects of the cells, decoded and pasted on the image."""

    image: Tensor  # the foreground, [B, 3, H, W]
    alpha: Tensor  # its share of a pixel, [B, 1, H, W]
    masks: Tensor  # shares of the chosen cells, [B, M, 1, H, W]; the masks of all cells sum to `alpha`
    components: Tensor  # colours of the chosen cells, [B, M, 3, H, W], times their alpha if `darkened`


class SpaceForeground(nn.Module):
    """Infer the cells of images of a `size`, and decode them.

    A convolution that halves a map has a 4x4 kernel; the authors' encoder of the image ends with one of 3x3.
    """

    centres: Tensor

    def __init__(self, settings: ForegroundSettings, size: int) -> None:
        super().__init__()
        self.settings, self.size = settings, size
        features, glimpse, norm = settings.features, settings.glimpse_size, settings.glimpse_norm
        hidden, what = settings.glimpse_hidden, settings.what_dim
        self.encoder = nn.Sequential(
            strided_convs(3, settings.channels, settings.strides), normed_conv(settings.channels[-1], features, 1)
        )
        self.lateral = nn.Sequential(normed_conv(features, features, 3), normed_conv(features, features, 3))
        self.joined = normed_conv(2 * features, features, 3)
        self.to_cells = nn.Conv2d(features, 1 + 2 + 4 + 4, 1)  # presence, depth, scale, shift
        self.glimpse_encoder = StridedEncoder(
            settings.glimpse_channels, settings.glimpse_strides, glimpse, hidden, 2 * what, norm
        )
        self.glimpse_decoder = SubpixelDecoder(what, hidden, settings.decoder_channels, 4, glimpse, norm)
        if settings.init == "kaiming":
            kaiming_init_(*self.glimpse_encoder.modules(), *self.glimpse_decoder.modules())
        if settings.initial_presence is not None:
            logit = math.log(settings.initial_presence / (1 - settings.initial_presence))
            assert self.to_cells.bias is not None
            with torch.no_grad():
                self.to_cells.bias[0] = math.atanh(logit / MAX_LOGIT)
        line = torch.arange(settings.grid) + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("centres", torch.stack([x, y], dim=-1).flatten(0, 1), persistent=False)  # [N, 2]

    def infer(self, images: Tensor, temperature: float | None = None) -> Cells:
        """q(z_fg | x) = prod_n q(z_pres,n | x) q(z_where,n | x) q(z_depth,n | x) q(z_what,n | z_where,n, x).

        `temperature` is that of the sampled presences. None: latents are their means, and a presence is 1 where its
        probability is above 1/2, else 0.
        """
        features = self.encoder(images.contiguous(memory_format=torch.channels_last))
        features = self.joined(torch.cat([features, self.lateral(features)], dim=1))
        outputs = at_least_float32(self.to_cells(features)).flatten(2).transpose(1, 2)  # [B, N, 11]
        presence_logits, *gaussians = outputs.split([1, 2, 4, 4], dim=2)
        depth, scale, shift = map(softplus_gaussian, gaussians)
        logits = MAX_LOGIT * presence_logits.squeeze(2).tanh()
        if temperature is None:
            presence = (logits > 0).to(logits)
            z_depth, boxes = depth[0], self.boxes(scale[0], shift[0])
        else:
            presence = sample_relaxed_bernoulli(logits, temperature)
            z_depth, boxes = sample_gaussian(*depth), self.boxes(sample_gaussian(*scale), sample_gaussian(*shift))
        side = self.settings.glimpse_size
        glimpses = cut_glimpses(images, boxes, (side, side))
        what = softplus_gaussian(self.glimpse_encoder(glimpses.flatten(0, 1)).unflatten(0, logits.shape))
        code = what[0] if temperature is None else sample_gaussian(*what)
        return Cells(logits, scale, shift, depth, what, presence, boxes, (-z_depth).sigmoid().squeeze(2), code)

    def boxes(self, scale: Tensor, shift: Tensor) -> Tensor:
        """[B, N, 4] x1 y1 x2 y2 in pixels, of z_where's two parts [B, N, 2].

        A box's side is sigmoid(scale) of the image's; its centre is up to a cell's side from the centre of its cell.
        """
        half = scale.sigmoid() * self.size / 2
        centre = (self.centres + shift.tanh()) * self.size / self.settings.grid
        return torch.cat([centre - half, centre + half], dim=2)

    def decode(self, cells: Cells, chosen: Tensor) -> Objects:
        """p(x | z_fg): decode the glimpses and paste them over their boxes; the nearest object wins a pixel.

        The foreground is the sum of the objects times their alpha, as in the authors' program, and the likelihood
        multiplies it by alpha once more: a half transparent pixel is darkened, which drives alpha to 0 or 1. Without
        `settings.darkened` the foreground and its objects are divided by their alpha. `chosen` [B, M] are the indices
        of the cells whose masks and components are returned.
        """
        decoded = at_least_float32(self.glimpse_decoder(cells.code.flatten(0, 1))).sigmoid()
        colour, alpha = decoded.unflatten(0, cells.presence.shape).split([3, 1], dim=2)
        alpha = alpha * cells.presence[..., None, None, None]
        maps = torch.cat([colour * alpha, alpha], dim=2)
        nearness = NEARNESS_SCALE * cells.nearness
        pasted, masks, layers = composite_glimpses(maps, cells.boxes, nearness, chosen, (self.size, self.size))
        image, alpha = pasted.split([3, 1], dim=1)
        components, layer_alpha = layers.split([3, 1], dim=2)
        if not self.settings.darkened:
            image = image / alpha.clamp_min(MIN_ALPHA)
            components = components / layer_alpha.clamp_min(MIN_ALPHA)
        return Objects(image, alpha, masks, components)

    def kl_terms(self, cells: Cells, step: int) -> dict[str, Tensor]:
        """The KL terms [B] of the cells, from the priors at a step of a training."""
        settings = self.settings
        scale_prior = (settings.scale_mean.at(step), 2 * math.log(settings.scale_std))
        object_kl = {
            "scale_kl": gaussian_kl(*cells.scale, *scale_prior),
            "shift_kl": gaussian_kl(*cells.shift),
            "depth_kl": gaussian_kl(*cells.depth),
            "what_kl": gaussian_kl(*cells.what),
        }
        if settings.weigh_by_presence:
            object_kl = {name: cells.presence * kl for name, kl in object_kl.items()}
        presence_kl = bernoulli_kl(cells.logits, settings.presence.at(step))
        return {name: kl.sum(dim=1) for name, kl in ({"presence_kl": presence_kl} | object_kl).items()}

    def boundary_loss(self, cells: Cells, alpha: Tensor, step: int) -> Tensor:
        """[B] the boundary loss (SPACE, Appendix) of the foreground's alpha [B, 1, H, W]; 0 when a step has none.

        The sum over the pixels of -log N(o; 0, 0.7) without its constant, o = .977 alpha sum_n z_pres,n border_n. An
        object on the border of its own box is penalised, so the box grows; so is one on the border of another's.
        """
        settings = self.settings
        end = settings.boundary_end_step
        if settings.boundary_width == 0 or (end is not None and step >= end):
            return alpha.new_zeros(len(alpha))
        borders = paste_borders(
            cells.presence, cells.boxes, settings.glimpse_size, settings.boundary_width, (self.size, self.size)
        )
        overlap = BOUNDARY_SCALE * borders * alpha
        return (overlap / BOUNDARY_SIGMA).square().sum(dim=(1, 2, 3)) / 2


def sample_relaxed_bernoulli(logits: Tensor, temperature: float) -> Tensor:
    """sigmoid((logits + log u - log(1 - u)) / temperature), u uniform (Maddison et al. and Jang et al., 2017).

    It is above 1/2 as often as the Bernoulli is 1; at a lower temperature it is nearer to 0 or 1.
    """
    uniform = shared_noise(torch.rand, logits.shape, dtype=logits.dtype, device=logits.device)
    edge = torch.finfo(logits.dtype).eps
    return ((logits + uniform.clamp(edge, 1 - edge).logit()) / temperature).sigmoid()


def bernoulli_kl(logits: Tensor, prior: float) -> Tensor:
    """KL(Bernoulli(sigmoid(logits)) || Bernoulli(prior)) of every element, in nats.

    p log(p / prior) + (1 - p) log((1 - p) / (1 - prior)), with log p computed from the logits: always finite.
    """
    present, absent = logits.sigmoid(), (-logits).sigmoid()
    kl_present = present * (F.logsigmoid(logits) - math.log(prior))
    return kl_present + absent * (F.logsigmoid(-logits) - math.log1p(-prior))
