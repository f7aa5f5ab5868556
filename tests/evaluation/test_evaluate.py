"""evaluate: the metrics' own numbers, every field of provenance, and no other evaluation overwritten."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unscene.data.labelled_folder import LabelledFolder, LabelledFolderSettings
from unscene.errors import DataError, RunError
from unscene.evaluation import scenes as scenes_module
from unscene.evaluation.evaluate import evaluate, measure
from unscene.evaluation.scenes import chosen_scenes, example_scenes, read_scenes, scores_to_rank_by
from unscene.inference.tiles import decompose_large
from unscene.metrics import default_metrics
from unscene.report.table import DESCRIPTIONS
from unscene.runs.loading import LoadedModel
from unscene.runs.recipe import read_recipe

DATA = {"name": "multi_dsprites", "seed": 3, "count": 40}


@pytest.fixture(autouse=True)
def one_scene_of_each(monkeypatch):
    monkeypatch.setattr(scenes_module.chosen_scenes, "__defaults__", (1,))


class Unlabelled:
    """The images of a source, without their truth."""

    def __init__(self, source):
        self.source = source

    def __len__(self):
        return len(self.source)

    def batch(self, indices):
        return {"image": self.source.batch(indices)["image"]}


def test_metrics_are_those_of_one_pass_over_all_scenes(loaded, scenes):
    result = measure(loaded, scenes, count=5, batch_size=2, description_of_data=DATA, progress=False)
    scene = read_scenes(scenes, range(5), 64)
    for metric in default_metrics().values():
        metric.update(scene, loaded.decompose(scene.images))
        for name, value in metric.compute().items():
            assert result.metrics[name] == pytest.approx(value)
    assert loaded.batches[:3] == [2, 2, 1]
    assert result.metrics["ms_per_image"] > 0
    assert result.health["slots_used"] > 1
    assert result.verdict.startswith("decomposing")


def test_metrics_json_has_the_provenance(loaded, scenes, tmp_path):
    written = evaluate(loaded, scenes, tmp_path / "out", count=3, description_of_data=DATA, progress=False).as_json()
    read = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert read == written
    assert read["provenance"]["weights"] == {"run": "A", "sha256": "12ab", "step": 20000}
    assert read["provenance"]["data"] == {**DATA, "scenes": 3}
    ran = read["provenance"]["evaluation"]
    assert {"date", "command", "commit", "python", "unscene", "torch", "torchvision", "numpy"} <= ran.keys()
    assert {"cpu", "cores", "threads", "gpu", "device"} <= ran.keys()
    assert (ran["recipe"], ran["precision"], ran["batch_size"]) == ("colour/multi_dsprites", "float32", 64)
    assert read["recipe"]["model"]["num_slots"] == 6
    assert read["reported"] == {"ari_fg": 0.951, "map_50_95": 0.435}
    assert sorted(entry["index"] for entry in read["scenes"]) == [0, 1, 2]


def test_every_row_of_the_page_has_an_explanation(loaded, scenes, tmp_path):
    result = evaluate(loaded, scenes, tmp_path / "out", count=1, description_of_data=DATA, progress=False)
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    rows = re.findall(r'<tr><th scope="row">([^<]+)<small>([^<]*)</small>', page)
    assert len(rows) == len(result.metrics) + len(result.health)
    unexplained = {"", "Higher is better.", "Lower is better."}
    assert [label for label, explanation in rows if explanation.strip() in unexplained] == []
    assert set(result.metrics) <= set(DESCRIPTIONS)


def test_without_truth_metrics_do_not_apply_and_scenes_are_ranked_by_reconstruction(loaded, scenes, tmp_path):
    source = Unlabelled(scenes)
    written = evaluate(loaded, source, tmp_path, count=3, description_of_data=DATA, progress=False).as_json()
    assert written["ari_fg"] is None
    assert written["map_50_95"] is None
    assert written["reconstruction_psnr"] > 0
    assert written["ranked_by"] == "reconstruction_psnr"
    assert "not applicable" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_without_boxes_other_metrics_are_computed(make_loaded, make_model, scenes):
    result = measure(make_loaded(make_model(boxes=False)), scenes, count=2, description_of_data=DATA, progress=False)
    assert result.metrics["map_50"] is None
    assert result.metrics["ari_fg"] is not None
    assert "boxes" not in result.health


def test_locations_have_the_names_of_the_objects(make_loaded, make_model, scenes, tmp_path):
    class Named(Unlabelled):
        object_names = ("first", "second", "third", "fourth", "fifth")
        batch = property(lambda self: self.source.batch)

    loaded = make_loaded(model=make_model(locations=True))
    result = evaluate(loaded, Named(scenes), tmp_path, count=8, description_of_data=DATA, progress=False)
    assert result.metrics["located"] > 0.9  # but for objects that others hide in part, all are where the model says
    showing = int((scenes.batch(range(8))["labels"] == 1).any(axis=(1, 2)).sum())
    assert result.located["first"].images == showing
    assert 0 < result.as_json()["located_objects"]["first"]["located"] <= showing
    named = {location.name for scene in result.scenes for location in scene.picture.locations}
    assert "first" in named
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Objects located" in page
    assert "<summary>Locations</summary>" in page


def test_locations_are_scored_without_names(make_loaded, make_model, scenes, tmp_path):
    loaded = make_loaded(model=make_model(locations=True))
    result = evaluate(loaded, scenes, tmp_path, count=4, description_of_data=DATA, progress=False)
    assert result.metrics["located"] > 0.9
    assert result.located == {}
    assert "Objects located" not in (tmp_path / "index.html").read_text(encoding="utf-8").split("All metrics")[0]


@pytest.fixture
def labelled(scenes, tmp_path):
    """Four scenes side by side in one image of 128 x 128 pixels, and one scene; their true masks as label images."""
    drawn = scenes.batch(range(5))
    folder = tmp_path / "labelled"
    folder.mkdir()
    offsets = 10 * np.arange(4)[:, None, None]
    labels = np.where(drawn["labels"][:4] > 0, drawn["labels"][:4] + offsets, 0).astype(np.uint16)
    for name, image, label_map in (("b", drawn["image"][4], drawn["labels"][4]), ("a", drawn["image"][:4], labels)):
        for values, suffix in ((image, ""), (label_map, "_label")):
            if len(values) == 4:
                values = np.concatenate([np.concatenate([*values[:2]], 1), np.concatenate([*values[2:]], 1)])
            Image.fromarray(values).save(folder / f"{name}{suffix}.png")
    return LabelledFolder(LabelledFolderSettings(str(folder)))


def test_images_at_their_own_sizes_are_scored_as_decompose_finds_their_objects(loaded, labelled, tmp_path):
    how = {"count": 2, "description_of_data": {"source": "labelled_folder"}, "progress": False}
    result = evaluate(loaded, labelled, tmp_path / "out", objects={"tile": 64, "overlap": 0}, **how)
    true = [labelled.batch([index])["labels"][0] for index in (0, 1)]
    assert true[0].shape == (128, 128)
    found = decompose_large(loaded, labelled.batch([0])["image"][0], tile=64, overlap=0, progress=False)
    assert result.metrics["count_error"] == abs(true[0].max() - len(found.slots)) / 2  # and none in the small one
    assert result.metrics["instance_ap_50"] > 0.5
    assert (result.health, result.verdict) == ({}, "")
    assert result.metrics["ms_per_image"] > 0
    assert result.provenance["evaluation"]["tile"] == 64
    with pytest.raises(RunError, match="--overwrite"):  # other tiles are another evaluation
        evaluate(loaded, labelled, tmp_path / "out", objects={"tile": 32}, **how)
    as_trained = evaluate(loaded, labelled, tmp_path / "auto", objects={"tile": "auto", "overlap": 0}, **how)
    assert as_trained.metrics["pq"] == result.metrics["pq"]
    assert as_trained.provenance["evaluation"]["tile"] == 64
    assert {scene.index for scene in result.scenes} == {0, 1}
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Health" not in page
    assert "reconstr" not in page


def test_only_the_same_evaluation_is_replaced_without_overwrite(loaded, make_loaded, scenes, tmp_path):
    arguments = {"count": 1, "description_of_data": DATA, "progress": False}
    evaluate(loaded, scenes, tmp_path, **arguments)
    evaluate(loaded, scenes, tmp_path, **arguments)
    other = make_loaded(provenance={"run": "B"})
    before = (tmp_path / "metrics.json").read_bytes(), (tmp_path / "index.html").read_bytes()
    with pytest.raises(RunError, match="--overwrite"):
        evaluate(other, scenes, tmp_path, **arguments)
    with pytest.raises(RunError, match="--overwrite"):
        evaluate(loaded, scenes, tmp_path, **{**arguments, "count": 2})
    assert other.batches == []  # refused before any work
    assert before == ((tmp_path / "metrics.json").read_bytes(), (tmp_path / "index.html").read_bytes())
    assert evaluate(other, scenes, tmp_path, **arguments, overwrite=True).provenance["weights"] == {"run": "B"}


@pytest.mark.parametrize(("name", "text"), [("metrics.json", "{"), ("metrics.json", "[]"), ("index.html", "mine")])
def test_unknown_files_are_not_overwritten(loaded, scenes, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match="--overwrite"):
        evaluate(loaded, scenes, tmp_path, count=1, description_of_data=DATA, progress=False)
    assert (tmp_path / name).read_text() == text


def test_file_instead_of_the_folder_is_an_error(loaded, scenes, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(RunError, match="is a file"):
        evaluate(loaded, scenes, tmp_path / "out", count=1, description_of_data=DATA, progress=False)


@pytest.mark.parametrize("count", [0, 41])
def test_wrong_number_of_scenes_is_an_error(loaded, scenes, count):
    with pytest.raises(DataError, match="40 scenes"):
        measure(loaded, scenes, count=count, description_of_data=DATA, progress=False)


def test_scenes_of_another_size_are_an_error(make_loaded, scenes):
    with pytest.raises(DataError, match=r"64 x 64 pixels, but the model takes 32 x 32"):
        measure(make_loaded(size=32), scenes, count=1, description_of_data=DATA, progress=False)


def test_damaged_metrics_csv_is_an_error_before_any_scene_is_scored(loaded, scenes, tmp_path):
    with pytest.raises(DataError, match=r"metrics\.csv"):
        measure(loaded, scenes, count=1, description_of_data=DATA, progress=False, metrics_csv=tmp_path / "metrics.csv")
    assert loaded.batches == []


def test_chosen_scenes_by_hand():
    scores = [0.5, None, 0.9, 0.1, 0.7, 0.3, 0.8]
    assert chosen_scenes(scores, 1) == [("best", 2), ("median", 4), ("worst", 3)]
    assert chosen_scenes(scores, 2) == [
        ("best", 2), ("best", 6), ("median", 4), ("median", 0), ("worst", 5), ("worst", 3),
    ]  # fmt: skip
    assert chosen_scenes([0.5], 3) == [("best", 0)]
    assert chosen_scenes([None, None], 3) == []


def test_examples_are_predicted_in_the_order_of_the_source(loaded, scenes):
    predicted = []

    def predict(scene, indices):
        predicted.extend(indices)
        return loaded.decompose(scene.images)

    examples = example_scenes(lambda indices: read_scenes(scenes, indices, 64), predict, (), [0.1, 0.5, 0.9])
    assert predicted == [0, 1, 2]
    assert [(example.rank, example.index) for example in examples] == [("best", 2), ("median", 1), ("worst", 0)]


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(scores=st.lists(st.none() | st.floats(-1, 1), max_size=20), per_rank=st.integers(1, 4))
def test_no_scene_is_chosen_twice_and_ranks_are_in_order(scores, per_rank):
    chosen = chosen_scenes(scores, per_rank)
    indices = [index for _, index in chosen]
    counted = [score for score in scores if score is not None]
    assert len(set(indices)) == len(indices) == min(len(counted), 3 * per_rank)
    shown = [scores[index] for index in indices]
    assert shown == sorted(shown, reverse=True)
    if counted:
        assert shown[0] == max(counted)
    if len(counted) > per_rank:
        assert shown[-1] == min(counted)


def test_scenes_are_ranked_by_the_named_metric(loaded, scenes):
    metrics = default_metrics()
    scene = read_scenes(scenes, range(4), 64)
    for metric in metrics.values():
        metric.update(scene, loaded.decompose(scene.images))
    name, scores = scores_to_rank_by(metrics)
    assert np.mean(scores) == pytest.approx(metrics["ari_fg"].compute()[name])


def test_loaded_model_is_evaluated(scenes, tmp_path):
    small = {"backbone": {"width": 8, "fpn_channels": 16}, "head": {"channels": 8}, "vae": {"decoder_channels": 8}}
    values = {"model": {"name": "rmonet", **small}, "data": {"name": "multi_dsprites"}}
    recipe = read_recipe({**values, "trainer": {"precision": "float32"}}, "tiny/multi_dsprites")
    loaded = LoadedModel(recipe.build_model().eval(), recipe, {"step": 0})
    written = evaluate(
        loaded, scenes, tmp_path, count=3, batch_size=2, description_of_data=DATA, progress=False
    ).as_json()
    assert -1 <= written["ari_fg"] <= 1
    assert written["provenance"]["evaluation"]["precision"] == "float32"
    assert written["recipe"]["model"]["backbone"]["width"] == 8
    assert (tmp_path / "index.html").is_file()
