"""SPACE's foreground (Lin et al., ICLR 2020): a grid of cells, each with at most one object of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unscene.errors import RecipeError
from unscene.models.common.gaussian import gaussian_kl, sample_gaussian, softplus_gaussian, unit_gaussian_kl
from unscene.models.common.precision import at_least_float32
from unscene.models.common.spatial_broadcast_decoder import keep_variance
from unscene.models.space.boundary_loss import boundary_loss
from unscene.models.space.networks import StridedEncoder, SubpixelDecoder, normed_convolution, strided_convolutions
from unscene.models.space.relaxed_bernoulli import bernoulli_kl, sample_relaxed_bernoulli
from unscene.models.space.settings import ForegroundSettings
from unscene.ops.glimpses import composite_glimpses, cut_glimpses, paste_borders

LARGEST_LOGIT = 8.8  # of a presence: probabilities from .00015 to .99985
SMALLEST_ALPHA = 1e-6  # what a colour is divided by at least: below a lone faint object's presence over the cells
NEAREST = 100.0  # factor of alpha sigmoid(-z_depth) in the softmax over the cells: the nearest object wins a pixel


@dataclass(frozen=True)
class Cells:
    """What is inferred of the N = G^2 cells, in reading order.

    Attributes:
        logits: [B, N] of z_pres.
        scale, shift: mean and log variance of z_where, [B, N, 2] each, x before y, before sigmoid and tanh.
        depth: mean and log variance of z_depth, [B, N, 1] each.
        what: mean and log variance of z_what, [B, N, D] each.
        presence: [B, N], z_pres.
        boxes: [B, N, 4], z_where as x1 y1 x2 y2 in pixels, not clipped to the image.
        nearness: [B, N], sigmoid of - z_depth.
        code: [B, N, D], z_what.
    """

    logits: Tensor
    scale: tuple[Tensor, Tensor]
    shift: tuple[Tensor, Tensor]
    depth: tuple[Tensor, Tensor]
    what: tuple[Tensor, Tensor]
    presence: Tensor
    boxes: Tensor
    nearness: Tensor
    code: Tensor

    @property
    def probability(self) -> Tensor:
        """[B, N] of an object."""
        return self.logits.sigmoid()


@dataclass(frozen=True)
class Drawing:
    """The cells' objects on the image.

    Attributes:
        image: [B, 3, H, W] the foreground.
        alpha: [B, 1, H, W] its share of a pixel.
        masks: [B, M, 1, H, W] of the chosen cells, each one's share of a pixel; all cells' masks sum to `alpha`.
        objects: [B, M, 3, H, W] of the chosen cells, what stands where each wins; times its alpha if `darkened`.
    """

    image: Tensor
    alpha: Tensor
    masks: Tensor
    objects: Tensor


class SpaceForeground(nn.Module):
    """Infer the cells of images, and draw them.

    A convolution that halves a map has a 4x4 kernel; the authors' encoder of the image ends with one of 3x3.

    Args:
        settings: see `ForegroundSettings`.
        size: height and width of the images.

    Raises:
        RecipeError: strides that do not take the images to the grid, or the glimpses to a map.
    """

    def __init__(self, settings: ForegroundSettings, size: int) -> None:
        super().__init__()
        convolutions = strided_convolutions(
            3, settings.channels, settings.strides, "model.foreground.channels and strides"
        )
        if size != settings.grid * math.prod(settings.strides):
            raise RecipeError(
                f"model.foreground.strides {list(settings.strides)} divide images of {size} pixels to a grid of "
                f"{size / math.prod(settings.strides):g}, but model.foreground.grid is {settings.grid}: change one of "
                "them (model.scale enlarges the images)."
            )
        self.settings, self.size = settings, size
        features, glimpse, what = settings.features, settings.glimpse_size, settings.what_dim
        self.encoder = nn.Sequential(
            convolutions,
            normed_convolution(settings.channels[-1], features, 1),
        )
        self.lateral = nn.Sequential(
            normed_convolution(features, features, 3), normed_convolution(features, features, 3)
        )
        self.joined = normed_convolution(2 * features, features, 3)
        self.to_cells = nn.Conv2d(features, 1 + 2 + 4 + 4, 1)  # presence, depth, scale, shift
        self.glimpse_encoder = StridedEncoder(
            3,
            settings.glimpse_channels,
            settings.glimpse_strides,
            glimpse,
            settings.glimpse_hidden,
            2 * what,
            settings="model.foreground.glimpse_channels and glimpse_strides",
            size_setting="model.foreground.glimpse_size",
            norm=settings.glimpse_norm,
        )
        self.glimpse_decoder = SubpixelDecoder(
            what,
            settings.glimpse_hidden,
            settings.decoder_channels,
            4,
            glimpse,
            settings="model.foreground.decoder_channels",
            size_setting="model.foreground.glimpse_size",
            norm=settings.glimpse_norm,
        )
        if settings.first_weights == "keep_variance":
            keep_variance(*self.glimpse_encoder.modules(), *self.glimpse_decoder.modules())
        if settings.first_presence is not None:
            logit = math.log(settings.first_presence / (1 - settings.first_presence))
            assert self.to_cells.bias is not None
            with torch.no_grad():
                self.to_cells.bias[0] = math.atanh(logit / LARGEST_LOGIT)
        line = torch.arange(settings.grid) + 0.5
        y, x = torch.meshgrid(line, line, indexing="ij")
        self.register_buffer("centres", torch.stack([x, y], dim=-1).flatten(0, 1), persistent=False)  # [N, 2]

    centres: Tensor

    def infer(self, images: Tensor, temperature: float | None = None) -> Cells:
        """q(z_fg | x) = prod_n q(z_pres,n | x) q(z_where,n | x) q(z_depth,n | x) q(z_what,n | z_where,n, x).

        Where something is comes from the image, what it is from a glimpse of its box.

        Args:
            images: [B, 3, size, size].
            temperature: latents are drawn, presences at this temperature; None: each is its mean, and a presence is 1
                where its probability is above 1/2, else 0.
        """
        features = self.encoder(images.contiguous(memory_format=torch.channels_last))
        features = self.joined(torch.cat([features, self.lateral(features)], dim=1))
        outputs = at_least_float32(self.to_cells(features)).flatten(2).transpose(1, 2)  # [B, N, 11]
        presence_logits, *gaussians = outputs.split([1, 2, 4, 4], dim=2)
        depth, scale, shift = map(softplus_gaussian, gaussians)
        logits = LARGEST_LOGIT * presence_logits.squeeze(2).tanh()
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
        """[B, N, 4] x1 y1 x2 y2 in pixels, of z_where [B, N, 2] each.

        A box's side is sigmoid(scale) of the image's; its centre is up to a cell's side from the centre of its cell.
        """
        half = scale.sigmoid() * self.size / 2
        centre = (self.centres + shift.tanh()) * self.size / self.settings.grid
        return torch.cat([centre - half, centre + half], dim=2)

    def draw(self, cells: Cells, chosen: Tensor) -> Drawing:
        """p(x | z_fg): decode the glimpses, paste them over their boxes, and let the nearest object win a pixel.

        The foreground's image holds the objects times their alpha, as in the authors' program, and the likelihood
        mixes it with the background by alpha once more: a half transparent pixel is darkened, which drives alpha to 0
        or 1. Without `settings.darkened` objects and image are divided by their alpha, which is then only what decides
        who wins a pixel, and how much of it.

        Args:
            cells: what is inferred.
            chosen: [B, M] the cells whose masks and objects are returned.
        """
        decoded = at_least_float32(self.glimpse_decoder(cells.code.flatten(0, 1))).sigmoid()
        colour, alpha = decoded.unflatten(0, cells.presence.shape).split([3, 1], dim=2)
        alpha = alpha * cells.presence[..., None, None, None]
        maps = torch.cat([colour * alpha, alpha], dim=2)
        pasted = composite_glimpses(maps, cells.boxes, NEAREST * cells.nearness, chosen, (self.size, self.size))
        if self.settings.darkened:
            return Drawing(pasted.image, pasted.alpha, pasted.masks, pasted.objects)
        image = pasted.image / pasted.alpha.clamp_min(SMALLEST_ALPHA)
        objects = pasted.objects / pasted.object_alpha.clamp_min(SMALLEST_ALPHA)
        return Drawing(image, pasted.alpha, pasted.masks, objects)

    def divergences(self, cells: Cells, step: int) -> dict[str, Tensor]:
        """The KL terms of the cells, each [B], against the priors at a step of a training."""
        settings = self.settings
        scale_prior = (settings.scale_mean.at(step), 2 * math.log(settings.scale_std))
        object_kl = {
            "scale_kl": gaussian_kl(*cells.scale, *scale_prior),
            "shift_kl": unit_gaussian_kl(*cells.shift),
            "depth_kl": unit_gaussian_kl(*cells.depth),
            "what_kl": unit_gaussian_kl(*cells.what),
        }
        if settings.weigh_by_presence:
            object_kl = {name: cells.presence * kl for name, kl in object_kl.items()}
        presence_kl = bernoulli_kl(cells.logits, settings.presence.at(step))
        return {name: kl.sum(dim=1) for name, kl in ({"presence_kl": presence_kl} | object_kl).items()}

    def boundary(self, cells: Cells, alpha: Tensor, step: int) -> Tensor:
        """[B] the boundary loss of the foreground's alpha [B, 1, H, W]; 0 when it is off at a step."""
        glimpse, width, end = (
            self.settings.glimpse_size,
            self.settings.boundary_width,
            self.settings.boundary_end_step,
        )
        if width == 0 or (end is not None and step >= end):
            return alpha.new_zeros(len(alpha))
        borders = paste_borders(cells.presence, cells.boxes, glimpse, width, (self.size, self.size))
        return boundary_loss(borders, alpha)
