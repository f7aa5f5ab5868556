"""Put a run's best weights into the package, with their model card.

    unscene evaluate RUN --data.seed 3 --data.count 1600 --out RUN/report
    python tools/ship_weights.py RUN

Writes src/unscene/weights/MODEL--DATA.safetensors (matrices in float16) and the card beside it, from what the run and
its report say of themselves.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path
from typing import Any

import unscene
from unscene.data.hdf5.reader import SceneStore
from unscene.files import write_bytes, write_text
from unscene.runs.loading import SHIPPED
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import export_weights, public_weights

LARGEST = 16 * 2**20  # bytes of a file in the repository
SCORES = (
    "ari_fg",
    "ari_fg_objects",
    "ari",
    "map_50_95",
    "map_50",
    "map_75",
    "mask_iou",
    "ami_fg",
    "located",
    "location_error",
    "reconstruction_mse",
)
LIMITS = {
    **dict.fromkeys(
        ("rmonet_unet/multi_dsprites_cpu", "rmonet_lite/multi_dsprites_cpu"),
        "Made for 64-pixel scenes of a few flat sprites of one colour each on a grey ground: a slot has one colour. It "
        "does not find objects in photographs.",
    ),
    "rmonet_unet/clevr_scenes_cpu": "Made for scenes as `unscene generate clevr_scenes` traces them, at 128 pixels in "
    "the papers' crop. It was not tried on CLEVR itself, and does not find objects in photographs.",
    **dict.fromkeys(
        ("monet", "iodine"),
        "Made for scenes of a few sprites of one colour each on a grey ground, at the size of its recipe: a slot has "
        "one colour. It does not find objects in photographs.",
    ),
    "explicit_localization": "It knows the scenes of its training and nothing else: train it on your own frames by "
    "`unscene train explicit_localization/images --data.folder FRAMES`.",
}
CURVE = {
    "val/ari_fg": "ARI foreground",
    "val/ari_fg_objects": "objects' slots",
    "val/map_50": "mAP 50",
    "val/located": "located",
    "health/background": "background's share",
}


def main(folder: str) -> None:
    run = RunFolder.open(Path(folder))
    report = json.loads((run.path / "report" / "metrics.json").read_text())
    name = run.recipe_values()["name"]
    scores = {key: round(report[key], 4) for key in SCORES if report[key] is not None}
    SHIPPED.mkdir(exist_ok=True)
    target = SHIPPED / f"{name.replace('/', '--')}.safetensors"
    export_weights(run, target, half=True, scores=scores)
    write_bytes(target, public_weights(target)[0])
    if target.stat().st_size > LARGEST:
        target.unlink()
        raise SystemExit(f"{target.name} would be larger than {LARGEST:,} bytes.")
    write_text(target.with_suffix(".md"), model_card(run, name, report, unscene.load(target).provenance))
    print(target, f"{target.stat().st_size:,} bytes")


def model_card(run: RunFolder, name: str, report: dict[str, Any], provenance: dict[str, Any]) -> str:
    starts = json.loads(run.environment.read_text())
    values = run.recipe_values()
    first, evaluated = starts[0], report["provenance"]["evaluation"]
    rows = [row for row in csv.DictReader(run.metrics.open()) if row.get("val/ari_fg")]
    columns = {name: label for name, label in CURVE.items() if all(row.get(name) for row in rows)}
    data = values["data"]
    origin = f"{data['name']}, drawn by unscene, seed {data['seed']}" if "seed" in data else data_file(data)
    validation = ", ".join(f"{key} {value}" for key, value in values["validation"].items())
    lines = [
        f"# {name}: the weights that come with unscene",
        "",
        f"- **Recipe**: `{name}` (every setting is in the file's own metadata), seed {values['seed']}",
        f"- **Data**: {origin}; no label was seen in training",
        f"- **Steps**: {provenance['step']:,} of {values['trainer']['batch_size']} images "
        f"({choice(provenance['checkpoint'], values['trainer']['keep_best_by'])})",
        f"- **Hardware**: {first['cpu']}, {first['cores']} cores, {first['gpu'] or 'no GPU'}",
        "- **Versions**: "
        + ", ".join(f"{package} {first[package]}" for package in ("torch", "torchvision", "lightning")),
        f"- **Precision of the file**: matrices float16, vectors float32; sha256 `{provenance['sha256']}`",
        *(
            ["- **Masks**: posterior, so are the scores; `--model.masks inferred` shows the papers', which score lower"]
            if values["model"].get("masks") == "posterior"
            else []
        ),
        "- **Licence**: Apache-2.0",
        "",
        "Started by:",
        "",
        *(
            f"    {public(start['command'])}\n"
            f"        # commit {start['commit']}, from step {start['first_step']:,}, {start['threads']} thread(s)"
            for start in starts
        ),
        "",
        "## Scores",
        "",
        f"`{public(evaluated['command'])}`, commit {evaluated['commit']}, {evaluated['cpu']}:",
        "",
        "| metric | value |",
        "|---|---|",
        *(f"| {key} | {report[key]:.4f} |" for key in SCORES if report[key] is not None),
        *located_objects(report),
        "",
        "## The curve",
        "",
        f"On the validation scenes ({validation}), against training time:",
        "",
        f"| step | minutes | {' | '.join(columns.values())} |",
        f"|---|---|{'---|' * len(columns)}",
        *(
            f"| {row['step']} | {float(row['seconds']) / 60:.0f} | "
            + " | ".join(f"{float(row[name]):.3f}" for name in columns)
            + " |"
            for row in rows
        ),
        "",
        "## Limits",
        "",
        LIMITS.get(name) or LIMITS[values["model"]["name"]],
        "",
    ]
    return "\n".join(lines)


def public(command: str) -> str:
    """A command as one types it, without the folders of this machine: of an absolute path the last name stays."""
    return re.sub(r"(?<!\S)/\S*?([^/\s]+)/?(?!\S)", r"\1", command.replace("__main__.py", "unscene"))


def choice(checkpoint: str, score: str) -> str:
    """How the step was chosen."""
    if "last" in (checkpoint.removesuffix(".ckpt"), score):
        return "the last: no label had a part in this choice"
    return f"the best validation by {score}: this choice reads the labels of the validation scenes"


def data_file(data: dict[str, Any]) -> str:
    """What an HDF5 file says of itself."""
    attributes = SceneStore(data["path"]).attributes
    return (
        f"{attributes['source']}, made by `unscene generate {attributes['source']}` (settings "
        f"{json.dumps(attributes['settings'])}), scenes {data['first']} to {data['first'] + data['count']}"
    )


def located_objects(report: dict[str, Any]) -> list[str]:
    """The table of named objects, where the data has names."""
    if not report["located_objects"]:
        return []
    return [
        "",
        "Each object by itself: images that show it, and in how many a location lies within 5 % of the frame from the",
        "middle of its box, one location for one object:",
        "",
        "| object | images | located | median distance |",
        "|---|---|---|---|",
        *(
            f"| {name} | {located['images']} | {located['located']} | "
            f"{'none' if located['distance'] is None else format(located['distance'], '.4f')} |"
            for name, located in report["located_objects"].items()
        ),
    ]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
