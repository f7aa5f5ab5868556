"""scenes: a stranger's recipe chooses no file or folder to read, and starts no download."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from torch import nn

from unscene.data import flowers
from unscene.data.image_file import ContrastSettings, read_image
from unscene.errors import DataError, RecipeError
from unscene.evaluation.scenes import source_of
from unscene.evaluation.scenes import test_source as source_of_test
from unscene.recipes import load_recipe
from unscene.runs.loading import LoadedModel


def test_a_folder_that_the_recipe_names_is_read_when_the_user_names_it(tmp_path):
    Image.new("RGB", (70, 70)).save(tmp_path / "a.png")
    folder = str(tmp_path)
    loaded = LoadedModel(nn.Identity(), load_recipe("explicit_localization/images", {"data.folder": folder}), {})
    with pytest.raises(RecipeError, match=rf"is in {folder}, as its own recipe says\. Add --data\.folder {folder}"):
        source_of_test(loaded, None, {})
    assert len(source_of_test(loaded, None, {"folder": folder})[0]) == 1
    assert len(source_of_test(loaded, None, {}, trusted=True)[0]) == 1


def test_a_download_must_be_asked_for(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(flowers, "download_flowers", asked.append)
    monkeypatch.chdir(tmp_path)
    loaded = LoadedModel(nn.Identity(), load_recipe("redo/flowers", {"data.download": True}), {})
    with pytest.raises(DataError, match="are not in"):
        source_of_test(loaded, None, {})
    assert asked == []
    with pytest.raises(DataError, match="are not in"):
        source_of_test(loaded, None, {"download": True})
    assert len(asked) == 1


def test_images_of_a_coco_file_have_the_contrast_of_the_model(tmp_path):
    values = np.random.default_rng(0).integers(0, 60, (9, 7, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    instance = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 4, "bbox": [1, 1, 2, 2]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 9, "width": 7}],
        "annotations": [instance | {"segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]}],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    contrast = ContrastSettings(percentiles=(0.5, 99.8), gamma="auto")
    source, described = source_of(tmp_path / "coco.json", {}, 64, contrast)
    np.testing.assert_array_equal(source.batch([0])["image"][0], read_image(tmp_path / "a.png", contrast=contrast))
    assert described["contrast"]["gamma"] == "auto"
