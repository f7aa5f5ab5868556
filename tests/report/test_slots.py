"""slots: what the sample figure of a decomposition shows."""

from __future__ import annotations

import numpy as np
import torch

from unscene.report.slots import sample_figure
from unscene.scene import Decomposition


def decomposition(boxes: bool) -> tuple[torch.Tensor, Decomposition]:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.full((2, 3, 1, 8, 8), 0.25)
    masks[:, 0] = 0.5
    result = Decomposition(
        log_masks=masks.log(),
        components=torch.stack([torch.full((2, 3, 8, 8), value) for value in (1.0, 0.5, 0.0)], dim=1),
        background=-1,
        boxes=torch.tensor([[[1.0, 2, 5, 6], [0, 0, 0, 0]], [[0, 0, 8, 8], [2, 2, 4, 4]]]) if boxes else None,
        box_scores=torch.ones(2, 2) if boxes else None,
        box_valid=torch.tensor([[True, False], [True, True]]) if boxes else None,
    )
    return images, result


def test_rows_are_input_reconstruction_masks_and_slots():
    images, result = decomposition(boxes=False)
    axes = sample_figure(images, result, "step 3").axes[0]
    picture = np.asarray(axes.get_images()[0].get_array())
    assert picture.shape == (8 * 8, 2 * 8, 3)  # 2 + 2 a slot rows of 8 pixels, 2 columns
    assert np.allclose(picture[:8, 8:], images[1].permute(1, 2, 0))
    assert np.allclose(picture[8:16], 0.5 * 1 + 0.25 * 0.5)  # .5 of white, .25 of grey, .25 of black
    assert np.allclose(picture[16:24], 0.5)  # mask of slot 0
    assert np.allclose(picture[40:48], 0.125)  # slot 1: a quarter of grey
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["input", "reconstruction", "mask 0", "slot 0", "mask 1", "slot 1", "mask 2", "slot 2"]


def test_valid_boxes_are_on_their_image():
    images, result = decomposition(boxes=True)
    patches = [patch.get_bbox().extents.tolist() for patch in sample_figure(images, result).axes[0].patches]
    assert patches == [[0.5, 1.5, 4.5, 5.5], [7.5, -0.5, 15.5, 7.5], [9.5, 1.5, 11.5, 3.5]]


def test_model_without_boxes_has_none_in_the_figure():
    images, result = decomposition(boxes=False)
    assert not sample_figure(images, result).axes[0].patches


def test_title_is_shown():
    images, result = decomposition(boxes=False)
    assert sample_figure(images, result, "step 3   decomposing").get_suptitle() == "step 3   decomposing"
