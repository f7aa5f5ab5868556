"""How many of the objects that a model finds in noise, and in scenes, have the contrast that `decompose` asks for?

    python -m benchmarks.contrast --threads 1

Objects in images without any are false. In scenes an object is true if it lies on one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.command import finish, option_parser, run, started
from benchmarks.timing import aligned
from unscene.inference.found_objects import MIN_CONTRAST, found_in_squares, refine
from unscene.runs.loading import LoadedModel, load
from unscene.scene import Scene

MODELS = ("rmonet_unet/multi_dsprites_cpu", "rmonet_unet/clevr_scenes_cpu", "explicit_localization/multi_dsprites_cpu")
IMAGES, SEED = 64, 2
SAME = 0.5  # mask IoU above which an object lies on a true one


def empty_images(size: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Images [IMAGES, size, size, 3] without objects, by kind."""
    rng = np.random.default_rng(SEED)
    shape = (IMAGES, size, size, 3)
    colours = rng.uniform(0, 255, (IMAGES, 1, 1, 3))
    yield "plain colours", _bytes(np.broadcast_to(colours, shape))
    yield "uniform noise", _bytes(rng.uniform(0, 255, shape))
    mixed = np.where(np.arange(IMAGES)[:, None, None, None] % 2, colours, colours[..., :1])
    yield "a grey or a colour, with noise of 10 grey levels", _bytes(mixed + rng.normal(0, 10, shape))
    yield "a colour, with noise of 30 grey levels", _bytes(colours + rng.normal(0, 30, shape))
    angle = rng.uniform(0, 2 * np.pi, (IMAGES, 1, 1, 1))
    rows, columns = np.mgrid[:size, :size][..., None] / size - 0.5
    slope = 2 * rng.uniform(-64, 64, (IMAGES, 1, 1, 3))
    gradient = 127.5 + 0.5 * (colours - 127.5) + slope * (rows * np.sin(angle) + columns * np.cos(angle))
    yield "an even gradient of a colour", _bytes(gradient)


def _bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(values.clip(0, 255)), np.uint8)


def contrasts_of(loaded: LoadedModel, images: NDArray[np.uint8]) -> Iterator[tuple[float, NDArray[np.bool_], int]]:
    """Contrast, mask and image of each object that is found."""
    decomposition = loaded.decompose(Scene.from_batch({"image": images}).images)
    for index, found in enumerate(found_in_squares(decomposition)):
        refined = refine(found, images[index])
        assert refined.contrasts is not None
        for slot, contrast in zip(refined.slots, refined.contrasts.tolist(), strict=True):
            yield contrast, refined.labels == slot, index


def rows_of(loaded: LoadedModel, scenes: int) -> dict[str, tuple[int, int]]:
    """Kind of images: the objects of enough contrast, and all that are found."""
    rows = {}
    for kind, images in empty_images(loaded.size):
        contrasts = np.array([contrast for contrast, *_ in contrasts_of(loaded, images)])
        rows[f"{IMAGES} of {kind}"] = int((contrasts >= MIN_CONTRAST).sum()), len(contrasts)
    counts = np.zeros((2, 2), int)  # lies on a true object, has contrast
    source = loaded.recipe.source("test", seed=SEED, count=scenes)
    for first in range(0, scenes, 20):
        batch = source.batch(np.arange(first, min(scenes, first + 20)))
        for contrast, mask, index in contrasts_of(loaded, batch["image"]):
            labels = batch["labels"][index]
            overlaps = [
                (mask & (labels == label)).sum() / (mask | (labels == label)).sum()
                for label in np.unique(labels[labels > 0])
            ]
            counts[int(max(overlaps, default=0) > SAME), int(contrast >= MIN_CONTRAST)] += 1
    rows["scenes: objects that lie on a true one"] = int(counts[1, 1]), int(counts[1].sum())
    rows["scenes: objects that lie on none"] = int(counts[0, 1]), int(counts[0].sum())
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Count, print, write."""
    parser = option_parser("contrast", __doc__, rounds=1)
    parser.add_argument("--scenes", type=int, default=100, help="of each model's own data")
    options = started(parser, words)
    results = {model: rows_of(load(model, options.device), options.scenes) for model in MODELS}
    cells = [["images", *MODELS]]
    for kind in results[MODELS[0]]:
        cells.append([kind, *("{} of {}".format(*results[model][kind]) for model in MODELS)])
    print("\n".join(aligned(cells)))
    finish(options, [], results=results)


if __name__ == "__main__":
    run(main)
