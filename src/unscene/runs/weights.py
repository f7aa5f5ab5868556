"""Weights on disk: checkpoints read without running code, and safetensors files with their recipe and provenance."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import shlex
import warnings
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unscene.errors import CheckpointError
from unscene.files import write_bytes
from unscene.plain_yaml import read_yaml, to_yaml
from unscene.runs.run_folder import RunFolder

FORMAT = "unscene-1"
_log = logging.getLogger(__name__)


def checksum(weights: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of a safetensors file's content: its metadata, and names, types, shapes and bytes of its tensors."""
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def sealed(archive: bytes | memoryview) -> bytes:
    """Return a zip archive with the SHA-256 of its bytes as its comment."""
    comment = hashlib.sha256(archive[:-2]).hexdigest().encode()
    return bytes(archive[:-2]) + len(comment).to_bytes(2, "little") + comment


def _check(path: Path, expected: str | None, found: str) -> None:
    """Raise a CheckpointError if a file's checksum is another one; log that an older file has none."""
    if expected is None:
        _log.warning("%s holds no checksum, as older files do not: it cannot be checked for damage.", path)
    elif expected != found:
        raise CheckpointError(
            f"{path} is damaged: its content differs from its checksum. Copy or export it again; evaluate, compare and "
            "decompose read it unchecked with --no-verify."
        )


def read_checkpoint(path: Path, verify: bool = True) -> dict[str, Any]:
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
        text = f"cannot be read as a checkpoint ({_first_line(error)}): it is damaged, or no checkpoint"
        raise CheckpointError(f"{path} {text}.") from error
    if isinstance(content, dict) and "pytorch-lightning_version" in content:
        raise CheckpointError(
            f"{path} was written by an earlier version of unscene, in the format of Lightning's Trainer. Resume or "
            "export the run with that version (environment.json names its commit), or train it again."
        )
    weights = content.get("model") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} is no checkpoint of unscene: it holds no 'model'.")
    if not isinstance(content.get("step"), int):
        raise CheckpointError(f"{path} is no checkpoint of unscene: it holds no 'step'.")
    if verify:
        archive = path.read_bytes()
        comment = None if archive[-22:-18] == b"PK\5\6" else archive[-64:].decode(errors="replace")
        _check(path, comment, hashlib.sha256(archive[:-66]).hexdigest())
    return dict(content)


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
    provenance = {"run": run.path.resolve().name, "checkpoint": chosen.name, "step": int(checkpoint["step"])}
    provenance |= {"starts": run.starts(), **about}
    recipe, target = run.recipe.read_text(encoding="utf-8"), path or run.weights
    metadata = {"format": FORMAT, "recipe": recipe, "provenance": json.dumps(provenance)}
    write_bytes(target, save(weights, metadata | {"checksum": checksum(weights, metadata)}))
    return target


def public_weights(path: Path) -> tuple[bytes, str]:
    """Return a weights file and its recipe, to be published: absolute paths in them are reduced to their last names."""
    weights, recipe, provenance = read_weights(path)
    del provenance["sha256"]
    text = to_yaml(without_folders(recipe))
    metadata = {"format": FORMAT, "recipe": text, "provenance": json.dumps(without_folders(provenance))}
    return save(weights, metadata | {"checksum": checksum(weights, metadata)}), text


def without_folders(value: Any) -> Any:
    """Return plain values in which each absolute path, also in a `command`, is its last name alone."""
    if isinstance(value, dict):
        commands = {key: shlex.join(without_folders(shlex.split(value[key]))) for key in ("command",) if key in value}
        return {key: without_folders(item) for key, item in value.items()} | commands
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    option, equals, path = value.partition("=") if value.startswith("--") else ("", "", value)
    name = PureWindowsPath(path).name  # knows both separators
    return option + equals + name if re.match(r"~|[/\\]|[A-Za-z]:[/\\]", path) else value


def read_weights(path: Path, verify: bool = True) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
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
    expected = metadata.pop("checksum", None if len(metadata) <= 3 else "")  # a damaged name is no older file's
    if verify:
        _check(path, expected, checksum(weights, metadata))
    try:
        recipe = read_yaml(metadata["recipe"], "the recipe")
        provenance = dict(json.loads(metadata["provenance"], parse_constant=int))  # int("NaN") is an error
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
