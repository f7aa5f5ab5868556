"""What people use to find many like objects: watersheds, and the pretrained networks StarDist and Cellpose.

A method takes an image [H, W, 3] uint8 and the usual diameter of its objects in pixels, and returns a label map [H, W].
Nothing is tuned: each length follows from the diameter. Ours is told the same diameter.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, distance_transform_edt, gaussian_filter, gaussian_laplace, median_filter
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed
from skimage.transform import resize

from unscene.inference.decompose import tile_side
from unscene.inference.tiles import decompose_large
from unscene.runs.loading import LoadedModel

Segment: TypeAlias = Callable[[NDArray[np.uint8], float], NDArray[np.integer]]

_SMOOTHING = 1.0  # pixels
_GROUND_WINDOW = 4  # objects
_SMALLEST = 0.2  # of the area of a disc of the usual diameter; smaller objects are left out, of every method


def least_area(object_size: float) -> int:
    """The least pixels of an object that counts."""
    return round(_SMALLEST * np.pi / 4 * object_size**2)


def contrast(image: NDArray[np.uint8], object_size: float, logarithm: bool = False) -> NDArray[np.float64]:
    """How far each pixel's colour [H, W] is from that of the ground, the median of a window of 4 objects.

    The median is that of a reduced image, which has 5 pixels or more for an object.
    """
    smooth = gaussian_filter(image.astype(np.float64), (_SMOOTHING, _SMOOTHING, 0))
    smooth = np.log1p(smooth) if logarithm else smooth
    step = max(1, int(object_size / 5))
    reduced = smooth[step // 2 :: step, step // 2 :: step] if min(smooth.shape[:2]) > step else smooth
    window = round(_GROUND_WINDOW * object_size / step)
    ground = np.stack([median_filter(reduced[..., c], window, mode="reflect") for c in range(3)], axis=-1)
    ground = resize(ground, smooth.shape, order=1, mode="edge", anti_aliasing=False)
    return np.asarray(np.linalg.norm(smooth - ground, axis=-1))


def otsu_watershed(image: NDArray[np.uint8], object_size: float, logarithm: bool = False) -> NDArray[np.integer]:
    """Otsu's threshold of the contrast; a watershed from the maxima of the distance to the ground."""
    mask = _foreground(contrast(image, object_size, logarithm))
    return _flooded(gaussian_filter(distance_transform_edt(mask), _SMOOTHING), mask, object_size)


def log_watershed(image: NDArray[np.uint8], object_size: float, logarithm: bool = False) -> NDArray[np.integer]:
    """The same mask; a watershed from the maxima of the Laplacian of Gaussians for discs of the diameter."""
    strength = contrast(image, object_size, logarithm)
    blobs = -gaussian_laplace(strength, object_size / np.sqrt(8))
    return _flooded(blobs, _foreground(strength), object_size)


def _foreground(strength: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.asarray(binary_fill_holes(strength > threshold_otsu(strength)))


def _flooded(heights: NDArray[np.float64], mask: NDArray[np.bool_], object_size: float) -> NDArray[np.integer]:
    """The basins around the maxima of a mask that are a quarter of an object apart, without the smallest."""
    apart = max(1, round(object_size / 4))
    peaks = peak_local_max(heights, min_distance=apart, labels=label(mask), exclude_border=False)
    markers = np.zeros(mask.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return without_small(watershed(-heights, markers, mask=mask), object_size)


def without_small(labels: NDArray[np.integer], object_size: float) -> NDArray[np.integer]:
    """A label map without the objects below `least_area`."""
    return np.where(np.bincount(labels.ravel())[labels] < least_area(object_size), 0, labels)


WATERSHEDS: dict[str, Segment] = {
    "Otsu, distance watershed": otsu_watershed,
    "Otsu, distance watershed, log intensity": partial(otsu_watershed, logarithm=True),
    "Otsu, LoG watershed": log_watershed,
    "Otsu, LoG watershed, log intensity": partial(log_watershed, logarithm=True),
}


def ours(loaded: LoadedModel, **limits: Any) -> Segment:
    """A model in tiles, as `unscene decompose` uses it after a training on crops; `limits` are of `decompose_large`."""
    side = tile_side(loaded, "auto")
    assert side is not None

    def segment(image: NDArray[np.uint8], object_size: float) -> NDArray[np.integer]:
        options = {"min_area": least_area(object_size), "progress": False, **limits}
        return decompose_large(loaded, image, tile=side, overlap=side // 2, **options).labels

    return segment


def stardist() -> Segment:
    """StarDist's published network for fluorescent nuclei, on greys."""
    from csbdeep.utils import normalize
    from stardist.models import StarDist2D

    model: Any = StarDist2D.from_pretrained("2D_versatile_fluo")

    def segment(image: NDArray[np.uint8], object_size: float) -> NDArray[np.integer]:
        labels, _ = model.predict_instances(normalize(image.mean(axis=-1), 1, 99.8))
        return without_small(labels, object_size)

    return segment


def cellpose() -> Segment:
    """Cellpose's default network, told the diameter."""
    from cellpose.models import CellposeModel

    model: Any = CellposeModel(gpu=torch.cuda.is_available())
    return lambda image, size: without_small(np.asarray(model.eval(image, diameter=size)[0], np.int32), size)


def pretrained(builders: dict[str, Callable[[], Segment]]) -> tuple[dict[str, Segment], dict[str, str]]:
    """Return the methods of other programs that work here, and for each of the others why not."""
    methods, reasons = {}, {}
    for name, build in builders.items():
        try:
            methods[name] = build()
        except ImportError as error:
            reasons[name] = f"not installed ({error}). Run: pip install 'unscene[instances]'"
        except Exception as error:  # of the download or the weights; each program has errors of its own
            reasons[name] = f"its weights cannot be had here ({type(error).__name__}: {error})"
    return methods, reasons
