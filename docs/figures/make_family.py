"""Draws the pictures of the smaller generators in docs/images: python docs/figures/make_family.py"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unscene.data import source_class
from unscene.data.objects_room.dataset import SHIFTS

IMAGES = Path(__file__).parents[1] / "images"
PALETTE = np.array(
    [(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0)]
)


def row(name: str, count: int, labels: bool, **settings: Any) -> np.ndarray:
    """Scenes side by side, below them their label maps."""
    generator = source_class(name)
    sample = generator(generator.Settings(count=count, **settings)).batch(np.arange(count))
    pictures = [sample["image"], *([_in_colours(sample["labels"])] if labels else [])]
    framed = [np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=128) for images in pictures]
    return np.concatenate([np.concatenate(list(images), axis=1) for images in framed])


def _in_colours(labels: np.ndarray) -> np.ndarray:
    return PALETTE[np.where(labels > 0, 1 + (labels - 1) % (len(PALETTE) - 1), 0)].astype(np.uint8)


def save(rows: list[np.ndarray], scale: int, file: str) -> None:
    image = Image.fromarray(np.concatenate(rows))
    image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST).save(
        IMAGES / file, optimize=True
    )


save([row("tetrominoes", 6, False, seed=seed) for seed in (0, 1)], 3, "tetrominoes.png")
kinds: list[dict[str, Any]] = [{}, dict(SHIFTS["six_objects"]), dict(SHIFTS["identical_colour"])]
save([row("objects_room", 7, True, seed=seed, **kind) for seed, kind in enumerate(kinds)], 2, "objects_room.png")
save(
    [row("clevr_scenes", 7, False, seed=1, size=128, textures=textures) for textures in (True, False)],
    1,
    "clevr_textures.png",
)
many: dict[str, Any] = {"size": 192, "min_objects": 14, "max_objects": 14, "seed": 1}
kinds = [{"kind": kind} for kind in ("discs", "ellipses", "parts")]
columns = [row("many_objects", 1, True, **many, **kind) for kind in kinds]
save([np.concatenate(columns, axis=1)], 1, "many_objects.png")
