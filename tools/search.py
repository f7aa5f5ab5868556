"""Search settings that a paper does not state: train a recipe for a short time, score it, record it.

    python tools/search.py explicit_localization/multi_dsprites \
        docs/notes/search/explicit_localization_multi_dsprites.yaml --trials 20 --steps 1500 \
        --out docs/notes/search/explicit_localization_multi_dsprites.jsonl

The space is a YAML file: each setting's dotted name and its possible values. The settings of trial n depend on
(seed, n) alone: a stopped search resumes, and everyone gets the same trials. Trial 0 is the recipe itself with the
changes of --set. Each line of the output is one trial: settings, scores, steps, seconds, commit, machine.
The scores use the labels of the validation scenes; the test scenes are never used.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import yaml

import unscene
from unscene.errors import UnsceneError
from unscene.evaluation.evaluate import measure
from unscene.plain_yaml import read_yaml
from unscene.recipes import load_recipe
from unscene.runs.run_folder import describe_machine
from unscene.training.train import train


def sample_settings(space: dict[str, list[Any]], seed: int, trial: int) -> dict[str, Any]:
    """The settings of a trial; none for trial 0."""
    if trial == 0:
        return {}
    generator = np.random.default_rng((seed, trial))
    return {name: values[int(generator.integers(len(values)))] for name, values in sorted(space.items())}


def run_trial(recipe_name: str, settings: dict[str, Any], images: int) -> dict[str, Any]:
    """Train once in a temporary folder; return the scores, or the error of these settings."""
    started = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            recipe = load_recipe(recipe_name, settings)
            run = train(recipe, Path(folder) / "run")
            result = measure(
                unscene.load(run.path),
                recipe.source("validation"),
                count=min(images, len(recipe.source("validation"))),
                description_of_data={},
                progress=False,
            )
        except UnsceneError as error:
            return {"error": str(error), "seconds": round(perf_counter() - started, 1)}
    scores = {name: round(value, 4) for name, value in result.metrics.items() if value is not None}
    located = {name: [count.located, count.images] for name, count in result.located.items()}
    return {
        "scores": scores,
        **({"located": located} if located else {}),
        "verdict": result.verdict,
        "seconds": round(perf_counter() - started, 1),
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("space", type=Path, help="YAML: dotted setting -> list of values")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial; 0 is the recipe itself")
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    parser.add_argument("--images", type=int, default=320, help="of the validation")
    parser.add_argument("--seed", type=int, default=0, help="of the trials' settings")
    parser.add_argument("--by", default="ari_fg", help="the score that sorts the table at the end")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines; trials that it holds are not run again")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="for every trial")
    options = parser.parse_args(words)
    space = yaml.safe_load(options.space.read_text(encoding="utf-8"))
    fixed = {name: read_yaml(value, name) for name, _, value in (word.partition("=") for word in options.set)}
    shared = {name: value for name, value in fixed.items() if not name.startswith("trainer.")}
    fixed |= {"trainer.max_steps": options.steps, "trainer.validate_minutes": 1e6}
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.is_file() else []
    records = [json.loads(line) for line in lines]
    for trial in range(options.first, options.first + options.trials):
        settings = shared | sample_settings(space, options.seed, trial)
        key = {"seed": options.seed, "trial": trial, "steps": options.steps, "settings": settings}
        if any(key.items() <= record.items() for record in records):
            continue
        machine = describe_machine()
        record = {
            "recipe": options.recipe,
            **key,
            **run_trial(options.recipe, {**fixed, **settings}, options.images),
            "commit": machine["commit"],
            "cpu": machine["cpu"],
            "threads": fixed.get("trainer.threads", machine["threads"]),
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        records.append(record)
    for record in sorted(records, key=lambda record: -record.get("scores", {}).get(options.by, -1)):
        print(record["trial"], record.get("scores", {}).get(options.by, record.get("error")), record["settings"])


if __name__ == "__main__":
    main()
