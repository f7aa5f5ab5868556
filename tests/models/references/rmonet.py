"""R-MONet's loss for one image, rewritten from the paper: Section 3, appendix B, Fig. 22. Plain, slow, float64.

Nothing of `unscene` is used; weights come by the names under which the model saves them. The maps of ResNet18 and of
the pyramid are handed in. What the paper leaves open is marked "open".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import find_objects, label
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from tests.models.references.layers import Weights, convolve, dense
from tests.models.references.monet import decode, encode

Box = tuple[float, float, float, float]  # x1 y1 x2 y2, end exclusive


@dataclass(frozen=True)
class RMonetNumbers:
    """Numbers of the appendix tables; the defaults are those of every table."""

    slots: int
    sigma_foreground: float
    sigma_background: float
    anchor_sizes: tuple[int, ...]
    score_threshold: float = 0.5
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    expand: float = 0.3
    level_nms: float = 0.3
    output_nms: float = 0.3
    pre_nms: int = 100
    post_nms: int = 20
    foreground_iou: float = 0.7
    background_iou: float = 0.3
    min_side: int = 3
    max_ratio: float = 3.0
    pseudo_nms: float = 0.7
    bins: int = 5


def rmonet_terms(
    image: Tensor, conv: list[Tensor], pyramid: list[Tensor], noise: Tensor, weights: Weights, numbers: RMonetNumbers
) -> dict[str, Tensor]:
    """The five terms of Eq. 3, unweighted.

    Args:
        image: [3, H, W].
        conv: conv1..conv5, each [C, h, w].
        pyramid: the five maps of the pyramid.
        noise: [K, D], the standard normal draw of each slot's latent.
        weights: of the model.
        numbers: of the tables.
    """
    height, width = image.shape[1:]
    anchors, logits, deltas = rpn(pyramid, (height, width), weights, numbers)
    boxes = proposals(anchors, logits, deltas, (height, width), numbers)
    scope, masks = torch.ones_like(image[0]), []
    for box in boxes:
        alpha = torch.sigmoid(unet_head(conv, pyramid, box, weights, numbers))
        inside = (ternary(box, (height, width), 1, numbers.expand) != 0).to(alpha)  # "only in the bounding box area"
        masks.append(scope * alpha * inside)  # Eq. 6
        scope = scope * (1 - alpha * inside)  # Eq. 5
    masks += [torch.zeros_like(scope)] * (numbers.slots - 1 - len(boxes))  # open: a slot without a box is empty
    masks.append(scope)  # Eq. 7
    likelihood, latent_kl, mask_logits = torch.zeros_like(scope), torch.zeros((), dtype=image.dtype), []
    for slot, mask in enumerate(masks):
        log_mask = torch.where(mask > 0, mask, 1.0).log().masked_fill(mask == 0, -16.0)
        posterior = encode(image, log_mask.clamp_min(-16), weights)  # open: how an encoder reads the log of 0
        latent_kl = latent_kl + kl_divergence(posterior, Normal(0.0, 1.0)).sum()
        mean, logit = decode(posterior.mean + posterior.stddev * noise[slot], image.shape[1:], weights)
        sigma = numbers.sigma_background if slot == len(masks) - 1 else numbers.sigma_foreground
        density = torch.exp(-((image - mean) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
        likelihood = likelihood + mask * density.prod(dim=0)  # Eq. 2
        mask_logits.append(logit)
    log_redrawn = torch.stack(mask_logits).log_softmax(dim=0)
    mask_kl = torch.zeros((), dtype=image.dtype)
    for mask, log_p in zip(masks, log_redrawn, strict=True):
        some = mask > 0
        mask_kl = mask_kl + (mask[some] * (mask[some].log() - log_p[some])).sum()
    targets = pseudo_boxes([mask.detach().numpy() for mask in masks[:-1]], numbers)
    classification, regression = rpn_loss(anchors, logits, deltas, targets, numbers)
    return {
        "reconstruction": -likelihood.log().sum(),
        "latent_kl": latent_kl,
        "mask_kl": mask_kl,
        "objectness": classification,
        "regression": regression,
    }


def rpn(
    pyramid: list[Tensor], size: tuple[int, int], weights: Weights, numbers: RMonetNumbers
) -> tuple[list[list[Box]], list[Tensor], list[Tensor]]:
    """Section 3.1 and Ren et al. (2015): anchors, logits [n] and deltas [n, 4] of each level, ratios fastest."""
    anchors, logits, deltas = [], [], []
    for maps, side in zip(pyramid, numbers.anchor_sizes, strict=True):
        hidden = F.relu(convolve(maps, "proposals.head.conv.0.0", weights, padding=1))
        objectness = convolve(hidden, "proposals.head.cls_logits", weights)
        moves = convolve(hidden, "proposals.head.bbox_pred", weights)
        down, across = size[0] // maps.shape[1], size[1] // maps.shape[2]
        level_anchors: list[Box] = []
        for row, column in np.ndindex(*maps.shape[1:]):
            for ratio in numbers.anchor_ratios:  # torchvision: whole pixels around the cell's upper left corner
                high, wide = side * math.sqrt(ratio), side / math.sqrt(ratio)
                half_x, half_y = float(np.round(wide / 2)), float(np.round(high / 2))
                x, y = column * across, row * down
                level_anchors.append((x - half_x, y - half_y, x + half_x, y + half_y))
        anchors.append(level_anchors)
        logits.append(objectness.permute(1, 2, 0).flatten())
        deltas.append(moves.unflatten(0, (-1, 4)).permute(2, 3, 0, 1).reshape(-1, 4))
    return anchors, logits, deltas


def proposals(
    anchors: list[list[Box]], logits: list[Tensor], deltas: list[Tensor], size: tuple[int, int], numbers: RMonetNumbers
) -> list[Box]:
    """The boxes of at most K-1 slots: the best of each level, its NMS, the best of all levels, their NMS, top K-1."""
    kept: list[tuple[float, Box]] = []
    for level_anchors, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
        best = level_logits.argsort(descending=True)[: numbers.pre_nms].tolist()
        found = []
        for index in best:
            score = 1 / (1 + math.exp(-level_logits[index].item()))
            box = moved(level_anchors[index], level_deltas[index].tolist(), size)
            if score > numbers.score_threshold and min(box[2] - box[0], box[3] - box[1]) >= 1e-3:
                found.append((score, box))
        kept += suppressed(found, numbers.level_nms)
    kept = sorted(kept, key=lambda pair: -pair[0])[: numbers.post_nms]
    return [box for _, box in suppressed(kept, numbers.output_nms)[: numbers.slots - 1]]


def moved(anchor: Box, delta: list[float], size: tuple[int, int]) -> Box:
    """The box that an anchor's delta means (Ren et al., 2015), cut off at the image's border."""
    x1, y1, x2, y2 = anchor
    wide, high = x2 - x1, y2 - y1
    x, y = (x1 + x2) / 2 + delta[0] * wide, (y1 + y2) / 2 + delta[1] * high
    most = math.log(1000 / 16)  # torchvision
    half_x, half_y = wide * math.exp(min(delta[2], most)) / 2, high * math.exp(min(delta[3], most)) / 2
    left, right = (min(max(edge, 0.0), size[1]) for edge in (x - half_x, x + half_x))
    top, bottom = (min(max(edge, 0.0), size[0]) for edge in (y - half_y, y + half_y))
    return left, top, right, bottom


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if across <= 0 or down <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return across * down / (areas - across * down)


def suppressed(scored: list[tuple[float, Box]], threshold: float) -> list[tuple[float, Box]]:
    """Greedy non-maximum suppression; the best first."""
    kept: list[tuple[float, Box]] = []
    for score, box in sorted(scored, key=lambda pair: -pair[0]):
        if all(overlap(box, better) <= threshold for _, better in kept):
            kept.append((score, box))
    return kept


def ternary(box: Box, shape: tuple[int, int], stride: int, expand: float) -> Tensor:
    """Fig. 22b: 1 inside the box, -1 on the ring around it, else 0. Open: a cell that is covered in part counts."""
    wide, high = expand * (box[2] - box[0]), expand * (box[3] - box[1])
    grid = torch.zeros(shape, dtype=torch.float64)
    for row, column in np.ndindex(*shape):
        left, top = column * stride, row * stride
        for margin_x, margin_y, value in ((wide, high, -1.0), (0.0, 0.0, 1.0)):
            across = box[0] - margin_x < left + stride and left < box[2] + margin_x
            if across and box[1] - margin_y < top + stride and top < box[3] + margin_y:
                grid[row, column] = value
    return grid


def unet_head(conv: list[Tensor], pyramid: list[Tensor], box: Box, weights: Weights, numbers: RMonetNumbers) -> Tensor:
    """Fig. 22a: the pyramid's conv5 through the MLP, then upwards; conv1..conv3 are region-masked. [H, W]."""
    features = pyramid[3].flatten()
    for layer in (1, 3, 5):
        features = F.relu(dense(features, f"head.mlp.{layer}", weights))
    features = features.reshape(-1, *pyramid[3].shape[1:])
    for level in (4, 3, 2, 1):
        skip, stride = conv[level - 1], 2**level
        if level < 4:
            skip = skip * ternary(box, (skip.shape[1], skip.shape[2]), stride, numbers.expand)
        doubled = features.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        joined = torch.cat([doubled, skip])[None]
        features = F.conv2d(joined, weights[f"head.up{level}.0.weight"], padding=1)
        scale, bias = weights[f"head.up{level}.1.weight"], weights[f"head.up{level}.1.bias"]
        features = F.relu(F.group_norm(features, min(8, len(scale)), scale, bias))[0]
    corners = convolve(features, "head.to_alpha", weights, padding=1)  # [4, H/2, W/2], the pixels of 2 x 2 squares
    alpha = torch.zeros(2 * corners.shape[1], 2 * corners.shape[2], dtype=corners.dtype)
    alpha[0::2, 0::2], alpha[0::2, 1::2], alpha[1::2, 0::2], alpha[1::2, 1::2] = corners
    return alpha


def pseudo_boxes(masks: list[NDArray[np.float64]], numbers: RMonetNumbers) -> list[Box]:
    """Section 3.4 and appendix B: boxes of the components above the Multi-Otsu thresholds of every foreground mask."""
    scored = []
    for mask in masks:
        mask = np.where(mask < 0.001, 0.0, mask)  # "the values under 0.001 is set to 0"
        for threshold in multi_otsu(mask, numbers.bins):
            for rows, columns in find_objects(label(mask > threshold, np.ones((3, 3)))[0]):
                high, wide = rows.stop - rows.start, columns.stop - columns.start
                if min(high, wide) >= numbers.min_side and max(high, wide) <= numbers.max_ratio * min(high, wide):
                    box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
                    scored.append((float(mask[rows, columns].mean()), box))  # "the mean value of m_k in the box"
    return [box for _, box in suppressed(scored, numbers.pseudo_nms)]


def multi_otsu(mask: NDArray[np.float64], bins: int) -> list[float]:
    """Two thresholds as scikit-image 0.16.2 chooses them: bin 0 counts nothing, the highest bound is not tried."""
    if mask.min() == mask.max():
        return []
    counts, edges = np.histogram(mask, bins)
    counts = counts.astype(np.float64)
    counts[0] = 0

    def variance(bounds: tuple[int, ...]) -> float:
        total = 0.0
        ends = [bound + 1 for bound in bounds]
        for first, end in zip([0, *ends], [*ends, bins], strict=True):
            mass, moment = counts[first:end].sum(), (np.arange(first, end) * counts[first:end]).sum()
            total += moment**2 / mass if mass else 0.0
        return float(total)

    best = max(combinations(range(bins - 2), 2), key=variance)  # the first of equal ones
    return [float(edges[bound] + edges[bound + 1]) / 2 for bound in best]


def rpn_loss(
    anchors: list[list[Box]], logits: list[Tensor], deltas: list[Tensor], targets: list[Box], numbers: RMonetNumbers
) -> tuple[Tensor, Tensor]:
    """The last two terms of Eq. 3 where every labelled anchor is sampled. Open: L_cls is a mean over those, as in
    torchvision; L_reg is divided by N_reg, the number of anchors, and is the smooth L1 of Girshick (2015)."""
    flat, logit, delta = [anchor for level in anchors for anchor in level], torch.cat(logits), torch.cat(deltas)
    overlaps = np.array([[overlap(anchor, box) for box in targets] or [0.0] for anchor in flat])
    best_of_box = overlaps.max(axis=0)
    classification, sampled, regression = torch.zeros((), dtype=logit.dtype), 0, torch.zeros((), dtype=logit.dtype)
    for index, (anchor, shares) in enumerate(zip(flat, overlaps, strict=True)):
        claimed = ((shares == best_of_box) & (shares > 0)).any()
        if shares.max() >= numbers.foreground_iou or claimed:
            sampled += 1
            classification = classification - F.logsigmoid(logit[index])
            x1, y1, x2, y2 = targets[int(shares.argmax())]
            wide, high = anchor[2] - anchor[0], anchor[3] - anchor[1]
            truth = (
                ((x1 + x2) - (anchor[0] + anchor[2])) / 2 / wide,
                ((y1 + y2) - (anchor[1] + anchor[3])) / 2 / high,
                math.log((x2 - x1) / wide),
                math.log((y2 - y1) / high),
            )
            for found, expected in zip(delta[index], truth, strict=True):
                distance = (found - expected).abs()
                regression = regression + (0.5 * distance**2 if distance.item() < 1 else distance - 0.5)
        elif shares.max() < numbers.background_iou:
            sampled += 1
            classification = classification - F.logsigmoid(-logit[index])
    return classification / sampled, regression / len(flat)
