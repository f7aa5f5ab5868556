"""Weights on disk: checkpoints read without running code, and safetensors files with their recipe and provenance."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unscene.errors import CheckpointError
from unscene.files import write_bytes
from unscene.plain_yaml import read_yaml
from unscene.runs.run_folder import RunFolder

FORMAT = "unscene-1"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content. Nothing in the file is executed: it may hold only tensors and plain values."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    try:
        with warnings.catch_warnings(action="ignore"):  # PyTorch's on a damaged file, beside its error
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint: it is damaged, or it holds more than tensors and plain values, "
            "which could run as a program; unscene reads no such file."
        ) from error
    except Exception as error:  # a damaged file may break PyTorch's reader anywhere
        reason = _first_line(error)
        raise CheckpointError(f"{path} cannot be read as a checkpoint ({reason}): it is damaged, or none.") from error
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        raise CheckpointError(
            f"{path} was written by an earlier version of unscene, in the format of Lightning's Trainer. Resume or "
            "export the run with that version (environment.json names its commit), or train it again."
        )
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise CheckpointError(f"{path} is no checkpoint of unscene: it holds no 'model'.")
    if not isinstance(content.get("step"), int):
        raise CheckpointError(f"{path} is no checkpoint of unscene: it does not say its 'step'.")
    return content


def check_weights(weights: dict[str, Tensor], model: nn.Module, path: Path, name: str) -> None:
    """Raise a CheckpointError if the weights in file `path` do not fit the model, which is of recipe `name`."""
    expected = model.state_dict()
    differing = {
        "missing": sorted(expected.keys() - weights.keys()),
        "not of this model": sorted(weights.keys() - expected.keys()),
        "of another shape": [key for key in expected if key in weights and expected[key].shape != weights[key].shape],
    }
    examples = [f"{what}: {', '.join(keys[:2])}{' ...' * (len(keys) > 2)}" for what, keys in differing.items() if keys]
    if examples:
        raise CheckpointError(
            f"{path} holds the weights of another model than recipe '{name}' describes ({'; '.join(examples)})."
        )


def export_weights(run: RunFolder, path: Path | None = None, half: bool = False, **about: Any) -> Path:
    """Write the weights of best.ckpt, or of last.ckpt without one, as a safetensors file, and return its path.

    The file is `path`, or the run's `weights.safetensors`. Its metadata hold the recipe and the provenance of the
    weights, with more facts `about` them, ready for JSON. With `half`, matrices and kernels are in float16; vectors
    (biases, normalisation) stay as they are.
    """
    chosen = run.best if run.best.is_file() else run.last
    checkpoint = read_checkpoint(chosen)
    weights = {name: _stored(tensor, half) for name, tensor in checkpoint["model"].items()}
    provenance = {
        "run": run.path.resolve().name,
        "checkpoint": chosen.name,
        "step": int(checkpoint["step"]),
        "starts": run.starts(),
        **about,
    }
    recipe = run.recipe.read_text(encoding="utf-8")
    target = path or run.weights
    write_bytes(target, save(weights, {"format": FORMAT, "recipe": recipe, "provenance": json.dumps(provenance)}))
    return target


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return the tensors, the recipe's values and the provenance of a safetensors file of unscene."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        reason = _first_line(error)
        raise CheckpointError(f"{path} cannot be read as safetensors ({reason}). Copy or export it again.") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by unscene: its metadata lack format '{FORMAT}' and the recipe.")
    try:
        recipe, provenance = read_yaml(metadata["recipe"], "the recipe"), dict(json.loads(metadata["provenance"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its recipe or provenance is damaged ({_first_line(error)}).") from error
    if not isinstance(recipe, dict):
        raise CheckpointError(f"{path}: its recipe holds no settings.")
    return weights, recipe, provenance | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
