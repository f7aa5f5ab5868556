"""coco_export: what pycocotools loads is what was put in."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from unscene.errors import ShapeError
from unscene.inference.coco_json import coco_json, coco_object


def loaded(dataset, tmp_path):
    path = tmp_path / "objects.json"
    path.write_text(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.fixture
def dataset():
    first, second = np.zeros((4, 6), bool), np.zeros((5, 3), bool)
    first[1:3, 2:6], second[4, 0] = True, True
    objects = [
        coco_object(0, 2, first, (2, 1, 6, 3), 0.75, [1.0, -0.123456]),
        coco_object(2, 1, second, (0, 4, 1, 5), 0.5),
    ]
    return coco_json([("a/1.jpg", 4, 6), ("empty.png", 9, 9), ("b.png", 5, 3)], objects, {"fit": "pad"})


def test_ids_boxes_and_areas_by_hand(dataset):
    assert [image["id"] for image in dataset["images"]] == [1, 2, 3]
    assert dataset["images"][0] == {"id": 1, "file_name": "a/1.jpg", "height": 4, "width": 6}
    one, two = dataset["annotations"]
    assert (one["id"], one["image_id"], one["category_id"], one["slot"]) == (1, 1, 1, 2)
    assert one["bbox"] == [2, 1, 4, 2]
    assert (one["area"], one["iscrowd"], one["score"]) == (8, 0, 0.75)
    assert one["latent"] == [1.0, -0.12346]
    assert (two["id"], two["image_id"], two["area"]) == (2, 3, 1)
    assert "latent" not in two
    assert dataset["info"]["fit"] == "pad"


def test_pycocotools_loads_the_masks(dataset, tmp_path):
    coco = loaded(dataset, tmp_path)
    assert coco.getCatIds(catNms=["object"]) == [1]
    assert coco.getAnnIds(imgIds=[2]) == []
    mask = coco.annToMask(coco.loadAnns([1])[0])
    assert mask.tolist() == [[0] * 6, [0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0] * 6]


def test_the_annotations_are_a_detectors_results_too(dataset, tmp_path):
    coco = loaded(dataset, tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco, coco.loadRes(dataset["annotations"]), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@given(mask=arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7))))
def test_any_mask_comes_back(mask):
    height, width = mask.shape
    dataset = coco_json([("x.png", height, width)], [coco_object(0, 1, mask, (0, 0, width, height), 1.0)])
    coco = COCO()
    coco.dataset = json.loads(json.dumps(dataset))
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    assert (coco.annToMask(coco.loadAnns([1])[0]) == mask).all()
    assert dataset["annotations"][0]["area"] == mask.sum()


def test_no_object_at_all_is_a_valid_file(tmp_path):
    coco = loaded(coco_json([("x.png", 2, 2)], []), tmp_path)
    assert coco.getImgIds() == [1]
    assert coco.getAnnIds() == []


def test_a_location_is_kept_to_four_places():
    mask = np.ones((2, 2), bool)
    found = coco_object(0, 1, mask, (0, 0, 2, 2), 0.5, location=(0.123456, 1.0))
    (annotation,) = coco_json([("a.png", 2, 2)], [found])["annotations"]
    assert annotation["location"] == [0.1235, 1.0]
    without = coco_object(0, 1, mask, (0, 0, 2, 2), 0.5)
    assert "location" not in coco_json([("a.png", 2, 2)], [without])["annotations"][0]
    with pytest.raises(ShapeError, match="y and x"):
        coco_object(0, 1, mask, (0, 0, 2, 2), 0.5, location=(0.1, 0.2, 0.3))


def test_what_does_not_fit_is_refused():
    mask = np.ones((2, 3), bool)
    with pytest.raises(ShapeError, match="mask must be bool"):
        coco_object(0, 1, mask.astype(np.uint8), (0, 0, 1, 1), 1)
    with pytest.raises(ShapeError, match="x1 y1 x2 y2"):
        coco_object(0, 1, mask, (0, 0, 1), 1)
    found = coco_object(1, 1, mask, (0, 0, 1, 1), 1)
    with pytest.raises(ShapeError, match="none"):
        coco_json([("x.png", 2, 3)], [found])
    with pytest.raises(ShapeError, match=r"\[3, 2\]"):
        coco_json([("x.png", 2, 3), ("y.png", 3, 2)], [found])
