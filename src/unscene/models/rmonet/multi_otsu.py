"""Multi-Otsu thresholding of many images at once: bounds with the largest variance between classes.

With S_c = sum of i p_i and P_c = sum of p_i over the bins i of class c, they have the largest sum over c of S_c^2 / P_c
(Liao, Chen and Chung, 2001). As in scikit-image 0.16.2, which R-MONet used, p_0 = 0, and the highest bound is not
tried; later versions differ. With 3 classes and 5 bins the answer is the centres of bins 1 and 2, 30 % and 50 % of the
way from the least to the greatest value, unless bin 1 or 2 is empty: then (0, 2) if bin 1 alone is, else (0, 1).

scikit-image's own rounding decides between divisions that are equally good; there, and only there, it may differ.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.errors import RecipeError


@torch.no_grad()
def multi_otsu(values: Tensor, classes: int = 3, bins: int = 5) -> Tensor:
    """Return the rising thresholds, [G, classes - 1] float64, that split the values [G, P] of every row into classes.

    Each row has its own histogram, from its least to its greatest value, as in scikit-image. Thresholds are the centres
    of each class's last bin; of equally good ones the lowest win. A constant row has +inf, so that no value is above
    it. The host reads no value, and every device gives the same bits. RecipeError: fewer than 2 classes, or no more
    bins than classes.
    """
    least, greatest = values.amin(dim=1).double(), values.amax(dim=1).double()
    edges = _bin_edges(least, greatest, bins)
    counts = _histograms(values, edges)
    last_bins = _last_bins(classes, bins, counts.device)
    chosen = last_bins[_class_variances(counts, last_bins).argmax(dim=1)]
    splittable = least < greatest  # false for NaN, too
    centres = (edges[:, :-1] + edges[:, 1:]) / 2
    return centres.gather(1, chosen).masked_fill(~splittable.unsqueeze(1), torch.inf)


@lru_cache
def _last_bins(classes: int, bins: int, device: torch.device) -> Tensor:
    """[n, classes - 1] every choice of a last bin for all classes but the highest, in the order they are tried in.

    Kept on the device: to copy them there anew would make the host wait for a GPU.
    """
    if not 2 <= classes < bins:
        raise RecipeError(f"Multi-Otsu needs 2 classes or more, and more bins than classes, not {classes} and {bins}.")
    return torch.tensor(list(combinations(range(bins - 2), classes - 1)), device=device)  # 0.16.2 stops one bin early


def _bin_edges(least: Tensor, greatest: Tensor, bins: int) -> Tensor:
    """[G, bins + 1] equally spaced edges, rounded as `numpy.linspace` does."""
    steps = torch.arange(bins, dtype=least.dtype, device=least.device)
    step = (greatest - least) / torch.full_like(least, bins)  # by a number, a GPU would multiply with its reciprocal
    return torch.cat([steps * step.unsqueeze(1) + least.unsqueeze(1), greatest.unsqueeze(1)], dim=1)


def _histograms(values: Tensor, edges: Tensor) -> Tensor:
    """[G, bins] float64 counts of the values [G, P]; a value on an edge belongs to the higher bin."""
    values = values if values.dtype == torch.float64 else values.float()
    bounds = edges[:, 1:-1].to(values.dtype)
    # v >= edge in float64 is v >= the edge rounded up in float32, and needs no copy of the values
    bounds = torch.where(bounds < edges[:, 1:-1], bounds.nextafter(torch.full_like(bounds, torch.inf)), bounds)
    above = torch.empty_like(values)
    at_least = [torch.ge(values, bound, out=above).sum(dim=1).double() for bound in bounds.unsqueeze(-1).unbind(1)]
    everything, nothing = torch.full_like(edges[:, 0], values.shape[1]), torch.zeros_like(edges[:, 0])
    return -torch.stack([everything, *at_least, nothing], dim=1).diff(dim=1)


def _class_variances(counts: Tensor, last_bins: Tensor) -> Tensor:
    """[G, n] between-class variance, up to a constant, of each division [n, classes - 1] of the counts [G, bins].

    Counts are whole numbers, so empty classes are exactly empty and equal divisions stay exactly equal.
    """
    weights = torch.arange(counts.shape[1], dtype=counts.dtype, device=counts.device)
    counts = counts * (weights > 0)
    mass = F.pad(counts.cumsum(dim=1), (1, 0))  # [G, bins + 1], what lies before each bin
    moment = F.pad((counts * weights).cumsum(dim=1), (1, 0))
    starts = F.pad(last_bins + 1, (1, 0))  # [n, classes]
    ends = F.pad(last_bins + 1, (0, 1), value=counts.shape[1])
    class_mass = _columns(mass, ends) - _columns(mass, starts)
    class_moment = _columns(moment, ends) - _columns(moment, starts)
    first, *others = (class_moment.square() / class_mass.clamp(min=1)).unbind(2)
    return sum(others, start=first)  # in this order on every device


def _columns(sums: Tensor, index: Tensor) -> Tensor:
    """sums [G, m] at index [n, classes] -> [G, n, classes]. `sums[:, index]` wakes up all threads of a CPU."""
    return sums.index_select(1, index.flatten()).unflatten(1, index.shape)
