"""Images and label maps of placed CLEVR scenes, compiled by numba.

A pixel's colour is the mean of 2 x 2 samples, one in each quarter of the pixel, converted to sRGB. Its label
is that of the first solid on the ray through its centre. All random numbers are hashes of the scene's key and the
pixel's number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data import generated_scenes
from unscene.data.clevr import objects, placement, ray_tracing, shading, stage, textures
from unscene.data.clevr.placement import PlacedScenes, bits_of_draw, solids_of, splitmix64
from unscene.data.clevr.ray_tracing import ahead, first_hit, product
from unscene.data.clevr.shading import LitScene, SampleBits, radiance
from unscene.data.clevr.stage import HEIGHT, STRATA, WIDTH, facing_origin, lamps_at, through
from unscene.data.clevr.textures import TEXTURE, tint
from unscene.ops import numba_jit
from unscene.ops.numba_jit import code_of, compiled, compiled_part, on_all_threads

WHOLE = (0.0, 0.0, float(WIDTH), float(HEIGHT))  # x1 y1 x2 y2 of a view, in pixels of CLEVR's 320 x 240
CROP = (64.0, 29.0, 256.0, 221.0)  # the papers' training crop: rows 29 to 221, columns 64 to 256

_PIXELS = np.uint64(0x70697865_6C730000)  # makes pixels and positions use different random numbers


def render(
    scenes: PlacedScenes,
    height: int,
    width: int,
    view: tuple[float, float, float, float] = CROP,
    patterns: NDArray[np.void] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images [B, height, width, 3] and label maps [B, height, width] uint8: solid `m` has label `m + 1`.

    They show the part `view` (`x1 y1 x2 y2`) of CLEVR's picture of 320 x 240. `patterns` [B, 1 + M] are of
    `textures.TEXTURE`; without them everything is plain.
    """
    count = len(scenes.key)
    images, labels = np.empty((count, height, width, 3), np.uint8), np.empty((count, height, width), np.uint8)
    camera = np.stack([scenes.camera, *facing_origin(scenes.camera)], axis=1)  # [B, 4, 3]
    lamps, cover = lamps_at(scenes.lamps), np.zeros((count, 0), TEXTURE) if patterns is None else patterns

    def render_range(start: int, stop: int) -> None:
        part = slice(start, stop)
        chosen = PlacedScenes(*(values[part] for values in scenes))
        _render(chosen, camera[part], lamps[part], cover[part], view, images[part], labels[part])

    on_all_threads(render_range, count)
    return images, labels


def _renderer(code: str) -> Any:
    """The compiled loop over scenes and pixels; its cache on disk is valid for one `code` of its parts."""

    @compiled
    def render_scenes(
        scenes: PlacedScenes, camera: Any, lamps: Any, cover: Any, view: Any, images: NDArray[Any], labels: NDArray[Any]
    ) -> None:
        assert len(code) > 0
        height, width = labels.shape[1:]
        for b in range(len(labels)):
            scene, axes = LitScene(solids_of(scenes, b), lamps[b]), camera[b]
            eye = (axes[0, 0], axes[0, 1], axes[0, 2])
            key = splitmix64(scenes.key[b] ^ _PIXELS)
            for y in range(height):
                for x in range(width):
                    corner = (view[0] + x * (view[2] - view[0]) / width, view[1] + y * (view[3] - view[1]) / height)
                    side = ((view[2] - view[0]) / width, (view[3] - view[1]) / height)
                    towards = through(axes, corner[0] + side[0] / 2, corner[1] + side[1] / 2)
                    labels[b, y, x] = first_hit(scene.solids, eye, towards)[1] + 1
                    bits = bits_of_draw(key, y * width + x)
                    red, green, blue = _pixel(scene, cover[b], axes, eye, corner, side, bits)
                    images[b, y, x, 0], images[b, y, x, 1], images[b, y, x, 2] = _srgb(red), _srgb(green), _srgb(blue)

    return render_scenes


@compiled_part
def _pixel(scene: LitScene, cover: Any, axes: Any, eye: Any, corner: Any, side: Any, bits: Any) -> Any:
    """The mean of the pixel's samples; each sample uses a different part of every lamp, in random order."""
    colour = (0.0, 0.0, 0.0)
    for sample in range(STRATA):
        right, down = 0.25 + 0.5 * (sample & 1), 0.25 + 0.5 * (sample >> 1)
        towards = through(axes, corner[0] + right * side[0], corner[1] + down * side[1])
        strata = bits ^ (np.uint64(sample) * np.uint64(0x5555555555555555))  # two bits a lamp
        light = radiance(scene, eye, towards, SampleBits(strata, bits_of_draw(bits, sample)))
        if len(cover):
            light = product(light, tint(scene.solids, cover, eye, towards))
        colour = ahead(colour, light, 1 / STRATA)  # exact: a power of two
    return colour


@compiled_part
def _srgb(linear: float) -> Any:
    """0..255 by the curve of sRGB (IEC 61966-2-1)."""
    shown = 12.92 * linear if linear <= 0.0031308 else 1.055 * min(linear, 1.0) ** (1 / 2.4) - 0.055
    return np.uint8(255 * shown + 0.5)


_PARTS = (objects, placement, shading, stage, textures, generated_scenes, numba_jit, ray_tracing)
_render = _renderer(code_of(*_PARTS))
