"""Draw what shipped weights make of fresh scenes: input with boxes, reconstruction, segmentation.

python docs/make_example.py                                                             # docs/example.png
python docs/make_example.py rmonet_unet/clevr_scenes_cpu docs/clevr_decomposed.png
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unscene
from unscene.report.overlay import overlay

SEED, SCENES, SIDE, GAP = 99, 8, 192, 6

recipe, out = sys.argv[1:] or ("rmonet_unet/multi_dsprites_cpu", Path(__file__).with_name("example.png"))
model = unscene.load(recipe)
ZOOM = max(1, SIDE // model.size)
drawn = model.settings.source("test", seed=SEED, count=SCENES).batch(np.arange(SCENES))["image"]
result = model.decompose(torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 255)


def enlarged(pixels: np.ndarray) -> np.ndarray:
    return pixels.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)


columns = []
reconstruction = (result.reconstruction().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
for scene in range(SCENES):
    boxes = result.boxes[scene][result.box_valid[scene]].numpy() * ZOOM
    image = enlarged(drawn[scene])
    labels = enlarged(result.labels()[scene].numpy())
    column = [
        overlay(image, None, boxes, [""] * len(boxes), stroke=2),
        enlarged(reconstruction[scene]),
        overlay(image, labels, tint=1.0),
    ]
    columns.append(np.concatenate([np.pad(row, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for row in column]))
picture = np.concatenate(columns, axis=1)[:-GAP, :-GAP]
Image.fromarray(picture).save(out, optimize=True)
