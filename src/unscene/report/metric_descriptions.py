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
        short: heading of its column in a table, two lines; the label, parted at its comma, if empty.
        signed: whether a number above 0 has a plus sign.
    """

    label: str
    explanation: str
    decimals: int = 3
    unit: str = ""
    better: Literal["higher", "lower", ""] = "higher"
    headline: bool = False
    short: tuple[str, str] = ("", "")
    signed: bool = False

    @property
    def heading(self) -> tuple[str, str]:
        """The two lines above its column in a table."""
        first, _, second = self.label.partition(", ")
        return self.short if any(self.short) else (first, second)


DESCRIPTIONS: dict[str, Description] = {
    "ari_fg": Description(
        "ARI, foreground",
        "Adjusted Rand index over the pixels of true objects: 1 when each object is one slot, 0 is chance.",
        headline=True,
        short=("ARI", "fg"),
    ),
    "ari_fg_several": Description(
        "ARI, several objects",
        "The foreground ARI of images of two objects or more: a lone object left to the background has 1.",
        short=("ARI", "several"),
    ),
    "ari_fg_images": Description("ARI, images counted", "Images with at least one object's pixel.", 0, better=""),
    "ari_fg_deepmind_nan": Description(
        "ARI, images others leave out", "Images for which DeepMind's formula gives NaN; ours counts them.", 0, better=""
    ),
    "ari_fg_objects": Description(
        "ARI, objects' slots",
        "The foreground ARI if the background's slot may win no pixel; far above it, masks are soft.",
        short=("ARI", "objects"),
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
        "mAP .50:.95",
        "COCO's average precision of the boxes, mean over ten overlaps from .50 to .95.",
        headline=True,
        short=("mAP", ".50:.95"),
    ),
    "map_50": Description(
        "mAP .50", "Average precision of the boxes that overlap an object by half.", headline=True, short=("mAP", ".50")
    ),
    "map_75": Description(
        "mAP .75", "Average precision of the boxes that overlap an object by three quarters.", short=("mAP", ".75")
    ),
    "ar_100": Description("Recall .50:.95", "Share of the objects that a box finds, mean over the same overlaps."),
    "mask_iou": Description(
        "Mask IoU",
        "Overlap of each object with its best slot, mean by image, then over images.",
        headline=True,
        short=("mask", "IoU"),
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
        "Reconstruction error",
        "Squared error of a pixel's channel, for images in 0..1.",
        5,
        better="lower",
        short=("reconstr.", "error"),
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
        "ARI, change by the shift",
        "Foreground ARI, less that of the same model on the test set as it was trained for.",
        short=("ARI", "change"),
        signed=True,
    ),
    "seeds": Description("Seeds", "Trainings that the mean is over.", 0, better="", short=("", "seeds")),
    "share_decomposing": Description(
        "Trainings that decompose",
        "Share of the trainings whose health did not collapse.",
        2,
        short=("not", "collapsed"),
    ),
    "slots": Description(
        "Slots", "Of the model as it was scored, the background among them.", 0, better="", short=("", "slots")
    ),
    "parameters": Description("Parameters", "Numbers that training sets.", 0, better="", short=("", "parameters")),
    "training_steps": Description(
        "Training, steps",
        "Of the whole training, whichever weights are scored.",
        0,
        better="",
        short=("training", "steps"),
    ),
    "training_minutes": Description(
        "Training, minutes", "Wall-clock of the whole training.", 1, better="", short=("training", "minutes")
    ),
    "training_images_per_second": Description(
        "Training, images a second",
        "Median over the training's log, validation left out.",
        0,
        short=("training", "images/s"),
    ),
    "images_per_second": Description(
        "Decomposing, images a second",
        "Median over rounds in which all models take their turn on the same images.",
        0,
        short=("decomposing", "images/s"),
    ),
    # of health
    "largest_slot": Description(
        "Largest slot",
        "Share of the foreground that its largest slot holds; near 1, all objects are in one slot.",
        better="",
    ),
    "slots_used": Description(
        "Slots used", "Slots of the foreground that hold more than half a percent of the image.", better=""
    ),
    "foreground": Description("Foreground", "Share of the image that the foreground's slots hold.", better=""),
    "foreground_won": Description(
        "Foreground won",
        "Share of the pixels in which an object's slot is the largest; near 0, no object is found.",
        better="",
    ),
    "background": Description(
        "Background", "Share of the image that the background's slot holds; near 1, no object is found.", better=""
    ),
    "decided": Description(
        "Decided",
        "Share of a pixel that its largest slot holds, mean over the pixels; near 1, masks are sharp.",
        better="",
    ),
    "boxes": Description("Boxes", "Valid boxes an image.", better=""),
}


def description_of(name: str) -> Description:
    """The description of a metric; one that is not described here goes by its own name."""
    return DESCRIPTIONS.get(name, Description(name.replace("_", " "), "", better=""))


def shown(name: str, value: float | int | None) -> str:
    """A value as it stands on the page; None is not applicable."""
    if value is None:
        return "not applicable"
    described = description_of(name)
    sign = "+" if described.signed else ""
    return f"{value:{sign},.{described.decimals}f}{' ' * bool(described.unit)}{described.unit}"
