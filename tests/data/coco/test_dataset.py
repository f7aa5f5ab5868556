"""coco: a miniature in COCO's layout; label maps and boxes by hand, masks against pycocotools' own."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from unscene.data.batches import BatchDataset
from unscene.data.coco.dataset import Coco, CocoSettings, label_map
from unscene.data.coco.instances import ImageInstances, _decompressed, pack_instances, read_coco
from unscene.errors import DataError, RecipeError

FILE = "annotations/instances_val2017.json"


def source(root: Path, **changes) -> Coco:
    return Coco(CocoSettings(**{"folder": str(root), "images": "val2017", "annotations": FILE, "size": 20} | changes))


def rewritten(root: Path, change: Callable[[dict], object]) -> Path:
    """The annotation file after a change of its content."""
    path = root / FILE
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def directly(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def painted(size: int, *rectangles: tuple[int, int, int, int, int]) -> np.ndarray:
    """A label map of (label, x1, y1, x2, y2), each over the former."""
    labels = np.zeros((size, size), np.uint8)
    for label, x1, y1, x2, y2 in rectangles:
        labels[y1:y2, x1:x2] = label
    return labels


def test_images_are_in_the_order_of_their_ids(coco_root):
    images = source(coco_root)
    assert [Path(path).name for path in images.paths] == [f"{number:012}.jpg" for number in (7, 9, 12, 30)]
    batch = images.batch([3, 0, 3])
    assert (batch["image"].shape, batch["image"].dtype) == ((3, 20, 20, 3), np.uint8)
    assert batch["image"][:, 10, 10, 0].tolist() == pytest.approx([240, 56, 240], abs=4)
    assert [len(images.batch([])[name]) for name in ("image", "labels", "boxes", "category")] == [0] * 4


def test_labels_boxes_and_categories_by_hand(coco_root):
    """The middle 40 x 40 of 60 x 40 at half size: column x becomes (x - 10) / 2, row y becomes y / 2."""
    batch = source(coco_root, overlaps="smaller_in_front").batch([0])
    assert_array_equal(batch["labels"][0], painted(20, (1, 5, 5, 15, 15), (2, 10, 10, 14, 14)))
    assert batch["boxes"].tolist() == [[[5, 5, 15, 15], [10, 10, 14, 14], [0, 0, 0, 0]]]  # the third is cropped away
    assert (batch["boxes"].dtype, batch["category"].tolist()) == (np.float32, [[18, 3, 90]])  # a crowd is no instance


def test_pixels_of_several_instances_are_left_out_of_the_label_map_alone(coco_root):
    images = source(coco_root)
    assert images.settings.overlaps == "left_out"
    batch = images.batch([0])
    assert_array_equal(batch["labels"][0], painted(20, (1, 5, 5, 15, 15), (0, 10, 10, 14, 14)))
    assert batch["boxes"][0, :2].tolist() == [[5, 5, 15, 15], [10, 10, 14, 14]]


def test_a_padded_image_has_all_of_its_instances(coco_root):
    """60 x 40 at half size, five rows of margin above and below."""
    batch = source(coco_root, size=30, fit="pad", overlaps="smaller_in_front").batch([0, 1])
    first = ((1, 10, 10, 20, 20), (2, 15, 15, 19, 19), (3, 0, 5, 2, 7), (3, 25, 20, 28, 23))
    assert_array_equal(batch["labels"][0], painted(30, *first))
    assert batch["boxes"][0, 2].tolist() == [0, 5, 28, 23]  # one instance in two pieces
    assert_array_equal(batch["labels"][1], painted(30, (1, 5, 0, 25, 10)))
    assert batch["boxes"][1].tolist() == [[5, 0, 25, 10], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_run_lengths_are_instances_and_crowds_are_background(coco_root):
    batch = source(coco_root, fit="stretch", size=60).batch([3])  # columns 30 to 39 of 60; a crowd at 0 to 11
    assert_array_equal(batch["labels"][0], painted(60, (1, 30, 0, 40, 60)))
    assert batch["category"].tolist() == [[2, 0, 0]]


def test_an_image_without_instances_stays(coco_root):
    batch = source(coco_root).batch([2])
    assert not batch["labels"].any()
    assert not batch["boxes"].any()
    assert source(coco_root, first=2, count=1).batch([0])["boxes"].shape == (1, 0, 4)


def test_a_training_reads_no_label(coco_root):
    rewritten(coco_root, lambda content: content.pop("annotations"))  # as the lists of COCO's test images are
    images = source(coco_root, labels=False)
    assert images.instances is None
    assert set(images.batch([1])) == {"image"}


@pytest.mark.parametrize("change", [lambda content: content.pop("annotations"), lambda c: c.update(annotations=[])])
def test_labels_of_a_file_without_any_are_refused(coco_root, change):
    rewritten(coco_root, change)
    with pytest.raises(DataError, match=r"instances_val2017.json lists images but not one annot.*--data.labels false"):
        source(coco_root)


@pytest.mark.parametrize(
    ("first", "count", "ids"), [(1, 2, [9, 12]), (-1, 0, [30]), (0, -1, [7, 9, 12]), (0, 0, [7, 9, 12, 30])]
)
def test_a_stretch_of_the_images(coco_root, first, count, ids):
    images = source(coco_root, first=first, count=count)
    assert [int(Path(path).stem) for path in images.paths] == ids
    assert len(images) == len(ids)


def test_masks_are_pycocotools_own(coco_root):
    random = np.random.default_rng(0)

    def more(content):
        for number in range(12):
            pieces = [(random.random((random.integers(3, 9), 2)) * [60, 40]).ravel().tolist() for _ in range(2)]
            content["annotations"].append(
                {"id": 900 + number, "image_id": 12, "category_id": 5, "segmentation": pieces}
            )
        runs = coco_mask.encode(np.asfortranarray(random.random((40, 60)) < 0.4, np.uint8))
        runs["counts"] = runs["counts"].decode()
        content["annotations"].append({"id": 990, "image_id": 12, "category_id": 5, "segmentation": runs})

    coco = directly(rewritten(coco_root, more))
    instances = pack_instances(*read_coco(coco_root / FILE), coco_root / FILE, skip_damaged=False)
    assert instances.most == 13
    for found, image in zip(instances, (7, 9, 12, 30), strict=True):
        masks = [coco_mask.decode({"size": [found.height, found.width], "counts": runs}) for runs in found.runs]
        theirs = [coco.annToMask(item) for item in coco.imgToAnns[image] if not item.get("iscrowd")]
        assert len(theirs) == {7: 3, 9: 1, 12: 13, 30: 1}[image]
        assert_array_equal(masks, theirs)


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=60))
def test_run_lengths_are_decompressed_as_pycocotools_compressed_them(rows):
    mask = np.array(rows, np.uint8)
    turns = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F")]))).tolist()
    lengths = np.diff([0, *turns, mask.size]).tolist()
    assert _decompressed(coco_mask.encode(np.asfortranarray(mask))["counts"].decode()) == lengths


def test_of_equally_large_instances_the_later_is_in_front():
    masks = np.zeros((1, 4, 3), np.uint8)
    masks[0, :2, 0] = masks[0, 1:3, 1] = masks[0, :, 2] = 1
    runs = tuple(item["counts"] for item in coco_mask.encode(np.asfortranarray(masks)))
    labels, covered = label_map(ImageInstances(1, 4, runs, (1, 1, 1)))
    assert labels.tolist() == [[1, 2, 2, 3]]
    assert covered.tolist() == [[2, 3, 2, 1]]
    nothing, no_labels = label_map(ImageInstances(1, 4, (), ()))
    assert not nothing.any()
    assert not no_labels.any()


def test_workers_and_a_pickled_copy_read_the_same(coco_root):
    images = source(coco_root)
    copy = pickle.loads(pickle.dumps(images))
    loader = DataLoader(BatchDataset(images), sampler=[[0, 1], [3, 2]], batch_size=None, num_workers=1)
    for indices, batch in zip([[0, 1], [3, 2]], loader, strict=True):
        expected = copy.batch(indices)
        assert_array_equal(batch["labels"].numpy(), expected["labels"])
        assert_array_equal(batch["boxes"].numpy(), expected["boxes"])


def test_whole_numbers_may_be_written_as_floats(coco_root):
    expected = source(coco_root).batch(range(4))

    def floats(content):
        for image in content["images"]:
            image.update(height=float(image["height"]), width=float(image["width"]))
        for annotation in content["annotations"]:
            annotation.update(category_id=float(annotation["category_id"]), iscrowd=float(annotation["iscrowd"]))

    rewritten(coco_root, floats)
    for name, values in source(coco_root).batch(range(4)).items():
        assert_array_equal(values, expected[name])


@pytest.mark.parametrize("piece", [[20, 10, 20, 15], [20, 10], []])
def test_a_piece_without_area_beside_a_polygon_is_dropped(coco_root, piece):
    expected = source(coco_root).batch([0])
    rewritten(coco_root, lambda content: content["annotations"][0]["segmentation"].insert(0, piece))
    for name, values in source(coco_root).batch([0]).items():
        assert_array_equal(values, expected[name])


# What is wrong


@pytest.mark.parametrize(("change", "shown"), [(str, "'7'"), (lambda number: number + 900, "907")])
def test_annotations_of_no_listed_image_are_refused(coco_root, change, shown):
    def other(content):
        for annotation in content["annotations"]:
            annotation["image_id"] = change(annotation["image_id"])

    rewritten(coco_root, other)
    with pytest.raises(DataError, match=rf"7 annotations are of images that it does not list, for instance {shown}\."):
        source(coco_root)


def test_some_annotations_of_no_listed_image_are_counted(coco_root, caplog):
    rewritten(coco_root, lambda content: content["annotations"][0].update(image_id=999))
    assert source(coco_root).batch([0])["category"].tolist() == [[3, 90]]
    assert "1 annotations are of images that it does not list, for instance 999. They are left out." in caplog.text


def test_coordinates_as_shares_of_the_image_are_refused_and_empty_masks_counted(coco_root, caplog):
    def shares(content):
        for annotation in content["annotations"]:
            annotation["segmentation"] = [[0.1, 0.1, 0.6, 0.1, 0.6, 0.7]]

    path = coco_root / FILE
    before = path.read_text()
    rewritten(coco_root, lambda content: content["annotations"][0].update(segmentation=[[100, 50, 110, 50, 110, 60]]))
    source(coco_root)
    assert "1 of 5 instances of" in caplog.text
    path.write_text(before)
    rewritten(coco_root, shares)
    with pytest.raises(DataError, match=r"no instance covers more than one pixel.*shares of the image"):
        source(coco_root)


@pytest.mark.parametrize("name", ["../train2017/{}", "{root}/train2017/{}", "a/../../train2017/{}"])
def test_names_outside_of_the_folder_need_permission(coco_root, name):
    name = name.format("000000000001.jpg", root=coco_root)
    rewritten(coco_root, lambda content: content["images"][0].update(file_name=name, width=60, height=40))
    with pytest.raises(DataError, match=r"names files outside of .*val2017, .*--data\.outside true"):
        source(coco_root)
    assert source(coco_root, labels=False, outside=True).paths[3].endswith("train2017/000000000001.jpg")
    images = source(coco_root, outside=True)
    assert images.batch([3])["image"].shape == (1, 20, 20, 3)


@pytest.mark.parametrize("name", ["{root}/val2017/000000000030.jpg", "a/../000000000030.jpg", "..30.jpg"])
def test_names_that_stay_in_the_folder_need_none(coco_root, name):
    (coco_root / "val2017" / "..30.jpg").write_bytes((coco_root / "val2017" / "000000000030.jpg").read_bytes())
    rewritten(coco_root, lambda content: content["images"][0].update(file_name=name.format(root=coco_root)))
    assert source(coco_root).batch([3])["image"].shape == (1, 20, 20, 3)


def test_a_name_with_the_folder_in_it_shows_the_path_that_was_tried(coco_root):
    rewritten(coco_root, lambda content: content["images"][0].update(file_name="val2017/000000000030.jpg"))
    with pytest.raises(DataError, match=r"1 of 4 images .* do not exist, .*val2017/val2017/000000000030\.jpg"):
        source(coco_root)


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b.jpg", "\udc80.jpg", "\x1b[31m.jpg"])
def test_a_name_that_no_file_has(coco_root, name):
    rewritten(coco_root, lambda content: content["images"][0].update(file_name=name))
    with pytest.raises(DataError, match="1 of 4 images") as caught:
        source(coco_root)
    assert len(str(caught.value)) < 1000
    str(caught.value).encode()
    assert "\x1b" not in str(caught.value)


def test_annotations_of_the_image_as_it_is_stored(coco_root):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(coco_root / "val2017" / "000000000030.jpg", exif=exif)
    with pytest.raises(DataError, match=r"has 40 x 60 pixels, turned by its EXIF orientation, but .* for 60 x 40"):
        source(coco_root).batch([3])


def test_missing_files_are_named_with_a_hint(coco_root):
    with pytest.raises(DataError, match=r"there is no .*elsewhere/val2017\. Unpack COCO's zips .*--data\.folder"):
        source(coco_root / "elsewhere")
    with pytest.raises(DataError, match=r"there is no .*instances_test\.json"):
        source(coco_root, annotations="annotations/instances_test.json")
    (coco_root / "val2017" / "000000000009.jpg").unlink()
    with pytest.raises(
        DataError, match=r"1 of 4 images .* do not exist, for instance '.*val2017/000000000009\.jpg'\. Unpack"
    ):
        source(coco_root)
    assert len(source(coco_root, first=2)) == 2  # images that are not used may be missing
    with pytest.raises(DataError, match=r"lists 4 images, too few for first 0 and count 5: lower data\.count"):
        source(coco_root, count=5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"is not in COCO's layout"),
        ("{}", r"not in COCO's layout: 'images' is missing or empty\. Give one of COCO's instances_\*\.json"),
        ('{"images": [{"file_name": "a.jpg"}]}', r"layout \(KeyError\('id'\)\)"),
        ('{"images": [{"id": 1}]}', r"image 1 has no 'file_name'"),
        ('{"images": [1]}', r"is not in COCO's layout"),
        ('{"images": [', r"cannot be read as JSON"),
        (b"\xff\xfe", r"cannot be read as JSON"),
        ("[" * 100_000, r"cannot be read as JSON"),
        ('{"images": [{"id": ' + "7" * 5000 + "}]}", r"cannot be read as JSON"),
        ('{"images": [{"id": [1], "file_name": "a"}]}', r"is not in COCO's layout"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}', r"two images have one 'id'"),
    ],
)
def test_a_file_that_is_not_in_cocos_layout(coco_root, content, message):
    (coco_root / FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as caught:
        read_coco(coco_root / FILE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, r"has no 'segmentation': captions"),
        ([], r"has no 'segmentation'"),
        ([[1, 2, 3, 4]], r"has no polygon of three or more points"),
        ([[1, 2, 3, 4, 5, 6, 7]], r"polygon that is not x1, y1"),
        ([[1, 2, 3, 4, 5, "6"]], r"polygon that is not x1, y1"),
        ([[1, 2, 3, 4, 5, float("nan")]], r"polygon that is not x1, y1"),
        ([[1, 2, 3, 4, 5, 1e300]], r"polygon that is not x1, y1.* within its image"),
        ([1, 2, 3, 4, 5, 6], r"polygon that is not x1, y1"),
        ({"size": [60, 40], "counts": [2400]}, r"run lengths of size \[60, 40\], expected its image's \[40, 60\]"),
        ({"size": [40, 60], "counts": [2000, 399]}, r"do not add up to the 2400 pixels"),
        ({"size": [40, 60], "counts": [2500, -100]}, r"do not add up"),
        ({"size": [40, 60], "counts": "`b2"}, r"do not add up"),
        ({"size": [40, 60], "counts": "é"}, r"do not add up"),
        ({"size": [40, 60]}, r"do not add up"),
        ([[0, 0, 60, 40] * 200_000], r"polygon that is not x1, y1"),
    ],
)
def test_a_damaged_instance_is_named_or_left_out(coco_root, caplog, segmentation, message):
    rewritten(coco_root, lambda content: content["annotations"][0].update(segmentation=segmentation))
    with pytest.raises(DataError, match=rf"instances_val2017\.json: annotation 501 .*{message}.*--data\.skip-damaged"):
        source(coco_root)
    batch = source(coco_root, skip_damaged=True).batch([0])
    assert batch["category"].tolist() == [[3, 90]]
    assert batch["labels"].max() == 1
    assert "1 of 5 instances of" in caplog.text
    assert len(source(coco_root, first=1)) == 3  # of images that are not asked for nothing is read


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("images", {"height": 39}, r"000000000030\.jpg has 60 x 40 pixels, but its annotations are for 60 x 39"),
        ("images", {"height": None}, r"image 30 has no 'height' and 'width'"),
        ("images", {"width": 2**70}, r"image 30 has no 'height' and 'width'"),
        ("images", {"width": 2**31 - 1}, r"image 30 has no 'height' and 'width' in pixels, up to 65,536"),
        ("annotations", {"iscrowd": "0"}, r"annotation 50\d has '0' as 'iscrowd', expected 0 or 1"),
        ("annotations", {"category_id": "dog"}, r"annotation 506 has 'dog' as 'category_id'"),
        ("annotations", {"category_id": 2**70}, r"annotation 506 has 1180591620717411303424 as 'category_id'"),
    ],
)
def test_an_image_and_its_annotations_must_agree(coco_root, part, change, message):
    def other(content):
        image_30 = next(item for item in content[part] if item.get("image_id", item["id"]) == 30)
        image_30.update(change)
        if change.get("height"):
            content["annotations"] = content["annotations"][:5]

    rewritten(coco_root, other)
    with pytest.raises(DataError, match=message):
        source(coco_root).batch([3])


def test_a_damaged_image_is_named(coco_root):
    path = coco_root / "val2017" / "000000000009.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"000000000009\.jpg is damaged"):
        source(coco_root, labels=False).batch([1])
    Image.new("RGB", (40, 60)).save(path)
    assert source(coco_root).batch([1])["image"].max() == 0
    with pytest.raises(DataError, match="sample 4 was asked for, but there are 4"):
        source(coco_root).batch([4])


@pytest.mark.parametrize("own_size", [True, False])
def test_more_than_255_instances_have_labels_of_their_own(coco_root, own_size):
    """One pixel each, at the corner of every square of 2 x 2; COCO counts pixels down the columns."""

    def many(content):
        kept = [item for item in content["annotations"] if item["image_id"] != 9]
        height, width = 60, 40
        for number in range(height * width // 4):
            start = 2 * (number % 20) * height + 2 * (number // 20)
            runs = {"size": [height, width], "counts": [start, 1, height * width - start - 1]}
            kept.append({"id": 700 + number, "image_id": 9, "category_id": 1, "iscrowd": 0, "segmentation": runs})
        content["annotations"] = kept

    rewritten(coco_root, many)
    coco = source(coco_root, size=60, fit="pad")
    coco.own_size = own_size
    sample = coco.batch([1])
    left = 0 if own_size else 10
    expected = np.zeros((60, 40 if own_size else 60), int)
    expected[::2, left : left + 40 : 2] = np.arange(1, 601).reshape(30, 20)
    np.testing.assert_array_equal(sample["labels"][0], expected)
    assert sample["boxes"][0, 299].tolist() == [38 + left, 28, 39 + left, 29]
    assert coco.batch([0])["labels"].max() < 255


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": ""}, r"folder is empty\. Give it a value"),
        ({"annotations": ""}, r"is empty"),
        ({"overlaps": "front"}, r"overlaps must be one of left_out, smaller_in_front, not front"),
        ({"size": 0}, r"size must be 1 or more"),
        ({"fit": "padd"}, r"Did you mean 'pad'"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        CocoSettings(**changes)


def test_links_in_the_folder_are_followed_wherever_they_lead(coco_root, tmp_path):
    before = source(coco_root)
    indices = range(len(before))
    expected = before.batch(indices)["image"]
    shared = (coco_root / "val2017").rename(tmp_path / "shared")
    (coco_root / "val2017").symlink_to(shared)
    image = shared / "000000000030.jpg"
    image.rename(tmp_path / "elsewhere.jpg")
    image.symlink_to(tmp_path / "elsewhere.jpg")
    assert (source(coco_root).batch(indices)["image"] == expected).all()
