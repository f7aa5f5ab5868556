"""Probe latents: predict the properties of objects from the latents of the slots that show them (Dittadi et al., 2021).

Slots and true objects are matched one to one by their masks: the Hungarian assignment of the largest sum of

    cos(m_k, t_i) = <m_k, t_i> / (|m_k| |t_i|),   m_k the soft mask of slot k, t_i the true mask of object i.

Linear probes are a ridge or a logistic regression, MLP probes have one hidden layer of 256. They learn from the first
three quarters of the scenes, and are scored on the others, to which a clip on the boundary belongs: accuracy for
classes, R2 for numbers, a mean over the axes of a colour. Objects without a slot do not count. The study has one
network for all properties; here each has its own.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, r2_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from tqdm import tqdm

from unscene.data import Source, clip_length
from unscene.errors import DataError, RecipeError
from unscene.evaluation.evaluate import has_own_sizes, json_text, model_facts
from unscene.evaluation.scenes import checked_scene
from unscene.files import output_folder, write_text
from unscene.report.results import scenes_in_words
from unscene.report.table import Row, Table
from unscene.runs.run_folder import describe_machine
from unscene.scene import Decomposition

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

SCHEMA = 1  # of probe.json; raised whenever a name in it changes its meaning

_COLUMNS = ("linear", "mlp", "chance")
# the scene itself, what is visible of an object, and angles: symmetric shapes leave them open
_NO_PROPERTIES = {"image", "labels", "boxes", "visibility", "visible_pixels", "orientation", "rotation"}
_LEAST_OBJECTS = 20  # to learn from, and to score
_PROTOCOL = {"training_share": 0.75, "seed": 0}  # the seed is that of the MLPs


def probe(
    loaded: LoadedModel,
    source: Source,
    out: Path,
    *,
    description_of_data: dict[str, Any],
    batch_size: int = 32,
    boxes: bool = False,
    progress: bool = True,
    overwrite: bool = False,
) -> Table:
    """Probe the latents of a model for the properties of objects, and write `probe.json`: every score, its provenance.

    With `boxes`, the box or the location that the model states is added to each latent. The table has a row for each
    property: the score of each probe, and that of the best constant (`chance`). For the rest see `measure`.
    RecipeError: the model has no latents, or no boxes. DataError: the scenes have no factors, or too few objects.
    RunError: `out` holds another probe, or cannot be written.
    """
    latents, clips, found = [], [], {}  # type: list[NDArray], list[NDArray], dict[str, list[NDArray]]
    without_slot = 0
    with output_folder(out, ("probe.json",), overwrite) as folder:
        for first in tqdm(range(0, len(source), batch_size), desc=loaded.name, unit=" batches", disable=not progress):
            indices = range(first, min(first + batch_size, len(source)))
            sample = {} if has_own_sizes(source) else source.batch(indices)
            factors = {name: sample[name] for name in found if name} or factors_of(sample)
            scene = checked_scene(sample, loaded.size)
            assert scene.labels is not None
            decomposition = loaded.decompose(scene.images, batch_size=batch_size)
            vectors = slot_vectors(decomposition, loaded, boxes).numpy()
            clips.append(sample.get("video", np.array(indices) // clip_length(source)))
            rows = min(values.shape[1] for values in factors.values())
            for index, objects, slots, missing in match_by_mask(scene.labels, decomposition, rows):
                latents.append(vectors[index, slots])
                for name, values in factors.items():
                    found.setdefault(name, []).append(values[index, objects])
                found.setdefault("", []).append(np.full(len(objects), first + index))
                without_slot += missing
        columns = {name: np.concatenate(parts) for name, parts in found.items()}
        scenes, boundary = columns.pop(""), math.ceil(_PROTOCOL["training_share"] * len(source))
        clip_of = np.concatenate(clips)
        learns = (scenes < boundary) & (clip_of[scenes] != clip_of[min(boundary, len(source) - 1)])
        scores = {name: score_probes(np.concatenate(latents), values, learns) for name, values in columns.items()}
        counts = {"learned": int(learns.sum()), "scored": int((~learns).sum()), "without_slot": without_slot}
        data = {**description_of_data, "scenes": len(source)}
        facts = model_facts(loaded) | {"batch_size": batch_size, "boxes": boxes} | _PROTOCOL | describe_machine()
        content = {"schema": SCHEMA, "name": loaded.name, "objects": counts, "properties": scores}
        content["provenance"] = {"evaluation": facts, "data": data, "weights": dict(loaded.provenance)}
        write_text(folder / "probe.json", json_text(content | {"recipe": loaded.config}))
    table = tuple(Row(f"{name}, {score['measure']}", score) for name, score in scores.items())
    objects_in_words = "{learned:,} objects to learn from, {scored:,} to score; {without_slot:,} have no slot"
    return Table("property", _COLUMNS, table, intro=f"{scenes_in_words(data)}. {objects_in_words.format(**counts)}.")


def factors_of(sample: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """The properties of objects in a batch, [B, M] or [B, M, d] by name; row m belongs to label m + 1.

    DataError: there are none, or no label maps; or the first row is the background's.
    """
    rows = sample["boxes"].shape[1] if "labels" in sample else 0  # fewer are of the scene: its camera, its light
    factors = {
        name: values
        for name, values in sample.items()
        if name not in _NO_PROPERTIES and rows and values.ndim in (2, 3) and values.shape[1] >= rows
    }
    if not factors:
        raise DataError(
            "the data states no properties of its objects (label maps, and factors such as shape, color, x and y). "
            "Name generated scenes, or an HDF5 file that `unscene generate` or `unscene convert` wrote."
        )
    if "visibility" in sample and len(sample["labels"]) > 1:
        visible = sample["visibility"].reshape(len(sample["labels"]), -1) > 0
        shown = [len(np.unique(labels[labels > 0])) for labels in sample["labels"]]
        if visible[:, 0].all() and np.array_equal(visible.sum(axis=1), np.add(shown, 1)):
            raise DataError(
                "the first row of the factors is the background's, and must be that of label 1. Convert the file with "
                "`unscene convert`."
            )
    return factors


def slot_vectors(decomposition: Decomposition, loaded: LoadedModel, boxes: bool = False) -> Tensor:
    """[B, K, D] what the probes see of each slot. RecipeError: the model has no latents, or no boxes."""
    latents, stated = decomposition.latents, decomposition.locations
    if latents is None:
        raise RecipeError(f"'{loaded.name}' has no latents to probe. Name a model that has.")
    if not boxes:
        return latents
    if stated is None and decomposition.boxes is not None:
        stated = decomposition.boxes / loaded.size
    if stated is None:
        raise RecipeError(f"'{loaded.name}' states no boxes or locations. Leave out --boxes.")
    added = latents.new_zeros(*latents.shape[:2], stated.shape[2])
    added[:, decomposition.foreground] = stated.to(latents)
    return torch.cat([latents, added], dim=2)


def match_by_mask(
    labels: Tensor, decomposition: Decomposition, rows: int
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64], int]]:
    """Match the visible objects of label maps [B, H, W], labels 1 .. `rows`, with all slots but a stated background.

    Yields for each image its index; of its matched objects the label less 1 and the slot; and how many have no slot,
    since there are too few or none shares a pixel.
    """
    slots = np.array(decomposition.foreground)
    masks = decomposition.masks()[:, slots, 0].flatten(2)  # [B, K, P]
    true = (labels[:, None] == torch.arange(1, rows + 1).view(-1, 1, 1)).flatten(2).to(masks)  # [B, M, P]
    norms = true.norm(dim=2)[:, :, None] * masks.norm(dim=2)[:, None]
    cosines = (true @ masks.transpose(1, 2) / norms.clamp_min(1e-6)).double().numpy()  # [B, M, K]
    for index, cosine in enumerate(cosines):
        visible = np.flatnonzero(true[index].any(dim=1).numpy())
        objects, columns = linear_sum_assignment(cosine[visible], maximize=True)
        shared = cosine[visible[objects], columns] > 0
        yield index, visible[objects[shared]], slots[columns[shared]], len(visible) - int(shared.sum())


def score_probes(latents: NDArray, values: NDArray, learns: NDArray[np.bool_]) -> dict[str, Any]:
    """Fit the probes to the objects in `learns` [N], and score them on the others; whole numbers are classes.

    Latents are [N, D], values [N] or [N, d]. A score is None where all objects of either part are equal. DataError: too
    few objects.
    """
    train, test = values[learns], values[~learns]
    if min(len(train), len(test)) < _LEAST_OBJECTS:
        raise DataError(
            f"{len(train)} objects to learn from and {len(test)} to score are too few: probes need {_LEAST_OBJECTS} of "
            "each, and better thousands. Take more scenes: --data.count."
        )
    if not np.isfinite(values).all():
        raise DataError(
            "a property of an object is NaN or infinite: the factors are damaged. Generate or convert again."
        )
    is_class, counts = values.dtype.kind in "biu" and values.ndim == 1, np.array([len(train)])
    scores: dict[str, Any] = {"measure": "accuracy" if is_class else "R2", **dict.fromkeys(_COLUMNS)}
    if (train == train[0]).all() or (test == test[0]).all():
        return scores
    scores["chance"] = 0.0
    if is_class:
        classes, counts = np.unique(train, return_counts=True)
        scores["chance"] = float((test == classes[counts.argmax()]).mean())
    stops = bool(counts.min() > 1 and len(train) >= 10 * len(counts))  # at a tenth's score, with each class in it
    mlp = {"hidden_layer_sizes": (256,), "early_stopping": stops, "random_state": _PROTOCOL["seed"]}
    models: dict[str, Any] = {"linear": LogisticRegression(max_iter=1000), "mlp": MLPClassifier(**mlp)}
    if not is_class:
        models = {"linear": Ridge(), "mlp": MLPRegressor(**mlp)}
        models = {name: TransformedTargetRegressor(to, transformer=StandardScaler()) for name, to in models.items()}
    for name, model in models.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            predicted = make_pipeline(StandardScaler(), model).fit(latents[learns], train).predict(latents[~learns])
        scores[name] = float((accuracy_score if is_class else r2_score)(test, predicted))
    return scores
