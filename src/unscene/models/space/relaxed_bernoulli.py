"""Is something there? A Bernoulli posterior, its relaxed sample and its divergence, all by logits."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unscene.distributed.noise import shared_noise


def sample_relaxed_bernoulli(logits: Tensor, temperature: float) -> Tensor:
    """Return sigmoid((logits + log u - log(1 - u)) / temperature), u uniform (Maddison et al. and Jang et al., 2017).

    Differentiable in the logits. It is above 1/2 as often as the Bernoulli is 1, at any temperature, and the nearer to
    0 or 1 the lower that is.

    Args:
        logits: [B, ...].
        temperature: above 0.

    Returns:
        [B, ...] in 0..1.
    """
    uniform = shared_noise(torch.rand, logits.shape, dtype=logits.dtype, device=logits.device)
    edge = torch.finfo(logits.dtype).eps
    return ((logits + uniform.clamp(edge, 1 - edge).logit()) / temperature).sigmoid()


def bernoulli_kl(logits: Tensor, prior: float) -> Tensor:
    """Return KL(Bernoulli(sigmoid(logits)) || Bernoulli(prior)), element by element.

    p log(p / prior) + (1 - p) log((1 - p) / (1 - prior)), with log p taken from the logits: finite whatever they are.

    Args:
        logits: [...].
        prior: above 0 and below 1.

    Returns:
        [...] in nats.
    """
    present, absent = logits.sigmoid(), (-logits).sigmoid()
    kl_present = present * (F.logsigmoid(logits) - math.log(prior))
    return kl_present + absent * (F.logsigmoid(-logits) - math.log1p(-prior))
