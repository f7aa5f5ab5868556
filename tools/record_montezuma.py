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

from unscene.data.montezuma.dataset import ACTIONS, new_emulator, resized
from unscene.data.montezuma.labels import OBJECTS, label_frame, objects_in_ram

RECORD = Path(__file__).resolve().parents[1] / "src/unscene/data/montezuma/games.json"
HELD = 4  # emulator frames an action is held for
GAMES, FRAMES_A_GAME, APART = 4, 10, 12  # of each kind of room; emulator frames between two frames that are taken


@dataclass
class Place:
    """A state that was reached: the emulator's, the actions to it, and how often the search set out from it."""

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


def search(seed: int, seconds: float) -> dict[tuple, Place]:
    """Places by (kind of room, column, row)."""
    emulator, choose = new_emulator(), np.random.default_rng(seed)
    lives = emulator.lives()
    places = {("start",): Place(emulator.cloneState(), ())}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        names = list(places)
        weights = np.array([1 / (1 + places[name].tried) ** 0.5 for name in names])
        place = places[names[choose.choice(len(names), p=weights / weights.sum())]]
        place.tried += 1
        emulator.restoreState(place.state)
        actions, action = list(place.actions), 0
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
            if name not in places or len(actions) < len(places[name].actions):
                places[name] = Place(emulator.cloneState(), tuple(actions))
    return places


def games(places: dict[tuple, Place], seed: int) -> list[dict[str, Any]]:
    """Of each kind of room some games that end far from one another, and the frames to take of each."""
    choose = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    taken: set[bytes] = set()
    kinds = sorted({name[0] for name in places if name != ("start",)}, reverse=True)
    for which in kinds:
        of_kind = [name for name in places if name != ("start",) and name[0] == which]
        for index in choose.permutation(len(of_kind))[:GAMES]:
            actions = places[of_kind[index]].actions
            emulator, steps, step = new_emulator(), [], 0
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
        print(f"key, left door, right door there: {which}: {len(of_kind)} places")
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
