"""Expectation maximisation of one mixture of diagonal Gaussians on a CPU, compiled by numba.

For a few hundred points PyTorch spends its time on calling operations. Without numba this module cannot be imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unscene.ops.numba_jit import compiled

_TINY = np.finfo(np.float32).tiny
_LEAST_SHARE = 1e-30


@compiled
def fit_mixture(
    points: Any, weights: Any, means: Any, variances: Any, iterations: int, floor: float, learn_shares: bool, z: Any
) -> None:
    """Fit means and variances [C, D] to weighted points [P, D] in place, and write the responsibilities z [C, P].

    Each iteration computes means, variances, to which `floor` is added, and with `learn_shares` the components' shares,
    then z. A component without any weighted point keeps its mean and variance. All are float64.
    """
    (count, size), components = points.shape, len(means)
    constants, counts = np.empty(components), np.empty(components)
    log_shares, logits = np.zeros(components), np.empty(components)
    halves, sums, squares = np.empty_like(means), np.empty_like(means), np.empty_like(means)
    for iteration in range(iterations + 1):
        for c in range(components):
            constants[c] = log_shares[c]
            for d in range(size):
                constants[c] -= 0.5 * np.log(variances[c, d])
                halves[c, d] = 0.5 / variances[c, d]
        for p in range(count):
            largest = -np.inf
            for c in range(components):
                logit = constants[c]
                for d in range(size):
                    difference = points[p, d] - means[c, d]
                    logit -= difference * difference * halves[c, d]
                logits[c] = logit
                largest = max(largest, logit)
            total = 0.0
            for c in range(components):
                logits[c] = np.exp(logits[c] - largest)
                total += logits[c]
            for c in range(components):
                z[c, p] = logits[c] / total
        if iteration == iterations:
            return
        counts[:], sums[:], squares[:] = 0, 0, 0
        for p in range(count):
            if weights[p] > 0:
                for c in range(components):
                    zw = z[c, p] * weights[p]
                    counts[c] += zw
                    for d in range(size):
                        sums[c, d] += zw * points[p, d]
                        squares[c, d] += zw * points[p, d] * points[p, d]
        for c in range(components):
            if counts[c] > _TINY:
                for d in range(size):
                    means[c, d] = sums[c, d] / counts[c]
                    variances[c, d] = max(0.0, squares[c, d] / counts[c] - means[c, d] ** 2) + floor
        if learn_shares:
            log_shares[:] = np.log(np.maximum(counts / max(counts.sum(), _LEAST_SHARE), _LEAST_SHARE))
