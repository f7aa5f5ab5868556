"""How many pixels each true object shares with each slot: the table from which ARI and IoU follow."""

from __future__ import annotations

import torch
from torch import Tensor

from unscene.errors import DataError, TrainingError, check_shape
from unscene.scene import Decomposition, Prediction

PIXELS_AT_ONCE = 2**18  # on a CPU: what stays in its cache
_MOST_CELLS = 2**28  # of a table, in int64; larger ones would fill the memory
BROKEN_WEIGHTS = "The model's weights are broken: go back to an earlier checkpoint, or lower the learning rate."


def contingency_table(true_labels: Tensor, predicted_labels: Tensor, num_predicted: int | None = None) -> Tensor:
    """Count, for each image, the pixels of every pair of a true and a predicted label.

    n_ij = |{pixels of true label i and predicted label j}|.

    Both maps are [B, H, W] integers from 0; a pixel whose true label is below 0 is not counted. R and C are the largest
    label plus one, if C is not given. Returns [B, R, C] int64, on the device of `predicted_labels`.

    Raises:
        ShapeError: the two are not label maps of the same size.
        DataError: true labels are fractions, or there are too many labels.
    """
    size = check_shape(true_labels, "B H W", "true_labels")
    check_shape(predicted_labels, f"{size['B']} {size['H']} {size['W']}", "predicted_labels")
    if true_labels.is_floating_point():
        raise DataError(f"true_labels must be integers, but are {true_labels.dtype}. Convert them with .long().")
    lowest, highest = true_labels.aminmax() if true_labels.numel() else (0, 0)
    rows = max(int(highest) + 1, 1)
    columns = num_predicted or (int(predicted_labels.max()) + 1 if predicted_labels.numel() else 1)
    if len(true_labels) * rows * columns > _MOST_CELLS:
        raise DataError(
            f"{rows - 1:,} true and {columns - 1:,} predicted labels are too many to compare. Number the objects of an "
            "image from 1 without gaps, or score parts of the image."
        )
    true = true_labels.to(predicted_labels.device)
    if int(lowest) < 0:
        true = true.long().masked_fill(true < 0, rows)  # a row of their own, which is left out
    images = len(true) if true.device.type != "cpu" else max(1, PIXELS_AT_ONCE // max(1, size["H"] * size["W"]))
    parts = zip(true.split(images), predicted_labels.split(images), strict=True)
    return torch.cat([_counted(*part, rows + (int(lowest) < 0), columns) for part in parts])[:, :rows]


def _counted(true: Tensor, predicted: Tensor, rows: int, columns: int) -> Tensor:
    """[B, rows, columns] the counts of label maps [B, H, W], all in one `bincount`."""
    image = torch.arange(len(true), device=true.device).view(-1, 1, 1)
    cell = torch.add(image * rows * columns, true, alpha=columns).add_(predicted)  # (b R + i) C + j, in int64
    return torch.bincount(cell.flatten(), minlength=len(true) * rows * columns).view(len(true), rows, columns)


def decomposition_table(labels: Tensor, prediction: Prediction) -> Tensor:
    """[B, M+1, K] int64 on the CPU: pixels of every true label of maps [B, H, W] and slot (argmax over all K).

    The columns are those of `labels()`: column 0 is the background, where the model states its slot.

    Raises:
        ShapeError, DataError: see `contingency_table`.
        TrainingError: a mask holds NaN.
    """
    if isinstance(prediction, Decomposition):
        check_masks(prediction)
    return contingency_table(labels, prediction.labels(), num_predicted=prediction.num_slots).cpu()


def check_masks(decomposition: Decomposition) -> None:
    """Raise TrainingError for masks with NaN, which argmax takes for the largest; -inf is right, a share of 0."""
    largest = decomposition.log_masks.amax(dim=(1, 2, 3, 4))  # NaN if any is; ten times faster than isnan().any()
    broken = int(largest.isnan().sum())
    if broken:
        images = f"{broken} of {len(decomposition.log_masks)} images"
        raise TrainingError(f"The masks of {images} hold NaN instead of log shares. {BROKEN_WEIGHTS}")
