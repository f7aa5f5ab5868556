"""tracking: numbers stay over crossings, gaps and empty frames; streams and folders of frames."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unscene import Tracker
from unscene.errors import DataError, RecipeError, ShapeError
from unscene.inference.decompose import decompose_image, decompose_paths
from unscene.inference.found_objects import FoundObjects
from unscene.inference.tracking import Linker, LinkSettings
from unscene.report.page import data_uri
from unscene.scene import boxes_of_labels

SIZE = 40


def found(objects: dict[int, tuple[int, int]], latents: dict[int, list[float]] | None = None) -> FoundObjects:
    """Squares of 6 pixels: by label the top left y and x."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for label, (y, x) in objects.items():
        labels[y : y + 6, x : x + 6] = label
    slots = np.array([label for label in sorted(objects) if (labels == label).any()], np.int64)
    return FoundObjects(
        labels=labels,
        slots=slots,
        areas=np.array([(labels == label).sum() for label in slots], np.int64),
        boxes=boxes_of_labels(labels[None], 9)[0][slots - 1],
        scores=np.ones(len(slots), np.float32),
        model_boxes=None,
        latents=None if latents is None else np.array([latents[label] for label in slots], np.float32),
        locations=None,
    )


PLAIN = np.full((SIZE, SIZE, 3), 128, np.uint8)


def painted(*squares: tuple[int, int, tuple[int, int, int]]) -> np.ndarray:
    """A grey frame with squares of 6 pixels: the top left y and x, and the colour; later ones hide earlier ones."""
    frame = PLAIN.copy()
    for y, x, colour in squares:
        frame[y : y + 6, x : x + 6] = colour
    return frame


RED, BLUE = (220, 30, 30), (30, 30, 220)


def numbers(linker: Linker, *frames: FoundObjects) -> list[list[int]]:
    return [linker.link(frame, PLAIN).slots.tolist() for frame in frames]


def test_an_object_keeps_its_number_when_its_slot_changes():
    assert numbers(Linker(), found({1: (0, 0), 2: (20, 20)}), found({2: (0, 1), 1: (20, 21)})) == [[1, 2], [2, 1]]


def test_the_label_map_holds_the_numbers():
    linker = Linker()
    linker.link(found({3: (0, 0)}), PLAIN)
    linked = linker.link(found({3: (20, 20), 5: (1, 0)}), PLAIN)
    assert linked.slots.tolist() == [2, 1]
    assert linked.labels[3, 2] == 1
    assert linked.labels[22, 22] == 2
    assert (linked.labels > 0).sum() == 72


def test_objects_that_cross_keep_their_numbers_by_their_velocities():
    frames = [found({1: (10, 4 * t), 2: (14, 32 - 4 * t)}) for t in range(9)]  # they pass between frames 4 and 5
    assert numbers(Linker(LinkSettings(iou_weight=0)), *frames) == [[1, 2]] * 9


def test_objects_that_swap_their_locations_are_told_apart_by_their_latents():
    latents = {1: [1.0, 0.0], 2: [0.0, 1.0]}
    frames = [found({1: (0, 0), 2: (0, 8)}, latents), found({1: (0, 8), 2: (0, 0)}, latents)]
    assert numbers(Linker(LinkSettings(latent_weight=5)), *frames) == [[1, 2], [1, 2]]
    assert numbers(Linker(LinkSettings(latent_weight=0)), *frames) == [[1, 2], [2, 1]]


@pytest.mark.parametrize(("missing", "number"), [(1, 1), (3, 1), (4, 2)])
def test_an_object_that_returns_within_the_gap_keeps_its_number(missing, number):
    linker = Linker(LinkSettings(max_gap=3))
    frames = [found({1: (10, 10)}), *[found({})] * missing, found({1: (10, 11)})]
    assert numbers(linker, *frames) == [[1], *[[]] * missing, [number]]


def test_an_object_far_from_every_track_is_a_new_one():
    assert numbers(Linker(), found({1: (0, 0)}), found({1: (34, 34)})) == [[1], [2]]


def test_frames_without_any_object():
    assert numbers(Linker(), found({}), found({}), found({1: (0, 0)})) == [[], [], [1]]


def test_tracks_that_are_gone_are_forgotten():
    linker = Linker(LinkSettings(max_gap=0))
    for t in range(50):
        linker.link(found({1: (30 * (t % 2), 30 * (t % 2))}), PLAIN)
    assert (linker.tracks, len(linker._recent)) == (50, 2)


def test_more_than_255_tracks_have_a_deeper_label_map():
    linker = Linker(LinkSettings(max_gap=0))
    for t in range(300):
        linked = linker.link(found({1: (30 * (t % 2), 30 * (t % 2))}), PLAIN)
    assert linked.slots.tolist() == [300]
    assert linked.labels.max() == 300


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.integers(1, 5), st.tuples(st.integers(0, 34), st.integers(0, 34)), max_size=5), max_size=6
    )
)
def test_numbers_are_distinct_and_masks_stay_if_no_track_takes_pixels(frames):
    linker = Linker(LinkSettings(min_visible=2))
    for objects in frames:
        before = found(objects)
        linked = linker.link(before, PLAIN)
        assert len(set(linked.slots.tolist())) == len(before.slots)
        assert all(
            np.array_equal(linked.labels == new, before.labels == old)
            for new, old in zip(linked.slots, before.slots, strict=True)
        )
        assert linked.slots.max(initial=0) <= linker.tracks


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 34), st.integers(0, 34)), max_size=4), max_size=8),
    st.lists(st.booleans(), min_size=32, max_size=32),
)
def test_areas_boxes_and_numbers_are_those_of_the_label_map(frames, missed):
    linker, colours = Linker(), [RED, BLUE, (30, 220, 30), RED]
    for t, corners in enumerate(frames):
        squares = [(*corner, colour) for corner, colour in zip(corners, colours, strict=False)]
        objects = {n + 1: corner for n, corner in enumerate(corners) if not missed[4 * t + n]}
        linked = linker.link(found(objects), painted(*squares))
        labels, areas = np.unique(linked.labels[linked.labels > 0], return_counts=True)
        order = np.argsort(linked.slots)
        assert linked.slots[order].tolist() == labels.tolist()
        assert linked.areas[order].tolist() == areas.tolist()
        boxes = boxes_of_labels(linked.labels[None], linker.tracks)[0]
        assert linked.boxes.tolist() == boxes[linked.slots - 1].tolist()
        assert len(linked.scores) == len(labels)
        assert linked.scores.max(initial=0) <= 1


def test_a_frame_of_another_size_is_refused():
    linker = Linker()
    linker.link(found({1: (0, 0)}), PLAIN)
    other = FoundObjects(np.zeros((8, 9), np.uint8), *[np.zeros(0, np.int64)] * 2, np.zeros((0, 4)), *[None] * 4)
    with pytest.raises(DataError, match=r"^frame 2 is 9 x 8 pixels, but the frames before it are 40 x 40\."):
        linker.link(other, PLAIN[:8, :9])


def test_a_cost_without_masks_and_locations_is_refused():
    with pytest.raises(RecipeError, match="iou_weight or location_weight must be above 0"):
        LinkSettings(iou_weight=0, location_weight=0)


def test_an_object_that_the_model_misses_is_carried_on_at_its_velocity():
    linker = Linker()
    for t in range(3):
        linker.link(found({1: (10, 4 * t)}), painted((10, 4 * t, RED)))
    linked = linker.link(found({}), painted((10, 12, RED)))
    assert (linked.slots.tolist(), linked.boxes.tolist()) == ([1], [[12, 10, 18, 16]])
    assert (linked.areas.tolist(), linked.scores.tolist()) == ([36], [1])


def test_a_partly_hidden_object_is_carried_on_where_it_is_visible():
    linker = Linker()
    for t in range(3):
        linker.link(found({1: (10, 4 * t), 2: (10, 15)}), painted((10, 4 * t, RED), (10, 15, BLUE)))
    linked = linker.link(found({2: (10, 15)}), painted((10, 12, RED), (10, 15, BLUE)))
    assert linked.slots.tolist() == [2, 1]
    assert linked.boxes.tolist() == [[15, 10, 21, 16], [12, 10, 15, 16]]
    assert linked.scores.tolist() == [1, 0.5]


def test_a_hidden_object_has_no_row_and_keeps_its_number():
    linker = Linker()
    for t in range(6):
        hidden, x = 2 <= t <= 4, 4 * t
        objects = {2: (10, 12)} if hidden else {1: (10, x), 2: (10, 12)}
        frame = painted((10, x, RED), (10, 12, BLUE)) if not hidden else painted((10, 12, BLUE))
        linked = linker.link(found(objects), frame)
        assert linked.slots.tolist() == ([2] if hidden else [1, 2]), t


def test_an_object_is_not_carried_on_longer_than_the_gap():
    linker = Linker(LinkSettings(max_gap=3))
    frame = painted((10, 10, RED))
    assert [linker.link(found({1: (10, 10)} if t < 2 else {}), frame).slots.tolist() for t in range(7)] == [
        *[[1]] * 5,
        [],
        [],
    ]


def test_two_objects_found_as_one_are_parted_by_their_colours():
    linker, frame = Linker(), painted((10, 10, RED), (10, 16, BLUE))
    for _ in range(2):
        linker.link(found({1: (10, 10), 2: (10, 16)}), frame)
    merged = found({1: (10, 10)})
    merged.labels[10:16, 16:22] = 1
    merged.areas[:], merged.boxes[:] = 72, (10, 10, 22, 16)
    linked = linker.link(merged, frame)
    assert dict(zip(linked.slots.tolist(), linked.boxes.tolist(), strict=True)) == {
        1: [10, 10, 16, 16],
        2: [16, 10, 22, 16],
    }


def test_a_part_of_a_known_object_that_is_found_as_another_goes_back_to_it():
    linker, frame = Linker(), painted((10, 10, RED))
    for _ in range(2):
        linker.link(found({1: (10, 10)}), frame)
    parts = found({1: (10, 10)})
    parts.labels[10:16, 14:16] = 2
    parts = FoundObjects(
        parts.labels,
        np.array([1, 2]),
        np.array([24, 12]),
        boxes_of_labels(parts.labels[None], 2)[0],
        np.ones(2, np.float32),
        *[None] * 3,
    )
    linked = linker.link(parts, frame)
    assert (linked.slots.tolist(), linked.areas.tolist()) == ([1], [36])


def test_an_object_that_changes_its_colour_is_a_whole_new_one():
    linker, frame = Linker(), painted((10, 13, BLUE))
    for _ in range(2):
        linker.link(found({1: (10, 10)}), painted((10, 10, RED)))
    frame[10, 13:19] = RED  # a sixth of it
    for _ in range(4):
        linked = linker.link(found({1: (10, 13)}), frame)
        assert (linked.slots.tolist(), linked.areas.tolist()) == ([2], [36])


def test_objects_of_other_colours_do_not_continue_a_track():
    linker = Linker(LinkSettings(min_visible=2))
    for _ in range(2):
        linker.link(found({1: (10, 10)}), painted((10, 10, RED)))
    assert linker.link(found({1: (14, 10)}), painted((14, 10, BLUE))).slots.tolist() == [2]


def test_a_track_does_not_take_background_that_looks_like_its_object():
    linker = Linker()
    for t in range(4):  # a red door in the background, which a red object passes, and is then not found
        frame = painted((10, 24, RED), (10, 6 * t, RED))
        linker.link(found({1: (10, 6 * t)}), frame)
    assert linker.link(found({}), painted((10, 24, RED))).slots.tolist() == []


def moving(t: int) -> np.ndarray:
    image = np.full((64, 64, 3), 255, np.uint8)
    image[8:32, 8 + 2 * t : 32 + 2 * t] = (200, 0, 0)
    return image


@pytest.fixture
def small(make_loaded, make_model):
    return make_loaded(make_model(num_slots=3), size=64)


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(12):
        Image.fromarray(moving(t)).save(folder / f"{t}.png")
    return folder


def test_a_stream_of_frames(small):
    tracker = Tracker(small, min_contrast=0)
    first = tracker.update(moving(0))
    assert [tracker.update(moving(t)).slots.tolist() for t in (1, 2)] == [first.slots.tolist()] * 2


def test_unknown_and_impossible_options_are_refused_before_the_first_frame(small):
    with pytest.raises(RecipeError, match=r"Tracker has no option 'min_aera'\. Did you mean 'min_area'\? Its options"):
        Tracker(small, min_aera=3)
    with pytest.raises(RecipeError, match="the least score of an object must be from 0 to 1, but is 2"):
        Tracker(small, min_score=2)
    with pytest.raises(RecipeError, match="an overlap needs tiles"):
        Tracker(small, overlap=3)
    with pytest.raises(ShapeError, match=r"must be an array, uint8 \[H, W, 3\], not list"):
        Tracker(small).update([[0, 0, 0]])  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"decompose_image has no option 'tiles'\. Did you mean 'tile'\?"):
        decompose_image(small, moving(0), tiles=32)


def test_a_folder_of_frames_gives_tracks_in_the_order_of_the_numbers(small, frames, tmp_path):
    out = tmp_path / "out"
    result = decompose_paths(small, [frames], out, min_contrast=0, link=Linker().link, progress=False)
    rows = list(csv.DictReader((out / "tracks.csv").open()))
    coco = json.loads((out / "objects.json").read_text())
    assert len(rows) == result.objects > 0
    assert [image["file_name"] for image in coco["images"]] == [f"{t}.png" for t in range(12)]
    assert [(int(row["frame"]), int(row["id"])) for row in rows] == [
        (annotation["image_id"], annotation["track_id"]) for annotation in coco["annotations"]
    ]
    page = (out / "index.html").read_text()
    assert "data:image/webp" in page
    assert "12 frames" in page


def test_frames_of_different_sizes_leave_no_results(small, frames, tmp_path):
    Image.fromarray(moving(0)[:32]).save(frames / "5.png")
    with pytest.raises(DataError, match="frame 6 is 64 x 32"):
        decompose_paths(small, [frames], tmp_path / "out", link=Linker().link, progress=False)
    assert not (tmp_path / "out").exists()


def test_an_animation_is_embedded_as_it_is():
    sizes: list[int] = []
    assert data_uri(b"RIFF....WEBP", 0.1, sizes) == "data:image/webp;base64,UklGRi4uLi5XRUJQ"
    assert sizes == []


def test_a_frame_needs_no_more_memory_after_many_tracks():
    linker = Linker()
    linker.tracks = 10**9  # a table with a row for each would have gigabytes
    assert numbers(linker, found({1: (2, 3)})) == [[10**9 + 1]]


def test_after_a_restart_numbers_follow_and_frames_may_have_another_size():
    linker = Linker()
    assert numbers(linker, found({1: (2, 3), 2: (20, 20)})) == [[1, 2]]
    linker.restart()
    assert numbers(linker, found({1: (2, 3)}), found({2: (2, 3)})) == [[3], [3]]
    linker.restart()
    small = PLAIN[:12, :12]
    assert linker.link(replace(found({1: (2, 3)}), labels=found({1: (2, 3)}).labels[:12, :12]), small).slots == [4]
