"""vizdoom: the engine's labels, the numbers of objects over a clip, the frames of a seed, the errors."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from unscene.data.batches import training_batches
from unscene.data.generate import generate
from unscene.data.hdf5.reader import SceneFile, SceneFileSettings
from unscene.data.vizdoom import PLAYER, TICS, VizDoom, VizDoomSettings, new_game
from unscene.errors import DataError, RecipeError

pytest.importorskip("vizdoom")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, which must stay so: the engine writes into its own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert {path.name for path in tmp_path.iterdir()} <= {"doom.h5", "doom"}


def engine_boxes(scenario: str, seed: int, frames: int) -> list[dict[int, list[int]]]:
    """Of each frame the engine's own boxes by object, in a 160 x 120 screen, of objects in its central square alone."""
    random = np.random.default_rng(seed)
    game = new_game(scenario, int(random.integers(2**32)), 120)
    found = []
    for _ in range(frames):
        state = game.get_state()
        found.append(
            {
                label.object_id: [label.x - 20, label.y, label.x - 20 + label.width, label.y + label.height]
                for label in state.labels
                if label.object_name != PLAYER and label.x >= 20 and label.x + label.width <= 140
            }
        )
        action = [0] * game.get_available_buttons_size()
        action[random.integers(len(action))] = 1
        game.make_action(action, TICS)
    game.close()
    return found


def test_a_label_is_one_object_of_the_engine_over_a_clip():
    source = VizDoom(VizDoomSettings("take_cover", count=20, seed=1, size=120, clip_length=10))
    batch, engine = source.batch(range(20)), engine_boxes("take_cover", 1, 20)
    assert sum(map(len, engine)) > 30
    for clip in (range(10), range(10, 20)):
        object_of: dict[int, int] = {}
        for frame in clip:
            boxes = batch["boxes"][frame].tolist()
            for number, box in engine[frame].items():
                label = 1 + boxes.index(box)  # the mask fills the engine's box
                assert object_of.setdefault(label, number) == number
        assert len(set(object_of.values())) == len(object_of)
        assert np.unique(batch["labels"][clip[0]]).tolist() == list(range(batch["labels"][clip[0]].max() + 1))


def test_frames_of_a_seed_are_the_same_in_any_order_and_process():
    source = VizDoom(VizDoomSettings("deadly_corridor", count=60, seed=3, size=32))
    frames = source.batch(range(60))  # several episodes: the player dies soon
    assert (frames["image"].shape, frames["labels"].shape) == ((60, 32, 32, 3), (60, 32, 32))
    again = source.batch([55, 2, 55])
    for name, array in frames.items():
        assert np.array_equal(again[name], array[[55, 2, 55]])
    in_worker = next(iter(training_batches(source, [np.array([55, 2])], workers=1)))
    assert np.array_equal(in_worker["image"], frames["image"][[55, 2]])
    assert np.array_equal(source.batch([56, 57])["image"], frames["image"][[56, 57]])  # its own engine is untouched
    other = VizDoom(VizDoomSettings("deadly_corridor", count=5, seed=4, size=32)).batch(range(5))
    assert not np.array_equal(other["image"], frames["image"][:5])


def test_a_larger_frame_shows_the_same():
    small, large = (VizDoom(VizDoomSettings("basic", count=1, size=size)).batch([0]) for size in (60, 240))
    assert small["boxes"].any()
    assert np.allclose(4 * small["boxes"], large["boxes"], atol=4)
    assert np.abs(small["image"].mean(axis=(1, 2)) - large["image"].mean(axis=(1, 2))).max() < 8


def test_frames_are_written_as_clips(folder):
    generate("vizdoom", folder / "doom.h5", {"count": 4, "size": 32, "clip_length": 2}, progress=False)
    source = SceneFile(SceneFileSettings(str(folder / "doom.h5"), size=32))
    assert (len(source), source.clip_length) == (4, 2)
    assert source.batch([3])["labels"].any()


def test_engines_start_in_several_threads():
    def first(seed: int) -> np.ndarray:
        return VizDoom(VizDoomSettings("basic", count=1, seed=seed, size=16)).batch([0])["image"]

    with ThreadPoolExecutor(3) as threads:
        images = list(threads.map(first, [0, 0, 0]))
    assert all(np.array_equal(image, images[0]) for image in images)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the engine")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_engine_ends_with_a_process_that_is_killed(number):
    code = (
        "import time; from unscene.data.vizdoom import VizDoom, VizDoomSettings as Settings\n"
        "source = VizDoom(Settings('basic', count=1, size=16)); source.batch([0])\n"
        "print('playing', flush=True); time.sleep(100)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "playing\n"
    assert [parent_of(path) for path in Path("/proc").glob("[0-9]*/stat")].count(process.pid) == 1
    process.send_signal(number)
    process.communicate(timeout=30)  # until the engine, too, has closed standard output
    assert process.returncode == -number


def parent_of(stat: Path) -> int | None:
    """The parent of a process; None if it ended."""
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_no_frames():
    batch = VizDoom(VizDoomSettings(count=1, size=16)).batch([])
    assert (batch["image"].shape, batch["boxes"].shape) == ((0, 16, 16, 3), (0, 64, 4))


def test_too_many_objects_name_the_clip(monkeypatch):
    monkeypatch.setattr("unscene.data.vizdoom.MAX_OBJECTS", 1)
    source = VizDoom(VizDoomSettings("take_cover", count=9, clip_length=9))
    for _ in range(2):
        with pytest.raises(DataError, match=r"clip 0 of take_cover shows more than 1 objects: lower data\.clip_length"):
            source.batch(range(9))


def test_an_unknown_scenario_names_the_nearest_and_all(folder):
    with pytest.raises(RecipeError, match=r"scenario must be .*take_cover.*, not basik\. Did you mean 'basic'"):
        generate("vizdoom", folder / "doom", {"scenario": "basik", "count": 1})


def test_without_the_engine_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(DataError, match=r"pip install 'unscene\[vizdoom\]'"):
        VizDoom(VizDoomSettings())
