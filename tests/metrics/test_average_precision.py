from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_iou

from unscene.errors import ShapeError, TrainingError
from unscene.metrics.average_precision import AveragePrecision, box_average_precision, mask_average_precision
from unscene.scene import Decomposition, Scene, Segmentation


def batch(truth: Tensor, boxes: Tensor, scores: Tensor, valid: Tensor | None = None) -> tuple[Scene, Decomposition]:
    """Truth [B, M, 4], boxes [B, N, 4], scores [B, N]; all valid unless said."""
    size = len(truth)
    valid = torch.ones_like(scores, dtype=torch.bool) if valid is None else valid
    scene = Scene(torch.zeros(size, 3, 1, 1), boxes=truth)
    masks, components = torch.zeros(size, 1, 1, 1, 1), torch.zeros(size, 1, 3, 1, 1)
    return scene, Decomposition(masks, components, boxes=boxes, box_scores=scores, box_valid=valid)


def one_image(truth: list, boxes: list, scores: list, valid: list | None = None) -> AveragePrecision:
    metric = box_average_precision()
    arrays = torch.tensor([truth]).float().view(1, -1, 4), torch.tensor([boxes]).float().view(1, -1, 4)
    metric.update(*batch(*arrays, torch.tensor([scores]).float(), None if valid is None else torch.tensor([valid])))
    return metric


def random_batch(seed: int, images: int = 4, objects: int = 4, slots: int = 5) -> tuple[Tensor, ...]:
    """Boxes near the true ones, some truth rows hidden (zeros), some found boxes invalid."""
    rng = torch.Generator().manual_seed(seed)
    start = torch.rand(images, objects, 2, generator=rng) * 30
    truth = torch.cat([start, start + 2 + torch.rand(images, objects, 2, generator=rng) * 20], dim=-1)
    shown = torch.rand(images, objects, 1, generator=rng) < 0.8
    near = truth[:, torch.randint(0, objects, (slots,), generator=rng)]
    boxes = near + torch.randn(images, slots, 4, generator=rng)
    boxes[..., 2:] = boxes[..., 2:].maximum(boxes[..., :2] + 0.5)
    valid = torch.rand(images, slots, generator=rng) < 0.7
    return truth * shown, boxes, torch.rand(images, slots, generator=rng), valid


def pycocotools_directly(truth: Tensor, boxes: Tensor, scores: Tensor, valid: Tensor, folder) -> list[float]:
    """The four numbers as COCO's own example makes them: a truth file, loadRes and summarize."""
    annotations, results = [], []
    for image in range(len(truth)):
        for x1, y1, x2, y2 in truth[image].double().tolist():
            if x2 > x1 and y2 > y1:
                box = {"image_id": 10 + image, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                annotations.append(box | {"id": len(annotations) + 1, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
        for (x1, y1, x2, y2), score, keep in zip(
            boxes[image].double().tolist(), scores[image], valid[image], strict=True
        ):
            if keep:
                box = {"image_id": 10 + image, "category_id": 3, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                results.append(box | {"score": float(score)})
    (folder / "truth.json").write_text(
        json.dumps(
            {
                "images": [{"id": 10 + image} for image in range(len(truth))],
                "categories": [{"id": 3, "name": "thing"}],
                "annotations": annotations,
            }
        )
    )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(evaluation.stats[row]) for row in (0, 1, 2, 8)]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_agrees_with_pycocotools_used_directly(tmp_path_factory, seed):
    arrays = random_batch(seed)
    metric = box_average_precision()
    for image in range(4):
        metric.update(*batch(*(array[image : image + 1] for array in arrays)))
    expected = pycocotools_directly(*arrays, tmp_path_factory.mktemp("coco"))
    assert list(metric.compute().values()) == pytest.approx(expected, abs=1e-12)


def test_perfect_boxes():
    metric = one_image([[0, 0, 4, 4], [5, 5, 9, 7]], [[5, 5, 9, 7], [0, 0, 4, 4]], [0.9, 0.8])
    assert metric.compute() == pytest.approx({"map_50_95": 1, "map_50": 1, "map_75": 1, "ar_100": 1})
    assert metric.per_image() == [1]


def test_shifted_box():
    """8 wide, moved by 2: 6 / 10 = .6. Moved by 1: 7 / 9 = .78, good enough for .50, .55 .. .75, six of ten."""
    shifted = one_image([[0, 0, 8, 5]], [[2, 0, 10, 5]], [0.9])
    assert shifted.per_image() == pytest.approx([0.6])
    assert shifted.compute()["map_50"] == pytest.approx(1)
    assert shifted.compute()["map_75"] == 0
    nearer = one_image([[0, 0, 8, 5]], [[1, 0, 9, 5]], [0.9]).compute()
    assert nearer == pytest.approx({"map_50_95": 0.6, "map_50": 1, "map_75": 1, "ar_100": 0.6})


def test_one_of_two_objects_found():
    """Precision 1 up to recall .5: 51 of the 101 levels."""
    result = one_image([[0, 0, 4, 4], [5, 5, 9, 9]], [[0, 0, 4, 4]], [0.9]).compute()
    assert result == pytest.approx({"map_50_95": 51 / 101, "map_50": 51 / 101, "map_75": 51 / 101, "ar_100": 0.5})


def test_wrong_box_costs_more_at_a_higher_score():
    truth, boxes = [[0, 0, 4, 4]], [[0, 0, 4, 4], [5, 5, 9, 9]]
    assert one_image(truth, boxes, [0.9, 0.1]).compute()["map_50"] == pytest.approx(1)
    assert one_image(truth, boxes, [0.1, 0.9]).compute()["map_50"] == pytest.approx(0.5)
    assert one_image(truth, boxes, [0.1, 0.9], [True, False]).compute()["map_50"] == pytest.approx(1)


def test_wrong_box_on_an_image_without_objects_costs_too():
    truth = torch.tensor([[[0.0, 0, 4, 4]], [[0, 0, 0, 0]]])
    boxes = torch.tensor([[[0.0, 0, 4, 4]], [[1, 1, 3, 3]]])
    metric = box_average_precision()
    metric.update(*batch(truth, boxes, torch.tensor([[0.2], [0.8]])))
    assert metric.compute()["map_50"] == pytest.approx(0.5)
    assert metric.per_image() == [1, None]


def test_box_of_negative_size_counts_as_wrong():
    """x2 < x1: its width counts as 0, or COCOeval would ignore it for its negative area."""
    metric = one_image([[0, 0, 4, 4]], [[0, 0, 4, 4], [6, 5, 2, 9]], [0.1, 0.9])
    assert metric.compute()["map_50"] == pytest.approx(0.5)


def test_no_box_found_is_0_and_no_true_box_is_none():
    names = ("map_50_95", "map_50", "map_75", "ar_100")
    nothing_found = one_image([[0, 0, 4, 4]], [[0, 0, 4, 4]], [0.9], [False])
    assert nothing_found.compute() == dict.fromkeys(names, 0.0)
    assert nothing_found.per_image() == [0]
    nothing_there = one_image([[0, 0, 0, 0]], [[0, 0, 4, 4]], [0.9])
    assert nothing_there.compute() == dict.fromkeys(names)
    assert nothing_there.per_image() == [None]
    assert one_image([], [], []).compute() == dict.fromkeys(names)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_image_value_is_the_matched_iou_of_torchvision(seed):
    truth, boxes, scores, valid = random_batch(seed, images=1)
    valid[0, 0] = True
    metric = box_average_precision()
    metric.update(*batch(truth, boxes, scores, valid))
    shown = truth[0][truth[0].any(dim=1)]
    if not len(shown):
        assert metric.per_image() == [None]
        return
    iou = box_iou(shown.double(), boxes[0][valid[0]].double()).numpy()
    total = iou[linear_sum_assignment(-iou)].sum()
    assert metric.per_image() == [pytest.approx(total / len(shown))]


def test_nothing_is_printed(capsys):
    one_image([[0, 0, 4, 4]], [[0, 0, 4, 4]], [0.9]).compute()
    assert capsys.readouterr().out == ""


def test_bfloat16_scores():
    scene, decomposition = batch(torch.tensor([[[0.0, 0, 4, 4]]]), torch.tensor([[[0.0, 0, 4, 4]]]), torch.ones(1, 1))
    metric = box_average_precision()
    metric.update(
        scene, Decomposition(**(decomposition.__dict__ | {"box_scores": decomposition.box_scores.bfloat16()}))
    )
    assert metric.compute()["map_50"] == pytest.approx(1)


def test_broken_valid_boxes_are_an_error():
    truth, boxes = [[0, 0, 4, 4]], [[0, 0, 4, 4], [0, 0, np.nan, 4]]
    with pytest.raises(TrainingError, match="Valid boxes of 1 of 1 images are not finite"):
        one_image(truth, boxes, [0.9, 0.8])
    assert one_image(truth, boxes, [0.9, 0.8], [True, False]).compute()["map_50"] == pytest.approx(1)


def test_another_number_of_images_is_an_error():
    arrays = random_batch(0)
    scene, _ = batch(*(array[:1] for array in arrays))
    with pytest.raises(ShapeError, match="1 scenes need as many"):
        box_average_precision().update(scene, batch(*arrays)[1])


def masks_scored(true: list, predicted: list, scores: list | None = None) -> AveragePrecision:
    labels, metric = torch.tensor(true), mask_average_precision()
    scene = Scene(torch.zeros(len(labels), 3, *labels.shape[1:]), labels)
    metric.update(scene, Segmentation(torch.tensor(predicted), None if scores is None else torch.tensor(scores)))
    return metric


def test_masks_by_hand():
    """IoU of 1 and 3/4: the latter is right at .50 to .75. Recall .5 is 51 of the 101 levels."""
    result = masks_scored([[[1, 1, 0, 2, 2, 2, 2]]], [[[1, 1, 0, 2, 2, 2, 0]]], [[0.9, 0.8]]).compute()
    mean = (6 + 4 * 51 / 101) / 10
    expected = {"mask_map_50_95": mean, "mask_map_50": 1, "mask_map_75": 1, "mask_ar_100": 0.8}
    assert result == pytest.approx(expected)


def test_a_wrong_mask_costs_more_at_a_higher_score():
    true, predicted = [[[1, 1, 0, 0]]], [[[1, 1, 0, 2]]]
    assert masks_scored(true, predicted, [[0.9, 0.1]]).compute()["mask_map_50"] == pytest.approx(1)
    assert masks_scored(true, predicted, [[0.1, 0.9]]).compute()["mask_map_50"] == pytest.approx(0.5)
    assert masks_scored(true, predicted).compute()["mask_map_50"] == pytest.approx(1)  # equal scores: the earlier label


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_masks_agree_with_pycocotools_used_directly(seed):
    """COCO's own way: run lengths, loadRes, summarize."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 4, (3, 4, 4)).repeat(3, axis=1).repeat(3, axis=2)
    predicted = np.where(rng.random(true.shape) < 0.8, true, rng.integers(0, 5, true.shape))
    scores = rng.random((3, 4)).round(3)
    truth, results = [], []
    for image, label in np.ndindex(3, 4):
        for labels, rows in ((true, truth), (predicted, results)):
            mask = labels[image] == label + 1
            if mask.any():
                runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
                row = {"image_id": image, "category_id": 1, "segmentation": runs, "score": scores[image, label]}
                rows.append(row | {"id": len(rows) + 1, "area": int(mask.sum()), "iscrowd": 0})
    coco = COCO()
    categories = [{"id": 1, "name": "object"}]
    coco.dataset = {
        "images": [{"id": n, "height": 12, "width": 12} for n in range(3)],
        "categories": categories,
        "annotations": truth,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    padded = scores[:, : predicted.max()].tolist()
    result = masks_scored(true.tolist(), predicted.tolist(), padded).compute()
    assert list(result.values()) == pytest.approx([evaluation.stats[row] for row in (0, 1, 2, 8)], abs=1e-12)


def test_boxes_of_a_segmentation_are_those_around_its_labels():
    labels = torch.tensor([[[0, 1, 1], [3, 1, 0]]])
    metric = box_average_precision()
    metric.update(
        Scene(torch.zeros(1, 3, 2, 3), boxes=torch.tensor([[[1.0, 0, 3, 2], [0, 1, 1, 2]]])), Segmentation(labels)
    )
    assert metric.compute()["map_50_95"] == pytest.approx(1)


def test_the_score_of_a_slot_without_a_valid_box_is_0():
    masks = torch.tensor([[[[[0.0, -9]]], [[[-9, 0.0]]]]])
    decomposition = Decomposition(
        masks.log_softmax(1),
        torch.zeros(1, 2, 3, 1, 2),
        boxes=torch.ones(1, 2, 4),
        box_scores=torch.tensor([[0.4, 0.9]]),
        box_valid=torch.tensor([[True, False]]),
    )
    metric = mask_average_precision()
    metric.update(Scene(torch.zeros(1, 3, 1, 2), torch.tensor([[[1, 0]]])), decomposition)
    assert metric.images[0].scores.tolist() == pytest.approx([0.4, 0])
    assert metric.compute()["mask_map_50"] == pytest.approx(1)  # the wrong mask of slot 1 comes last
