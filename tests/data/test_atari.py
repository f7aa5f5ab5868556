"""atari: the frames of a seed, the record and its boxes, the errors."""

from __future__ import annotations

import sys
import zlib
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from unscene.data.atari import Atari, AtariSettings, _record, play, resized
from unscene.data.generate import generate
from unscene.data.hdf5.reader import SceneFile, SceneFileSettings
from unscene.errors import DataError, RecipeError

pytest.importorskip("ale_py")


def test_frames_of_a_seed_are_the_same_in_any_order():
    source = Atari(AtariSettings(game="breakout", count=20, seed=3, size=32))
    frames = source.batch(range(20))
    assert frames.keys() == {"image"}
    assert frames["image"].shape == (20, 32, 32, 3)
    assert np.array_equal(source.batch([15, 2, 15])["image"], frames["image"][[15, 2, 15]])
    other = Atari(AtariSettings(game="breakout", count=20, seed=4, size=32)).batch(range(20))
    assert not np.array_equal(other["image"], frames["image"])


@pytest.mark.parametrize("game", sorted(_record()["games"]))
def test_the_record_plays_the_screens_that_it_was_written_from(game):
    record, about = _record()["games"][game], _record()["about"]
    screens = islice(play(game, record["actions"]), about["first"] - 1, None, about["apart"])
    checksum = 0
    for screen, _ in screens:
        checksum = zlib.crc32(screen.tobytes(), checksum)
    assert checksum == record["checksum"]


def test_the_boxes_lie_around_the_objects():
    batch = Atari(AtariSettings(game="pong", count=30, size=160, policy="recorded")).batch(range(30))
    players = [
        tuple(image[y1:y2, x1:x2].reshape(-1, 3).mean(axis=0).astype(int))
        for image, boxes in zip(batch["image"], batch["boxes"].astype(int), strict=True)
        for x1, y1, x2, y2 in boxes[:1].tolist()
    ]
    assert np.abs(np.array(players) - (92, 186, 92)).max(axis=1).mean() < 12  # the green paddle fills its box
    smaller = Atari(AtariSettings(game="pong", count=30, size=64, policy="recorded")).batch(range(30))
    assert np.allclose(smaller["boxes"], batch["boxes"] * 0.4)


def test_boxes_are_of_the_chosen_kinds():
    counts = {
        kinds: Atari(AtariSettings("breakout", count=9, policy="recorded", objects=kinds)).batch(range(9))["boxes"]
        for kinds in ((), ("Player",), ("Player", "Ball"))
    }
    counts = {kinds: int(boxes.any(axis=2).sum()) for kinds, boxes in counts.items()}
    assert counts["Player",] == 9
    assert 9 < counts["Player", "Ball"] <= 18 < counts[()]


def test_a_square_keeps_the_mean_colour():
    screen = np.random.default_rng(0).integers(0, 256, (210, 160, 3)).astype(np.uint8)
    assert resized(screen, 64).mean() == pytest.approx(screen[34:194].mean(), abs=0.5)
    assert np.array_equal(resized(screen, 160), screen[34:194])


def test_frames_are_written_to_files_and_folders(tmp_path):
    settings = {"count": 3, "size": 32, "policy": "recorded", "clip_length": 3}
    generate("atari", tmp_path / "pong.h5", settings, progress=False)
    assert SceneFile(SceneFileSettings(str(tmp_path / "pong.h5"), size=32)).clip_length == 3
    batch = SceneFile(SceneFileSettings(str(tmp_path / "pong.h5"), size=32)).batch([0, 2])
    assert batch["image"].shape == (2, 32, 32, 3)
    assert batch["boxes"].any()
    generate("atari", tmp_path / "pong", {"count": 2, "size": 160}, progress=False)
    assert Image.open(tmp_path / "pong" / "images" / "00001.png").size == (160, 160)
    assert not (tmp_path / "pong" / "labels").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"game": "pongg"}, RecipeError, r"there is no game 'pongg'\. Did you mean 'pong'"),
        (
            {"game": "alien", "policy": "recorded"},
            RecipeError,
            "no game of 'alien' is recorded, only of pong, breakout",
        ),
        (
            {"policy": "recorded", "count": 3, "objects": ("ball",)},
            RecipeError,
            "'ball' is no object of pong. Did you mean 'Ball'",
        ),
        ({"objects": ("Ball",)}, RecipeError, "data.objects needs data.policy recorded"),
        ({"policy": "recorded", "count": 101}, DataError, r"but there are 100: lower data\.count"),
    ],
)
def test_frames_that_cannot_be_played(changes, error, message):
    with pytest.raises(error, match=message):
        Atari(AtariSettings(**changes))


def test_without_the_emulator_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(DataError, match=r"pip install 'unscene\[atari\]'"):
        Atari(AtariSettings())
