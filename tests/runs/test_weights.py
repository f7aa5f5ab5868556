"""weights: read without running code, refused when damaged or of another model, the same after a round trip."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unscene.errors import CheckpointError
from unscene.runs.loading import shipped_weights
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import check_weights, export_weights, read_checkpoint, read_weights


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_checkpoint_gives_the_models_tensors(trained, tiny):
    checkpoint = read_checkpoint(trained.last)
    assert checkpoint["step"] == 6
    check_weights(checkpoint["model"], tiny().build_model(), trained.last, "tiny")


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_checkpoint_does_not_run(tmp_path, write):
    path = tmp_path / "evil.ckpt"
    write({"model": {"a": torch.zeros(1)}, "step": 1, "more": Trap(tmp_path / "ran")}, path)
    with pytest.raises(CheckpointError, match=r"evil\.ckpt cannot be read as a checkpoint") as caught:
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()
    assert "weights_only" not in str(caught.value)  # PyTorch's advice would run it


def test_truncated_checkpoint_is_refused(trained, tmp_path):
    content = trained.last.read_bytes()
    for length in (0, 1, 10, 1000, len(content) // 2, len(content) - 1):
        path = tmp_path / "cut.ckpt"
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut\.ckpt (cannot be read as a checkpoint|is damaged)"):
            read_checkpoint(path)


def test_other_files_are_refused_as_checkpoints(tmp_path):
    path = tmp_path / "a.ckpt"
    with pytest.raises(CheckpointError, match=r"a\.ckpt does not exist"):
        read_checkpoint(path)
    path.write_text("hello")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        read_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(CheckpointError, match="holds no 'model'"):
        read_checkpoint(path)
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match="holds no 'step'"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path)


def test_checkpoint_of_lightnings_trainer_is_refused_by_name(tmp_path):
    torch.save({"state_dict": {}, "global_step": 6, "pytorch-lightning_version": "2.6.6"}, tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"last\.ckpt was written by an earlier version .* Resume or export"):
        read_checkpoint(tmp_path / "last.ckpt")


def test_weights_of_another_model_are_refused_with_examples(tiny):
    model = tiny().build_model()
    other = tiny({"model.head.channels": 4}).build_model().state_dict()
    with pytest.raises(
        CheckpointError, match=r"x holds the weights of another model than recipe 'r'.*of another shape: head"
    ):
        check_weights(other, model, Path("x"), "r")
    lacking = dict(model.state_dict())
    name, tensor = lacking.popitem()
    with pytest.raises(CheckpointError, match=rf"missing: {name}.*not of this model: surplus"):
        check_weights(lacking | {"surplus": tensor}, model, Path("x"), "r")


def test_exported_weights_hold_recipe_and_provenance(trained, state, tmp_path):
    path = export_weights(trained, tmp_path / "out.safetensors", card="text")
    weights, values, provenance = read_weights(path)
    best = state(trained.best)
    assert set(weights) == set(best)
    assert all(torch.equal(tensor, best[name]) for name, tensor in weights.items())
    assert values == yaml.safe_load(trained.recipe.read_text())
    assert (provenance["run"], provenance["step"], provenance["card"]) == ("run", 6, "text")
    assert provenance["starts"] == json.loads(trained.environment.read_text())
    assert path.stat().st_mode & 0o777 == trained.recipe.stat().st_mode & 0o777


def test_half_weights_are_close_and_half_as_large(trained, tmp_path):
    whole = export_weights(trained, tmp_path / "whole.safetensors")
    half = export_weights(trained, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.7 * whole.stat().st_size
    halves = read_weights(half)[0]
    for name, tensor in read_weights(whole)[0].items():
        stored = halves[name]
        assert stored.dtype == (torch.float16 if tensor.ndim > 1 else tensor.dtype)  # vectors: a variance may be tiny
        assert torch.allclose(stored.to(tensor.dtype), tensor, rtol=1e-3, atol=1e-6)


def test_last_checkpoint_is_exported_without_a_best_one(trained, tmp_path):
    run = RunFolder.create(tmp_path / "a", trained.recipe.read_text())
    with pytest.raises(CheckpointError, match=r"last\.ckpt does not exist"):
        export_weights(run)
    run.last.write_bytes(trained.last.read_bytes())
    assert read_weights(export_weights(run))[2]["checkpoint"] == "last.ckpt"


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "was not written by unscene"),
        ({"format": "pt"}, "was not written by unscene"),
        ({"format": "unscene-1"}, "recipe or provenance is damaged"),
        ({"format": "unscene-1", "recipe": "a: [", "provenance": "{}"}, "recipe or provenance is damaged"),
        ({"format": "unscene-1", "recipe": "a: 1", "provenance": "{"}, "recipe or provenance is damaged"),
        ({"format": "unscene-1", "recipe": "- 1", "provenance": "{}"}, "its recipe holds no settings"),
    ],
)
def test_safetensors_of_other_programs_are_refused(tmp_path, metadata, message):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata)
    with pytest.raises(CheckpointError, match=message):
        read_weights(path)


def test_damaged_safetensors_are_refused(trained, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        read_weights(path)
    content = trained.weights.read_bytes()
    for length in (0, 4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cannot be read as safetensors.*Copy or export it again"):
            read_weights(path)


@pytest.mark.parametrize("kind", ["weights", "last"])
def test_a_flipped_bit_is_found_unless_it_is_not_looked_for(trained, tmp_path, kind):
    source = getattr(trained, kind)
    read = read_weights if kind == "weights" else read_checkpoint
    content, path = source.read_bytes(), tmp_path / source.name
    for position in range(len(content) // 11, len(content), len(content) // 11):
        path.write_bytes(content[:position] + bytes([content[position] ^ 4]) + content[position + 1 :])
        with pytest.raises(CheckpointError, match=source.name):
            read(path)
    path.write_bytes(content[: len(content) // 2] + b"?" + content[len(content) // 2 + 1 :])
    with pytest.raises(CheckpointError, match=r"is damaged: its content differs from its checksum.*--no-verify"):
        read(path)
    read(path, verify=False)


def test_an_older_file_is_read_and_cannot_be_checked(trained, tmp_path, caplog):
    checkpoint, weights = tmp_path / "last.ckpt", tmp_path / "a.safetensors"
    torch.save(torch.load(trained.last, weights_only=True), checkpoint)
    assert read_checkpoint(checkpoint)["step"] == 6
    with safe_open(trained.weights, "pt") as file:
        metadata = {name: text for name, text in file.metadata().items() if name != "checksum"}
    save_file(load_file(trained.weights), weights, metadata)
    assert read_weights(weights)[2]["step"] == 6
    assert [record.message for record in caplog.records] == [
        f"{path} holds no checksum, as older files do not: it cannot be checked for damage."
        for path in (checkpoint, weights)
    ]
    read_weights(weights, verify=False)
    assert len(caplog.records) == 2
    save_file(load_file(trained.weights), weights, metadata | {"checksun": "0"})  # a damaged name
    with pytest.raises(CheckpointError, match="differs from its checksum"):
        read_weights(weights)


def test_shipped_weights_hold_their_checksum(caplog):
    for path in shipped_weights().values():
        read_weights(path)
    assert not caplog.records


def test_not_a_number_in_the_provenance_is_refused(tmp_path):
    metadata = {"format": "unscene-1", "recipe": "a: 1", "provenance": '{"step": NaN}'}
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(CheckpointError, match="recipe or provenance is damaged"):
        read_weights(tmp_path / "a.safetensors")


def test_a_checkpoint_whose_weights_are_no_tensors_is_refused(tmp_path):
    torch.save({"model": {"a": 1}, "step": 2}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="is no checkpoint of unscene"):
        read_checkpoint(tmp_path / "a.ckpt")
