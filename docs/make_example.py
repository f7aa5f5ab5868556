"""Draw docs/example.png, the README's picture: python docs/make_example.py"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import unscene
from unscene.report.overlay import overlay

RECIPE, SEED, SCENES, ZOOM, GAP = "rmonet_unet/multi_dsprites_cpu", 99, 8, 3, 6

model = unscene.load(RECIPE)
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
Image.fromarray(picture).save(Path(__file__).with_name("example.png"), optimize=True)
