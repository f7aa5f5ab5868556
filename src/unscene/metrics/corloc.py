"""Correct localization: the share of images in which an object is found (Deselaers et al., 2010)."""

from __future__ import annotations

from functools import partial

import torch
from torchvision.ops import box_iou

from unscene.metrics import ImageValues, MeanOverImages
from unscene.scene import Prediction, Scene, boxes_of_labels

_LEAST_IOU = 0.5


def _correct_images(scene: Scene, prediction: Prediction) -> ImageValues | None:
    if scene.boxes is None:
        return None
    values: list[float | None] = []
    first = 0 if prediction.background is None else 1
    for true, labels in zip(scene.boxes, prediction.labels().cpu() + (1 - first), strict=True):
        shown = true[(true[:, 2:] > true[:, :2]).all(dim=1)].double().cpu()
        found = torch.from_numpy(boxes_of_labels(labels.numpy()[None], int(labels.max()))[0]).double()
        near = box_iou(shown, found[found.any(dim=1)]) >= _LEAST_IOU
        values.append(float(near.any()) if len(shown) else None)
    return {"corloc": values}


corloc = partial(MeanOverImages, _correct_images, ("corloc",))
"""Share of the images with an object in which the box around one mask or more has an IoU of .5 with an object's box.

Every mask counts (argmax over all K), but for the background's slot, where the model states it.
"""
