"""explorer: what the page shows and changes, without a browser; and the page in a browser, where both are there."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.test_onnx_file import loaded_tiny
from tests.tiny import MODELS
from unscene.cli.main import main
from unscene.data.image_file import ContrastSettings
from unscene.errors import DataError, ExtraError
from unscene.inference.explorer import (
    COLUMNS,
    Exploration,
    build_page,
    can_change_slots,
    example_images,
    page_settings,
)
from unscene.runs.loading import LoadedModel, load, shipped_weights

SCENE = Path(__file__).resolve().parents[2] / "docs" / "images" / "scenes" / "1.png"


@pytest.fixture(scope="module")
def clevr() -> LoadedModel:
    if "rmonet_unet/clevr_scenes_cpu" not in shipped_weights():
        pytest.skip("needs the shipped weights")
    return load("rmonet_unet/clevr_scenes_cpu")


@pytest.fixture(scope="module")
def explored(clevr: LoadedModel) -> Exploration:
    return Exploration.of_image(clevr, np.asarray(Image.open(SCENE).convert("RGB")))


def test_objects_are_in_pixels_of_the_image(explored):
    picture, rows = explored.objects(0)
    assert picture.shape[0] >= 256
    assert len(rows) > 2
    height, width = explored.pixels.shape[:2]
    for row in rows:
        number, score, area, x1, y1, x2, y2 = row
        assert len(row) == len(COLUMNS)
        assert number in range(1, 7)
        assert 0 < score <= 1
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        assert 0 < area <= (x2 - x1) * (y2 - y1)
    scores = sorted(row[1] for row in rows)
    assert len(explored.objects(scores[0] + 1e-3)[1]) == len(rows) - scores.count(scores[0])
    assert explored.objects(1.0)[1] == []


def test_after_a_training_on_crops_the_middle_crop_is_shown(clevr, monkeypatch):
    monkeypatch.setattr(LoadedModel, "crop", 40)
    pixels = np.arange(50 * 60, dtype=np.int64).reshape(50, 60, 1) % 251 * np.ones(3, np.int64)
    shown = Exploration.of_image(clevr, pixels.astype(np.uint8)).pixels
    np.testing.assert_array_equal(shown, pixels[5:45, 10:50])
    assert Exploration.of_image(clevr, shown[:30]).pixels.shape == (30, 40, 3)


def test_the_model_sees_the_contrast_of_its_training(clevr, monkeypatch):
    monkeypatch.setattr(LoadedModel, "contrast", ContrastSettings(percentiles=(0.0, 100.0)))
    pixels = np.full((40, 40, 3), 100, np.uint8)
    pixels[0] = 50
    shown = Exploration.of_image(clevr, pixels).pixels
    assert (shown.min(), shown.max(), pixels.max()) == (0, 255, 100)


def test_a_removed_object_is_no_longer_in_the_scene(explored):
    _, rows = explored.objects(0)
    largest = max(rows, key=lambda row: row[2])
    before = explored.scene().astype(int)
    without = Exploration(**{**vars(explored), "removed": (largest[0] - 1,)}).scene().astype(int)
    zoom = before.shape[0] // explored.loaded.size
    changed = np.abs(before - without).max(axis=2)[::zoom, ::zoom] > 20
    mask = (explored.decomposition.labels()[0] == largest[0]).numpy()
    assert changed[mask].mean() > 0.7
    assert changed[~mask].mean() < 0.05


def test_latents_move_the_scene_and_undo_restores_it(explored):
    slot = explored.objects(0)[1][0][0] - 1
    before = explored.scene()
    values = explored.latents[slot].tolist()
    assert np.array_equal(explored.with_latent(slot, values).scene(), before)
    moved = explored.with_latent(slot, [value + 2 for value in values])
    assert np.abs(moved.scene().astype(int) - before).max() > 20
    assert np.array_equal(moved.reset().scene(), before)


def test_swapping_twice_changes_nothing(explored):
    first, second = (row[0] - 1 for row in explored.objects(0)[1][:2])
    once = explored.swapped(first, second)
    assert torch.equal(once.latents[first], explored.latents[second])
    assert not np.array_equal(once.scene(), explored.scene())
    assert np.array_equal(once.swapped(second, first).scene(), explored.scene())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_can_be_explored(name, tiny):
    loaded = loaded_tiny(name, next(iter(MODELS[name])), tiny)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 90, 3), np.uint8)
    now = Exploration.of_image(loaded, pixels)
    picture, _ = now.objects(0)
    assert picture.shape == (280, 630, 3)
    assert [shown.shape for shown, _ in now.slots()] == [(256, 512, 3)] * now.decomposition.num_slots
    assert now.scene().shape == (256, 256, 3)
    assert (now.latents is None) == (name == "explicit_localization")
    assert ("background" in now.slot_names()) == (now.decomposition.background is not None)


def test_examples_come_from_files_folders_and_the_recipe(clevr, trained, tmp_path):
    shutil.copy(SCENE, tmp_path / "a.png")
    shutil.copy(SCENE, tmp_path / "b.png")
    assert len(example_images(clevr, tmp_path)) == 2
    assert example_images(clevr, tmp_path / "a.png")[0].shape == (*Image.open(SCENE).size[::-1], 3)
    assert main(["generate", "multi_dsprites", "--count", "3", "--out", str(tmp_path / "s.h5")]) == 0
    assert [image.shape for image in example_images(clevr, tmp_path / "s.h5")] == [(64, 64, 3)] * 3
    assert len(example_images(load(trained.path), None)) == 4
    with pytest.raises(DataError, match="There is no image or folder"):
        example_images(clevr, tmp_path / "missing")


def test_a_missing_package_is_named_with_its_command(clevr, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ExtraError, match=r"gradio is not installed, .*'unscene\[explore\]'"):
        build_page(clevr)
    assert main(["explore", "rmonet_unet/clevr_scenes_cpu"]) == 1
    assert capsys.readouterr().err.startswith("ExtraError: gradio is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_page(name, tiny):
    pytest.importorskip("gradio", reason="needs the extra explore")
    loaded = loaded_tiny(name, next(iter(MODELS[name])), tiny)
    parts = {part.label: part for part in build_page(loaded).blocks.values() if getattr(part, "label", None)}
    redraws = name != "explicit_localization"
    assert parts["Slot"].interactive == redraws
    assert ("z 0" in parts) == redraws
    assert parts["Slots K, background included"].interactive == can_change_slots(loaded)
    assert parts["Removed slots"].interactive is not False


@pytest.fixture
def browser() -> Iterator[Any]:
    pytest.importorskip("gradio", reason="needs the extra explore")
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("needs Chromium")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.slow
def test_an_image_dropped_in_a_browser_fills_the_table(clevr, explored, browser):
    page = build_page(clevr, [explored.pixels])
    _, address, _ = page.launch(**page_settings(), prevent_thread_lock=True, quiet=True)
    try:
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.set_default_timeout(240_000)
        outside: list[str] = []
        tab.on("request", lambda request: outside.append(request.url))
        tab.goto(address)
        content = SCENE.read_bytes()
        transfer = tab.evaluate_handle(
            """bytes => { const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], 'scene.png', {type: 'image/png'})); return data; }""",
            list(content),
        )
        area = tab.locator("button:has(input[type=file]), [aria-label='Click to upload or drop files']").first
        area.wait_for()
        area.dispatch_event("drop", {"dataTransfer": transfer})
        _, rows = explored.objects(0)
        tab.wait_for_function("text => document.body.innerText.includes(text)", arg=str(rows[-1][2]))
        text = tab.locator("body").inner_text()
        for number, score, area_pixels, *_ in rows:
            assert str(area_pixels) in text, (number, score)
        local = ("data:", "blob:", address.rstrip("/"))
        assert [url for url in outside if not url.startswith(local)] == []
    finally:
        page.close()
