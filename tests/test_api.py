"""api: `unscene.train`, `evaluate` and `decompose` do what the commands do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import unscene
from tests.tiny import RECIPE
from unscene.cli.main import main
from unscene.errors import CheckpointError, DataError, RecipeError


def test_training_returns_the_model_of_its_run(tmp_path):
    settings = RECIPE | {"trainer.max_steps": 1, "seed": 5}
    model = unscene.train("rmonet_unet/multi_dsprites_cpu", settings, out=tmp_path / "run")
    assert (model.run.path, model.recipe.seed, model.size) == (tmp_path / "run", 5, 32)
    assert model.decompose(torch.zeros(1, 3, 32, 32)).num_slots == model.config["model"]["num_slots"]


def test_unknown_setting_is_an_error_before_a_folder_appears(tmp_path):
    with pytest.raises(RecipeError, match=r"model\.num_slots"):
        unscene.train("rmonet_unet/multi_dsprites_cpu", {"model.n_slots": 3}, out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_scores_are_those_of_the_command(trained, tmp_path):
    scores = unscene.evaluate(trained.path, {"data.seed": 7})
    written = unscene.evaluate(unscene.load(trained.path), {"data.seed": 7}, out=tmp_path / "a")
    assert written.keys() == scores.keys()
    assert main(["evaluate", str(trained.path), "--data.seed", "7", "--out", str(tmp_path / "b")]) == 0
    ours, theirs = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab")
    for name, value in scores.items():
        if name != "ms_per_image":
            assert ours[name] == theirs[name] == value, name


def test_files_and_their_pixels_give_the_same_decomposition(trained, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    expected = unscene.decompose(trained.path, images)
    for named in (tmp_path, str(tmp_path), [tmp_path / "0.png", tmp_path / "1.png"]):
        torch.testing.assert_close(unscene.decompose(trained.path, named).log_masks, expected.log_masks)
    assert len(unscene.decompose(unscene.load(trained.path), tmp_path / "1.png").log_masks) == 1


def test_nothing_to_load_and_nothing_to_read_are_errors(trained, tmp_path):
    with pytest.raises(DataError):
        unscene.decompose(trained.path, tmp_path)
    with pytest.raises(CheckpointError):
        unscene.decompose(tmp_path / "none", tmp_path)
