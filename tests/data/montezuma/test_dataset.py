from __future__ import annotations

import sys

import numpy as np
import pytest

from tools.record_montezuma import RamObjects, objects_in_ram
from unscene.data.atari import play, random_actions, resized
from unscene.data.generate import generate
from unscene.data.hdf5.reader import SceneFile, SceneFileSettings
from unscene.data.montezuma.dataset import (
    GAME,
    OBJECTS,
    Montezuma,
    MontezumaSettings,
    label_frame,
    recorded_frames,
    recorded_games,
    resized_labels,
)
from unscene.errors import DataError, RecipeError
from unscene.scene import boxes_of_labels

pytest.importorskip("ale_py")
FEW = MontezumaSettings(count=40, seed=3)


def label(name: str) -> int:
    return OBJECTS.index(name) + 1


def middle(labels: np.ndarray, name: str) -> tuple[float, float]:
    """x and y of the middle of an object's box."""
    rows, columns = np.nonzero(labels == label(name))
    return (columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2


def test_frames_of_a_seed_are_the_same_in_any_order():
    frames = Montezuma(FEW).batch(range(40))
    again = Montezuma(FEW).batch([30, 2, 30])
    for key in ("image", "labels", "boxes"):
        assert np.array_equal(again[key], frames[key][[30, 2, 30]])
    other = Montezuma(MontezumaSettings(count=40, seed=4)).batch(range(40))
    assert not np.array_equal(other["image"], frames["image"])
    assert frames["image"].shape == (40, 64, 64, 3)
    assert frames["image"].dtype == frames["labels"].dtype == np.uint8
    assert np.array_equal(frames["boxes"], boxes_of_labels(frames["labels"], 9))


def test_the_record_holds_every_kind_of_room():
    frames = Montezuma(MontezumaSettings(count=recorded_frames(), policy="recorded")).batch(range(recorded_frames()))
    assert recorded_frames() >= 100
    assert len({image.tobytes() for image in frames["image"]}) == recorded_frames()  # no two alike
    seen = {name: (frames["labels"] == label(name)).any(axis=(1, 2)) for name in OBJECTS}
    for name in ("key", "left door", "right door", "skull", "agent"):
        assert seen[name].any(), name
    for name in ("key", "left door", "right door"):
        assert not seen[name].all(), name
    for name in ("rope", "middle ladder", "bottom left ladder", "bottom right ladder"):
        assert seen[name].mean() > 0.98, name


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["random", "recorded"])
def test_colours_and_memory_say_the_same(policy):
    games = play(GAME, random_actions(0)) if policy == "random" else recorded_games()
    agents = 0
    for (screen, ram), _ in zip(games, range(150), strict=False):
        seen, labels = objects_in_ram(ram), label_frame(screen, ram)
        assert seen.in_first_room
        there = {name: bool((labels == label(name)).any()) for name in OBJECTS}
        assert there["key"] == seen.key
        assert there["left door"] == seen.left_door
        assert there["right door"] == seen.right_door
        if there["skull"]:
            assert seen.skull is not None
            assert middle(labels, "skull") == pytest.approx(seen.skull, abs=2)
        if (labels == label("agent")).sum() >= 80:  # fewer: it dies
            agents += 1
            assert middle(labels, "agent") == pytest.approx(seen.agent, abs=9.5)
    assert agents > 80


def test_a_file_of_frames_knows_the_names(tmp_path):
    generate("montezuma", tmp_path / "mz.h5", {"count": 3, "size": 32}, progress=False)
    assert SceneFile(SceneFileSettings(str(tmp_path / "mz.h5"), size=32)).object_names == OBJECTS
    generate("multi_dsprites", tmp_path / "mds.h5", {"count": 3, "size": 32}, progress=False)
    assert SceneFile(SceneFileSettings(str(tmp_path / "mds.h5"), size=32)).object_names == ()


def test_another_room_has_no_labels():
    screen, ram = next(play(GAME, random_actions(3)))
    elsewhere = ram.copy()
    elsewhere[3] = 2
    assert label_frame(screen, ram).any()
    assert not label_frame(screen, elsewhere).any()
    assert not label_frame(np.zeros_like(screen))[:47].any()


def test_the_memory_by_hand():
    ram = np.zeros(128, np.uint8)
    ram[[3, 42, 43, 46, 47, 49, 67, 26, 28]] = 1, 78, 235, 235, 60, 4, 2, 117, 0
    assert objects_in_ram(ram) == RamObjects(True, (81, 83), (95, 178), False, True, True)


def test_a_thin_object_is_not_lost_and_a_broad_one_not_widened():
    labels = np.zeros((210, 160), np.uint8)
    labels[60:80, 31] = 3  # one of 2.5 columns
    labels[100:110, 50:60] = 5  # rows 66..76 and columns 50..60 of the square: 4 x 4 cells of 2.5
    small = resized_labels(labels, 64)
    assert set(np.unique(small)) == {0, 3, 5}
    assert (small == 3).sum(axis=1).max() == 1
    assert (small == 5).sum() == 16


def test_a_frame_keeps_its_mean_colour():
    screen = np.random.default_rng(0).integers(0, 256, (210, 160, 3)).astype(np.uint8)
    assert resized(screen, 64).mean() == pytest.approx(screen[34:194].mean(), abs=0.5)
    assert np.array_equal(resized(screen, 160), screen[34:194])


def test_more_recorded_frames_than_there_are():
    with pytest.raises(DataError, match=r"lower data\.count"):
        Montezuma(MontezumaSettings(count=recorded_frames() + 1, policy="recorded"))


def test_without_the_emulator_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(DataError, match=r"pip install 'unscene\[atari\]'"):
        Montezuma(FEW)


@pytest.mark.parametrize("changes", [{"count": 0}, {"seed": -1}, {"policy": "best"}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(RecipeError, match=f"^{next(iter(changes))} must be"):
        MontezumaSettings(**changes)
