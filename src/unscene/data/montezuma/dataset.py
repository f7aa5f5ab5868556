"""Montezuma's Revenge: labelled frames of a random policy, and of recorded games.

The labels are the nine objects of the first room that the paper lists (Liu et al., 2019, Section 4). The key may be
taken and the doors opened. Only agent and skull move, and no two objects share colour and region, so these two label
every pixel; a test compares them with the console's memory (`objects_in_ram` of tools/record_montezuma.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt

from unscene.data.atari import BOTTOM, TOP, Screen, new_emulator, play, random_actions, resized
from unscene.data.playback import Playback
from unscene.data.samples import checked_indices
from unscene.errors import DataError
from unscene.scene import boxes_of_labels
from unscene.settings import settings_dataclass

LADDERS = ("middle ladder", "bottom left ladder", "bottom right ladder")
OBJECTS = ("agent", "skull", "rope", "key", "left door", "right door", *LADDERS)
REGIONS = {  # rows and columns of the screen
    "left door": np.s_[54:92, 20:24],
    "right door": np.s_[54:92, 136:140],
    "rope": np.s_[96:135, 110:114],
    "middle ladder": np.s_[93:135, 72:88],
    "bottom left ladder": np.s_[136:181, 16:32],
    "bottom right ladder": np.s_[136:181, 128:144],
}
COLOURS = {
    "yellow": ((232, 204, 99),),  # doors, rope and key
    "skull": ((236, 236, 236),),
    "agent": ((228, 111, 111), (200, 72, 72), (210, 182, 86), (240, 128, 128)),
}
FIRST_ROW = 47  # above are the score and the lives, in the agent's colours
GAME = "montezuma_revenge"
VERSION = 1  # raised whenever the same settings give other frames


@settings_dataclass
class MontezumaSettings:
    """Which frames."""

    count: PositiveInt = 10_000  # number of frames
    seed: NonNegativeInt = 0  # seed of the policy
    size: PositiveInt = 64  # height and width of the frames; the screen's square is 160
    # `random` plays uniformly random actions from the start, and a new game when one is lost. `recorded` plays recorded
    # games of the first room, with and without the key and the doors; they have `recorded_frames()` different frames.
    policy: Literal["random", "recorded"] = "random"
    # T; frame `i` is frame `i % T` of clip `i // T`. 1: no clips. Recorded frames do not follow one another.
    clip_length: PositiveInt = 1


class Montezuma:
    """Frames with the labels of the first room's nine objects (`OBJECTS`).

    They are quick to play in order only. So write a file first (`unscene generate montezuma`) and train on that.

    Raises:
        DataError: ale-py is not installed, or more recorded frames are asked for than there are.
    """

    Settings = MontezumaSettings

    object_names = OBJECTS

    def __init__(self, settings: MontezumaSettings) -> None:
        self.settings = settings
        new_emulator(GAME)  # raises early if it is missing
        if settings.policy == "recorded" and settings.count > recorded_frames():
            asked = f"{settings.count} recorded frames were asked for, but there are {recorded_frames()}"
            raise DataError(f"montezuma: {asked}: lower data.count.")
        if settings.policy == "recorded":
            self._playback = Playback(recorded_games)
        else:
            self._playback = Playback(lambda: play(GAME, random_actions(settings.seed)))

    @property
    def clip_length(self) -> int:
        """Number of the frames of a clip; 1 for frames that are taken one by one."""
        return self.settings.clip_length

    def __len__(self) -> int:
        return self.settings.count

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """Return image uint8 [B, size, size, 3], labels uint8 [B, size, size] and boxes float32 [B, 9, 4]."""
        indices, size = checked_indices(indices, len(self)), self.settings.size
        frames = self._playback.frames(indices)
        image = np.empty((len(indices), size, size, 3), np.uint8)
        labels = np.empty((len(indices), size, size), np.uint8)
        for row, index in enumerate(indices.tolist()):
            screen, ram = frames[index]
            image[row] = resized(screen, size)
            labels[row] = resized_labels(label_frame(screen, ram), size)
        return {"image": image, "labels": labels, "boxes": boxes_of_labels(labels, len(OBJECTS))}


def recorded_games() -> Iterator[Screen]:
    """The screens and memories of the recorded games, at the frames that the record names."""
    for game in _record():
        emulator = new_emulator(GAME)
        shown, step = set(game["frames"]), 0
        for action, times in game["actions"]:
            for _ in range(times):
                emulator.act(action)
                step += 1
                if step in shown:
                    yield emulator.getScreenRGB(), emulator.getRAM()


def recorded_frames() -> int:
    """How many frames the record names."""
    return sum(len(game["frames"]) for game in _record())


@cache
def _record() -> list[dict[str, Any]]:
    """Games as {"actions": [[action, times], ...], "frames": [steps after which a frame is taken]}."""
    games: Any = json.loads(files("unscene.data.montezuma").joinpath("games.json").read_text(encoding="utf-8"))
    return list(games["games"])


def label_frame(screen: NDArray[np.uint8], ram: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Return the label map of a screen [210, 160, 3] of the first room: label n is OBJECTS[n - 1], 0 the background.

    A ladder's label fills its box, rungs and gaps, without the objects in front of it. With `ram` [128], the console's
    memory, another room than the first has no labels.
    """
    labels = np.zeros(screen.shape[:2], np.uint8)
    if ram is not None and ram[3] != 1:
        return labels
    label = {name: number for number, name in enumerate(OBJECTS, start=1)}
    has_colour = {
        name: (screen[:, :, None] == np.array(colours, np.uint8)).all(axis=3).any(axis=2)
        for name, colours in COLOURS.items()
    }
    for name in LADDERS:
        labels[REGIONS[name]] = label[name]
    labels[has_colour["yellow"]] = label["key"]
    for name in ("left door", "right door", "rope"):
        labels[REGIONS[name]][has_colour["yellow"][REGIONS[name]]] = label[name]
    labels[has_colour["skull"]] = label["skull"]
    labels[has_colour["agent"]] = label["agent"]
    labels[:FIRST_ROW] = 0
    return labels


def resized_labels(labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The square of a label map [210, 160] as [size, size]; an object gets a pixel that it covers by half or more.

    The rope is half a pixel wide at 64: an object that would get no pixel gets those of each row that it covers most.
    """
    square = labels[TOP:BOTTOM]
    resized_map = np.zeros((size, size), np.uint8)
    for label in np.unique(square[square > 0]):
        mask = Image.fromarray((square == label).astype(np.float32))
        share = np.asarray(mask.resize((size, size), Image.Resampling.BOX))
        most = 0.5 if (share >= 0.5).any() else share.max(axis=1, keepdims=True)
        resized_map[(share > 0) & (share >= most)] = label
    return resized_map
