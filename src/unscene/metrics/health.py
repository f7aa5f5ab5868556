"""The health of a model: numbers that need no truth, and a verdict in words on whether it decomposes."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from unscene.errors import TrainingError
from unscene.scene import Decomposition

DECOMPOSING = "decomposing"
_LEAST_GAIN = 1.5  # explained / explained_turned: 1.0 of masks at random, 4.6 and more of models of ARI .5 and above


def is_decomposing(verdict: str) -> bool:
    """Whether a verdict of `Health` says that the model decomposes; every other finding is a collapse."""
    return verdict.startswith(DECOMPOSING)


class Health:
    """Running means over the images of a validation: `update`, `compute`, `score`, `verdict`, `merge`."""

    def __init__(self) -> None:
        self.images: Counter[str] = Counter()  # by the number's name
        self.sums: Counter[str] = Counter()

    def update(self, images: Tensor, decomposition: Decomposition, mirrored: Decomposition | None = None) -> None:
        """Add a batch of images [B, 3, H, W]; `mirrored` is of the first of them, flipped from left to right."""
        masks = decomposition.masks().float()
        shares = masks.mean(dim=(2, 3, 4))  # [B, K]: of the image
        foreground = shares[:, decomposition.foreground]
        if decomposition.background is None:
            won = torch.ones(len(shares))
        else:
            won = (decomposition.labels() > 0).float().mean(dim=(1, 2))
        counted = {
            "largest_slot": (foreground.amax(1) / foreground.sum(1).clamp_min(1e-8)) if foreground.shape[1] else None,
            "slots_used": (foreground > 0.005).sum(1).float(),
            "foreground": foreground.sum(1),
            "foreground_won": won,
            "background": None if decomposition.background is None else shares[:, decomposition.background],
            "decided": masks.amax(1).mean(dim=(1, 2, 3)),
            "explained": _colours_explained(images, masks),
            "explained_turned": _colours_explained(images, masks.flip(-2, -1)),
            "boxes": None if decomposition.box_valid is None else decomposition.box_valid.sum(1).float(),
            "stable_objects": None if mirrored is None else _stable_objects(decomposition, mirrored),
        }
        self.images.update({name: len(values) for name, values in counted.items() if values is not None})
        self.sums.update({name: float(values.sum()) for name, values in counted.items() if values is not None})

    def merge(self, other: Health) -> None:
        """Add what another process counted."""
        self.images.update(other.images)  # adds
        self.sums.update(other.sums)

    def compute(self) -> dict[str, float]:
        """Return means over the images, by name; `report/metric_descriptions.yaml` explains them."""
        if not self.images:
            raise TrainingError("there is no health without images: call update first.")
        return {name: value / self.images[name] for name, value in self.sums.items()}

    def score(self) -> float | None:
        """Return explained^2 sqrt(stable objects), which ranks the weights of a training without a label.

        It falls if masks leave an object to the background, lie beside it or change when the image is mirrored, and if
        few slots take all objects. Ours: docs/notes/label_free_score.md has its ranks beside those of AP and ARI. None
        if no batch had `mirrored`.
        """
        numbers = self.compute()
        stable = numbers.get("stable_objects")
        return None if stable is None else numbers["explained"] ** 2 * math.sqrt(stable)

    def collapse(self, largest_slot: float, foreground_won: float) -> str | None:
        """Return in words what shows a collapse; None without one. The limits are those of `RestartSettings`."""
        numbers = self.compute()
        if numbers["foreground_won"] < foreground_won:
            return f"the objects' slots win {numbers['foreground_won']:.3f} of the pixels"
        if numbers.get("largest_slot", 0.0) > largest_slot:
            return f"the largest slot holds {numbers['largest_slot']:.3f} of the foreground"
        return None

    def verdict(self) -> str:
        """The finding in words, and the numbers by name.

        Without a background slot, a slot that holds most of the image is no collapse.
        """
        numbers = self.compute()
        shown = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in numbers.items())
        if not all(math.isfinite(value) for value in numbers.values()):
            finding = "not finite: the masks hold NaN or infinity"
        elif numbers.get("background", 0.0) > 0.98 or numbers["foreground_won"] < 0.005:
            finding = "everything background: the objects' slots win no pixel"
        elif "background" not in numbers and numbers["slots_used"] < 1.5:
            finding = "all of the image in one slot: nothing is told apart"
        elif "background" in numbers and numbers["slots_used"] > 0 and numbers.get("largest_slot", 0.0) > 0.85:
            finding = "all objects in one slot: the foreground is found, its objects are not told apart"
        elif numbers.get("background", 1.0) < 0.02:
            finding = "no background: the objects' slots take all of the image"
        elif numbers["decided"] < 0.5:
            finding = "undecided: the slots share every pixel, none of them takes one"
        elif numbers["explained"] < _LEAST_GAIN * numbers["explained_turned"]:
            finding = "masks beside the objects: turned by 180 degrees, they fit the image as well"
        else:
            what = "foreground" if "background" in numbers else "image"
            finding = f"{DECOMPOSING}: several slots share the {what}"
        return f"{finding} ({shown})"


def _stable_objects(decomposition: Decomposition, mirrored: Decomposition) -> Tensor:
    """[N] how many objects of the first N images are the same in the mirrored images, with an IoU above one half."""
    K, second = decomposition.num_slots, mirrored.labels().flip(-1).flatten(1)
    first = decomposition.labels()[: len(second)].flatten(1)
    rows = torch.arange(len(second), device=second.device)[:, None]
    shared = torch.bincount((K * (K * rows + first) + second).flatten(), minlength=len(second) * K * K)
    shared = shared.view(-1, K, K)
    union = shared.sum(2, keepdim=True) + shared.sum(1, keepdim=True) - shared
    same = 2 * shared > union  # so no segment has two partners
    return (same if decomposition.background is None else same[:, 1:, 1:]).sum(dim=(1, 2)).float()


def _colours_explained(images: Tensor, masks: Tensor) -> Tensor:
    """[B] share of the variance of an image's colours that lies between the means of the slots; 0 for one colour."""
    pixels = (images - images.mean(dim=(2, 3), keepdim=True)).flatten(2)  # [B, 3, P]
    shares = masks.flatten(2)  # [B, K, P]
    sums = (shares @ pixels.transpose(1, 2)).float()  # [B, K, 3]
    between = (sums.square().sum(dim=2) / shares.sum(dim=2).clamp_min(1e-8)).sum(dim=1)
    return between / pixels.square().sum(dim=(1, 2)).clamp_min(1e-8)
