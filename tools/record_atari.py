"""Record games of a random policy with the boxes of their objects: src/unscene/data/atari_games.json.

    python -m venv /tmp/ocatari && /tmp/ocatari/bin/pip install "ocatari==2.2.1" "numpy<2"
    /tmp/ocatari/bin/python tools/record_atari.py

OCAtari (Delfosse et al., 2024; MIT) reads the boxes from the console's memory. It needs numpy < 2, so it is in an
environment of its own, which does not have `unscene`. Only actions and boxes are written: the frames are played again.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
from ocatari.core import OCAtari

RECORD = Path(__file__).resolve().parents[1] / "src/unscene/data/atari_games.json"
GAMES = {  # not Boxing and Frostbite, where boxes from the memory lie beside what the screen shows
    "pong": "Pong",
    "breakout": "Breakout",
    "freeway": "Freeway",
    "kangaroo": "Kangaroo",
    "ms_pacman": "MsPacman",
    "seaquest": "Seaquest",
}
LEFT_OUT = ("NoObject", "Pill")  # a maze has some 140 pills
FRAMES, APART, FIRST = 100, 6, 60  # recorded frames, steps between two of them, steps before the first


def record(name: str, seed: int) -> dict:
    """The actions, the boxes `x y width height category` of every recorded frame, and a checksum of the screens."""
    env = OCAtari(
        f"ALE/{name}-v5", mode="ram", hud=False, frameskip=4, repeat_action_probability=0.0, full_action_space=True
    )
    env.reset(seed=seed)
    ale = env._env.unwrapped.ale
    choose, actions, frames, checksum = np.random.default_rng(seed), [], [], 0
    while len(frames) < FRAMES:
        actions.append(int(choose.integers(18)))
        _, _, ended, cut, _ = env.step(actions[-1])
        if ended or cut:
            env.reset()
        if len(actions) >= FIRST and (len(actions) - FIRST) % APART == 0:
            boxes = [[*map(int, (*item.xy, *item.wh)), item.category] for item in env.objects if item is not None]
            frames.append([box for box in boxes if box[2] > 0 and box[3] > 0 and box[4] not in LEFT_OUT])
            checksum = zlib.crc32(ale.getScreenRGB().tobytes(), checksum)
    return {"actions": actions, "boxes": frames, "checksum": checksum}


if __name__ == "__main__":
    text = ",\n".join(
        f"{json.dumps(game)}: {json.dumps(record(name, 0), separators=(',', ':'))}" for game, name in GAMES.items()
    )
    about = {
        "licence": "CC0-1.0",
        "boxes": "of OCAtari 2.2.1 (MIT), by tools/record_atari.py: x y width height category on the 210 x 160 screen",
        "first": FIRST,
        "apart": APART,
    }
    RECORD.write_text(f'{{"about": {json.dumps(about)},\n"games": {{\n{text}\n}}}}\n', encoding="utf-8")
    print(f"{RECORD}: {RECORD.stat().st_size / 1024:.0f} KiB")
