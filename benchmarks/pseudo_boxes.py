"""Pseudo boxes of 320 masks (64 images of 5 slots), at 64 and at 128 pixels, against scikit-image mask by mask.

    python -m benchmarks.pseudo_boxes

The masks are those of generated scenes, blurred: as a trained model draws them (soft), and with noise everywhere, which
breaks into many small parts (noisy). Both ways must find the same boxes, or the benchmark fails.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.command import finish, option_parser, run, started
from benchmarks.reference.pseudo_boxes import plain_pseudo_boxes
from benchmarks.timing import Comparison, measure
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.errors import TrainingError
from unscene.models.rmonet.pseudo_boxes import pseudo_boxes
from unscene.models.rmonet.settings import PseudoBoxSettings

IMAGES, SLOTS = 64, 5
NOISE = {"soft": 0.0, "noisy": 0.3}
OURS, PLAIN = "all at once", "scikit-image, mask by mask"


def scene_masks(size: int, noise: float, images: int) -> Tensor:
    """[images, 5, size, size] float32: a slot an object of generated scenes, blurred, plus uniform noise.

    Args:
        size: of the images.
        noise: its greatest value.
        images: number of scenes.
    """
    labels = MultiDSprites(MultiDSpritesSettings(count=images, size=size, seed=7)).batch(range(images))["labels"]
    objects = np.stack([labels == label for label in range(1, SLOTS + 1)], axis=1).astype(np.float32)
    masks = 0.95 * gaussian_filter(objects, (0, 0, size / 64, size / 64))
    noisy = masks + noise * np.random.default_rng(0).random(masks.shape, dtype=np.float32)
    return torch.from_numpy(np.clip(noisy, 0, 1).astype(np.float32))


def check_same(masks: Tensor, settings: PseudoBoxSettings) -> int:
    """The number of boxes that ours finds, after a comparison with scikit-image's, which must be the same.

    Raises:
        TrainingError: the two find different boxes.
    """
    boxes, _, valid = (tensor.cpu() for tensor in pseudo_boxes(masks, settings))
    expected = [found.tolist() for found, _ in plain_pseudo_boxes(masks, settings)]
    different = [image for image, found in enumerate(expected) if boxes[image, valid[image]].tolist() != found]
    if different:
        raise TrainingError(
            f"the pseudo boxes of images {different} are not scikit-image's. "
            "tests/benchmarks/test_reference.py compares the two on small batches."
        )
    return int(valid.sum())


def compared_pseudo_boxes(size: int, kind: str, rounds: int, seconds: float, device: str) -> Comparison:
    """Measure masks of one size and kind."""
    masks, settings = scene_masks(size, NOISE[kind], IMAGES).to(device), PseudoBoxSettings()
    number = check_same(masks, settings)
    subjects = {
        OURS: lambda: pseudo_boxes(masks, settings),
        PLAIN: lambda: plain_pseudo_boxes(masks, settings),
    }
    title = f"pseudo boxes, {size} px, {kind} masks: {number} boxes"
    return Comparison(title, measure(subjects, rounds, seconds, device), PLAIN, IMAGES * SLOTS, "masks")


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = option_parser("pseudo_boxes", __doc__)
    parser.add_argument("--size", type=int, action="append", default=[], help="of the images; default: 64 and 128")
    options = started(parser, words)
    comparisons = []
    for size in options.size or (64, 128):
        for kind in NOISE:
            comparisons.append(compared_pseudo_boxes(size, kind, options.rounds, options.seconds, options.device))
            print(comparisons[-1].table(), end="\n\n", flush=True)
    finish(options, comparisons)


if __name__ == "__main__":
    run(main)
