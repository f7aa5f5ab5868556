from __future__ import annotations

import pytest
import torch
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio

from unscene.errors import ShapeError, TrainingError
from unscene.metrics.reconstruction import reconstruction
from unscene.scene import Decomposition, Scene


def random_batch(batch: int) -> tuple[Scene, Decomposition]:
    generator = torch.Generator().manual_seed(batch)
    images = torch.rand(batch, 3, 6, 5, generator=generator)
    log_masks = torch.randn(batch, 4, 1, 6, 5, generator=generator).log_softmax(dim=1)
    return Scene(images), Decomposition(log_masks, torch.rand(batch, 4, 3, 6, 5, generator=generator))


def test_by_hand():
    """Two slots share each pixel equally: .4 and .8 mix to .6, against .5 and .6."""
    images = torch.tensor([0.5, 0.6]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    components = torch.tensor([0.4, 0.8]).view(1, 2, 1, 1, 1).expand(2, 2, 3, 2, 2)
    metric = reconstruction()
    metric.update(Scene(images), Decomposition(torch.full((2, 2, 1, 2, 2), 0.5).log(), components))
    assert metric.per_image() == pytest.approx([20, 100], abs=1e-4)
    assert metric.compute() == {
        "reconstruction_mse": pytest.approx(0.005),
        "reconstruction_psnr": pytest.approx(60, abs=1e-4),
    }


def test_agrees_with_scikit_image():
    scene, decomposition = random_batch(3)
    metric = reconstruction()
    metric.update(scene, decomposition)
    pairs = list(zip(scene.images.double().numpy(), decomposition.reconstruction().double().numpy(), strict=True))
    psnr = [peak_signal_noise_ratio(image, mixed, data_range=1) for image, mixed in pairs]
    assert metric.per_image() == pytest.approx(psnr, abs=1e-4)
    assert metric.compute()["reconstruction_mse"] == pytest.approx(
        sum(mean_squared_error(*p) for p in pairs) / 3, rel=1e-5
    )


def test_bfloat16_components_are_mixed_in_float32():
    scene, decomposition = random_batch(2)
    half = decomposition.map(lambda tensor: tensor.bfloat16())
    rounded, exact = reconstruction(), reconstruction()
    rounded.update(scene, half)
    exact.update(scene, half.map(lambda tensor: tensor.float()))
    assert rounded.compute() == exact.compute()


def test_broken_reconstruction_is_an_error():
    components = torch.zeros(2, 1, 3, 2, 2)
    components[1, 0, 0, 0, 0] = float("nan")
    metric = reconstruction()
    with pytest.raises(TrainingError, match="1 of 2 images are not finite"):
        metric.update(Scene(torch.zeros(2, 3, 2, 2)), Decomposition(torch.zeros(2, 1, 1, 2, 2), components))
    assert metric.per_image() == []


def test_another_number_of_images_is_an_error():
    with pytest.raises(ShapeError, match="images"):
        reconstruction().update(random_batch(1)[0], random_batch(2)[1])
