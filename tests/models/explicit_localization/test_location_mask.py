from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture
from torch.testing import assert_close

from unscene.errors import RecipeError
from unscene.models.explicit_localization.location_mask import LocationSettings, location_mask, pixel_mixture
from unscene.models.explicit_localization.window import butterworth

SETTINGS = LocationSettings(region=3, order=4, cutoff=6, iterations=8, initial_variance=0.1, variance_floor=1e-3)
RED, GREEN = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.8, 0.2])


def scene(size: int = 32):
    """A red and a distant green square on explained pixels: images, remaining, and the pixels of the red one."""
    images, remaining = torch.full((1, 3, size, size), 0.5), torch.zeros(1, 1, size, size)
    red, green = torch.zeros(size, size, dtype=torch.bool), torch.zeros(size, size, dtype=torch.bool)
    red[6:11, 8:14], green[20:26, 20:26] = True, True
    images[0, :, red], images[0, :, green] = RED[:, None], GREEN[:, None]
    remaining[0, 0, red | green] = 1.0
    return images, remaining, red


def located(images, remaining, row, column, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    means = torch.full((len(images), settings.components - 1, 5), 0.5)
    return location_mask(images, remaining, torch.tensor([[row, column]] * len(images)), means, settings)


@pytest.mark.parametrize("initial_means", ["random", "centre"])
def test_object_on_explained_pixels_is_found_with_its_location(initial_means):
    images, remaining, red = scene()
    mask, location = located(images, remaining, 8, 10, initial_means=initial_means)
    assert_close(mask[0, 0], red.float(), rtol=0, atol=1e-3)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=2e-3)  # rows 6..10, columns 8..13


def test_mask_is_0_outside_the_window():
    images, remaining, _ = scene()
    mask, _ = located(images, torch.ones_like(remaining), 8, 10)
    rows, columns = (butterworth((torch.arange(32) - centre).abs().float(), 4, 6) for centre in (8, 10))
    window = rows[:, None] * columns[None, :] > 0.5
    assert not mask[0, 0, ~window].any()
    assert mask[0, 0, window].any()


def test_shifted_window_covers_all_of_an_object():
    images, remaining, _ = scene()
    # around the corner of the object: rows 3..9 and columns 5..11 without their corners
    cut, cut_location = located(images, remaining, 6, 8, cutoff=3)
    shifted, location = located(images, remaining, 6, 8, cutoff=3, window_shifts=2)
    assert float(cut.sum()) == pytest.approx(4 * 4 - 1, abs=0.1)
    assert_close(cut_location, torch.tensor([[8 / 32, 10 / 32]]), rtol=0, atol=5e-3)
    assert_close(shifted[0, 0, 6:11, 8:14], torch.ones(5, 6), rtol=0, atol=1e-2)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_explained_pixels_have_no_influence_with_weigh_remaining():
    """Without it, nearly explained pixels of the object's colour beside it shift its location."""
    images, remaining, _ = scene()
    images[0, :, 11:14, 8:14], remaining[0, 0, 11:14, 8:14] = RED[:, None, None], 0.02
    changes = {"remaining_colours": False, "initial_means": "centre"}
    _, plain = located(images, remaining, 8, 10, **changes)
    _, weighed = located(images, remaining, 8, 10, weigh_remaining=True, **changes)
    assert float(plain[0, 0]) > 9.5 / 32  # rows 6..13
    assert_close(weighed, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_a_lone_object_keeps_its_pixels_with_least_remaining():
    """Without it both components become the only object that remains, and each has half of its pixels."""
    images, remaining, red = scene()
    images[0, :, ~red], remaining[0, 0, ~red] = 0.0, 0.0
    changes = {"weigh_remaining": True, "learn_shares": True, "initial_means": "centre", "coordinates": 0.3}
    changes |= {"variance_floor": 1e-4, "cutoff": 9, "window_shifts": 2}
    shared, _ = located(images, remaining, 8, 10, **changes)
    whole, location = located(images, remaining, 8, 10, least_remaining=0.01, **changes)
    assert_close(shared[0, 0, red], torch.full((30,), 0.5), rtol=0, atol=1e-3)
    assert_close(whole[0, 0], red.float(), rtol=0, atol=1e-3)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_three_components_separate_touching_objects():
    images, remaining, red = scene()
    images[0, :, 6:11, 14:18], remaining[0, 0, 6:11, 14:18] = GREEN[:, None, None], 1.0
    both, _ = located(images, remaining, 8, 10)
    alone, location = located(images, remaining, 8, 10, components=3, initial_means="centre")
    assert both[0, 0, 6:11, 14:16].min() > 0.9  # two components take both
    assert_close(alone[0, 0], red.float(), rtol=0, atol=1e-2)
    assert_close(location, torch.tensor([[8.5 / 32, 11 / 32]]), rtol=0, atol=5e-3)


def test_window_is_cut_at_a_corner():
    images, remaining = torch.zeros(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    images[0, :, :3, :3], remaining[0, 0, :3, :3] = RED[:, None, None], 1.0
    mask, location = located(images, remaining, 0, 0)
    assert_close(mask[0, 0, :3, :3], torch.ones(3, 3), rtol=0, atol=1e-3)
    assert float(mask.sum()) == pytest.approx(9, abs=1e-2)
    assert_close(location, torch.full((1, 2), 1.5 / 16), rtol=0, atol=2e-3)


def test_method_none_masks_every_pixel_and_returns_the_centre():
    images, remaining, _ = scene()
    mask, location = located(images, remaining, 8, 10, method="none")
    assert torch.equal(mask, torch.ones_like(remaining))
    assert_close(location, torch.tensor([[8.5 / 32, 10.5 / 32]]))


def test_images_of_a_batch_are_independent():
    images, remaining, _ = scene()
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    together, locations = located(torch.cat([images, noise]), torch.cat([remaining, torch.ones_like(remaining)]), 8, 10)
    alone, location = located(images, remaining, 8, 10)
    assert_close(together[:1], alone)
    assert_close(locations[:1], location)


@pytest.mark.parametrize("remains", [0.0, 1.0])
@pytest.mark.parametrize("initial_means", ["random", "centre"])
def test_flat_images_give_finite_masks(remains, initial_means):
    images = torch.full((2, 3, 16, 16), 0.3)
    remaining = torch.full((2, 1, 16, 16), remains)
    mask, location = located(images, remaining, 8, 8, components=3, initial_means=initial_means)
    assert mask.isfinite().all()
    assert ((mask >= 0) & (mask <= 1)).all()
    assert ((location >= 0) & (location <= 1)).all()


def test_mask_and_location_have_no_gradient():
    images, remaining, _ = scene()
    mask, location = located(images.requires_grad_(), remaining.requires_grad_(), 8, 10)
    assert not mask.requires_grad
    assert not location.requires_grad


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"region": 4}, "odd"),
        ({"cutoff": 0.0}, "above 0"),
        ({"components": 1}, "2 or more"),
        ({"iterations": -1}, "0 or more"),
        ({"window_shifts": -1}, "0 or more"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        LocationSettings(**changes)


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


@pytest.mark.parametrize("learn_shares", [True, False])
@pytest.mark.parametrize("iterations", [0, 1, 5])
def test_the_compiled_body_gives_the_numbers_of_the_plain_one(iterations, learn_shares, monkeypatch):
    pytest.importorskip("numba")
    points, means, generator = clusters(7, components=4, count=300)
    weights = torch.from_numpy(generator.random((1, 300)) * (generator.random((1, 300)) > 0.3)).float()
    means[3] = 50  # far from all points
    arguments = points[None], weights, means[None], 0.1, iterations, 1e-3, learn_shares
    compiled = fitted(*arguments)
    monkeypatch.setenv("UNSCENE_PLAIN", "1")
    for name, value in fitted(*arguments)._asdict().items():
        assert_close(getattr(compiled, name), value, rtol=2e-3, atol=2e-5)


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
