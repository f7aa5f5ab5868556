"""The main job, small: train for some minutes, score that beside the shipped weights, decompose images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from unscene.errors import RunError
from unscene.evaluation.evaluate import measure
from unscene.files import lock, write_text, writing
from unscene.inference.decompose import decompose_paths
from unscene.recipes import load_recipe
from unscene.report.page import Section, write_page
from unscene.report.results import ModelResult, page_values
from unscene.runs.loading import LoadedModel, load, shipped_weights
from unscene.training.train import train

RECIPE = "rmonet_unet/multi_dsprites_cpu"
SCENES, SEED = 320, 1234  # fresh: the recipes train, validate and test on seeds 0, 1 and 2
IMAGES = 6


def demo(out: Path, minutes: float = 3.0) -> Path:
    """Train for some minutes, run the rest, and return the page about it. An earlier demo in the folder is replaced.

    RunError: the folder holds something that no demo wrote, or is in use.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file. Name a folder with --out.")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        return _demo(out, minutes)


def _demo(out: Path, minutes: float) -> Path:
    mark = out / ".unscene-demo"
    earlier = [path for path in out.iterdir() if path != mark]
    if earlier and not mark.is_file():
        raise RunError(f"{out} holds files that no demo wrote. Name another folder with --out.")
    with writing(out):
        mark.touch()  # first, and it stays: after a kill the next demo knows the rest as its own
        for path in earlier:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    print(f"1/4  Training {RECIPE} for {minutes:g} minutes, from nothing and without labels")
    changes = {"trainer.max_minutes": minutes, "trainer.validate_minutes": minutes / 3, "validation.count": 96}
    run = train(load_recipe(RECIPE, changes), out / "run")
    models = {f"{RECIPE}, trained for {minutes:g} minutes just now": load(run.path)}
    if RECIPE in shipped_weights():
        models[f"{RECIPE}, shipped weights"] = load(RECIPE)
    print(f"2/4  Scoring {len(models)} models on the same {SCENES} fresh scenes of seed {SEED}")
    results = [replace(_scored(model), name=title) for title, model in models.items()]
    title, model = list(models.items())[-1]
    print(f"3/4  Decomposing {IMAGES} images with {title}")
    (out / "images").mkdir()
    test_images = model.recipe.source("test", seed=SEED + 1, count=IMAGES).batch(np.arange(IMAGES))["image"]
    for index, pixels in enumerate(test_images):  # larger than the model's size, as a person's own images would be
        larger = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BICUBIC)
        larger.save(out / "images" / f"scene_{index}.png")
    decomposed = decompose_paths(model, [out / "images"], out / "decomposed", progress=False)
    print("4/4  Writing the page")
    text = f"{decomposed.images} images of 256 pixels, {decomposed.objects} objects; the files are in decomposed/."
    section = Section("Images decomposed", text, decomposed.pictures)
    write_page(out / "index.html", "unscene: the main job, small", [section], **page_values(results))
    write_text(out / "metrics.json", json.dumps([result.as_json() for result in results], indent=2, default=str) + "\n")
    for result in results:
        scores = result.metrics
        print(f"     {result.name}: foreground ARI {scores['ari_fg']:.3f}, mAP 50 {scores['map_50']:.3f}")
    return out / "index.html"


def _scored(model: LoadedModel) -> ModelResult:
    data = {"source": "multi_dsprites", "seed": SEED, "count": SCENES}
    source, curves = model.recipe.source("test", seed=SEED, count=SCENES), model.run.metrics if model.run else None
    return measure(model, source, count=SCENES, description_of_data=data, metrics_csv=curves)
