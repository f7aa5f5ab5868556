"""Frames of Atari games: of a random policy without labels, and of recorded games with the boxes of their objects.

The boxes (`atari_games.json`, written by tools/record_atari.py) are those that OCAtari (Delfosse et al., 2024; MIT)
reads from the console's memory. The emulator (ale-py, GPL-2.0) is an optional extra, `pip install unscene[atari]`, and
is imported here only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt

from unscene.data.playback import Playback
from unscene.data.samples import checked_indices
from unscene.errors import DataError, RecipeError, did_you_mean
from unscene.settings import settings_dataclass

TOP, BOTTOM = 34, 194  # rows of the 210 x 160 screen that are kept, a square: in most games below the score
VERSION = 1  # raised whenever the same settings give other frames
ACTIONS, FRAME_SKIP = 18, 4  # an action lasts 4 emulator frames, from one frame of the set to the next
Screen = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # [210, 160, 3], and the console's memory [128]


@settings_dataclass
class AtariSettings:
    """Which frames.

    Attributes:
        game: name of the game as ale-py has it, for instance `pong` or `space_invaders`.
        count: number of frames.
        seed: seed of the policy.
        size: height and width of the frames; the screen's square is 160.
        policy: `random` plays uniformly random actions from the start, and a new game when one is over. `recorded`
            plays recorded actions of pong, breakout, freeway, kangaroo, ms_pacman or seaquest; there are 100 frames
            of each, with boxes.
        objects: of recorded frames, only objects of these kinds have boxes, for instance `Player` and `Ball`; empty for
            all kinds.
        clip_length: T; frame `i` is frame `i % T` of clip `i // T`. 1: no clips. Recorded frames are six actions apart.
    """

    game: str = "pong"
    count: PositiveInt = 10_000
    seed: NonNegativeInt = 0
    size: PositiveInt = 64
    policy: Literal["random", "recorded"] = "random"
    objects: tuple[str, ...] = ()
    clip_length: PositiveInt = 1


class Atari:
    """Frames of a game, in the order in which they are played.

    Raises:
        DataError: ale-py is not installed, or more recorded frames are asked for than there are.
        RecipeError: there is no such game, no record of it, or kinds of objects are named for frames without boxes.
    """

    Settings = AtariSettings

    def __init__(self, settings: AtariSettings) -> None:
        self.settings = settings
        new_emulator(settings.game)  # raises early if it is missing
        if settings.objects and settings.policy == "random":
            raise RecipeError("atari: data.objects needs data.policy recorded: other frames have no boxes.")
        self._boxes = np.zeros((0, 0, 4), np.float32)
        if settings.policy == "recorded":
            game = _recorded_game(settings.game)
            if settings.count > len(game["boxes"]):
                asked = f"{settings.count} recorded frames were asked for, but there are {len(game['boxes'])}"
                raise DataError(f"atari: {asked}: lower data.count.")
            kinds = sorted({box[4] for boxes in game["boxes"] for box in boxes})
            for kind in settings.objects:
                if kind not in kinds:
                    raise RecipeError(
                        f"atari: '{kind}' is no object of {settings.game}.{did_you_mean(kind, kinds)} The record has: "
                        f"{', '.join(kinds)}."
                    )
            chosen = settings.objects or kinds
            boxes = [[box for box in boxes if box[4] in chosen] for boxes in game["boxes"]]
            self._boxes = _scaled_boxes(boxes, settings.size)
        self._playback = Playback(self._play)

    @property
    def clip_length(self) -> int:
        """Number of the frames of a clip; 1 for frames that are taken one by one."""
        return self.settings.clip_length

    def __len__(self) -> int:
        return self.settings.count

    def batch(self, indices: Sequence[int] | NDArray[np.integer]) -> dict[str, NDArray[Any]]:
        """Return image uint8 [B, size, size, 3], and of recorded games boxes float32 [B, M, 4]."""
        indices = checked_indices(indices, len(self))
        frames = self._playback.frames(indices)
        images = [resized(frames[index][0], self.settings.size) for index in indices.tolist()]
        batch: dict[str, NDArray[Any]] = {"image": np.stack(images)}
        return batch | ({"boxes": self._boxes[indices]} if self.settings.policy == "recorded" else {})

    def _play(self) -> Iterator[Screen]:
        if self.settings.policy == "random":
            return play(self.settings.game, random_actions(self.settings.seed))
        about, actions = _record()["about"], _recorded_game(self.settings.game)["actions"]
        return islice(play(self.settings.game, actions), about["first"] - 1, None, about["apart"])


def random_actions(seed: int) -> Iterator[int]:
    """Uniformly random actions, without end."""
    choose = np.random.default_rng(seed)
    while True:
        yield int(choose.integers(ACTIONS))


def play(game: str, actions: Iterable[int]) -> Iterator[Screen]:
    """The screen and the memory after each action; a game that is over starts again."""
    emulator = new_emulator(game)
    for action in actions:
        for _ in range(FRAME_SKIP):
            emulator.act(action)
        if emulator.game_over():
            emulator.reset_game()
        yield emulator.getScreenRGB(), emulator.getRAM()


def new_emulator(game: str) -> Any:
    """An emulator at a game's start; the same actions always lead to the same frames.

    Raises:
        DataError: ale-py is not installed.
        RecipeError: there is no such game.
    """
    try:
        import ale_py
        from ale_py import roms
    except ImportError:
        raise DataError(
            "Atari games need the emulator ale-py, which is not installed: pip install 'unscene[atari]'. "
            "It is under the GPL-2.0, and therefore an extra."
        ) from None
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    names = roms.get_all_rom_ids()
    rom = roms.get_rom_path(game) if game in names else None
    if rom is None:
        raise RecipeError(f"there is no game '{game}'.{did_you_mean(game, names)}")
    emulator = ale_py.ALEInterface()
    emulator.setInt("random_seed", 0)
    emulator.setFloat("repeat_action_probability", 0.0)  # no sticky actions
    emulator.loadROM(rom)
    return emulator


def resized(screen: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The screen's square as [size, size, 3], each pixel the mean of what it covers."""
    return np.asarray(Image.fromarray(screen[TOP:BOTTOM]).resize((size, size), Image.Resampling.BOX))


def _scaled_boxes(frames: Sequence[Sequence[Sequence[Any]]], size: int) -> NDArray[np.float32]:
    """[T, M, 4] the boxes of each frame, `x y width height category`, within the screen's square as `size` pixels."""
    boxes = np.zeros((len(frames), max(map(len, frames)), 4), np.float32)
    for row, objects in zip(boxes, frames, strict=True):
        for box, (x, y, width, height, _) in zip(row, objects, strict=False):
            box[:] = x, y - TOP, x + width, y - TOP + height
    boxes = boxes.clip(0, BOTTOM - TOP) * np.float32(size / (BOTTOM - TOP))
    return boxes * (boxes[..., 2:] > boxes[..., :2]).all(axis=2, keepdims=True)


def _recorded_game(game: str) -> dict[str, Any]:
    games: dict[str, Any] = _record()["games"]
    if game not in games:
        raise RecipeError(f"no game of '{game}' is recorded, only of {', '.join(games)}. Set data.policy to random.")
    return dict(games[game])


@cache
def _record() -> dict[str, Any]:
    return dict(json.loads(files("unscene.data").joinpath("atari_games.json").read_text(encoding="utf-8")))
