from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from unscene.models.explicit_localization.pixel_gmm import pixel_mixture


def clusters(seed: int, components: int = 2, count: int = 60, dimensions: int = 5):
    generator = np.random.default_rng(seed)
    centres = generator.random((components, dimensions))
    points = centres[generator.integers(components, size=count)] + 0.1 * generator.standard_normal((count, dimensions))
    return (
        torch.from_numpy(points).float(),
        torch.from_numpy(generator.random((components, dimensions))).float(),
        generator,
    )


def fitted(points, weights, means, variance, *more, **named):
    return pixel_mixture(points, weights, means, torch.full_like(means, variance), *more, **named)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]), st.integers(1, 6))
def test_mixture_agrees_with_scikit_learn_on_repeated_points(seed, components, iterations):
    """scikit-learn has no weights: a point of weight n is given n times."""
    points, means, generator = clusters(seed, components)
    times = generator.integers(0, 4, size=len(points))
    times[0] = 1
    variance, floor = 0.05, 1e-4
    ours = fitted(
        points[None], torch.from_numpy(times)[None], means[None], variance, iterations, floor, learn_shares=True
    )
    theirs = GaussianMixture(
        components,
        covariance_type="diag",
        reg_covar=floor,
        max_iter=iterations,
        tol=0,
        weights_init=np.full(components, 1 / components),
        means_init=means.double().numpy(),
        precisions_init=np.full((components, 5), 1 / variance),
    )
    with pytest.warns(match="did not converge"):
        theirs.fit(np.repeat(points.double().numpy(), times, axis=0))
    if theirs.weights_.min() * times.sum() < 1:
        return  # a component of less than a point: scikit-learn adds an epsilon to its size
    assert_close(ours.means[0], torch.from_numpy(theirs.means_).float(), rtol=1e-3, atol=1e-3)
    assert_close(ours.variances[0], torch.from_numpy(theirs.covariances_).float(), rtol=5e-3, atol=1e-4)
    shares = torch.from_numpy(theirs.predict_proba(points.double().numpy())).float()
    assert_close(ours.responsibilities[0].T, shares, rtol=0, atol=2e-2)


def test_one_iteration_by_hand():
    """Points 0 and 1 on a line, weights 1 and 3, means 0 and 1, variance 1: Algorithm 1, lines 6 to 9, with numbers."""
    mixture = fitted(
        torch.tensor([[[0.0], [1.0]]]), torch.tensor([[1.0, 3.0]]), torch.tensor([[[0.0], [1.0]]]), 1.0, 1, 0.01
    )
    share = 1 / (1 + np.exp(-0.5))  # responsibility of the component whose mean is at the point
    first, second = 3 * (1 - share) / (share + 3 * (1 - share)), 3 * share / (3 * share + 1 - share)
    assert mixture.means.flatten().tolist() == pytest.approx([first, second])
    variances = [p * (1 - p) + 0.01 for p in (first, second)]  # p of the component's weight is at 1, the rest at 0
    assert mixture.variances.flatten().tolist() == pytest.approx(variances)
    parts = list(zip([first, second], variances, strict=True))
    density = [[np.exp(-((x - mean) ** 2) / 2 / variance) / variance**0.5 for mean, variance in parts] for x in (0, 1)]
    assert mixture.responsibilities[0, 0].tolist() == pytest.approx([p_1 / (p_1 + p_2) for p_1, p_2 in density])


def test_equal_initial_means_stay_equal():
    points, _, _ = clusters(0)
    mixture = fitted(points[None], torch.ones(1, 60), torch.full((1, 2, 5), 0.5), 0.1, 5)
    assert_close(mixture.responsibilities, torch.full((1, 2, 60), 0.5))


def test_points_without_weight_have_responsibilities_but_no_influence():
    points, means, _ = clusters(1)
    weights = torch.ones(1, 60)
    weights[0, 40:] = 0
    mixture = fitted(points[None], weights, means[None], 0.1, 4)
    fewer = fitted(points[None, :40], weights[:, :40], means[None], 0.1, 4)
    assert_close(mixture.means, fewer.means)
    assert_close(mixture.responsibilities[:, :, :40], fewer.responsibilities)
    assert_close(mixture.responsibilities.sum(dim=1), torch.ones(1, 60))


def test_sets_of_a_batch_are_independent():
    (first, means, _), (second, _, _) = clusters(2), clusters(3)
    together = fitted(torch.stack([first, second]), torch.ones(2, 60), means.expand(2, -1, -1), 0.1, 4)
    alone = fitted(second[None], torch.ones(1, 60), means[None], 0.1, 4)
    assert_close(together.means[1], alone.means[0])


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_equal_points_and_zero_weights_give_finite_values(weight):
    points = torch.full((1, 30, 5), 0.25)
    mixture = fitted(points, torch.full((1, 30), weight), torch.tensor([[[0.0] * 5, [0.9] * 5]]), 0.1, 8)
    for values in (mixture.responsibilities, mixture.means, mixture.variances):
        assert values.isfinite().all()
    assert (mixture.variances > 0).all()


def test_far_points_do_not_underflow():
    points = torch.tensor([[[0.0] * 5, [1e3] * 5]])
    mixture = fitted(points, torch.ones(1, 2), torch.tensor([[[0.0] * 5, [1e3] * 5]]), 1e-4, 3)
    assert_close(mixture.responsibilities[0], torch.eye(2))


def test_autocast_leaves_the_mixture_in_float32():
    points, means, _ = clusters(5)
    plain = fitted(points[None], torch.ones(1, 60), means[None], 0.1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        within = fitted(points[None], torch.ones(1, 60), means[None], 0.1, 4)
    assert torch.equal(within.responsibilities, plain.responsibilities)


def test_no_gradient_flows():
    points = torch.rand(1, 10, 5, requires_grad=True)
    assert not fitted(points, torch.ones(1, 10), torch.rand(1, 2, 5), 0.1, 2).responsibilities.requires_grad
