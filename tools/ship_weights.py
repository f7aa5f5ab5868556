"""Put a run's best weights into the package, with their model card.

    unscene evaluate RUN --data.seed 3 --data.count 1600 --out RUN/report
    python tools/ship_weights.py RUN

Writes src/unscene/weights/MODEL--DATA.safetensors (matrices in float16) and the card beside it, from what the run and
its report say of themselves.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import unscene
from unscene.training.loading import SHIPPED
from unscene.training.run_folder import RunFolder, write_text
from unscene.training.weights import export_weights

LARGEST = 16 * 2**20  # bytes of a file in the repository
SCORES = (
    "ari_fg",
    "ari_fg_without_background",
    "ari",
    "map_50_95",
    "map_50",
    "map_75",
    "mask_iou",
    "reconstruction_mse",
)


def main(folder: str) -> None:
    run = RunFolder.open(Path(folder))
    report = json.loads((run.path / "report" / "metrics.json").read_text())
    name = run.recipe_values()["name"]
    scores = {key: round(report[key], 4) for key in SCORES}
    SHIPPED.mkdir(exist_ok=True)
    target = SHIPPED / f"{name.replace('/', '--')}.safetensors"
    export_weights(run, target, half=True, scores=scores)
    if target.stat().st_size > LARGEST:
        target.unlink()
        raise SystemExit(f"{target.name} would be larger than {LARGEST:,} bytes.")
    write_text(target.with_suffix(".md"), model_card(run, name, report, unscene.load(target).provenance))
    print(target, f"{target.stat().st_size:,} bytes")


def model_card(run: RunFolder, name: str, report: dict[str, Any], provenance: dict[str, Any]) -> str:
    starts = json.loads(run.environment.read_text())
    values = run.recipe_values()
    first, evaluated = starts[0], report["provenance"]["evaluation"]
    minutes = [row for row in csv.DictReader(run.metrics.open()) if row.get("val/ari_fg")]
    lines = [
        f"# {name}: the weights that come with unscene",
        "",
        f"- **Recipe**: `{name}` (every setting is in the file's own metadata), seed {values['seed']}",
        f"- **Data**: {values['data']['name']}, drawn by unscene, seed {values['data']['seed']}; "
        "no label was seen in training",
        f"- **Steps**: {provenance['step']:,} of {values['trainer']['batch_size']} images "
        "(the best validation by foreground ARI: this choice reads the labels of the validation scenes)",
        f"- **Hardware**: {first['cpu']}, {first['cores']} cores, {first['gpu'] or 'no GPU'}",
        "- **Versions**: "
        + ", ".join(f"{package} {first[package]}" for package in ("torch", "torchvision", "lightning")),
        f"- **Precision of the file**: matrices float16, vectors float32; sha256 `{provenance['sha256']}`",
        "- **Licence**: Apache-2.0",
        "",
        "Started by:",
        "",
        *(
            f"    {each['command'].replace('__main__.py', 'unscene')}\n"
            f"        # commit {each['commit']}, from step {each['first_step']:,}, {each['threads']} thread(s)"
            for each in starts
        ),
        "",
        "## Scores",
        "",
        f"`{evaluated['command'].replace('__main__.py', 'unscene')}`, commit {evaluated['commit']}, "
        f"{evaluated['cpu']}:",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {key} | {report[key]:.4f} |" for key in SCORES),
        "",
        "## The curve",
        "",
        "On the validation scenes ({count} of seed {seed}), against training time:".format(**values["validation"]),
        "",
        "| step | minutes | ARI foreground | without background | mAP 50 | background's share |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['step']} | {float(row['seconds']) / 60:.0f} | {float(row['val/ari_fg']):.3f} | "
            f"{float(row['val/ari_fg_without_background']):.3f} | {float(row['val/map_50']):.3f} | "
            f"{float(row['health/background']):.3f} |"
            for row in minutes
        ),
        "",
        "## Limits",
        "",
        "Made for 64-pixel scenes of a few flat sprites on a grey ground. It does not find objects in photographs.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
