"""Print what a refactoring must not change: seeded losses, weights after 20 steps, and scores of the shipped weights.

    python tools/fingerprint.py > before.txt     # at the old commit
    python tools/fingerprint.py > after.txt      # at the new one, on the same machine; then compare the two files

For each compact recipe: the loss at steps 1, 10 and 19 of a training of batches of 8 in float32 on one thread, and the
SHA-256 of the weights after step 20. For each shipped model: every score on 64 scenes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.numpy import load_file

SETTINGS = {
    "trainer.max_steps": 20,
    "trainer.log_every": 1,
    "trainer.batch_size": 8,
    "trainer.precision": "float32",
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
    "trainer.validate_images": 8,
    "validation.count": 8,
    "data.count": 400,
}
STEPS = (1, 10, 19)


def main() -> None:
    """Print one line for each recipe and each shipped model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="recipes and models whose name contains this")
    only = parser.parse_args().only
    recipes = command("recipes").splitlines()[1:]
    names = [line.split()[0] for line in recipes]
    compact = [name for name in names if name.endswith(("_cpu", "/small_sprites")) and only in name]
    for name in compact:
        print(name, fingerprint(name), flush=True)
    root = Path(__file__).resolve().parents[1] / "src/unscene/weights"
    for path in sorted(root.glob("*.safetensors")):
        name = path.stem.replace("--", "/")
        if only in name:
            print(name, scores(name), flush=True)


def fingerprint(recipe: str) -> str:
    """Losses of a short training and the hash of its weights."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        changes = SETTINGS | ({"data.name": "montezuma"} if "montezuma" in recipe else {})
        command("train", recipe, "--out", str(out), *(word for k, v in changes.items() for word in (f"--{k}", str(v))))
        with (out / "metrics.csv").open(newline="") as file:
            rows = {int(row["step"]): row.get("train/loss") or row.get("train/total") for row in csv.DictReader(file)}
        digest = hashlib.sha256()
        for name, values in sorted(load_file(out / "weights.safetensors").items()):
            digest.update(name.encode() + values.tobytes())
    return " ".join(f"{rows[step]}" for step in STEPS) + " " + digest.hexdigest()[:16]


def scores(model: str) -> str:
    """Every score of a shipped model on 64 fresh scenes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report"
        data = ["--data.count", "64"]
        if "montezuma" in model:  # its test scenes are a file
            data = ["--data", f"{folder}/frames.h5"]
            command("generate", "montezuma", "--data.policy", "recorded", "--count", "149", "--out", data[1])
        command("evaluate", model, *data, "--out", str(out))
        metrics = json.loads((out / "metrics.json").read_text())
    return " ".join(f"{name}={value:.4f}" for name, value in sorted(metrics.items()) if isinstance(value, float))


def command(*words: str) -> str:
    """Run `unscene` on one thread and return what it prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "unscene", *words], capture_output=True, text=True, env=environment, check=False
    )
    if ran.returncode:
        raise SystemExit(ran.stderr[-2000:])
    return ran.stdout


if __name__ == "__main__":
    main()
