"""The location mask L: the pixels of a window that belong to one object (Liu et al., 2019, Algorithm 1)."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from unscene.errors import RecipeError, check_shape
from unscene.models.explicit_localization.pixel_gmm import pixel_mixture
from unscene.models.explicit_localization.window import Window
from unscene.ops.dispatch import at_least_float32
from unscene.settings import settings_dataclass


@settings_dataclass
class LocationSettings:
    """Settings of the location mask. The paper states none of the numbers.

    Attributes:
        region: side in pixels, odd, of the square filter that finds the centre (the convolution with weights 1).
        order: n of the Butterworth window.
        cutoff: f of the Butterworth window, in pixels.
        method: `mixture` is the paper's. `none`: L is 1 everywhere, the paper's ablation ("the whole location mask L is
            removed and only the reconstruction quality Q remains").
        iterations: L of Algorithm 1, iterations of expectation maximisation.
        components: 2 is the paper's. With more, the object is the one with the most pixels near the centre, without the
            first, which stays "what is explained".
        initial_variance: sigma_2, of every component before the first iteration (an argument that Algorithm 1 does not
            use).
        variance_floor: added to every variance.
        initial_means: of all components but the first. `random` is the paper's: uniform in 0..1. `centre` (ours): the
            mean colour and position of the unexplained pixels around the centre, then the unexplained pixels whose
            colours are farthest from the means so far.
        window_shifts: how often the window moves to the object's mean and the mixture is fitted again (ours). The
            centre often lies at an object's border, and the window then cuts off the rest.
        weigh_remaining: the weights are w s in place of w (ours): explained pixels have no influence, as the text of
            Section 2.4 asks for.
        learn_shares: see `pixel_mixture`.
        remaining_colours: the mixture sees s x: explained pixels are black and belong to the first component, whose
            mean starts at 0. False: it sees x, as line 8 of Algorithm 2 is printed.
        coordinates: scale of the positions: y and x are in 0..1 times this.
    """

    region: PositiveInt = 7
    order: PositiveFloat = 4.0
    cutoff: PositiveFloat = 9.0
    method: Literal["mixture", "none"] = "mixture"
    iterations: NonNegativeInt = 5
    components: Annotated[int, Field(ge=2)] = 2
    initial_variance: PositiveFloat = 0.1
    variance_floor: PositiveFloat = 1e-3
    initial_means: Literal["random", "centre"] = "random"
    window_shifts: NonNegativeInt = 0
    weigh_remaining: bool = False
    learn_shares: bool = False
    remaining_colours: bool = True
    coordinates: PositiveFloat = 1.0

    def __post_init__(self) -> None:
        if self.region % 2 == 0:
            raise RecipeError(f"region must be odd, so that the square has a centre, not {self.region}.")


@torch.no_grad()
def location_mask(
    images: Tensor, remaining: Tensor, centres: Tensor, initial_means: Tensor, settings: LocationSettings
) -> tuple[Tensor, Tensor]:
    """Return L around each centre and the object's location: L_GMM of Algorithm 1. No gradient flows through it.

    Args:
        images: [B, 3, H, W].
        remaining: [B, 1, H, W], s before this step.
        centres: [B, 2] row and column.
        initial_means: [B, components - 1, 5] in 0..1, of all components but the first (mu_2 of line 2): colour, y, x.
        settings: see `LocationSettings`.

    Returns:
        mask [B, 1, H, W] in 0..1, 0 outside the window; location [B, 2], y and x in 0..1 from the top left: the mean of
        the object's component, or the centre where `method` is `none`.
    """
    size = check_shape(images, "B 3 H W", "images")
    check_shape(remaining, f"{size['B']} 1 {size['H']} {size['W']}", "remaining")
    check_shape(centres, f"{size['B']} 2", "centres")
    check_shape(initial_means, f"{size['B']} {settings.components - 1} 5", "initial_means")
    lengths = torch.tensor([size["H"], size["W"]], device=centres.device)
    if settings.method == "none":
        return torch.ones_like(remaining), (centres + 0.5) / lengths
    for shift in range(settings.window_shifts + 1):
        window = Window.around(centres, (size["H"], size["W"]), settings.order, settings.cutoff)  # lines 4 and 5
        s, x = window.crop(remaining), window.crop(images)  # [B, 1, P], [B, 3, P]
        unexplained = window.weights * s.squeeze(1)
        w = unexplained if settings.weigh_remaining else window.weights
        y = _pixel_vectors(x * s if settings.remaining_colours else x, window, settings.coordinates)  # line 3
        near = window.near(settings.region)
        if shift == 0:  # line 2
            means = initial_means * initial_means.new_tensor([1, 1, 1, settings.coordinates, settings.coordinates])
            if settings.initial_means == "centre":
                means = _means_at_the_centre(y, unexplained, near, settings.components - 1)
            means = torch.cat([torch.zeros_like(means[:, :1]), means], dim=1)
            variances = torch.full_like(means, settings.initial_variance)
        z, means, variances = pixel_mixture(  # lines 6 to 10
            y, w, means, variances, settings.iterations, settings.variance_floor, settings.learn_shares
        )
        z = z[:, 1:]  # [B, C-1, P]
        if shift == 0:
            chosen = _component_at_the_centre(z * w.unsqueeze(1), near)  # [B, C-1, 1], one-hot
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


def _means_at_the_centre(points: Tensor, unexplained: Tensor, near: Tensor, count: int) -> Tensor:
    """[B, count, 5]: the mean of the unexplained points near the centre, then the points of the farthest colours."""
    inside = (unexplained + 1e-6) * near  # where everything is explained, the mean of the region
    means = [(inside.unsqueeze(-1) * points).sum(dim=1) / inside.sum(dim=1, keepdim=True)]
    for _ in range(count - 1):
        colours = torch.stack(means, dim=1)[:, None, :, :3]  # [B, 1, n, 3]
        distance = (points[:, :, None, :3] - colours).square().sum(dim=-1).amin(dim=2) * unexplained
        means.append(points[torch.arange(len(points), device=points.device), distance.argmax(dim=1)])
    return torch.stack(means, dim=1)


def _component_at_the_centre(shares: Tensor, near: Tensor) -> Tensor:
    """[B, C, P] -> [B, C, 1], 1 for the component with the largest share of the region around the centre."""
    largest = shares[:, :, near].sum(dim=2).argmax(dim=1)
    return F.one_hot(largest, shares.shape[1]).to(shares.dtype).unsqueeze(-1)
