"""The location mask L: the pixels around a centre that belong to one object (explicit localization, Section 2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unscene.errors import RecipeError, check_shape
from unscene.localization.butterworth import butterworth_window, window_reach
from unscene.localization.pixel_gmm import pixel_mixture

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
    learn_shares: bool = False
    remaining_colours: bool = True
    coordinates: float = 1.0

    def __post_init__(self) -> None:
        if self.region < 1 or self.region % 2 == 0:
            raise RecipeError(f"model.location.region must be odd, so that the square has a centre, not {self.region}.")
        if min(self.order, self.cutoff, self.initial_variance, self.variance_floor) <= 0 or self.iterations < 0:
            raise RecipeError(
                "model.location needs order, cutoff, initial_variance and variance_floor above 0 and 0 or more "
                f"iterations, not {self.order}, {self.cutoff}, {self.initial_variance}, {self.variance_floor} and "
                f"{self.iterations}."
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
    window = (butterworth_window(centres, (height, width), settings.order, settings.cutoff) > WEIGHT_FROM).float()
    if settings.method == "window":
        return window, middle
    reach = window_reach(settings.order, settings.cutoff, WEIGHT_FROM)
    around = torch.arange(-reach, reach + 1, device=centres.device)
    rows, columns = centres[:, :1] + around, centres[:, 1:] + around  # [B, side], some outside of the image
    within = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    place = (rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]).flatten(1)
    within = within.flatten(1)  # [B, P]
    colours = images * remaining if settings.remaining_colours else images
    seen = colours.flatten(2).gather(2, place.unsqueeze(1).expand(-1, 3, -1))  # [B, 3, P]
    weights = window.flatten(1).gather(1, place) * within
    scale = settings.coordinates
    y, x = (place // width + 0.5) / height * scale, (place % width + 0.5) / width * scale
    points = torch.cat([seen, y.unsqueeze(1), x.unsqueeze(1)], dim=1).transpose(1, 2)  # [B, P, 5]
    seeds = torch.cat([seeds[..., :3], seeds[..., 3:] * scale], dim=-1)
    if settings.seeds == "centre":
        left = remaining.flatten(1).gather(1, place) * weights
        seeds = _seeds_at_the_centre(points, left, settings.components - 1, settings.region, reach)
    mixture = pixel_mixture(
        points,
        weights,
        torch.cat([torch.zeros_like(seeds[:, :1]), seeds], dim=1),
        settings.initial_variance,
        settings.iterations,
        settings.variance_floor,
        settings.learn_shares,
    )
    object_part = _at_the_centre(mixture.responsibilities[:, 1:] * weights.unsqueeze(1), settings.region, reach)
    chosen = (mixture.responsibilities[:, 1:] * object_part.unsqueeze(-1)).sum(dim=1) * weights
    mask = torch.zeros_like(window).flatten(1).scatter_add_(1, place, chosen).view_as(window)
    where = (mixture.means[:, 1:, 3:] * object_part.unsqueeze(-1)).sum(dim=1) / scale
    return mask.clamp_(0, 1), where


def _seeds_at_the_centre(points: Tensor, left: Tensor, count: int, region: int, reach: int) -> Tensor:
    """[B, count, 5] first means, of points [B, P, 5] of a square of which `left` [B, P] remains."""
    near = torch.zeros_like(left).unflatten(1, (2 * reach + 1, -1))
    half = min(region // 2, reach)
    near[:, reach - half : reach + half + 1, reach - half : reach + half + 1] = 1
    inside = left * near.flatten(1) + 1e-6 * near.flatten(1)  # where nothing remains, all of the region
    seeds = [(inside.unsqueeze(-1) * points).sum(dim=1) / inside.sum(dim=1, keepdim=True)]
    for _ in range(count - 1):
        colours = torch.stack(seeds, dim=1)[:, None, :, :3]  # [B, 1, n, 3]
        distance = (points[:, :, None, :3] - colours).square().sum(dim=-1).amin(dim=2) * left
        farthest = distance.argmax(dim=1)
        seeds.append(points[torch.arange(len(points), device=points.device), farthest])
    return torch.stack(seeds, dim=1)


def _at_the_centre(shares: Tensor, region: int, reach: int) -> Tensor:
    """[B, C] 1 for the component that has most of the pixels in the region around the centre, of shares [B, C, P]."""
    side = 2 * reach + 1
    half = min(region // 2, reach)
    near = slice(reach - half, reach + half + 1)
    most = shares.unflatten(2, (side, side))[:, :, near, near].sum(dim=(2, 3)).argmax(dim=1)
    return torch.nn.functional.one_hot(most, shares.shape[1]).to(shares.dtype)
