"""How near the mixed components come to the image."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import log10

from torch import Tensor

from unscene.errors import TrainingError, check_shape
from unscene.metrics import ImageValues, MeanOverImages
from unscene.metrics.contingency import BROKEN_WEIGHTS
from unscene.scene import Decomposition, Prediction, Scene, Segmentation

LEAST_ERROR = 1e-10  # a perfect reconstruction counts 100 dB, not infinitely many


def squared_error(images: Tensor, decomposition: Decomposition) -> Tensor:
    """[B] float32: the squared error of the reconstruction of images [B, 3, H, W], mean over pixels and channels.

    The reconstruction is mixed in float32 and not clipped to [0, 1]; TrainingError if one is not finite.
    """
    masks, components = decomposition.log_masks.float(), decomposition.components.float()
    mixed = replace(decomposition, log_masks=masks, components=components).reconstruction()
    check_shape(images, " ".join(str(size) for size in mixed.shape), "images")
    error = (mixed - images.to(mixed.device)).square().mean(dim=(1, 2, 3))
    broken = int((~error.isfinite()).sum())
    if broken:
        raise TrainingError(f"The reconstructions of {broken} of {len(images)} images are not finite. {BROKEN_WEIGHTS}")
    return error


def _errors(scene: Scene, prediction: Prediction) -> ImageValues | None:
    if isinstance(prediction, Segmentation):
        return None
    errors = squared_error(scene.images, prediction).tolist()
    psnr = [-10 * log10(max(error, LEAST_ERROR)) for error in errors]
    return {"reconstruction_psnr": psnr, "reconstruction_mse": errors}


reconstruction = partial(MeanOverImages, _errors, ("reconstruction_psnr", "reconstruction_mse"))
"""Mean over images of the mean squared error of a pixel and channel, and of -10 log10 of it, in dB."""
