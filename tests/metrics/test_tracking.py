"""tracking: MOTA, IDF1, HOTA, switches and the clip's ARI by hand, and against TrackEval's values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unscene.metrics.tracking import TrackingScores


def bands(*rows: int) -> np.ndarray:
    """A label map of one band of 2 x 8 pixels for each label."""
    return np.repeat(np.repeat(np.array(rows), 2)[:, None], 8, axis=1)


def scores(true: list[np.ndarray], predicted: list[np.ndarray]) -> dict[str, float | int | None]:
    result = TrackingScores()
    result.add_clip(np.stack(true), np.stack(predicted))
    return result.compute()


def test_right_tracks_have_1_whatever_their_numbers():
    found = scores([bands(0, 1, 2), bands(1, 0, 2)], [bands(0, 7, 3), bands(7, 0, 3)])
    assert found == {
        **dict.fromkeys(("mota", "idf1", "video_ari_fg"), 1),
        "hota": pytest.approx(1),
        **dict.fromkeys(("id_switches", "id_switches_per_minute", "missed_objects", "false_objects"), 0),
    }


def test_objects_that_exchange_their_numbers_are_two_switches():
    # 4 frames of 2 objects, exchanged after the second: MOTA 1 - 2/8; of 8 matches 4 at best have the clip's track;
    # each pair of tracks is together in 2 of the 4 + 4 - 2 frames: HOTA sqrt(1/3)
    found = scores([bands(1, 2)] * 4, [bands(1, 2)] * 2 + [bands(2, 1)] * 2)
    assert (found["mota"], found["idf1"], found["id_switches"]) == (0.75, 0.5, 2)
    assert found["id_switches_per_minute"] == 900  # 2 in 4 frames
    assert found["hota"] == pytest.approx((1 / 3) ** 0.5)


def test_a_missed_and_a_false_object():
    found = scores([bands(1, 2, 0)] * 2, [bands(1, 0, 2), bands(1, 2, 0)])
    assert (found["mota"], found["missed_objects"], found["false_objects"], found["id_switches"]) == (0.5, 1, 1, 0)


def test_a_number_that_changes_over_a_gap_is_a_switch():
    found = scores([bands(1, 0), bands(0, 0), bands(1, 0)], [bands(1, 0), bands(0, 0), bands(2, 0)])
    assert (found["id_switches"], found["mota"]) == (1, 0.5)


def test_an_overlap_of_half_is_no_match():
    assert scores([bands(1, 1)], [bands(1, 0)])["mota"] == -1
    assert scores([bands(1, 1, 1)], [bands(1, 1, 0)])["mota"] == 1


def test_masks_of_5_pixels_are_left_out_on_both_sides():
    true, predicted = np.zeros((2, 1, 4, 8), int)
    true[0, 0, :5], predicted[0, 3, :5] = 1, 1
    assert scores(list(true), list(predicted))["mota"] is None
    true[0, 0, :6] = 1
    assert scores(list(true), list(predicted))["missed_objects"] == 1


def test_pixels_that_do_not_count_are_in_no_mask():
    assert scores([bands(1, -1)], [bands(1, 2)])["mota"] == 1


def test_without_objects_nothing_is_defined_but_false_objects_count():
    assert {name for name, value in scores([bands(0)], [bands(0)]).items() if value is not None} == {
        "id_switches",
        "id_switches_per_minute",
        "missed_objects",
        "false_objects",
    }
    found = scores([bands(0)], [bands(1)])
    assert (found["mota"], found["idf1"], found["hota"], found["false_objects"]) == (None, 0, 0, 1)


def test_clips_are_added_so_that_a_number_means_nothing_in_the_next_one():
    result = TrackingScores()
    result.add_clip(np.stack([bands(1, 2)]), np.stack([bands(1, 2)]))
    result.add_clip(np.stack([bands(1, 2)]), np.stack([bands(2, 1)]))
    assert result.compute()["mota"] == 1
    assert result.compute()["idf1"] == 1


maps = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=3, max_size=3)


@given(maps, maps, st.permutations([1, 2, 3]))
def test_scores_are_at_most_1_and_do_not_depend_on_the_numbers(true, predicted, order):
    true_maps, predicted_maps = [bands(*rows) for rows in true], [bands(*rows) for rows in predicted]
    found = scores(true_maps, predicted_maps)
    assert all(found[name] is None or found[name] <= 1 + 1e-9 for name in ("mota", "idf1", "hota", "video_ari_fg"))
    assert scores(true_maps, [np.array([0, *order])[labels] for labels in predicted_maps]) == pytest.approx(found)


def wandering_blocks(seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Three clips of four blocks that wander, are missed at times, and whose numbers are exchanged at times."""
    rng = np.random.default_rng(seed)
    clips = []
    for _ in range(3):
        true, predicted = np.zeros((2, 12, 20, 20), int)
        names, corners = [1, 2, 3, 4], rng.integers(0, 14, (4, 2))
        for t in range(12):
            corners = np.clip(corners + rng.integers(-2, 3, corners.shape), 0, 14)
            if rng.random() < 0.2:
                rng.shuffle(names)
            for k, (y, x) in enumerate(corners):
                true[t, y : y + 6, x : x + 6] = k + 1
                dy, dx = rng.integers(-1, 2, 2)
                if rng.random() < 0.85:
                    predicted[t, max(0, y + dy) : y + 6 + dy, max(0, x + dx) : x + 6 + dx] = names[k]
        clips.append((true, predicted))
    return clips


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, [0.361111, 0.467433, 0.308192, 21, 49, 22]),
        (1, [0.417266, 0.584615, 0.405687, 17, 41, 23]),
        (2, [0.373239, 0.448669, 0.327324, 14, 48, 27]),
    ],
)
def test_the_values_of_trackeval(seed, expected):
    # trackeval 1.3.0, masks of 6 pixels or more: CLEAR and Identity with THRESHOLD .5 + 1e-9 (theirs is .5 or more),
    # HOTA; eval_sequence of each clip, then combine_sequences: MOTA, IDF1, HOTA.mean(), IDSW, CLR_FN, CLR_FP
    result = TrackingScores()
    for true, predicted in wandering_blocks(seed):
        result.add_clip(true, predicted)
    names = ("mota", "idf1", "hota", "id_switches", "missed_objects", "false_objects")
    assert [result.compute()[name] for name in names] == pytest.approx(expected, abs=1e-6)
