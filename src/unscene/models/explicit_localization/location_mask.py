"""The location mask L: the pixels around a centre that belong to one object (explicit localization, Section 2.4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unscene.errors import RecipeError, check_shape
from unscene.models.explicit_localization.butterworth import butterworth, butterworth_window, window_reach
from unscene.models.explicit_localization.pixel_gmm import pixel_mixture

WEIGHT_FROM = 0.5  # of the window: w = 1 where G > .5


@dataclass(frozen=True)
class LocationSettings:
    """Settings of the location mask. The paper states none of the numbers.

    Attributes:
        region: side of the square whose quality is summed to find the centre, in pixels, odd.
        order: n of the Butterworth window.
        cutoff: f of the Butterworth window, in pixels.
        method: `mixture` is the paper's; `window` leaves the mixture out: L is the window where it is above a half;
            `none` leaves the window out as well: L is 1 ("the whole location mask L is removed").
        iterations: L of Algorithm 1, of expectation maximisation.
        components: 2 is the paper's. With more the first is still "what is explained", and the object is the one of the
            others that has most of the pixels near the centre.
        initial_variance: sigma_2, of every component before the first iteration. Algorithm 1 names no use for its
            sigma_2; a mixture needs a variance to start with.
        variance_floor: added to every variance.
        seeds: how the components but the first begin. `random` is the paper's: uniform in 0..1. `centre` (ours): the
            second at the mean colour and place of what remains in the region around the centre, each further one at
            the remaining pixel whose colour is farthest from those before.
        recentred: how often the window is moved to the object's place and the mixture fitted on from there (ours). The
            centre is where something was drawn best, often at an object's rim, and the window cuts off the rest.
        weigh_remaining: a pixel of the window weighs by what of it remains (ours): w s in place of w, so that pixels
            that are explained have no say, as Section 2.4 wants.
        learn_shares: see `pixel_mixture`.
        remaining_colours: the mixture sees s x: what is explained is black, and so belongs to the first component,
            whose mean begins at 0. False: it sees x, as Algorithm 2's line 8 is printed.
        coordinates: how much a pixel's place counts: y and x are in 0..1 times this.
    """

    region: int = 7
    order: float = 4.0
    cutoff: float = 9.0
    method: Literal["mixture", "window", "none"] = "mixture"
    iterations: int = 5
    components: int = 2
    initial_variance: float = 0.1
    variance_floor: float = 1e-3
    seeds: Literal["random", "centre"] = "random"
    recentred: int = 0
    weigh_remaining: bool = False
    learn_shares: bool = False
    remaining_colours: bool = True
    coordinates: float = 1.0

    def __post_init__(self) -> None:
        if self.region < 1 or self.region % 2 == 0:
            raise RecipeError(f"model.location.region must be odd, so that the square has a centre, not {self.region}.")
        if min(self.order, self.cutoff, self.initial_variance, self.variance_floor) <= 0:
            raise RecipeError(
                "model.location.order, cutoff, initial_variance and variance_floor must be above 0, not "
                f"{self.order}, {self.cutoff}, {self.initial_variance} and {self.variance_floor}."
            )
        if min(self.iterations, self.recentred) < 0:
            raise RecipeError(
                "model.location.iterations and recentred must be 0 or more, not "
                f"{self.iterations} and {self.recentred}."
            )
        if self.components < 2:
            raise RecipeError(f"model.location.components must be 2 or more, not {self.components}.")


@torch.no_grad()
def location_mask(
    images: Tensor, remaining: Tensor, centres: Tensor, seeds: Tensor, settings: LocationSettings
) -> tuple[Tensor, Tensor]:
    """Return L around each centre, and where the object is: L_GMM of Algorithm 1. No gradient flows through it.

    Only the pixels of the window have a weight, so the mixture sees no others, and L is 0 outside of it.

    Args:
        images: [B, 3, H, W].
        remaining: [B, 1, H, W], s before this step.
        centres: [B, 2] row and column.
        seeds: [B, components - 1, 5] in [0, 1], the initial means of all components but the first.
        settings: see `LocationSettings`.

    Returns:
        mask [B, 1, H, W] in [0, 1]; place [B, 2], y and x in 0..1 from the top left: the mean of the object's
        component, or of the window without a mixture.

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(images, "B 3 H W", "images")
    check_shape(remaining, f"{size['B']} 1 {size['H']} {size['W']}", "remaining")
    check_shape(centres, f"{size['B']} 2", "centres")
    check_shape(seeds, f"{size['B']} {settings.components - 1} 5", "seeds")
    height, width = size["H"], size["W"]
    middle = (centres + 0.5) / torch.tensor([height, width], device=centres.device)
    if settings.method == "none":
        return torch.ones_like(remaining), middle
    if settings.method == "window":
        window = butterworth_window(centres, (height, width), settings.order, settings.cutoff)
        return (window > WEIGHT_FROM).float(), middle
    for turn in range(settings.recentred + 1):
        square = _Square.around(centres, (height, width), settings)
        left = square.of(remaining)  # [B, 1, P]
        weights = square.weights * left.squeeze(1) if settings.weigh_remaining else square.weights
        colours = square.of(images) * left if settings.remaining_colours else square.of(images)
        points = _points(colours, square, settings.coordinates)
        if turn == 0:
            means = _first_means(points, left.squeeze(1) * square.weights, seeds, settings)
            variances = torch.full_like(means, settings.initial_variance)
        mixture = pixel_mixture(
            points,
            weights,
            means,
            variances,
            settings.iterations,
            settings.variance_floor,
            settings.learn_shares,
        )
        if turn == 0:  # [B, C-1] 1 for the object's component
            of_object = _at_the_centre(mixture.responsibilities[:, 1:] * weights.unsqueeze(1), settings.region)
        means, variances = mixture.means, mixture.variances
        place = (means[:, 1:, 3:] * of_object.unsqueeze(-1)).sum(dim=1) / settings.coordinates
        centres = _pixels_at(place, (height, width))
    chosen = (mixture.responsibilities[:, 1:] * of_object.unsqueeze(-1)).sum(dim=1) * square.weights
    mask = torch.zeros_like(remaining).flatten(1).scatter_add_(1, square.pixels, chosen).view_as(remaining)
    return mask.clamp_(0, 1), place


@dataclass(frozen=True)
class _Square:
    """The square of P pixels that a window can reach, and what of it the window holds.

    Attributes:
        pixels: [B, P] their numbers as one reads the image; those outside of it have the nearest one's.
        weights: [B, P] w of Algorithm 1; 0 outside of the image.
        size: of the image.
    """

    pixels: Tensor
    weights: Tensor
    size: tuple[int, int]

    @staticmethod
    def around(centres: Tensor, size: tuple[int, int], settings: LocationSettings) -> _Square:
        height, width = size
        reach = window_reach(settings.order, settings.cutoff, WEIGHT_FROM)
        around = torch.arange(-reach, reach + 1, device=centres.device)
        falls = butterworth(around.abs().float(), settings.order, settings.cutoff)
        window = (falls[:, None] * falls[None, :] > WEIGHT_FROM).flatten()  # the same around every centre
        rows, columns = centres[:, :1] + around, centres[:, 1:] + around  # [B, side]
        within = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        pixels = (rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]).flatten(1)
        return _Square(pixels, (within.flatten(1) & window).float(), size)

    def of(self, maps: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, P]."""
        return maps.flatten(2).gather(2, self.pixels.unsqueeze(1).expand(-1, maps.shape[1], -1))


def _points(colours: Tensor, square: _Square, scale: float) -> Tensor:
    """[B, P, 5] colour and place of a square's pixels, of their colours [B, 3, P]."""
    height, width = square.size
    y = (square.pixels // width + 0.5) / height * scale
    x = (square.pixels % width + 0.5) / width * scale
    return torch.cat([colours, y.unsqueeze(1), x.unsqueeze(1)], dim=1).transpose(1, 2)


def _first_means(points: Tensor, left: Tensor, seeds: Tensor, settings: LocationSettings) -> Tensor:
    """[B, C, 5]: 0 for what is explained (Algorithm 1, line 2), then the others', of points of which `left` remains."""
    if settings.seeds == "centre":
        seeds = _seeds_at_the_centre(points, left, settings.components - 1, settings.region)
    else:
        seeds = torch.cat([seeds[..., :3], seeds[..., 3:] * settings.coordinates], dim=-1)
    return torch.cat([torch.zeros_like(seeds[:, :1]), seeds], dim=1)


def _pixels_at(place: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, 2] row and column of the pixel at a place [B, 2] in 0..1, the nearest where it is outside of the image."""
    lengths = torch.tensor(size, device=place.device)
    return (place * lengths).floor().long().clamp_min(0).minimum(lengths - 1)


def _seeds_at_the_centre(points: Tensor, left: Tensor, count: int, region: int) -> Tensor:
    """[B, count, 5] first means, of points [B, P, 5] of a square of which `left` [B, P] remains."""
    side, near = _near_the_centre(left.shape[1], region)
    inside = torch.zeros_like(left).unflatten(1, (side, side))
    inside[:, near, near] = 1e-6  # where nothing remains, all of the region
    inside = inside.flatten(1)
    inside = inside + left * (inside > 0)
    seeds = [(inside.unsqueeze(-1) * points).sum(dim=1) / inside.sum(dim=1, keepdim=True)]
    for _ in range(count - 1):
        colours = torch.stack(seeds, dim=1)[:, None, :, :3]  # [B, 1, n, 3]
        distance = (points[:, :, None, :3] - colours).square().sum(dim=-1).amin(dim=2) * left
        farthest = distance.argmax(dim=1)
        seeds.append(points[torch.arange(len(points), device=points.device), farthest])
    return torch.stack(seeds, dim=1)


def _at_the_centre(shares: Tensor, region: int) -> Tensor:
    """[B, C] 1 for the component that has most of the pixels in the region around the centre, of shares [B, C, P]."""
    side, near = _near_the_centre(shares.shape[2], region)
    most = shares.unflatten(2, (side, side))[:, :, near, near].sum(dim=(2, 3)).argmax(dim=1)
    return torch.nn.functional.one_hot(most, shares.shape[1]).to(shares.dtype)


def _near_the_centre(pixels: int, region: int) -> tuple[int, slice]:
    """Side of a square of so many pixels, and which of its rows (and columns) the region around its centre has."""
    side = math.isqrt(pixels)
    reach = side // 2
    half = min(region // 2, reach)
    return side, slice(reach - half, reach + half + 1)
