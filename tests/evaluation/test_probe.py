"""probe: scores of latents that are the properties or know nothing, and the match of slots and objects."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from unscene.errors import DataError, RecipeError, RunError
from unscene.evaluation.probe import factors_of, match_by_mask, probe, score_probes, slot_vectors
from unscene.scene import Decomposition, boxes_of_labels

M, SIZE = 3, 6
HOW: dict[str, Any] = {"description_of_data": {"source": "stripes", "seed": 1}, "progress": False}


@dataclass
class Stripes:
    """Up to three objects, the stripes of two rows, of a shape, a colour and a position that no pixel tells."""

    count: int = 300
    own_size: bool = False

    def __len__(self):
        return self.count

    def batch(self, indices):
        scenes = [np.random.default_rng(index) for index in indices]
        present = np.stack([np.arange(M) < rng.integers(1, M + 1) for rng in scenes])
        stripe = np.repeat(np.arange(M), SIZE // M)
        labels = ((stripe + 1) * present[:, stripe]).astype(np.uint8)[:, :, None].repeat(SIZE, axis=2)
        return {
            "image": np.zeros((len(indices), SIZE, SIZE, 3), np.uint8),
            "labels": labels,
            "boxes": boxes_of_labels(labels, M),
            "visibility": present.astype(np.float32),
            "shape": np.stack([rng.integers(1, 4, M) for rng in scenes]).astype(np.uint8) * present,
            "color": np.stack([rng.random((M, 3)) for rng in scenes]).astype(np.float32) * present[..., None],
            "x": np.stack([rng.random(M) for rng in scenes]).astype(np.float32) * present,
            "same": present.astype(np.float32),
            "camera": np.zeros((len(indices), 2), np.float32),
        }


class Oracle:
    """Masks of every stripe in an order of its own, the background first; its latents are the properties, or noise."""

    def __init__(self, make_loaded, source, knows=True):
        self.source, self.knows, self.seen = source, knows, 0
        self.size, self.name, self.provenance = SIZE, "oracle/stripes", {"step": 7}
        self.model, self.config = make_loaded().model, make_loaded().config

    def decompose(self, images, batch_size):
        sample = self.source.batch(range(self.seen, self.seen + len(images)))
        labels = torch.from_numpy(sample["labels"]).long()
        masks = torch.nn.functional.one_hot(labels, M + 1).permute(0, 3, 1, 2)[:, :, None].float()
        shape = np.eye(4)[sample["shape"]]
        latents = np.concatenate([shape, sample["color"], sample["x"][..., None]], axis=2)
        if not self.knows:
            latents = np.random.default_rng(self.seen).normal(size=latents.shape)
        latents = torch.nn.functional.pad(torch.from_numpy(latents).float(), (0, 0, 1, 0))
        for row in range(len(images)):
            order = [0, *(1 + np.random.default_rng(self.seen + row).permutation(M))]
            masks[row], latents[row] = masks[row][order].clone(), latents[row][order].clone()
        self.seen += len(images)
        return Decomposition(masks.log(), masks.expand(-1, -1, 3, -1, -1), background=0, latents=latents)


def test_latents_that_are_the_properties_give_1(make_loaded, tmp_path):
    source = Stripes()
    table = probe(Oracle(make_loaded, source), source, tmp_path, batch_size=64, **HOW)
    written = json.loads((tmp_path / "probe.json").read_text(encoding="utf-8"))
    found = written["properties"]
    assert {name: score["measure"] for name, score in found.items()} == {
        **{"shape": "accuracy", "color": "R2", "x": "R2", "same": "R2"},
    }
    assert found["shape"]["linear"] == found["shape"]["mlp"] == 1
    assert found["shape"]["chance"] == pytest.approx(1 / 3, abs=0.1)
    for name in ("color", "x"):
        assert found[name]["linear"] > 0.999
        assert found[name]["mlp"] > 0.9
        assert found[name]["chance"] == 0
    assert found["same"] == {"measure": "R2", "linear": None, "mlp": None, "chance": None}  # it does not vary
    visible = (source.batch(range(300))["shape"] > 0).sum(axis=1)
    counts = {"learned": visible[:225].sum(), "scored": visible[225:].sum(), "without_slot": 0}
    assert written["objects"] == counts
    assert [row.name for row in table.rows] == ["shape, accuracy", "color, R2", "x, R2", "same, R2"]
    assert table.intro.startswith(f"300 scenes of stripes, seed 1. {counts['learned']} objects to learn from")

    provenance = written["provenance"]
    assert provenance["weights"] == {"step": 7}
    assert provenance["data"] == {"source": "stripes", "seed": 1, "scenes": 300}
    assert provenance["evaluation"].items() >= {"recipe": "oracle/stripes", "device": "cpu", "seed": 0}.items()
    with pytest.raises(RunError, match=r"probe\.json would be overwritten"):
        probe(Oracle(make_loaded, source), source, tmp_path, **HOW)
    probe(Oracle(make_loaded, source), source, tmp_path, batch_size=50, overwrite=True, **HOW)
    again = json.loads((tmp_path / "probe.json").read_text(encoding="utf-8"))["properties"]
    assert again == found  # seeds are fixed


def test_random_latents_give_chance(make_loaded, tmp_path):
    source = Stripes()
    rows = probe(Oracle(make_loaded, source, knows=False), source, tmp_path, **HOW).rows
    for row in rows[:3]:
        for name in ("linear", "mlp"):
            assert row.values[name] == pytest.approx(row.values["chance"], abs=0.2)


@pytest.mark.parametrize("numbered", [True, False])
def test_the_frames_of_a_clip_are_all_learned_from_or_all_scored(make_loaded, tmp_path, monkeypatch, numbered):
    """The boundary of 300 scenes is 225, within the clip of 16 frames 224 to 239."""
    source = Stripes()
    if numbered:
        plain = Stripes.batch
        monkeypatch.setattr(Stripes, "batch", lambda *a: plain(*a) | {"video": np.array(a[1], np.int32) // 16})
    else:
        monkeypatch.setattr(Stripes, "clip_length", 16, raising=False)
    probe(Oracle(make_loaded, source), source, tmp_path, batch_size=50, **HOW)
    visible = (source.batch(range(300))["shape"] > 0).sum(axis=1)
    counts = json.loads((tmp_path / "probe.json").read_text(encoding="utf-8"))["objects"]
    assert counts == {"learned": visible[:224].sum(), "scored": visible[224:].sum(), "without_slot": 0}


def decomposition(masks, **fields):
    """Of masks [K, P] of one image of one row."""
    shares = torch.tensor(masks, dtype=torch.float32)[None, :, None, None]
    return Decomposition(shares.log(), shares.expand(-1, -1, 3, -1, -1), **fields)


def matched(labels, masks, rows=2, **fields):
    ((index, objects, slots, missing),) = match_by_mask(torch.tensor([[labels]]), decomposition(masks, **fields), rows)
    assert index == 0
    return dict(zip(objects.tolist(), slots.tolist(), strict=True)), missing


def test_match_by_hand():
    """cos of label 1: 1.6 / (sqrt 2 sqrt 1.28) = 1 with slot 1, and .4 / (sqrt 2 sqrt 1.36) = .24 with slot 2."""
    masks = [[0.1, 0.1, 0.1, 0.9], [0.8, 0.8, 0.0, 0.0], [0.1, 0.1, 0.9, 0.1]]
    assert matched([1, 1, 2, 0], masks, background=0) == ({0: 1, 1: 2}, 0)
    assert matched([2, 2, 1, 0], masks, background=0) == ({0: 2, 1: 1}, 0)
    assert matched([1, 1, 2, 0], masks[::-1], background=-1) == ({0: 1, 1: 0}, 0)
    assert matched([1, 1, 0, 2], masks, background=None) == ({0: 1, 1: 0}, 0)  # each slot may have an object


def test_the_sum_over_all_objects_is_the_largest():
    """Both objects are most like slot 0: cos .89 and .45, and .32 and 0 with slot 1. .45 + .32 < .89 + 0."""
    masks = [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]
    assert matched([1, 2, 0], masks) == ({0: 0, 1: 1}, 0)
    assert matched([2, 1, 0], masks) == ({0: 1, 1: 0}, 0)


def test_objects_without_a_slot():
    assert matched([1, 1, 2, 2], [[0.5, 0.5, 0.1, 0.1], [0.5, 0.5, 0.9, 0.9]], background=1) == ({0: 0}, 1)
    absent = [[1.0, 1.0, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, 1.0, 1.0]]  # slot 1 shares no pixel with label 2
    assert matched([1, 1, 2, 2], absent, background=2) == ({0: 0}, 1)
    assert matched([0, 0, 0, 0], absent, background=2) == ({}, 0)
    assert matched([3, 1, -1, 0], absent, rows=2) == ({0: 0}, 0)  # label 3 has no factors, -1 does not count


def test_boxes_and_locations_are_added_on_request(loaded):
    boxes = {
        "boxes": torch.tensor([[[0.0, 16, 32, 64]]]),
        "box_scores": torch.ones(1, 1),
        "box_valid": torch.ones(1, 1),
    }
    masks, latents = [[0.5], [0.5]], torch.tensor([[[3.0], [4.0]]])
    plain = decomposition(masks, latents=latents, background=0)
    assert torch.equal(slot_vectors(plain, loaded), latents)
    assert slot_vectors(replace(plain, **boxes), loaded, True).tolist() == [[[3, 0, 0, 0, 0], [4, 0, 0.25, 0.5, 1]]]
    located = replace(plain, locations=torch.tensor([[[0.25, 0.75]]]), **boxes)
    assert slot_vectors(located, loaded, True).tolist() == [[[3, 0, 0], [4, 0.25, 0.75]]]
    with pytest.raises(RecipeError, match=r"states no boxes or locations\. Leave out --boxes"):
        slot_vectors(plain, loaded, True)
    with pytest.raises(RecipeError, match="'colour/multi_dsprites' has no latents to probe"):
        slot_vectors(replace(plain, latents=None), loaded)


@pytest.mark.parametrize("lost", ["labels", ("shape", "color", "x", "same"), "own_size"])
def test_data_without_properties_is_refused(lost, make_loaded, tmp_path):
    source = Stripes(own_size=lost == "own_size")
    sample = source.batch(range(4))
    source.batch = lambda indices: {name: value for name, value in sample.items() if name not in (lost, *lost)}
    with pytest.raises(DataError, match="states no properties of its objects"):
        probe(Oracle(make_loaded, source), source, tmp_path / "out", **HOW)
    assert not (tmp_path / "out").exists()


def test_factors_that_begin_with_the_background_are_refused():
    sample = Stripes().batch(range(5))
    shifted = {name: np.insert(sample[name], 0, 1, axis=1) for name in ("visibility", "shape", "x", "color")}
    with pytest.raises(DataError, match="first row of the factors is the background's"):
        factors_of(sample | shifted)
    assert set(factors_of(sample)) == {"shape", "color", "x", "same"}  # not the camera


def test_too_few_or_damaged_objects_are_refused():
    learns = np.arange(60) < 45
    with pytest.raises(DataError, match="45 objects to learn from and 5 to score are too few"):
        score_probes(np.zeros((50, 2)), np.arange(50.0), learns[:50])
    with pytest.raises(DataError, match="NaN or infinite"):
        score_probes(np.zeros((80, 2)), np.append(np.arange(79.0), np.nan), np.arange(80) < 50)


def test_a_rare_class_stops_no_probe():
    values = np.array([1, 2] * 40 + [3])
    latents = np.eye(4)[values]
    learns = np.append(np.arange(80) < 50, True)
    scores = score_probes(latents, values, learns)
    assert (scores["linear"], scores["mlp"]) == (1, 1)
    assert scores["chance"] == 0.5
