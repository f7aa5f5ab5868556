"""First-person frames of ViZDoom (Kempka et al., 2016), played by a random policy, with a label for every object.

The labels are the engine's own (its labels buffer): monsters, items and missiles. Walls, floor and sky are the
background; the player's weapon, blood, smoke and marks of shots are not drawn. The engine (vizdoom) is an
optional extra, `pip install unscene[vizdoom]`, and is imported here only.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import chdir
from itertools import count
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, NonNegativeInt, PositiveInt

from unscene.data.playback import Playback
from unscene.data.samples import checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import settings_dataclass

VERSION = 1  # raised whenever the same settings give other frames
TICS = 4  # an action lasts 4 of 35 tics a second, from one frame of the set to the next
HEIGHTS = {120: 160, 240: 320, 480: 640, 960: 1280}  # of the engine's screens, 4:3, and their widths
MAX_OBJECTS = 64  # M, different objects of a clip
PLAYER = "DoomPlayer"
_END_WITH_PARENT = "1, 9"  # arguments of Linux's prctl: PR_SET_PDEATHSIG, SIGKILL
_STARTING = Lock()  # a process has one working directory
Frame = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # [size, size, 3] and [size, size]


@settings_dataclass
class VizDoomSettings:
    """Which frames."""

    # one of the package's scenarios for a single player
    scenario: Literal[
        "basic",
        "deadly_corridor",
        "deathmatch",
        "defend_the_center",
        "defend_the_line",
        "freedoom1",
        "health_gathering",
        "health_gathering_supreme",
        "predict_position",
        "rocket_basic",
        "take_cover",
    ] = "defend_the_line"
    count: PositiveInt = 10_000  # number of frames
    seed: NonNegativeInt = 0  # of the engine and of the policy, which plays uniformly random buttons, one at a time
    size: Annotated[int, Field(ge=16, le=960)] = 64  # height and width of the frames, the screen's central square
    clip_length: PositiveInt = 1  # T; frame `i` is frame `i % T` of clip `i // T`. 1: no clips.


class VizDoom:
    """Labelled frames of a scenario, in the order in which they are played; an episode that is over starts again.

    They are quick to play in order only. So write a file first (`unscene generate vizdoom`) and train on that.

    Raises:
        DataError: vizdoom is not installed.
    """

    Settings = VizDoomSettings

    def __init__(self, settings: VizDoomSettings) -> None:
        self.settings = settings
        _engine()  # raises early if it is missing
        # by process: a forked one would share its parent's engine
        self._playback: defaultdict[int, Playback[Frame]] = defaultdict(lambda: Playback(lambda: play(settings)))

    @property
    def clip_length(self) -> int:
        """Number of the frames of a clip; 1 for frames that are taken one by one."""
        return self.settings.clip_length

    def __len__(self) -> int:
        return self.settings.count

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """Return image uint8 [B, size, size, 3], labels uint8 [B, size, size] and boxes float32 [B, 64, 4].

        Objects are numbered from 1 in the order in which a clip shows them. DataError: a clip shows more than 64.
        """
        indices, size = checked_indices(indices, len(self)), self.settings.size
        frames = self._playback[os.getpid()].frames(indices)
        image = np.array([frames[index][0] for index in indices.tolist()], np.uint8).reshape(-1, size, size, 3)
        labels = np.array([frames[index][1] for index in indices.tolist()], np.uint8).reshape(-1, size, size)
        return {"image": image, "labels": labels, "boxes": boxes_of_labels(labels, MAX_OBJECTS)}


def play(settings: VizDoomSettings) -> Iterator[Frame]:
    """The frames and label maps of a scenario, without end."""
    random = np.random.default_rng(settings.seed)
    game = new_game(settings.scenario, int(random.integers(2**32)), settings.size)
    close = Finalize(None, game.close, exitpriority=0)  # at exit, too: a process that loads data runs no `finally`
    try:
        buttons = np.eye(game.get_available_buttons_size(), dtype=int).tolist()
        episode, labels = 0, dict[tuple[int, int], int]()
        for index in count():
            if index % settings.clip_length == 0:
                labels = {}
            if game.is_episode_finished():
                game.new_episode()
                episode += 1
            state = game.get_state()
            values = resized(state.labels_buffer, settings.size, Image.Resampling.NEAREST)
            visible = set(np.unique(values).tolist())
            label_of_value = np.zeros(256, np.uint8)
            for found in state.labels:
                if found.value in visible and found.object_name != PLAYER:
                    label_of_value[found.value] = labels.setdefault((episode, found.object_id), len(labels) + 1)
            if len(labels) > MAX_OBJECTS:
                clip = f"clip {index // settings.clip_length} of {settings.scenario}"
                raise DataError(f"vizdoom: {clip} shows more than {MAX_OBJECTS} objects: lower data.clip_length.")
            yield resized(state.screen_buffer, settings.size, Image.Resampling.BOX), label_of_value[values]
            game.make_action(buttons[random.integers(len(buttons))], TICS)
    finally:
        close()


def new_game(scenario: str, seed: int, size: int) -> Any:
    """An engine at the start of a scenario, with a screen of `size` rows or more; DataError: vizdoom is missing."""
    vizdoom = _engine()
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{scenario}.cfg"))
    game.set_mode(vizdoom.Mode.PLAYER)  # time stands still until the next action
    game.set_seed(seed)
    height = min(height for height in HEIGHTS if height >= size)
    game.set_screen_resolution(getattr(vizdoom.ScreenResolution, f"RES_{HEIGHTS[height]}X{height}"))
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_labels_buffer_enabled(True)
    for part in ("hud", "weapon", "crosshair", "effects_sprites", "particles", "decals", "screen_flashes"):
        getattr(game, f"set_render_{part}")(False)
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_doom_config_path(os.devnull)
    with _STARTING, TemporaryDirectory() as folder, chdir(folder):  # the engine makes a folder in its working directory
        starter = _starter(Path(vizdoom.scenarios_path).with_name("vizdoom"), Path(folder))
        if sys.platform == "linux" and os.access(starter, os.X_OK):  # not where programs may not lie in this folder
            game.set_vizdoom_path(str(starter))
        game.init()
    return game


def _starter(engine: Path, folder: Path) -> Path:
    """A program that starts the engine so that it ends with this process, even a killed one; else it waits for ever."""
    code = f"import ctypes, os, sys; ctypes.CDLL(None).prctl({_END_WITH_PARENT}); os.execv(sys.argv[1], sys.argv[1:])"
    words = shlex.join([sys.executable, "-ISc", code, str(engine)])
    starter = folder / "engine"
    starter.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    starter.chmod(0o700)
    return starter


def resized(screen: NDArray[np.uint8], size: int, how: Image.Resampling) -> NDArray[np.uint8]:
    """The central square of a screen [H, W, ...] as [size, size, ...]."""
    height, width = screen.shape[:2]
    left = (width - height) // 2
    return np.asarray(Image.fromarray(screen[:, left : left + height]).resize((size, size), how))


def _engine() -> Any:
    try:
        import vizdoom
    except ImportError:
        raise DataError(
            "Frames of ViZDoom need the engine vizdoom, which is not installed: pip install 'unscene[vizdoom]'."
        ) from None
    return vizdoom
