"""What models and metrics exchange: `Scene` is the input, `Decomposition` a model's output, `Losses` its terms.

`Sequence` holds the frames of clips, each frame a `Scene`. `Segmentation` is what other programs predict: label maps,
for the metrics that need no more.

All hold a batch, are frozen, and check their axes when they are constructed. Letters: `B` images, `K` slots,
`H W` pixels, `D` latent, `N` boxes. Boxes are `x1 y1 x2 y2` in pixels, end exclusive; an unused row of a padded box
array is zeros.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from torch import Tensor

from unscene.errors import ShapeError, check_shape
from unscene.views import view


@dataclass(frozen=True)
class Scene:
    """A batch of images, with the truth where it is known. The truth is for evaluation only: no model sees it.

    Attributes:
        images: [B, 3, H, W] float32 in [0, 1].
        labels: [B, H, W] integer label map, 0 is the background, -1 a pixel that no score counts; None if unlabelled.
        boxes: [B, M, 4] float32 boxes of the visible part of each object, padded with zero rows; row `m` belongs to
            label `m + 1`, a wholly hidden object has a zero row. None for unlabelled images.
        categories: [B, M] integer class of each object, from 1, in the order of the labels; 0 for none. None where the
            data has no classes.

    Raises:
        ShapeError: axes differ from the above.
    """

    images: Tensor
    labels: Tensor | None = None
    boxes: Tensor | None = None
    categories: Tensor | None = None

    def __post_init__(self) -> None:
        _check_images_and_truth(self, "B")

    @classmethod
    def from_batch(cls, batch: Mapping[str, Any]) -> Scene:
        """Return the scene of a data source's batch, which holds NumPy arrays.

        Args:
            batch: `image` uint8 [B, H, W, 3]; where the truth is known `labels` [B, H, W], `boxes` [B, M, 4] and
                `category` [B, M]. Arrays or tensors; further fields are ignored.

        Returns:
            Images as float32 in [0, 1] (channels last in memory), labels and categories as int64, boxes as float32.

        Raises:
            ShapeError: an array has other axes, or `image` is not uint8.
        """
        image = torch.as_tensor(batch["image"])
        check_shape(image, "B H W 3", "image")
        if image.dtype != torch.uint8:
            raise ShapeError(f"image must be uint8 in 0..255, but is {image.dtype}.")
        labels, boxes, categories = (batch.get(name) for name in ("labels", "boxes", "category"))
        return cls(
            images=image.permute(0, 3, 1, 2).float() / 255,
            labels=None if labels is None else torch.as_tensor(labels).long(),
            boxes=None if boxes is None else torch.as_tensor(boxes).float(),
            categories=None if categories is None else torch.as_tensor(categories).long(),
        )

    def __len__(self) -> int:
        return int(self.images.shape[0])


@dataclass(frozen=True)
class Sequence:
    """T frames of B clips. Frame t is `sequence[t]`, a `Scene` of B images; iterating gives the frames in their order.

    Attributes:
        images: [T, B, 3, H, W] float32 in [0, 1].
        labels: [T, B, H, W], as in `Scene`; a label means the same object in all frames of a clip.
        boxes: [T, B, M, 4], as in `Scene`.
        categories: [T, B, M], as in `Scene`.

    Raises:
        ShapeError: axes differ from the above.
    """

    images: Tensor
    labels: Tensor | None = None
    boxes: Tensor | None = None
    categories: Tensor | None = None

    def __post_init__(self) -> None:
        _check_images_and_truth(self, "T", "B")

    @classmethod
    def from_clips(cls, scene: Scene, length: int) -> Sequence:
        """Return clips of `length` frames, T, in the order of the data sources: scene `i` is frame `i % T` of `i // T`.

        Raises:
            ShapeError: the scenes are no whole clips.
        """
        if length < 1 or len(scene) % length:
            raise ShapeError(f"{len(scene)} scenes are no whole clips of {length} frames: give a multiple of them.")
        fields: Any = {name: value for name, value in vars(scene).items() if value is not None}
        return cls(**{name: value.unflatten(0, (-1, length)).transpose(0, 1) for name, value in fields.items()})

    def __len__(self) -> int:
        return int(self.images.shape[0])

    def __getitem__(self, frame: int) -> Scene:
        fields: Any = {name: value[frame] for name, value in vars(self).items() if value is not None}
        return Scene(**fields)

    def __iter__(self) -> Iterator[Scene]:
        return map(self.__getitem__, range(len(self)))


def _check_images_and_truth(scenes: Scene | Sequence, *leading: str) -> None:
    size = check_shape(scenes.images, " ".join([*leading, "3 H W"]), "images")
    lengths = " ".join(str(size[axis]) for axis in leading)
    for name, axes in {"labels": f"{size['H']} {size['W']}", "boxes": "M 4", "categories": "M"}.items():
        if getattr(scenes, name) is not None:
            check_shape(getattr(scenes, name), f"{lengths} {axes}", name)


@dataclass(frozen=True)
class Decomposition:
    """A model's output for a batch of images; a field that a model does not have is None.

    Attributes:
        log_masks: [B, K, 1, H, W]; exp sums to 1 over K.
        components: [B, K, 3, H, W] reconstruction of each slot, in [0, 1] up to the decoder's error.
        background: index of the background's slot (negative counts from the end), or None when the model has none.
        latents: [B, K, D] posterior means.
        boxes: [B, N, 4] one box a foreground slot, in the order of the foreground slots.
        box_scores: [B, N] in [0, 1].
        box_valid: [B, N] bool; an invalid row stands for a slot without an object.
        locations: [B, N, 2] position of each foreground slot's object as the model states it: y and x in 0..1, from the
            top left; zeros for an unused slot.

    Raises:
        ShapeError: axes differ from the above.
    """

    log_masks: Tensor
    components: Tensor
    background: int | None = None
    latents: Tensor | None = None
    boxes: Tensor | None = None
    box_scores: Tensor | None = None
    box_valid: Tensor | None = None
    locations: Tensor | None = None

    def __post_init__(self) -> None:
        size = check_shape(self.log_masks, "B K 1 H W", "log_masks")
        check_shape(self.components, f"{size['B']} {size['K']} 3 {size['H']} {size['W']}", "components")
        if self.latents is not None:
            check_shape(self.latents, f"{size['B']} {size['K']} D", "latents")
        if (self.boxes is None) != (self.box_scores is None) or (self.boxes is None) != (self.box_valid is None):
            raise ShapeError("boxes, box_scores and box_valid must be given together.")
        if self.boxes is not None:
            boxes = check_shape(self.boxes, f"{size['B']} N 4", "boxes")["N"]
            check_shape(self.box_scores, f"{size['B']} {boxes}", "box_scores")
            check_shape(self.box_valid, f"{size['B']} {boxes}", "box_valid")
        if self.locations is not None:
            check_shape(self.locations, f"{size['B']} {len(self.foreground)} 2", "locations")
        if self.background is not None and not -size["K"] <= self.background < size["K"]:
            raise ShapeError(f"background must be the index of one of {size['K']} slots, but is {self.background}.")

    @property
    def num_slots(self) -> int:
        """K, background included."""
        return int(self.log_masks.shape[1])

    @property
    def foreground(self) -> list[int]:
        """Indices of the foreground's slots."""
        background = None if self.background is None else self.background % self.num_slots
        return [slot for slot in range(self.num_slots) if slot != background]

    def masks(self) -> Tensor:
        """[B, K, 1, H, W] shares of every pixel; they sum to 1 over K."""
        return self.log_masks.exp()

    def reconstruction(self) -> Tensor:
        """[B, 3, H, W] the components, mixed by their masks."""
        return (self.masks() * self.components).sum(dim=1)

    def labels(self) -> Tensor:
        """[B, H, W] int64 label map, the argmax over all K: 0 for the background's slot, 1.. for the others in order.

        Without a background slot the labels are the slots' indices, 0..K-1.
        """
        winner = self.log_masks.squeeze(2).max(dim=1).indices  # seven times faster than argmax along this axis
        if self.background is None:
            return winner
        background = self.background % self.num_slots
        return (winner + (winner < background).long()).masked_fill(winner == background, 0)

    def plot(self, images: Tensor | None = None, count: int = 8) -> Any:
        """Return a `PIL.Image` of the first `count` images, a column for each: segmentation with boxes, reconstruction.

        `images` [B, 3, H, W] in [0, 1], the images that were decomposed, are a row above them.
        """
        return view("picture")(self, images, count)

    def _repr_png_(self) -> bytes:
        """The picture of `plot()`, which a notebook shows for a Decomposition."""
        return bytes(self.plot()._repr_png_())

    def to_coco(self, file_names: abc.Sequence[str] = ()) -> dict[str, Any]:
        """Return the objects of all images as a COCO data set, at the model's resolution, for `json.dump`.

        Without `file_names` the images are called `1`, `2` ..., as their `image_id`.
        """
        return dict(view("coco")(self, file_names))

    def to_supervision(self) -> list[Any]:
        """Return one `supervision.Detections` for each image (an extra); `class_id` is the slot's label."""
        return list(view("detections")(self))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, without those that the model does not have."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @staticmethod
    def concatenate(parts: abc.Sequence[Decomposition]) -> Decomposition:
        """Return the decompositions of several batches by one model as that of all their images."""
        joined: Any = {name: torch.cat([getattr(part, name) for part in parts]) for name in parts[0].tensors()}
        return replace(parts[0], **joined)

    def map(self, change: Callable[[Tensor], Tensor]) -> Decomposition:
        """Return a Decomposition with `change` applied to every tensor (for instance `lambda t: t.cpu()`)."""
        changed: Any = {name: change(value) for name, value in self.tensors().items()}
        return replace(self, **changed)


@dataclass(frozen=True)
class Segmentation:
    """Label maps that any program predicts. Metrics read them as the `labels()` of a model with a background slot.

    Attributes:
        label_maps: [B, H, W] int64: 0 is the background, 1.. the objects; few labels are unused.
        scores: [B, N] in [0, 1], of label n + 1 in column n; None if the program states none.

    Raises:
        ShapeError: axes differ from the above, or a label is negative.
    """

    label_maps: Tensor
    scores: Tensor | None = None

    def __post_init__(self) -> None:
        size = check_shape(self.label_maps, "B H W", "label_maps")
        if self.label_maps.numel() and int(self.label_maps.min()) < 0:
            raise ShapeError("label_maps must be 0 for the background and 1.. for objects, but hold negative labels.")
        if self.scores is not None:
            check_shape(self.scores, f"{size['B']} {self.num_slots - 1}", "scores")

    @property
    def background(self) -> int:
        """The label of the background."""
        return 0

    @property
    def num_slots(self) -> int:
        """The largest label and one for the background."""
        return (int(self.label_maps.max()) if self.label_maps.numel() else 0) + 1

    def labels(self) -> Tensor:
        """[B, H, W] int64 label map."""
        return self.label_maps


Prediction: TypeAlias = Decomposition | Segmentation


@dataclass(frozen=True)
class Losses:
    """The named terms of a model's loss, and their weights in the total.

    Attributes:
        terms: name -> [B], in nats for an image.
        weights: name -> the factor of this term in the total; the same names as `terms`.
        observed: name -> [B], logged, but no part of the loss (for instance the pseudo boxes of an image).

    Raises:
        ShapeError: a term without a weight, or terms of different lengths.
    """

    terms: dict[str, Tensor]
    weights: dict[str, float]
    observed: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.terms.keys() != self.weights.keys() or not self.terms:
            raise ShapeError(f"every loss term needs a weight: terms {list(self.terms)}, weights {list(self.weights)}.")
        first = next(iter(self.terms))
        batch = check_shape(self.terms[first], "B", f"loss term '{first}'")["B"]
        for name, term in {**self.terms, **self.observed}.items():
            check_shape(term, str(batch), f"loss term '{name}'")

    @property
    def total(self) -> Tensor:
        """[B] the weighted sum of the terms."""
        weighted = [self.weights[name] * term for name, term in self.terms.items()]
        return sum(weighted[1:], start=weighted[0])


def boxes_of_labels(labels: NDArray[np.integer], num_objects: int) -> NDArray[np.float32]:
    """Return the tightest boxes [B, M, 4] float32 around the labels of maps [B, H, W]; a ShapeError for other arrays.

    M is `num_objects`. Label `m + 1` goes to row `m`; a label without a pixel has a zero row, labels above M have none.
    """
    batch = check_shape(labels, "B H W", "labels")["B"]
    if labels.dtype.kind not in "iu":
        raise ShapeError(f"labels must be whole numbers, but are {labels.dtype}. Convert them with labels.astype(int).")
    boxes = np.zeros((batch, num_objects, 4), np.float32)
    for label_map, rows in zip(labels, boxes, strict=True):
        for row, found in zip(rows, find_objects(label_map, num_objects), strict=False):
            if found is not None:
                row[:] = found[1].start, found[0].start, found[1].stop, found[0].stop
    return boxes
