"""SPACE: unsupervised object-oriented scene representation via spatial attention and decomposition (Lin et al., 2020).

The foreground is a grid of cells, each with at most one object: whether it is there, where, how deep, and what it looks
like through a glimpse of its box. The background is a few components that share what is left. Each pixel is a mixture
of the two, and the evidence lower bound is all there is to learn from, but for a penalty on objects that leave their
boxes.
"""

from __future__ import annotations

import math
from dataclasses import field

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from unscene.errors import RecipeError, check_shape
from unscene.models.common.mixture import MixtureOver, mixture_log_likelihood
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.models.space.background import Backdrop, BackgroundSettings, SpaceBackground
from unscene.models.space.foreground import Cells, Drawing, SpaceForeground
from unscene.models.space.settings import ForegroundSettings
from unscene.ops.boxes import clip_boxes
from unscene.scene import Decomposition, Losses
from unscene.settings import settings_dataclass

SMALLEST_SHARE = 1e-5  # of foreground and background at any pixel, so that the likelihood of either has a gradient


@settings_dataclass
class SPACESettings:
    """Every setting of SPACE; the defaults are R-MONet's appendix table for Multi-dSprites.

    Attributes:
        size: height and width of the images.
        scale: the images are enlarged so often before anything else; masks, components and boxes are taken back to
            `size`, the losses count the enlarged image's pixels.
        num_slots: K of the answer: the K-1 cells with the highest presence, and the background. The model itself has
            as many objects as cells.
        mixture_over: the likelihood mixes each `pixel` (the paper), or each `channel` by itself (the authors' program).
        kl_weight: factor of every KL term. Ours where it is not 1: the likelihood sums over the pixels and the KL terms
            do not, so on images of 64 pixels, where the paper has 128, a KL term counts four times as much; 0.25 takes
            that back.
        foreground, background: of the parts.

    Raises:
        RecipeError: a value that cannot be, or values that cannot be together.
    """

    size: PositiveInt = 64
    scale: PositiveInt = 2
    num_slots: int = 6
    mixture_over: MixtureOver = "pixel"
    kl_weight: NonNegativeFloat = 1.0
    foreground: ForegroundSettings = field(default_factory=ForegroundSettings)
    background: BackgroundSettings = field(default_factory=BackgroundSettings)

    def __post_init__(self) -> None:
        if not 2 <= self.num_slots <= self.foreground.grid**2 + 1:
            raise RecipeError(
                f"num_slots must be from 2 (one is the background) to {self.foreground.grid**2 + 1}, one more "
                f"than the grid's cells, not {self.num_slots}."
            )


class SPACE(nn.Module):
    """SPACE. The background is the last slot; the others are the likeliest cells, in reading order.

    Args:
        settings: see `SPACESettings`.
    """

    Settings = SPACESettings
    background_slot = -1

    def __init__(self, settings: SPACESettings) -> None:
        super().__init__()
        self.settings = settings
        self.foreground = SpaceForeground(settings.foreground, settings.size * settings.scale)
        self.background = SpaceBackground(settings.background, settings.size * settings.scale)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1: every latent is its mean, and an object is there or is not."""
        images = self._upscale(images)
        cells = self.foreground.infer(images)
        chosen = self.likeliest(cells)
        return self._decomposition(cells, chosen, self.foreground.draw(cells, chosen), self.background(images, False))

    def likeliest(self, cells: Cells) -> Tensor:
        """[B, K-1] the cells that are most probably there, in reading order."""
        return cells.logits.topk(self.settings.num_slots - 1, dim=1).indices.sort(dim=1).values

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """The negative bound and the boundary loss of images [B, 3, size, size], and their decomposition.

        -E_q log p(x | z_fg, z_bg) + KL(q(z_fg | x) || p(z_fg)) + KL(q(z_bg | x) || p(z_bg)) + boundary
        """
        settings = self.settings.foreground
        images = self._upscale(images)
        cells = self.foreground.infer(images, settings.temperature.at(step))  # q(z_fg | x)
        chosen = self.likeliest(cells)
        drawing = self.foreground.draw(cells, chosen)
        backdrop = self.background(images, sample=True)  # q(z_bg | x)
        alpha = drawing.alpha
        if step < settings.fixed_alpha_steps:
            alpha = torch.full_like(alpha, settings.fixed_alpha)
        terms = {
            "reconstruction": -self.log_likelihood(images, drawing.image, alpha, backdrop),
            **self.foreground.divergences(cells, step),
            "background_mask_kl": backdrop.mask_kl,
            "background_component_kl": backdrop.component_kl,
            "boundary": self.foreground.boundary(cells, drawing.alpha, step),
        }
        observed = {"objects": (cells.logits > 0).sum(dim=1).to(alpha)}
        with torch.no_grad():  # the loss does not depend on the decomposition
            answer = self._decomposition(cells, chosen, drawing, backdrop)
        weights = {name: self.settings.kl_weight if name.endswith("_kl") else 1.0 for name in terms}
        weights["what_kl"] *= settings.what_weight.at(step)
        return Losses(terms, weights, observed), answer

    def log_likelihood(self, images: Tensor, foreground: Tensor, alpha: Tensor, backdrop: Backdrop) -> Tensor:
        """[B] log(alpha N(x; x_fg, sigma_fg^2) + (1 - alpha) sum_k pi_k N(x; x_k, sigma_bg^2)), summed over the image.

        Args:
            images: [B, 3, H, W].
            foreground: [B, 3, H, W], x_fg.
            alpha: [B, 1, H, W].
            backdrop: pi and x_k.
        """
        share = SMALLEST_SHARE + (1 - 2 * SMALLEST_SHARE) * alpha
        log_masks = torch.cat([share.log().unsqueeze(1), (1 - share).log().unsqueeze(1) + backdrop.log_masks], dim=1)
        components = torch.cat([foreground.unsqueeze(1), backdrop.components], dim=1)
        background_sigmas = components.new_full((components.shape[1] - 1,), self.settings.background.sigma)
        scales = F.pad(background_sigmas, (1, 0), value=self.settings.foreground.sigma)
        return mixture_log_likelihood(images, components, log_masks, scales, self.settings.mixture_over)

    def _upscale(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] the images at the resolution of all computations."""
        size, scale = self.settings.size, self.settings.scale
        check_shape(images, f"B 3 {size} {size}", "images")
        if scale == 1:
            return images
        return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)

    def _decomposition(self, cells: Cells, chosen: Tensor, drawing: Drawing, backdrop: Backdrop) -> Decomposition:
        """The K slots: those of cells without an object are empty, and their pixels are the background's.

        A slot's latent is the mean of z_what; the background's is zeros.
        """
        scale, side = self.settings.scale, self.settings.size

        def select(values: Tensor) -> Tensor:
            return values.take_along_dim(chosen.view(*chosen.shape, *[1] * (values.ndim - 2)), dim=1)

        boxes = clip_boxes(select(cells.boxes) / scale, side, side)
        scores = select(cells.probability)
        valid = (scores > 0.5) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
        valid_weight = valid.to(scores)
        masks = self._downscale(drawing.masks * valid_weight.view(*valid.shape, 1, 1, 1))
        masks = torch.cat([masks, 1 - masks.sum(dim=1, keepdim=True)], dim=1)
        components = torch.cat([drawing.objects, backdrop.image().unsqueeze(1)], dim=1)
        return Decomposition(
            log_masks=masks.clamp_min(math.exp(LOG_ZERO)).log(),
            components=self._downscale(components),
            background=self.background_slot,
            latents=F.pad(select(cells.what[0]) * valid_weight.unsqueeze(2), (0, 0, 0, 1)),
            boxes=boxes * valid_weight.unsqueeze(2),
            box_scores=scores,
            box_valid=valid,
        )

    def _downscale(self, maps: Tensor) -> Tensor:
        """[B, K, C, H, W] averaged over the pixels that each of the images' was enlarged to."""
        if self.settings.scale == 1:
            return maps
        reduced: Tensor = F.avg_pool2d(maps.flatten(0, 1), self.settings.scale).unflatten(0, maps.shape[:2])
        return reduced
