"""image_files: which images are meant, and that no two results share a name."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unscene.errors import DataError
from unscene.inference.found_objects import FoundObjects
from unscene.inference.image_files import (
    COLUMNS,
    NamedImage,
    named_images,
    result_stems,
    svg_path,
    table_rows,
    write_image_results,
)


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / name)
        return tmp_path

    return make


def stems(*paths: Path) -> list[str]:
    return [image.stem for image in named_images(paths)[1]]


def test_a_folder_is_mirrored(folder):
    root = folder("b.png", "a/1.png", "a/c/1.png")
    common, images = named_images([root])
    assert common == root
    assert [image.stem for image in images] == ["a/1", "a/c/1", "b"]
    assert [image.file_name for image in images] == ["a/1.png", "a/c/1.png", "b.png"]


def test_equal_names_in_two_folders_keep_their_folders(folder):
    root = folder("a/1.png", "b/1.png")
    assert stems(root / "a", root / "b") == ["a/1", "b/1"]
    assert stems(root / "a" / "1.png", root / "b" / "1.png") == ["a/1", "b/1"]
    assert stems(root / "b" / "1.png") == ["1"]


def test_equal_stems_keep_their_suffixes(folder):
    root = folder("1.png", "1.jpg", "2.png")
    assert sorted(stems(root)) == ["1.jpg", "1.png", "2"]


def test_name_with_suffix_that_is_the_stem_of_another_image_stays_unique(folder):
    root = folder("cat.jpg", "cat.png", "cat.jpg.png", "dog.png")
    assert sorted(stems(root)) == ["cat.jpg", "cat.jpg.png", "cat.png", "dog"]


@given(st.lists(st.text("aA.p", min_size=1, max_size=6).filter(lambda name: name.strip("."))))
def test_no_two_images_share_the_name_of_a_result(names):
    unique = result_stems([PurePosixPath(name) for name in names])
    assert len({stem.casefold() for stem in unique}) == len(names)


def test_all_frames_are_images_of_their_own(folder):
    root = folder("stack.frame2.png", "one.png")
    pages = [Image.new("L", (2, 2), grey) for grey in (10, 200)]
    pages[0].save(root / "stack.tif", save_all=True, append_images=pages[1:])
    assert stems(root) == ["one", "stack.frame2", "stack"]
    _, images = named_images([root], frames="all")
    assert [(image.title, image.stem, image.frame) for image in images] == [
        ("one.png", "one", None),
        ("stack.frame2.png", "stack.frame2.png", None),
        ("stack.tif, frame 1", "stack.frame1", 0),
        ("stack.tif, frame 2", "stack.frame2.tif", 1),
    ]
    assert named_images([root / "stack.tif"], frames="all")[1] == [
        (root / "stack.tif", "stack.tif", "stack.frame1", 0),
        (root / "stack.tif", "stack.tif", "stack.frame2", 1),
    ]


def test_names_that_differ_in_case_alone_keep_their_suffixes(folder):
    root = folder("A.png", "a.jpg")
    assert sorted(stems(root)) == ["A.png", "a.jpg"]


def test_an_image_named_twice_is_one(folder):
    root = folder("a/1.png", "2.png")
    assert stems(root / "a" / "1.png", root, root / "a" / ".." / "2.png") == ["a/1", "2"]


def test_earlier_results_are_no_images(folder):
    root = folder("1.png", "1.overlay.png", "1.masks.png", "1.labels.tif")
    assert stems(root) == ["1"]
    (root / "1.png").unlink()
    with pytest.raises(DataError, match="only results"):
        named_images([root])


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no image or folder .*nowhere\.png"):
        named_images([tmp_path / "nowhere.png"])
    with pytest.raises(DataError, match="has no image"):
        named_images([tmp_path])
    with pytest.raises(DataError, match="no image was named"):
        named_images([])


@pytest.mark.skipif(os.name == "nt", reason="names are not bytes there")
def test_a_name_that_is_no_text_is_refused(folder):
    root = folder("1.png")
    try:
        (root / "1.png").rename(root / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("the file system takes no such name")
    with pytest.raises(DataError, match="not UTF-8"):
        named_images([root])


@pytest.mark.parametrize(("count", "depth"), [(300, "I;16"), (2**16 - 1, "I;16"), (2**16, "I")])
def test_label_maps_hold_every_label(tmp_path, count, depth):
    side = 256 if count > 300 else 20
    labels = np.arange(1, side**2 + 1, dtype=np.int32).reshape(side, side)
    labels[labels > count] = 0
    rows, columns = np.divmod(np.arange(count), side)
    boxes = np.stack([columns, rows, columns + 1, rows + 1], axis=1).astype(np.float32)
    found = FoundObjects(
        labels, np.arange(1, count + 1), np.ones(count, np.int64), boxes, np.ones(count, np.float32), None, None, None
    )
    write_image_results(np.zeros((side, side, 3), np.uint8), found, NamedImage(Path("a.png"), "a.png", "a"), tmp_path)
    with Image.open(tmp_path / "a.labels.tif") as image:
        assert image.mode == depth
        assert (np.asarray(image) == labels).all()
    assert (tmp_path / "a.masks.png").is_file() == (depth == "I;16")  # a PNG has 16 bits at most


def test_table_rows_hold_the_columns_by_hand():
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 2:6] = 2
    found = FoundObjects(
        labels, np.array([2]), np.array([8]), np.array([[2, 1, 6, 3]], np.float32), np.array([0.5], np.float32),
        None, None, None, np.array([[1, 2, 3]], np.float32), np.array([0.25], np.float32),
    )  # fmt: skip
    row = table_rows(found, NamedImage(Path("=a.tif"), "=a.tif", "=a", 0))[0]
    assert dict(zip(COLUMNS, row, strict=True)) == {
        "image": "=a.tif", "frame": 1, "label": 2, "area": 8, "centroid_x": 3.5, "centroid_y": 1.5,
        "x1": 2, "y1": 1, "x2": 6, "y2": 3, "score": 0.5, "contrast": 0.25,
        "mean_red": 1, "mean_green": 2, "mean_blue": 3,
    }  # fmt: skip


def test_svg_path_of_a_square_by_hand():
    mask = np.ones((2, 2), bool)  # columns 3 and 4, rows 5 and 6: in half pixels from 6 to 10 and from 10 to 14
    path = svg_path(mask, 3, 5)
    numbers = [int(word) for word in path[1:-1].replace("l", " ").split()]
    corners = np.cumsum(np.array(numbers).reshape(-1, 2), axis=0)
    assert path.startswith("M")
    assert path.endswith("z")
    assert path.count("M") == 1
    assert corners.min(axis=0).tolist() == [6, 10]
    assert corners.max(axis=0).tolist() == [10, 14]


def test_svg_path_has_a_ring_s_two_borders_and_is_short_for_large_masks():
    ring = np.ones((7, 7), bool)
    ring[2:5, 2:5] = False
    assert svg_path(ring, 0, 0).count("M") == 2
    rows, columns = np.mgrid[:2000, :2000] - 1000
    assert len(svg_path(rows**2 + columns**2 < 990**2, 0, 0)) < 3000
