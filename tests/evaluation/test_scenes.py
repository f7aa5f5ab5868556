"""scenes: a stranger's recipe chooses no file or folder to read, and starts no download."""

from __future__ import annotations

import pytest
from PIL import Image
from torch import nn

from unscene.data import flowers
from unscene.errors import DataError, RecipeError
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
