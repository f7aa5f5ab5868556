"""Search for games of Montezuma's first room in which the key is taken and doors are opened, and record them.

    python tools/record_montezuma.py --seed 0 --seconds 60

A search over the emulator's states in the manner of Go-Explore (Ecoffet et al., 2021): every place that the agent has
reached, with what it has taken and opened, keeps the shortest way there; from one of them, rarely tried ones first, a
random player goes on. Only actions are written (`src/unscene/data/montezuma/games.json`): frames and labels are made
again from them.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unscene.data.atari import ACTIONS, new_emulator, resized
from unscene.data.montezuma.dataset import GAME, OBJECTS, label_frame

RECORD = Path(__file__).resolve().parents[1] / "src/unscene/data/montezuma/games.json"
HELD = 4  # emulator frames an action is held for
GAMES, FRAMES_A_GAME, APART = 4, 10, 12  # of each kind of room; emulator frames between two frames that are taken


@dataclass(frozen=True)
class RamObjects:
    """What the console's memory states about the first room.

    Attributes:
        in_first_room: whether the agent is there.
        agent: x and y of its middle on the screen, within ten pixels: its shape changes.
        skull: the same; None when there is none.
        left_door: whether it is shut.
        right_door: whether it is shut.
        key: whether it is in its state.
    """

    in_first_room: bool
    agent: tuple[int, int]
    skull: tuple[int, int] | None
    left_door: bool
    right_door: bool
    key: bool


def objects_in_ram(ram: NDArray[np.uint8]) -> RamObjects:
    """Read the console's memory [128]."""
    number = [int(byte) for byte in ram]
    return RamObjects(
        in_first_room=number[3] == 1,
        agent=(number[42] + 3, 318 - number[43]),
        skull=(number[47] + 35, 413 - number[46]) if number[67] & 2 else None,
        left_door=number[26] != 117,
        right_door=number[28] != 117,
        key=number[49] == 4,
    )


@dataclass
class Reached:
    """A state that was reached: the emulator's, the actions to it, and how often the search started from it."""

    state: Any
    actions: tuple[int, ...]
    tried: int = 0


def kind(ram: np.ndarray) -> tuple[bool, bool, bool]:
    """Whether key, left door and right door are there."""
    seen = objects_in_ram(ram)
    return seen.key, seen.left_door, seen.right_door


def shown(screen: np.ndarray) -> tuple[bool, bool, bool]:
    """The same by the screen, which for some frames of a change does not yet say what the memory says."""
    labels = label_frame(screen)
    key, left, right = (bool((labels == OBJECTS.index(name) + 1).any()) for name in ("key", "left door", "right door"))
    return key, left, right


def search(seed: int, seconds: float) -> dict[tuple, Reached]:
    """Reached states by (kind of room, column, row)."""
    emulator, choose = new_emulator(GAME), np.random.default_rng(seed)
    lives = emulator.lives()
    states = {("start",): Reached(emulator.cloneState(), ())}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        names = list(states)
        weights = np.array([1 / (1 + states[name].tried) ** 0.5 for name in names])
        state = states[names[choose.choice(len(names), p=weights / weights.sum())]]
        state.tried += 1
        emulator.restoreState(state.state)
        actions, action = list(state.actions), 0
        for _ in range(100):
            if choose.random() < 0.15:
                action = int(choose.integers(ACTIONS))
            for _ in range(HELD):
                emulator.act(action)
            actions.append(action)
            ram = emulator.getRAM()
            if ram[3] != 1 or emulator.lives() != lives:
                break
            x, y = objects_in_ram(ram).agent
            name = (kind(ram), x // 6, y // 6)
            if name not in states or len(actions) < len(states[name].actions):
                states[name] = Reached(emulator.cloneState(), tuple(actions))
    return states


def games(states: dict[tuple, Reached], seed: int) -> list[dict[str, Any]]:
    """Of each kind of room some games that end far from one another, and the frames to take of each."""
    choose = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    taken: set[bytes] = set()
    kinds = sorted({name[0] for name in states if name != ("start",)}, reverse=True)
    for which in kinds:
        kind_states = [name for name in states if name != ("start",) and name[0] == which]
        for index in choose.permutation(len(kind_states))[:GAMES]:
            actions = states[kind_states[index]].actions
            emulator, steps, step = new_emulator(GAME), [], 0
            seen: dict[int, bytes] = {}
            for action in actions:
                for _ in range(HELD):
                    emulator.act(action)
                    step += 1
                    if kind(emulator.getRAM()) != which or (steps and step - steps[-1] < APART):
                        continue
                    screen = emulator.getScreenRGB()
                    small = resized(screen, 64).tobytes()  # no two alike, at the size that models see
                    if shown(screen) == which and small not in taken:
                        steps.append(step)
                        seen[step] = small
            kept = sorted(choose.permutation(steps)[:FRAMES_A_GAME].tolist())
            if not kept:
                continue
            taken |= {seen[step] for step in kept}
            runs = [[action, HELD * len(list(same))] for action, same in groupby(actions)]
            found.append({"actions": runs, "frames": kept})
        print(f"key, left door, right door there: {which}: {len(kind_states)} states")
    return found


def main() -> None:
    """Search and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    found = games(search(options.seed, options.seconds), options.seed)
    lines = ",\n".join(json.dumps(game, separators=(",", ":")) for game in found)
    RECORD.write_text(f'{{"games":[\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{RECORD}: {sum(len(game['frames']) for game in found)} frames of {len(found)} games")


if __name__ == "__main__":
    main()
