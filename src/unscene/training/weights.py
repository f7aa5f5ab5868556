"""Weights on disk: Lightning's checkpoints read without running code, and safetensors files that explain themselves."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unscene.errors import CheckpointError
from unscene.training.run_folder import RunFolder, writing

FORMAT = "unscene-1"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a Lightning checkpoint's content; nothing in the file is executed.

    Raises:
        CheckpointError: the file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.") from None
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({first_line}). It is damaged or was made by something else."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} is no checkpoint of unscene: it holds no 'state_dict'.")
    return content


def model_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """The model's tensors of a checkpoint, by the model's own names."""
    return {
        name.removeprefix("model."): tensor
        for name, tensor in checkpoint["state_dict"].items()
        if name.startswith("model.")
    }


def export_weights(run: RunFolder, path: Path | None = None, half: bool = False, **about: Any) -> Path:
    """Write the best checkpoint's weights (the last one's where none is best) as one safetensors file.

    Args:
        run: the run.
        path: where to; the run's `weights.safetensors` if None.
        half: float16, half the size.
        about: more facts for the file's provenance, ready for JSON.

    Returns:
        The file. Its metadata hold the recipe and where the weights come from.

    Raises:
        CheckpointError: the run has no checkpoint.
        RunError: the file cannot be written.
    """
    chosen = run.best if run.best.is_file() else run.last
    checkpoint = read_checkpoint(chosen)
    weights = {name: _stored(tensor, half) for name, tensor in model_weights(checkpoint).items()}
    starts = json.loads(run.environment.read_text()) if run.environment.is_file() else []
    provenance = {
        "run": run.path.name,
        "checkpoint": chosen.name,
        "step": int(checkpoint["global_step"]),
        "starts": starts,
        **about,
    }
    metadata = {"format": FORMAT, "recipe": run.recipe.read_text(), "provenance": json.dumps(provenance)}
    target = path or run.weights
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    with writing(target):
        try:
            save_file(weights, temporary, metadata)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return target


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Return the tensors, the recipe's values and the provenance of a safetensors file.

    Raises:
        CheckpointError: the file is missing, damaged or not of unscene.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist.") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors ({error}). Copy or export it again.") from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} was not written by unscene: its metadata lack format '{FORMAT}' and the recipe.")
    provenance = json.loads(metadata["provenance"]) | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    return weights, yaml.safe_load(metadata["recipe"]), provenance


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    return tensor.half() if half and tensor.is_floating_point() else tensor
