from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unscene.errors import RecipeError
from unscene.models.rmonet.multi_otsu import multi_otsu

INDEX = np.arange(600)
IMAGES = {
    "even": (INDEX * 37 % 100) / 100,
    "steep": ((INDEX * 37 % 100) / 100) ** 4,
    "crisp": np.where(INDEX % 7 < 2, 0.9, 0.0),
    "first bin empty": np.array([0.02, 0.45, 0.55, 0.8, 0.95])[INDEX * INDEX % 13 % 5],
    "second bin empty": np.array([0.02, 0.3, 0.7, 0.95])[INDEX * INDEX % 11 % 4],
    "two humps": 0.2 * np.cos(INDEX / 9) ** 2 + 0.7 * np.exp(-((INDEX - 300) ** 2) / 9000),
}

# Made with scikit-image 0.16.2 (the Python source of its sdist as it is, its Cython run with the types taken away):
#     for name, image in IMAGES.items():
#         for classes, bins in ((2, 5), (3, 5), (3, 16), (4, 9)):
#             print((name, classes, bins, skimage.filters.threshold_multiotsu(image, classes, nbins=bins).tolist()))
SCIKIT_IMAGE_0_16_2 = [
    ("even", 2, 5, [0.49500000000000005]),
    ("even", 3, 5, [0.29700000000000004, 0.49500000000000005]),
    ("even", 3, 16, [0.3403125, 0.6496875]),
    ("even", 4, 9, [0.275, 0.495, 0.7150000000000001]),
    ("steep", 2, 5, [0.480298005]),
    ("steep", 3, 5, [0.288178803, 0.480298005]),
    ("steep", 3, 16, [0.2701676278125, 0.5703538809375]),
    ("steep", 4, 9, [0.26683222500000003, 0.480298005, 0.693763785]),
    ("crisp", 2, 5, [0.09]),
    ("crisp", 3, 5, [0.09, 0.27]),
    ("crisp", 3, 16, [0.028125, 0.084375]),
    ("crisp", 4, 9, [0.05, 0.15000000000000002, 0.25]),
    ("first bin empty", 2, 5, [0.48500000000000004]),
    ("first bin empty", 3, 5, [0.11299999999999999, 0.48500000000000004]),
    ("first bin empty", 3, 16, [0.5721875, 0.8046875]),
    ("first bin empty", 4, 9, [0.07166666666666667, 0.485, 0.5883333333333334]),
    ("second bin empty", 2, 5, [0.299]),
    ("second bin empty", 3, 5, [0.11299999999999999, 0.299]),
    ("second bin empty", 3, 16, [0.0490625, 0.2815625]),
    ("second bin empty", 4, 9, [0.07166666666666667, 0.175, 0.2783333333333333]),
    ("two humps", 2, 5, [0.4453883129581184]),
    ("two humps", 3, 5, [0.26728319864765104, 0.4453883129581184]),
    ("two humps", 3, 16, [0.2505858441810447, 0.5288750852911501]),
    ("two humps", 4, 9, [0.2474937415020435, 0.4453883129581184, 0.6432828844141933]),
]


def grey_images(seed: int) -> list[np.ndarray]:
    """Small images of many kinds: even, steep, of few values, half blank, crisp."""
    random = np.random.default_rng(seed)
    even = random.random(random.integers(3, 300))
    few = random.choice([0, 0.1, 0.2, 0.3, 0.45, 0.6, 1.0], size=even.size) * random.random()
    half_blank = np.where(random.random(even.size) > 0.5, 0, even)
    return [even, even**4, few, half_blank, random.choice(random.random(3), size=even.size)]


def thresholds_of(image: np.ndarray, classes: int, bins: int) -> np.ndarray:
    return multi_otsu(torch.from_numpy(image)[None], classes, bins)[0].numpy()


def variance(counts: np.ndarray, weights: list[int], last_bins: tuple[int, ...]) -> Fraction:
    """Sum of moment^2 / mass over the classes, exactly."""
    total = Fraction(0)
    for start, end in zip(
        [0, *(last + 1 for last in last_bins)], [*(last + 1 for last in last_bins), None], strict=True
    ):
        mass = sum(int(count) for count in counts[start:end])
        moment = sum(int(count) * weight for count, weight in zip(counts[start:end], weights[start:end], strict=True))
        total += Fraction(moment**2, mass) if mass else 0
    return total


@pytest.mark.parametrize(("name", "classes", "bins", "expected"), SCIKIT_IMAGE_0_16_2)
def test_it_gives_what_scikit_image_0_16_2_gave(name, classes, bins, expected):
    assert thresholds_of(IMAGES[name], classes, bins) == pytest.approx(np.array(expected), abs=1e-12)


@given(st.integers(0, 100_000))
def test_it_splits_at_bins_1_and_2_unless_one_of_them_is_empty(seed):
    for image in grey_images(seed):
        counts, edges = np.histogram(image, 5)
        centres = (edges[:-1] + edges[1:]) / 2
        first, second = (0, 1) if counts[2] == 0 else (0, 2) if counts[1] == 0 else (1, 2)
        if image.min() < image.max():
            assert thresholds_of(image, 3, 5).tolist() == [centres[first], centres[second]]


@given(st.integers(0, 100_000), st.sampled_from([(2, 3), (2, 6), (3, 5), (3, 9), (4, 7)]))
def test_it_is_the_best_of_the_divisions_that_are_tried(seed, sizes):
    classes, bins = sizes
    for image in grey_images(seed):
        counts, edges = np.histogram(image, bins)
        if image.min() < image.max():
            counts[0] = 0
            last_bins = tuple(np.searchsorted(edges, thresholds_of(image, classes, bins)) - 1)
            divisions = combinations(range(bins - 2), classes - 1)
            best = max(variance(counts, list(range(bins)), tried) for tried in divisions)
            assert float(variance(counts, list(range(bins)), last_bins)) == pytest.approx(float(best), rel=1e-12)


def test_lowest_of_equally_good_thresholds_wins():
    crisp = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64)  # bins 1, 2 and 3 of five are empty
    assert multi_otsu(crisp, 2, 5).tolist() == [pytest.approx([0.1])]


def test_three_heaps_are_separated_by_hand():
    heaps = torch.tensor([[0.0, 0.0, 0.05, 0.5, 0.5, 0.55, 1.0, 1.0]])  # bins 0, 2 and 4 of five
    assert multi_otsu(heaps).tolist() == [pytest.approx([0.1, 0.5])]


def test_nothing_lies_above_the_thresholds_of_a_constant_image():
    images = torch.stack([torch.zeros(16), torch.full((16,), 0.7), torch.linspace(0, 1, 16)])
    thresholds = multi_otsu(images)
    assert thresholds[:2].isinf().all()
    assert (thresholds[:2] > 0).all()
    assert thresholds[2].isfinite().all()


def test_a_crisp_mask_is_split_between_its_two_values():
    mask = torch.tensor([[0.0, 0.0, 0.9, 0.9, 0.0]])
    thresholds = multi_otsu(mask)
    assert ((thresholds > 0) & (thresholds < 0.9)).all()


def test_every_image_is_thresholded_as_if_it_were_alone():
    images = torch.rand(6, 50, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[0.1], [1], [0.5], [1], [0], [1]]
    )
    together = multi_otsu(images, 3, 6)
    assert together.shape == (6, 2)
    assert torch.equal(together, torch.cat([multi_otsu(image[None], 3, 6) for image in images]))


def test_float32_values_are_counted_as_in_float64():
    values = torch.tensor([[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]])  # many lie next to an edge
    for bins in (5, 10):
        for scale in torch.rand(50, generator=torch.Generator().manual_seed(0)):
            scaled = values * scale
            single = multi_otsu(scaled, 3, bins)
            assert torch.equal(single, multi_otsu(scaled.double(), 3, bins))


def test_no_image_gives_no_thresholds():
    assert multi_otsu(torch.zeros(0, 16)).shape == (0, 2)


def test_bfloat16_autocast_changes_nothing():
    images = torch.rand(3, 400, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = multi_otsu(images)
    assert torch.equal(inside, multi_otsu(images))


@pytest.mark.parametrize(("classes", "bins"), [(3, 3), (1, 5)])
def test_impossible_settings_are_refused(classes, bins):
    with pytest.raises(RecipeError, match=f"2 classes or more, and more bins than classes, not {classes} and {bins}"):
        multi_otsu(torch.rand(2, 16), classes, bins)
