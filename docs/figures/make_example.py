"""Draw what models make of fresh scenes: input with boxes, reconstruction, segmentation; one model below the other.

python docs/figures/make_example.py  # docs/images/example.png
python docs/figures/make_example.py rmonet_unet/clevr_scenes_cpu docs/images/clevr_decomposed.png
python docs/figures/make_example.py runs/monet runs/iodine runs/space docs/images/small_scenes.png
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import unscene
from unscene.report.slots import overlay
from unscene.scene import Scene

SEED, SCENES, SIDE, GAP = 99, 8, 192, 6

*models, out = sys.argv[1:] or ("rmonet_unet/multi_dsprites_cpu", Path(__file__).parents[1] / "images" / "example.png")


def decomposed(name: str) -> np.ndarray:
    """The three rows of a model, [H, W, 3], with a gap below and to the right of each picture."""
    model = unscene.load(name)
    zoom = max(1, SIDE // model.size)
    images = model.recipe.source("test", seed=SEED, count=SCENES).batch(np.arange(SCENES))["image"]
    result = model.decompose(Scene.from_batch({"image": images}).images)
    labels = result.labels() + (result.background is None)  # 0 is left untinted
    reconstruction = (result.reconstruction().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def enlarged(pixels: np.ndarray) -> np.ndarray:
        return pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)

    columns = []
    for scene in range(SCENES):
        boxes = np.zeros((0, 4)) if result.boxes is None else result.boxes[scene][result.box_valid[scene]].numpy()
        image = enlarged(images[scene])
        column = [
            overlay(image, None, boxes * zoom, numbers=False, stroke=2),
            enlarged(reconstruction[scene]),
            overlay(image, enlarged(labels[scene].numpy()), tint=1.0),
        ]
        rows = [np.pad(row, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for row in column]
        columns.append(np.concatenate(rows))
    return np.concatenate(columns, axis=1)


apart = np.full((3 * GAP, SCENES * (SIDE + GAP), 3), 255, np.uint8)
parts = [part for name in models for part in (decomposed(name), apart)]
picture = np.concatenate(parts[:-1])[:-GAP, :-GAP]
Image.fromarray(picture).save(out, optimize=True)
