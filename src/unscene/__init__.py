"""Unsupervised scene decomposition: from unlabelled images to a mask, a box and a latent vector for every object.

import unscene

model = unscene.load("runs/NAME")  # or "rmonet_unet/multi_dsprites_cpu", the weights that come along
result = unscene.decompose(model, "photos/")  # or images [B, 3, size, size] in 0..1 -> Decomposition
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unscene.views import VIEWS

if TYPE_CHECKING:
    from unscene.api import decompose, evaluate, evaluate_masks, train
    from unscene.inference.tracking import Tracker
    from unscene.runs.loading import LoadedModel, load
    from unscene.scene import Decomposition, Losses, Scene, Sequence

__version__ = "0.1.0"
__all__ = [
    "Decomposition",
    "LoadedModel",
    "Losses",
    "Scene",
    "Sequence",
    "Tracker",
    "decompose",
    "evaluate",
    "evaluate_masks",
    "load",
    "train",
]

_HOMES = {
    **dict.fromkeys(("Decomposition", "Losses", "Scene", "Sequence"), "unscene.scene"),
    "Tracker": "unscene.inference.tracking",
    **dict.fromkeys(("LoadedModel", "load"), "unscene.runs.loading"),
    **dict.fromkeys(("decompose", "evaluate", "evaluate_masks", "train"), "unscene.api"),
}
VIEWS.update(
    picture="unscene.report.figures:decomposition_picture",
    coco="unscene.inference.found_objects:decomposition_coco",
    detections="unscene.inference.found_objects:decomposition_detections",
)


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that `import unscene` alone does not wait for torch."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'unscene' has no attribute '{name}'")
