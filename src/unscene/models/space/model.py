"""SPACE: unsupervised object-oriented scene representation via spatial attention and decomposition (Lin et al., 2020).

The foreground is a grid of cells with at most one object each. The background is a few components that share the
remaining pixels. Each pixel is a mixture of the two.

q(z_fg | x): z_pres, z_where, z_depth, z_what    `foreground`: `SpaceForeground.infer`, and its priors in `kl_terms`
p(x | z_fg): glimpses pasted over boxes          `foreground`: `SpaceForeground.decode`
q(z_bg | x), p(z_bg), p(x | z_bg)                `background`
p(x | z_fg, z_bg): the mixture                   `SPACE.log_likelihood`
the negative bound and the boundary loss         `SPACE.loss`, `SpaceForeground.boundary_loss`
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unscene.errors import check_shape
from unscene.models.common.mixture import mixture_log_likelihood, posterior_log_masks
from unscene.models.common.stick_breaking import LOG_ZERO
from unscene.models.space.background import Background, SpaceBackground
from unscene.models.space.foreground import Cells, Objects, SpaceForeground
from unscene.models.space.settings import SPACESettings
from unscene.ops.boxes import clip_boxes
from unscene.scene import Decomposition, Losses

FIXED_ALPHA = 0.1  # foreground alpha of the first `fixed_alpha_steps`, as in the authors' program
MIN_SHARE = 1e-5  # of foreground and background at any pixel, so that the likelihood of either has a gradient


class SPACE(nn.Module):
    """SPACE. The background is the last slot; the others are the likeliest cells, in reading order."""

    Settings = SPACESettings
    background_slot = -1

    def __init__(self, settings: SPACESettings) -> None:
        super().__init__()
        self.settings = settings
        self.foreground = SpaceForeground(settings.foreground, settings.size * settings.scale)
        self.background = SpaceBackground(settings.background, settings.size * settings.scale)

    def forward(self, images: Tensor) -> Decomposition:
        """Decompose images [B, 3, size, size] in 0..1; every latent is its mean, a presence is 0 or 1."""
        enlarged = self._upscale(images)
        cells = self.foreground.infer(enlarged)
        chosen = self.likeliest(cells)
        objects, background = self.foreground.decode(cells, chosen), self.background(enlarged, sample=False)
        decomposition = self._decomposition(cells, chosen, objects, background)
        if self.settings.masks == "inferred":
            return decomposition
        components, masks = decomposition.components, decomposition.log_masks
        sigmas = components.new_full((self.settings.num_slots - 1,), self.settings.foreground.sigma)
        sigmas = F.pad(sigmas, (0, 1), value=self.settings.background.sigma)
        return replace(decomposition, log_masks=posterior_log_masks(images, components, masks, sigmas))

    def redraw(self, images: Tensor, latents: Tensor) -> Decomposition:
        """Decode z_what of latents [B, K, D] in the boxes of the images; the background stays as it is."""
        images = self._upscale(images)
        cells = self.foreground.infer(images)
        chosen = self.likeliest(cells)
        index = chosen.unsqueeze(2).expand(-1, -1, latents.shape[2])
        cells = cells._replace(code=cells.code.scatter(1, index, latents[:, :-1]))
        objects, background = self.foreground.decode(cells, chosen), self.background(images, sample=False)
        return replace(self._decomposition(cells, chosen, objects, background), latents=latents)

    def likeliest(self, cells: Cells) -> Tensor:
        """[B, K-1] indices of the cells with the highest presence, in reading order."""
        return cells.logits.topk(self.settings.num_slots - 1, dim=1).indices.sort(dim=1).values

    def loss(self, images: Tensor, step: int = 0) -> tuple[Losses, Decomposition]:
        """The negative bound and the boundary loss of images [B, 3, size, size], and their decomposition.

        -E_q log p(x | z_fg, z_bg) + KL(q(z_fg | x) || p(z_fg)) + KL(q(z_bg | x) || p(z_bg)) + boundary
        """
        settings = self.settings.foreground
        images = self._upscale(images)
        cells = self.foreground.infer(images, settings.temperature.at(step))  # q(z_fg | x)
        chosen = self.likeliest(cells)
        objects = self.foreground.decode(cells, chosen)
        background = self.background(images, sample=True)  # q(z_bg | x)
        fixed = step < settings.fixed_alpha_steps
        alpha = torch.full_like(objects.alpha, FIXED_ALPHA) if fixed else objects.alpha
        terms = {
            "reconstruction": -self.log_likelihood(images, objects.image, alpha, background),
            **self.foreground.kl_terms(cells, step),
            "background_mask_kl": background.mask_kl,
            "background_component_kl": background.component_kl,
            "boundary": self.foreground.boundary_loss(cells, objects.alpha, step),
        }
        weights = {name: self.settings.kl_weight if name.endswith("_kl") else 1.0 for name in terms}
        weights["what_kl"] *= settings.what_weight.at(step)
        observed = {"objects": (cells.logits > 0).sum(dim=1).to(alpha)}
        with torch.no_grad():  # the loss does not depend on the decomposition
            decomposition = self._decomposition(cells, chosen, objects, background)
        return Losses(terms, weights, observed), decomposition

    def log_likelihood(self, images: Tensor, foreground: Tensor, alpha: Tensor, background: Background) -> Tensor:
        """[B] log(alpha N(x; x_fg, sigma_fg^2) + (1 - alpha) sum_k pi_k N(x; x_k, sigma_bg^2)), summed over the image.

        The images x and the foreground x_fg are [B, 3, H, W], alpha is [B, 1, H, W]; the background has pi and x_k.
        """
        share = MIN_SHARE + (1 - 2 * MIN_SHARE) * alpha
        log_masks = torch.cat([share.log().unsqueeze(1), (1 - share).log().unsqueeze(1) + background.log_masks], dim=1)
        components = torch.cat([foreground.unsqueeze(1), background.components], dim=1)
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

    def _downscale(self, maps: Tensor) -> Tensor:
        """[B, K, C, size, size]: a pixel is the mean of its pixels in the enlarged image."""
        if self.settings.scale == 1:
            return maps
        return F.avg_pool2d(maps.flatten(0, 1), self.settings.scale).unflatten(0, maps.shape[:2])

    def _decomposition(self, cells: Cells, chosen: Tensor, objects: Objects, background: Background) -> Decomposition:
        """The K slots. Slots of cells without an object are empty, and the background has their pixels.

        A slot's latent is the mean of z_what; the background's is zeros.
        """
        scale, side = self.settings.scale, self.settings.size

        def select(values: Tensor) -> Tensor:
            return values.take_along_dim(chosen.view(*chosen.shape, *[1] * (values.ndim - 2)), dim=1)

        boxes = clip_boxes(select(cells.boxes) / scale, side, side)
        scores = select(cells.logits).sigmoid()
        valid = (scores > 0.5) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
        valid_weight = valid.to(scores)
        masks = self._downscale(objects.masks * valid_weight.view(*valid.shape, 1, 1, 1))
        masks = torch.cat([masks, 1 - masks.sum(dim=1, keepdim=True)], dim=1)
        components = torch.cat([objects.components, background.image().unsqueeze(1)], dim=1)
        latents = F.pad(select(cells.what[0]) * valid_weight.unsqueeze(2), (0, 0, 0, 1))
        log_masks, components = masks.clamp_min(math.exp(LOG_ZERO)).log(), self._downscale(components)
        boxes = boxes * valid_weight.unsqueeze(2)
        return Decomposition(log_masks, components, self.background_slot, latents, boxes, scores, valid)
