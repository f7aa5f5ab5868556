"""The comparison with watersheds and pretrained networks: what each method finds on plain pictures, and its scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import instances
from benchmarks.instance_methods import WATERSHEDS, cellpose, contrast, least_area, pretrained, stardist, without_small
from benchmarks.instances import OURS, RECIPE, SEEN, DataSet, main, results, scored, trained
from unscene.data.generate import generate
from unscene.data.image_file import AS_STORED
from unscene.errors import RecipeError

SIZE = 12.0
CENTRES = [(14, 14), (14, 27), (44, 16), (40, 44)]  # y and x; the first two discs touch


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Four discs on black, and their label map."""
    y, x = np.mgrid[:60, :60]
    labels = np.zeros((60, 60), np.uint8)
    for number, (row, column) in enumerate(CENTRES, start=1):
        labels[np.hypot(y - row, x - column) <= SIZE / 2] = number
    return np.repeat(np.where(labels > 0, 200, 20).astype(np.uint8)[..., None], 3, axis=-1), labels


@pytest.fixture
def folder(tmp_path):
    image, labels = picture()
    path = tmp_path / "cells"
    path.mkdir()
    Image.fromarray(image).save(path / "a.png")
    Image.fromarray(labels).save(path / "a_label.png")
    return path


def score(folder, segment):
    return scored(DataSet("cells", folder, None, SIZE), folder, AS_STORED, "any", segment, 1)


@pytest.mark.parametrize("name", WATERSHEDS)
@pytest.mark.parametrize("is_dark", [False, True])
def test_watersheds_find_discs_that_touch(name, is_dark):
    image, labels = picture()
    found = WATERSHEDS[name](255 - image if is_dark else image, SIZE)
    numbers = [int(found[centre]) for centre in CENTRES]
    assert len(set(numbers) - {0}) == 4
    assert len(np.unique(found)) == 5
    for number, centre in zip(numbers, CENTRES, strict=True):
        true = labels == labels[centre]
        assert (true & (found == number)).sum() / (true | (found == number)).sum() > 0.6


@pytest.mark.parametrize("name", WATERSHEDS)
def test_watersheds_find_nothing_in_a_plain_image(name):
    assert not WATERSHEDS[name](np.full((30, 40, 3), 90, np.uint8), SIZE).any()


def test_contrast_is_to_the_ground_nearby():
    image, labels = picture()
    lit = np.clip(image + np.linspace(0, 50, 60)[:, None], 0, 255).astype(np.uint8)
    found = contrast(lit, SIZE)
    assert found[labels == 0].mean() < 0.1 * found[labels > 0].mean()
    assert found[CENTRES[2]] == pytest.approx(180 * np.sqrt(3), rel=0.1)


def test_small_objects_are_left_out():
    labels = np.zeros((20, 20), int)
    labels[:4, :5], labels[10:, 10:] = 1, 3
    assert least_area(SIZE) == 23
    assert np.unique(without_small(labels, SIZE)).tolist() == [0, 3]


def test_scores(folder):
    labels = picture()[1]
    scores = score(folder, lambda image, size: labels).scores
    assert (scores["instance_ap_50"], scores["pq"], scores["count_error"]) == (1, 1, 0)
    one_and_a_pair = np.select([labels == 3, (labels == 1) | (labels == 2)], [1, 2])
    result = score(folder, lambda image, size: one_and_a_pair)
    assert result.objects == 4
    # by hand: one pair of IoU 1, and one of .5, since two discs of one area are one object: TP 2, FP 0, FN 2
    assert result.scores["instance_ap_50"] == pytest.approx(2 / 4)
    assert result.scores["instance_ap_70"] == pytest.approx(1 / 5)
    assert (result.scores["pq"], result.scores["count_error"]) == (pytest.approx(1.5 / 3), 2)
    assert score(folder, lambda image, size: 0 * labels).scores["instance_ap_50"] == 0


def test_drawn_images_are_scored_beside_those_of_the_training(tmp_path, monkeypatch):
    for name in ("new", "seen"):
        settings = {"count": 1, "size": 64, "object_size": SIZE, "min_objects": 2, "max_objects": 3}
        generate("many_objects", tmp_path / name, settings, progress=False)
    data = DataSet("discs", tmp_path / "new", tmp_path / "seen", SIZE)
    monkeypatch.setattr(instances, "ours", lambda model, **limits: WATERSHEDS["Otsu, distance watershed"])
    found = list(results(data, {"none": lambda image, size: 0 * image[..., 0]}, SimpleNamespace(contrast=AS_STORED), 1))
    assert [row.method for row in found] == [*OURS, *(f"{name}{SEEN}" for name in OURS), "none"]
    assert found[0].scores == found[1].scores  # one seed, so the images are equal
    assert found[0].scores["instance_ap_50"] == 1


def test_command_prints_a_table_and_writes_it(folder, tmp_path, capsys):
    out = tmp_path / "out.json"
    main(["--data", str(folder), "--object-size", "12", "--drawn", "none", "--json", str(out)])
    written = json.loads(out.read_text())
    assert [row["method"] for row in written["results"]] == list(WATERSHEDS)
    assert written["object_sizes"] == {"cells": 12}
    assert all(row["scores"]["instance_ap_50"] == 1 and row["seconds"] > 0 for row in written["results"])
    printed = capsys.readouterr().out
    assert "unscene on cells: left out, no run. Add --run NAME=RUN" in printed
    assert "1.000" in printed


def test_mistakes(folder, tmp_path):
    words = ["--data", str(folder), "--drawn", "none", "--json", str(tmp_path / "out.json")]
    with pytest.raises(RecipeError, match="--run needs NAME=RUN"):
        main([*words, "--run", "runs/cells"])
    with pytest.raises(RecipeError, match=r"--run names the data 'cell', but there are: cells\."):
        main([*words, "--run", "cell=rmonet_unet/multi_dsprites_cpu"])
    with pytest.raises(RecipeError, match="two data sets have the name 'cells'"):
        main([*words, "--data", str(folder)])
    assert not (tmp_path / "out.json").exists()


def test_other_programs_are_called_or_left_out_with_a_reason(monkeypatch):
    image, labels = picture()
    labels = labels.astype(int)
    labels[58:, 58:] = 9
    network = SimpleNamespace(predict_instances=lambda grey: (labels if grey.shape == (60, 60) else None, {}))
    star_dist = SimpleNamespace(from_pretrained=lambda name: network)
    monkeypatch.setitem(sys.modules, "csbdeep.utils", SimpleNamespace(normalize=lambda image, low, high: image))
    monkeypatch.setitem(sys.modules, "stardist.models", SimpleNamespace(StarDist2D=star_dist))
    for name in ("csbdeep", "stardist", "cellpose"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace())
    eval_model = SimpleNamespace(eval=lambda image, diameter: (labels if diameter == SIZE else None, [], []))
    monkeypatch.setitem(sys.modules, "cellpose.models", SimpleNamespace(CellposeModel=lambda gpu: eval_model))

    def no_weights():
        raise OSError("no route to host")

    def missing():
        raise ImportError("No module named 'x'")

    methods, reasons = pretrained({"StarDist": stardist, "Cellpose": cellpose, "a": no_weights, "b": missing})
    assert list(methods) == ["StarDist", "Cellpose"]
    for segment in methods.values():
        np.testing.assert_array_equal(segment(image, SIZE), np.where(labels == 9, 0, labels))
    assert "weights cannot be had here (OSError: no route to host)" in reasons["a"]
    assert "not installed (No module named 'x')" in reasons["b"]


def test_training_gets_images_without_labels(folder, tmp_path, monkeypatch):
    trainings = []

    def record(recipe, settings, out):
        images = sorted(path.name for path in Path(settings["data.folder"]).iterdir())
        trainings.append((recipe, images, settings["data.object_size"], settings["trainer.max_minutes"], out))

    monkeypatch.setattr(instances, "train", record)
    trained(DataSet("cells", folder, None, SIZE), 5, {"trainer.max_minutes": 2}, tmp_path / "out")
    settings = {"count": 2, "size": 64, "object_size": SIZE, "min_objects": 1, "max_objects": 2}
    generate("many_objects", tmp_path / "seen", settings, progress=False)
    trained(DataSet("discs", folder, tmp_path / "seen", 22.0), 5, {}, tmp_path)
    assert trainings == [
        (RECIPE, ["a.png"], SIZE, 2, Path("runs/instances-cells")),
        (RECIPE, ["00000.png", "00001.png"], 22.0, 5, Path("runs/instances-discs")),
    ]


@pytest.mark.slow
def test_ours_is_trained_on_the_images_alone(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ("model.backbone.width=8", "model.backbone.fpn_channels=8", "model.head.channels=8", "trainer.batch_size=2")
    small += ("data.size=32", "data.count=4", "validation.count=2", "trainer.max_steps=2", "model.num_slots=3")
    words = ["--data", str(folder), "--object-size", "12", "--drawn", "none", "--minutes", "5", "--json", "out.json"]
    main([*words, *(word for setting in small for word in ("--set", setting))])
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["results"][0]["method"] == "unscene"
    assert (tmp_path / "runs" / "instances-cells" / "metrics.csv").is_file()
