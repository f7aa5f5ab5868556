"""What each number means, in one line, and how it is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Description:
    """How a number is shown.

    Attributes:
        label: its name in tables.
        explanation: one line.
        decimals: digits after the point.
        unit: behind the number.
        better: which way is better; empty for a mere count.
        headline: whether it stands at the top of the page.
    """

    label: str
    explanation: str
    decimals: int = 3
    unit: str = ""
    better: Literal["higher", "lower", ""] = "higher"
    headline: bool = False


DESCRIPTIONS: dict[str, Description] = {
    "ari_fg": Description(
        "ARI, foreground",
        "Adjusted Rand index over the pixels of true objects: 1 when each object is one slot, 0 is chance.",
        headline=True,
    ),
    "ari_fg_images": Description("ARI, images counted", "Images with at least one object's pixel.", 0, better=""),
    "ari_fg_deepmind_nan": Description(
        "ARI, images others leave out", "Images for which DeepMind's formula gives NaN; ours counts them.", 0, better=""
    ),
    "ari_fg_objects": Description(
        "ARI, objects' slots",
        "The foreground ARI if the background's slot may win no pixel; far above it, masks are soft.",
    ),
    "ari": Description("ARI, all pixels", "Adjusted Rand index over the whole image, the background being one object."),
    "ami_fg": Description(
        "AMI, foreground",
        "Adjusted mutual information over the pixels of true objects, by the larger entropy, as in NEM; 0 is chance.",
    ),
    "ami_fg_arithmetic": Description(
        "AMI, mean entropy", "The same, by the mean of the two entropies, scikit-learn's default since 0.22."
    ),
    "map_50_95": Description(
        "mAP .50:.95", "COCO's average precision of the boxes, mean over ten overlaps from .50 to .95.", headline=True
    ),
    "map_50": Description("mAP .50", "Average precision of the boxes that overlap an object by half.", headline=True),
    "map_75": Description("mAP .75", "Average precision of the boxes that overlap an object by three quarters."),
    "ar_100": Description("Recall .50:.95", "Share of the objects that a box finds, mean over the same overlaps."),
    "mask_iou": Description(
        "Mask IoU", "Overlap of each object with its best slot, mean by image, then over images.", headline=True
    ),
    "mask_iou_objects": Description("Mask IoU, by object", "The same overlap, mean over all objects at once."),
    "iou_polarity": Description(
        "IoU of the foreground, either way",
        "Overlap of all objects together with the model's foreground or with its background, the larger (ReDO).",
    ),
    "iou_foreground": Description(
        "IoU of the foreground", "Overlap of all objects together with the foreground that the model states."
    ),
    "located": Description(
        "Objects located",
        "Share of the objects with a location within 5 % of the frame from the middle of their box, one slot each.",
    ),
    "location_error": Description(
        "Location error", "Mean distance of the located ones, in shares of the frame.", 4, better="lower"
    ),
    "reconstruction_mse": Description(
        "Reconstruction error", "Squared error of a pixel's channel, for images in 0..1.", 5, better="lower"
    ),
    "reconstruction_psnr": Description("Reconstruction PSNR", "The same error in decibels.", 1, "dB"),
    "ms_per_image": Description(
        "Time an image",
        "Median over batches, model alone, at the batch size and on the hardware below.",
        2,
        "ms",
        better="lower",
        headline=True,
    ),
    "ari_fg_change": Description(
        "ARI, change by the shift", "Foreground ARI, less that of the same model on the test set as it was trained for."
    ),
    "slots": Description("Slots", "Of the model as it was scored, the background among them.", 0, better=""),
    "parameters": Description("Parameters", "Numbers that training sets.", 0, better=""),
    "training_steps": Description(
        "Training, steps", "Of the whole training, whichever weights are scored.", 0, better=""
    ),
    "training_minutes": Description("Training, minutes", "Wall-clock of the whole training.", 1, better=""),
    "training_images_per_second": Description(
        "Training, images a second", "Median over the training's log, validation left out.", 0
    ),
    "images_per_second": Description(
        "Decomposing, images a second", "Median over rounds in which all models take their turn on the same images.", 0
    ),
}


HEALTH: dict[str, str] = {
    "largest_slot": "Share of the foreground that its largest slot holds; near 1, all objects are in one slot.",
    "slots_used": "Slots of the foreground that hold more than half a percent of the image.",
    "foreground": "Share of the image that the foreground's slots hold.",
    "foreground_won": "Share of the pixels in which an object's slot is the largest; near 0, no object is found.",
    "background": "Share of the image that the background's slot holds; near 1, no object is found.",
    "decided": "Share of a pixel that its largest slot holds, mean over the pixels; near 1, masks are sharp.",
    "boxes": "Valid boxes an image.",
}

NOT_APPLICABLE = "not applicable"


def description_of(name: str) -> Description:
    """The description of a metric; one that is not described here goes by its own name."""
    return DESCRIPTIONS.get(name, Description(name.replace("_", " "), "", better=""))


def shown(name: str, value: float | int | None) -> str:
    """A value as it stands on the page; None is not applicable."""
    if value is None:
        return NOT_APPLICABLE
    described = description_of(name)
    return f"{value:,.{described.decimals}f}{' ' * bool(described.unit)}{described.unit}"
