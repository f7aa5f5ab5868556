"""predictions: masks in every kind of file give the report of the same arrays; files that do not fit the data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import unscene
from unscene.cli.main import main
from unscene.data.labelled_folder import LabelledFolder, LabelledFolderSettings
from unscene.evaluation import scenes as scenes_module

SIZES = ((20, 30), (24, 16))


@pytest.fixture(autouse=True)
def one_scene_of_each(monkeypatch):
    monkeypatch.setattr(scenes_module.chosen_scenes, "__defaults__", (1,))


def maps(seed: int) -> list[np.ndarray]:
    """Label maps [H, W] of blocks, with gaps in the numbers."""
    random = np.random.RandomState(seed)
    return [3 * random.randint(0, 4, (h // 4 + 1, w // 4 + 1)).repeat(4, 0).repeat(4, 1)[:h, :w] for h, w in SIZES]


TRUE, FOUND = maps(0), [np.where(noise % 4 == 1, 0, true) for true, noise in zip(maps(0), maps(5), strict=True)]


@pytest.fixture
def data(tmp_path) -> Path:
    """A labelled folder of two images, `a` and `b`, of two sizes."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name, labels in zip("ab", TRUE, strict=True):
        Image.fromarray((20 * labels).astype(np.uint8)).save(folder / f"{name}.png")
        Image.fromarray(labels.astype(np.uint16)).save(folder / f"{name}_label.tif")
    return folder


def as_folder(path: Path, names=("a", "b")) -> Path:
    path.mkdir()
    for name, labels in zip(names, FOUND, strict=False):
        Image.fromarray(labels.astype(np.uint16)).save(path / f"{name}.png")
    return path


def annotations(score: float | None = 0.5) -> list[dict]:
    return [
        {
            "image_id": image,
            "category_id": 1,
            "segmentation": {"size": list(labels.shape), "counts": runs["counts"].decode()},
            **({} if score is None else {"score": score}),
        }
        for image, labels in enumerate(FOUND, start=1)
        for label in np.unique(labels[labels > 0])
        for runs in [coco_mask.encode(np.asfortranarray((labels == label).astype(np.uint8)))]
    ]


def as_coco(path: Path, names=("a.png", "b.png")) -> Path:
    images = [
        {"id": number, "file_name": name, "height": labels.shape[0], "width": labels.shape[1]}
        for number, (name, labels) in enumerate(zip(names, FOUND, strict=False), start=1)
    ]
    rows = [row | {"id": n} for n, row in enumerate(annotations(), 1) if row["image_id"] <= len(images)]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1, "name": "object"}]}))
    return path


def as_results(path: Path) -> Path:
    path.write_text(json.dumps(annotations()))
    return path


def score(predictions: Path, data: Path, out: Path, *words: str) -> dict:
    """The report of the command line."""
    assert main(["evaluate", "--predictions", str(predictions), "--data", str(data), "--out", str(out), *words]) == 0
    assert (out / "index.html").is_file()
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def expected() -> dict:
    """The metrics of padded maps in memory, whose added pixels do not count."""
    both = np.full((2, 2, 24, 30), -1)
    for row, pair in enumerate(zip(TRUE, FOUND, strict=True)):
        for column, labels in enumerate(pair):
            both[column, row, : labels.shape[0], : labels.shape[1]] = labels
    return unscene.evaluate_masks(both[0], both[1].clip(0))


@pytest.mark.parametrize(("form", "name"), [(as_folder, "folder"), (as_coco, "objects.json"), (as_results, "r.json")])
def test_every_kind_of_file_gives_the_numbers_of_the_arrays(data, tmp_path, form, name):
    report = score(form(tmp_path / name), data, tmp_path / "out")
    for metric, value in expected().items():
        assert report[metric] == (None if value is None else pytest.approx(value)), metric
    assert report["provenance"]["predictions"]["file"].endswith(name)
    assert len(report["provenance"]["predictions"]["sha256"]) == 64
    assert report["provenance"]["data"]["source"] == "labelled_folder"
    assert "command" in report["provenance"]["evaluation"]
    assert [scene["index"] for scene in report["scenes"]]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Instance AP .50" in page
    assert "Health" not in page
    assert "not applicable" in page  # mBO of classes alone


def test_the_same_report_is_written_again_and_another_not(data, tmp_path, capsys):
    folder = as_folder(tmp_path / "folder")
    score(folder, data, tmp_path / "out")
    score(folder, data, tmp_path / "out")
    Image.fromarray(np.zeros(SIZES[0], np.uint8)).save(folder / "a.png")
    words = ["evaluate", "--predictions", str(folder), "--data", str(data), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err


@pytest.fixture
def scene_file(tmp_path) -> Path:
    path = tmp_path / "scenes.h5"
    words = ["generate", "multi_dsprites", "--count", "3", "--data.size", "32", "--seed", "4", "--out", str(path)]
    assert main(words) == 0
    return path


@pytest.mark.parametrize("name", ["masks.npz", "masks.npy", "soft.npz", "folder"])
def test_masks_of_an_hdf5_file(scene_file, tmp_path, name):
    from unscene.data.hdf5.reader import SceneStore

    labels = SceneStore(scene_file).batch([0, 1, 2])["labels"]
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        for index, image in enumerate(labels):
            Image.fromarray(image).save(path / f"{index:05}.png")
    elif name == "soft.npz":
        np.savez(path, masks=np.eye(6, dtype=np.float16)[labels].transpose(0, 3, 1, 2), scores=np.ones((3, 6)))
    else:
        (np.save if name.endswith("y") else np.savez)(path, labels)
    report = score(path, scene_file, tmp_path / "out", *(["--background", "0"] if name == "soft.npz" else []))
    assert (report["ari"], report["pq"], report["mbo_instance"], report["count_error"]) == (1, 1, 1, 0)
    assert report["mask_map_50_95"] == pytest.approx(1)


def test_settings_of_a_group_are_changed_by_dotted_name(data, tmp_path, capsys):
    folder = as_folder(tmp_path / "folder")
    report = score(folder, data, tmp_path / "out", "--data.contrast.gamma", "0.5")
    assert report["provenance"]["data"]["contrast"].items() >= {"percentiles": None, "gamma": 0.5}.items()
    where = ["--data", str(data), "--out", str(tmp_path / "other")]
    for wrong, message in (("kontrast.gamma", "Did you mean 'data.contrast.gamma'?"), ("folder.gamma", "data.folder")):
        assert message in failing(capsys, "--predictions", str(folder), *where, f"--data.{wrong}", "1")


def test_classes_of_a_coco_file(coco_root, tmp_path):
    """Perfect masks of the instances in front; the crowd is background."""
    data = coco_root / "annotations" / "instances_val2017.json"
    report = score(data, data, tmp_path / "out", "--data.images", "../val2017", "--data.overlaps", "smaller_in_front")
    assert report["mbo_class"] > 0.9
    assert report["ari_fg_images"] == 3
    assert report["provenance"]["data"]["images"] == "../val2017"


def test_images_of_one_name_are_refused(coco_root, tmp_path, capsys):
    data = coco_root / "annotations" / "instances_val2017.json"
    content = json.loads(data.read_text())
    content["images"].append(content["images"][0] | {"id": 999, "file_name": "0" * 11 + "1.png"})
    content["images"][0]["file_name"] = "0" * 11 + "1.jpg"
    twice = tmp_path / "twice.json"
    twice.write_text(json.dumps(content))
    where = ["--data", str(data), "--data.images", "../val2017", "--out", str(tmp_path / "out")]
    assert "images of one name" in failing(capsys, "--predictions", str(twice), *where)


def failing(capsys, *words: str) -> str:
    assert main(["evaluate", *words]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"masks": np.zeros((2, 32, 32), int)}, "has masks of 2 scenes, but the data 3"),
        ({"masks": np.zeros((3, 32, 16), int)}, "16 x 32 pixels, but its image has 32 x 32"),
        ({"masks": np.full((3, 32, 32), 0.5)}, "must be whole numbers"),
        ({"masks": np.full((3, 32, 32), -1)}, "hold the label -1"),
        ({"masks": np.full((3, 4, 32, 32), 7.0)}, "must be shares"),
        ({"masks": np.zeros((3, 32, 32, 4))}, r"take np\.moveaxis\(masks, -1, 1\)"),
        ({"a": np.zeros(3), "b": np.zeros(3)}, "must hold one array, or one called 'masks', but holds a, b"),
        ({"masks": np.ones((3, 32, 32), int), "scores": np.ones(3)}, r"scores must be numbers \[3, 1\]"),
        ({"masks": np.array([{}, {}, {}])}, "cannot be read"),
    ],
)
def test_arrays_that_do_not_fit(scene_file, tmp_path, capsys, arrays, message):
    np.savez(tmp_path / "masks.npz", **arrays)
    where = ["--data", str(scene_file), "--out", str(tmp_path / "out")]
    error = failing(capsys, "--predictions", str(tmp_path / "masks.npz"), *where)
    assert re.search(message, error), error
    assert not (tmp_path / "out").exists()


def test_two_label_images_of_one_scene_are_refused(scene_file, tmp_path, capsys):
    for name in ("0", "1", "2", "002"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / f"{name}.png")
    words = ["--predictions", str(tmp_path), "--data", str(scene_file), "--out", str(tmp_path / "out")]
    assert "two label images of one scene, one is 002.png. Remove one" in failing(capsys, *words)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda path: as_folder(path / "f", ["a"]), "no masks of the 2 scenes of the data: 1, for instance 'b'"),
        (lambda path: as_folder(path / "f", ["a", "c"]), "no masks of the 2 scenes of the data: 1, for instance 'b'"),
        (lambda path: as_coco(path / "f.json", ["a.png"]), "for instance 'b'"),
        (lambda path: as_coco(path / "f.json", ["a.png", "z.png"]), "for instance 'b'"),
        (lambda path: path / "missing.json", "there is no|does not exist"),
        (lambda path: path / "missing.npz", "does not exist"),
        (lambda path: path / "missing", "does not exist"),
    ],
)
def test_files_that_lack_a_scene(data, tmp_path, capsys, form, message):
    words = ["--predictions", str(form(tmp_path)), "--data", str(data), "--out", str(tmp_path / "out")]
    error = failing(capsys, *words)
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 7}, "1 images that the data does not have, for instance image_id 7"),
        ({"segmentation": [[0, 0, 4, 0, 4, 4]]}, "'segmentation' as run lengths"),
        ({"segmentation": {"size": [20, 30], "counts": [3]}}, "do not add up"),
        ({"score": "high"}, "has the score 'high'"),
    ],
)
def test_results_that_do_not_fit(data, tmp_path, capsys, change, message):
    rows = annotations()
    (tmp_path / "r.json").write_text(json.dumps([rows[0] | change, *rows[1:]]))
    words = ["--predictions", str(tmp_path / "r.json"), "--data", str(data), "--out", str(tmp_path / "out")]
    assert message in failing(capsys, *words)


def test_an_image_without_a_result_has_nothing_found(data, tmp_path, caplog):
    (tmp_path / "r.json").write_text(json.dumps([row for row in annotations() if row["image_id"] == 1]))
    report = score(tmp_path / "r.json", data, tmp_path / "out")
    assert "no result for 1 of 2 images" in caplog.text
    objects = len(np.unique(TRUE[1])) - 1
    assert report["count_error"] >= objects / 2


def test_of_overlapping_masks_the_surer_has_the_pixel(data, tmp_path):
    from unscene.evaluation.predictions import PredictedMasks

    rows = [annotations()[0]]
    top = np.zeros(SIZES[0], np.uint8)
    top[:4] = 1
    for value, surest in ((0.9, 2), (0.1, 1)):
        runs = coco_mask.encode(np.asfortranarray(top))["counts"].decode()
        second = {"image_id": 1, "score": value, "segmentation": {"size": list(SIZES[0]), "counts": runs}}
        (tmp_path / "r.json").write_text(json.dumps([*rows, second]))
        source = LabelledFolder(LabelledFolderSettings(str(data)))
        labels, _ = PredictedMasks(tmp_path / "r.json", source)._read(0)
        first = FOUND[0] == np.unique(FOUND[0][FOUND[0] > 0])[0]
        assert set(labels[(top > 0) & first].tolist()) <= {surest}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a model to score, or masks"),
        (["rmonet_unet/multi_dsprites_cpu", "--predictions", "m.npz", "--data", "d.h5"], "name a model to score, or"),
        (["--predictions", "m.npz"], "name it with --data"),
        (["--predictions", "m.npz", "--shift", "all"], "leave out --shift"),
        (["rmonet_unet/multi_dsprites_cpu", "--background", "0"], "for --predictions alone"),
        (["rmonet_unet/multi_dsprites_cpu", "--tile", "64"], "tile: only for a model that decomposes images at their"),
        (["rmonet_unet/multi_dsprites_cpu", "--shift", "all", "--scale", "2"], "leave out the options of tiles"),
        (["--predictions", "m.npz", "--data", "d.h5"], "d.h5 does not exist"),
    ],
)
def test_words_that_contradict_each_other(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in failing(capsys, *words, "--out", "out")


def test_data_without_masks(scene_file, tmp_path, capsys):
    import h5py

    with h5py.File(scene_file) as stored, h5py.File(tmp_path / "bare.h5", "w") as bare:
        bare["image"] = stored["image"][:]
    np.save(tmp_path / "m.npy", np.zeros((3, 32, 32), int))
    where = ["--data", str(tmp_path / "bare.h5"), "--out", str(tmp_path / "out")]
    assert "has no masks" in failing(capsys, "--predictions", str(tmp_path / "m.npy"), *where)
