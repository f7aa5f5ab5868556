"""The commands `train`, `evaluate` and `decompose` as plain functions, and the metrics of `evaluate` for arrays.

All of them raise an `UnsceneError`.

`model` is a loaded model, or what `load` takes. `settings` are settings that differ from the recipe, by dotted name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from unscene.data.image_file import read_image
from unscene.data.image_resize import FitKind, fit_image
from unscene.evaluation.evaluate import evaluate as write_evaluation
from unscene.evaluation.evaluate import measure
from unscene.evaluation.masks import evaluate_masks as evaluate_masks
from unscene.evaluation.scenes import test_source
from unscene.inference.image_files import named_images
from unscene.runs.loading import LoadedModel, load
from unscene.runs.run_folder import new_run_folder
from unscene.scene import Decomposition, Scene
from unscene.training.recipe_to_train import recipe_to_train
from unscene.training.train import train as train_recipe

Model: TypeAlias = str | Path | LoadedModel
Settings: TypeAlias = Mapping[str, Any] | None


def train(recipe: str | Path, settings: Settings = None, *, out: str | Path | None = None) -> LoadedModel:
    """Train a recipe, and return the model with the weights that `trainer.keep_best_by` chooses.

    Args:
        recipe: a recipe's name, or the path of a `.yaml` file.
        settings: for instance `{"data.folder": "photos", "seed": 1}`.
        out: the run's folder, new or empty; by default `runs/RECIPE`, then `-2`, `-3` ...
    """
    chosen = recipe_to_train(str(recipe), dict(settings or {}))
    return load(train_recipe(chosen, Path(out) if out else new_run_folder(recipe)).path)


def evaluate(
    model: Model, settings: Settings = None, *, data: str | Path | None = None, out: str | Path | None = None
) -> dict[str, float | int | None]:
    """Score a model on labelled scenes, and return every metric by its name; None is "not applicable".

    Args:
        model: a loaded model, or what `load` takes.
        settings: of the test data, for instance `{"data.seed": 7, "data.count": 320}`.
        data: instead of the recipe's test data, an HDF5 file of scenes, a folder of images with label images, or
            COCO's `instances.json`.
        out: folder for `metrics.json` and `index.html`; without it nothing is written.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    changes = {name.removeprefix("data."): value for name, value in (settings or {}).items()}
    source, described = test_source(loaded, Path(data) if data else None, changes)
    how: dict[str, Any] = {"count": len(source), "batch_size": 32, "description_of_data": described}
    score = partial(write_evaluation, out=Path(out)) if out else partial(measure, examples=False)
    return dict(score(loaded, source, **how).metrics)


def decompose(
    model: Model, images: Tensor | str | Path | Sequence[str | Path], fit: FitKind | None = None
) -> Decomposition:
    """Decompose image files or a batch of images, at the model's resolution.

    Args:
        model: a loaded model, or what `load` takes.
        images: [B, 3, size, size] in 0..1; or an image file, a folder, or a list of them. All are held in memory.
        fit: how a file becomes the model's square: `crop`, `pad` or `stretch`; by default as in the training.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    if not isinstance(images, Tensor):
        paths = [images] if isinstance(images, str | Path) else images
        _, named = named_images([Path(path) for path in paths])
        read = [read_image(image.path, image.frame, loaded.contrast) for image in named]
        squares = [fit_image(image, loaded.size, fit or loaded.fit)[0] for image in read]
        images = Scene.from_batch({"image": np.stack(squares)}).images
    return loaded.decompose(images)
