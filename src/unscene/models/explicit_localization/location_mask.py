"""The location mask L: the pixels of a window that belong to one object (Liu et al., 2019, Algorithm 1)."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from unscene.errors import RecipeError
from unscene.models.explicit_localization.window import Window
from unscene.ops.dispatch import at_least_float32, compiled_module, host_may_read, use_plain
from unscene.settings import settings_dataclass

_COMPILED = "unscene.ops.mixture_numba"
_TINY = torch.finfo(torch.float32).tiny


@settings_dataclass
class LocationSettings:
    """Settings of the location mask. The paper states none of the numbers."""

    # side in pixels, odd, of the square filter that finds the centre (the convolution with weights 1)
    region: PositiveInt = 7
    order: PositiveFloat = 4.0  # n of the Butterworth window
    cutoff: PositiveFloat = 9.0  # f of the Butterworth window, in pixels
    # `mixture` is the paper's. `none`: L is 1 everywhere, the paper's ablation ("the whole location mask L is removed
    # and only the reconstruction quality Q remains").
    method: Literal["mixture", "none"] = "mixture"
    iterations: NonNegativeInt = 5  # L of Algorithm 1, iterations of expectation maximisation
    # 2 is the paper's. With more, the object is the component with the most pixels near the centre, except the first,
    # which is the explained part.
    components: Annotated[int, Field(ge=2)] = 2
    # sigma_2, of every component before the first iteration (an argument that Algorithm 1 does not use)
    initial_variance: PositiveFloat = 0.1
    variance_floor: PositiveFloat = 1e-3  # added to every variance
    # Of all components but the first. `random` is the paper's: uniform in 0..1. `centre` (ours): the mean colour and
    # position of the unexplained pixels around the centre, then the unexplained pixels whose colours are farthest from
    # the means so far.
    initial_means: Literal["random", "centre"] = "random"
    # How often the window moves to the object's mean and the mixture is fitted again (ours). The centre often lies at
    # an object's border, and the window then cuts off the rest.
    window_shifts: NonNegativeInt = 0
    # the weights are w s in place of w (ours): explained pixels have no influence, as the text of Section 2.4 asks for
    weigh_remaining: bool = False
    # The same weights are at least w times this, so that explained pixels hold the first component. With 0, all
    # components become equal where a window's remaining pixels are all one object's, and share it. Ours.
    least_remaining: Annotated[float, Field(ge=0, le=1)] = 0.0
    # line 9 of Algorithm 1 multiplies each density by the component's share of the points, as mixtures usually do; the
    # paper's line has no such factor
    learn_shares: bool = False
    # The mixture sees s x: explained pixels are black and belong to the first component, whose mean starts at 0. False:
    # it sees x, as line 8 of Algorithm 2 is printed.
    remaining_colours: bool = True
    coordinates: PositiveFloat = 1.0  # scale of the positions: y and x are in 0..1 times this

    def __post_init__(self) -> None:
        if self.region % 2 == 0:
            raise RecipeError(f"region must be odd, so that the square has a centre, not {self.region}.")


@torch.no_grad()
def location_mask(
    images: Tensor, remaining: Tensor, centres: Tensor, initial_means: Tensor, settings: LocationSettings
) -> tuple[Tensor, Tensor]:
    """L_GMM of Algorithm 1: the mask L, [B, 1, H, W] in 0..1, 0 outside the window, and the object's location, [B, 2].

    The inputs are images [B, 3, H, W], s [B, 1, H, W], centres [B, 2] (row and column), and the initial means of all
    components but the first, [B, components - 1, 5] in 0..1 (mu_2 of line 2: colour, y, x). The location is y and x in
    0..1: the mean of the object's component, or the centre where `method` is `none`. No gradient flows through it.
    """
    height, width = images.shape[2:]
    lengths = torch.tensor([height, width], device=centres.device)
    if settings.method == "none":
        return torch.ones_like(remaining), (centres + 0.5) / lengths
    for shift in range(settings.window_shifts + 1):
        window = Window.around(centres, (height, width), settings.order, settings.cutoff)  # lines 4 and 5
        s, x = window.crop(remaining), window.crop(images)  # [B, 1, P], [B, 3, P]
        unexplained = window.weights * s.squeeze(1)
        w = window.weights
        if settings.weigh_remaining:
            w = w * s.squeeze(1).clamp_min(settings.least_remaining)
        y = _pixel_vectors(x * s if settings.remaining_colours else x, window, settings.coordinates)  # line 3
        if shift == 0:  # line 2
            means = initial_means * initial_means.new_tensor([1, 1, 1, settings.coordinates, settings.coordinates])
            if settings.initial_means == "centre":
                means = _means_at_the_centre(y, unexplained, settings.components - 1, settings.region)
            means = torch.cat([torch.zeros_like(means[:, :1]), means], dim=1)
            variances = torch.full_like(means, settings.initial_variance)
        z, means, variances = pixel_mixture(  # lines 6 to 10
            y, w, means, variances, settings.iterations, settings.variance_floor, settings.learn_shares
        )
        z = z[:, 1:]  # [B, C-1, P]
        if shift == 0:
            chosen = _component_at_the_centre(z * w.unsqueeze(1), settings.region)  # [B, C-1, 1], one-hot
        location = (means[:, 1:, 3:] * chosen).sum(dim=1) / settings.coordinates
        centres = (location * lengths).floor().long().clamp_min(0).minimum(lengths - 1)
    mask = window.paste((z * chosen).sum(dim=1) * window.weights)  # line 11
    return mask.clamp_(0, 1), location


def _pixel_vectors(colours: Tensor, window: Window, scale: float) -> Tensor:
    """[B, 3, P] -> [B, P, 5], the vectors y_ij = (x_ij, i, j)."""
    height, width = window.size
    dtype = at_least_float32(colours).dtype
    i = ((window.pixels // width).to(dtype) + 0.5) / height * scale
    j = ((window.pixels % width).to(dtype) + 0.5) / width * scale
    return torch.cat([colours, i.unsqueeze(1), j.unsqueeze(1)], dim=1).transpose(1, 2)


def _means_at_the_centre(points: Tensor, unexplained: Tensor, count: int, region: int) -> Tensor:
    """[B, count, 5]: the mean of the unexplained points near the centre, then the points of the farthest colours."""
    side, near = _central_square(unexplained.shape[1], region)
    inside = torch.zeros_like(unexplained).unflatten(1, (side, side))
    inside[:, near, near] = 1e-6  # where everything is explained, the mean of the region
    inside = inside.flatten(1)
    inside = inside + unexplained * (inside > 0)
    means = [(inside.unsqueeze(-1) * points).sum(dim=1) / inside.sum(dim=1, keepdim=True)]
    for _ in range(count - 1):
        colours = torch.stack(means, dim=1)[:, None, :, :3]  # [B, 1, n, 3]
        distance = (points[:, :, None, :3] - colours).square().sum(dim=-1).amin(dim=2) * unexplained
        means.append(points[torch.arange(len(points), device=points.device), distance.argmax(dim=1)])
    return torch.stack(means, dim=1)


def _component_at_the_centre(shares: Tensor, region: int) -> Tensor:
    """[B, C, P] -> [B, C, 1], 1 for the component with the largest share of the region around the centre."""
    side, near = _central_square(shares.shape[2], region)
    # summed by rows, then columns: components with almost equal shares depend on the order
    largest = shares.unflatten(2, (side, side))[:, :, near, near].sum(dim=(2, 3)).argmax(dim=1)
    return F.one_hot(largest, shares.shape[1]).to(shares.dtype).unsqueeze(-1)


def _central_square(num_pixels: int, region: int) -> tuple[int, slice]:
    """Side of a square of so many pixels, and the rows (and columns) of the region around its centre."""
    side = math.isqrt(num_pixels)
    reach = side // 2
    half = min(region // 2, reach)
    return side, slice(reach - half, reach + half + 1)


class PixelMixture(NamedTuple):
    """The mixture after expectation maximisation."""

    responsibilities: Tensor  # z, [B, C, P]: the share of each component in each point, sums to 1 over C
    means: Tensor  # [B, C, D]
    variances: Tensor  # [B, C, D], of each coordinate


@torch.no_grad()
def pixel_mixture(
    points: Tensor,
    weights: Tensor,
    means: Tensor,
    variances: Tensor,
    iterations: int,
    variance_floor: float = 1e-4,
    learn_shares: bool = False,
) -> PixelMixture:
    """Fit diagonal Gaussians to weighted points: Algorithm 1, lines 6 to 11, for a batch. No gradient flows through it.

    Each iteration is line 7 (means), 8 (variances) and 9 (z). Algorithm 1 starts with z = .5 for both components, and
    line 7 would then keep their means equal. So the first z is computed from the initial means. A component without any
    weighted point keeps its mean and variance.

    The inputs are points [B, P, D], weights [B, P] of 0 or more (a point of weight 0 has responsibilities but no
    influence), and initial means and variances [B, C, D]. `iterations` is L. `variance_floor` is added to every
    variance, so that a component of equal points keeps a density. `learn_shares`: see `LocationSettings`.
    """
    points = at_least_float32(points)
    weights, means, variances = (tensor.to(points.dtype) for tensor in (weights, means, variances))
    compiled = compiled_module(_COMPILED) if len(points) == 1 and host_may_read(points) and not use_plain() else None
    if compiled is not None:  # one image, as of a stream of frames: less than half the time
        arrays = [tensor[0].double().numpy().copy() for tensor in (points, weights, means, variances)]
        shares = np.empty((means.shape[1], points.shape[1]))
        compiled.fit_mixture(*arrays, iterations, variance_floor, learn_shares, shares)
        return PixelMixture(*(torch.from_numpy(array).to(points)[None] for array in (shares, *arrays[2:])))
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 cannot tell a small variance from 0
        # around the points' mean: the squares of small numbers keep more digits of a small variance
        total = weights.sum(dim=1).clamp_min(_TINY).view(-1, 1, 1)
        origin = (weights.unsqueeze(2) * points).sum(dim=1, keepdim=True) / total
        points, means = points - origin, means - origin
        powers = torch.cat([points, points.square()], dim=2)  # [B, P, 2D]; all sums over points are products with these
        log_shares = torch.zeros_like(means[..., :1])  # [B, C, 1]
        z = _responsibilities(powers, means, variances, log_shares)
        for _ in range(iterations):
            zw = z * weights.unsqueeze(1)  # [B, C, P]
            counts = zw.sum(dim=2, keepdim=True)  # [B, C, 1]
            new_means, mean_squares = (torch.bmm(zw, powers) / counts.clamp_min(_TINY)).chunk(2, dim=2)
            new_variances = (mean_squares - new_means.square()).clamp_min(0) + variance_floor
            has_points = counts > _TINY
            means = torch.where(has_points, new_means, means)
            variances = torch.where(has_points, new_variances, variances)
            if learn_shares:
                log_shares = (counts / counts.sum(dim=1, keepdim=True).clamp_min(1e-30)).clamp_min(1e-30).log()
            z = _responsibilities(powers, means, variances, log_shares)
        return PixelMixture(z, means + origin, variances)


def _responsibilities(powers: Tensor, means: Tensor, variances: Tensor, log_shares: Tensor) -> Tensor:
    """[B, C, P]: exp of the log density and share, normalised over C.

    -(x - m)^2 / 2v is x m / v - x^2 / 2v, a product with the powers of x, and a constant.
    """
    factors = torch.cat([means / variances, -0.5 / variances], dim=2)  # [B, C, 2D]
    constant = -0.5 * (means.square() / variances + variances.log()).sum(dim=2, keepdim=True) + log_shares
    return torch.softmax(torch.baddbmm(constant, factors, powers.transpose(1, 2)), dim=1)
