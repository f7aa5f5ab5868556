"""clevr_scenes: any sample alone, arrays that agree with each other, and clear errors."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from unscene.data import source_class
from unscene.data.clevr.dataset import SHIFTS, ClevrScenes, ClevrScenesSettings
from unscene.data.clevr.objects import ALL_COLOURS, ALL_SHAPES, COLOURS, MATERIALS, SHAPES, SIZES, UNSEEN_COLOURS
from unscene.data.generate import generate
from unscene.data.hdf5.reader import SceneStore
from unscene.errors import DataError, RecipeError, ShapeError

COUNT = 60


@pytest.fixture(scope="module")
def scenes() -> dict[str, np.ndarray]:
    return ClevrScenes(ClevrScenesSettings(count=COUNT, size=64)).batch(range(COUNT))


def test_the_arrays_have_their_shapes_and_types(scenes):
    found = {name: (values.shape, values.dtype.name) for name, values in scenes.items()}
    rows = (COUNT, 6)
    assert found == {
        "image": ((COUNT, 64, 64, 3), "uint8"),
        "labels": ((COUNT, 64, 64), "uint8"),
        "boxes": ((*rows, 4), "float32"),
        **dict.fromkeys(("shape", "material", "color", "size"), (rows, "uint8")),
        **dict.fromkeys(("x", "y", "z", "rotation"), (rows, "float32")),
        "visible_pixels": (rows, "int32"),
    }


def test_a_sample_is_the_same_in_any_batch(scenes):
    source = ClevrScenes(ClevrScenesSettings(count=COUNT, size=64))
    for indices in ([5], [41, 3, 3, 17], list(range(COUNT))[::-7]):
        for name, values in source.batch(indices).items():
            assert np.array_equal(values, scenes[name][indices]), name


def test_the_scenes_of_a_seed_never_change(scenes):
    # scene 3 of seed 0, pasted from version 1 of the generator: raise VERSION when it changes on purpose
    assert scenes["shape"][3].tolist() == [1, 1, 3, 3, 1, 1]
    assert scenes["material"][3].tolist() == [2, 1, 2, 2, 1, 2]
    assert scenes["color"][3].tolist() == [5, 2, 8, 4, 7, 3]
    assert scenes["size"][3].tolist() == [1, 1, 2, 1, 1, 2]
    assert scenes["visible_pixels"][3].tolist() == [4776, 2138, 499, 3046, 1094, 617]
    assert scenes["x"][3] == pytest.approx([2.0351, -0.4417, 0.5953, 2.9879, -2.4475, -0.5088], abs=1e-4)
    assert scenes["boxes"][3].tolist() == [
        [22, 25, 46, 53],
        [18, 13, 36, 33],
        [48, 19, 55, 28],
        [58, 20, 64, 41],
        [15, 7, 32, 21],
        [37, 16, 46, 25],
    ]
    assert scenes["image"][3].sum() == pytest.approx(1402161, rel=1e-5)  # powers are rounded elsewhere as they like


def test_two_seeds_draw_unrelated_scenes(scenes):
    other = ClevrScenes(ClevrScenesSettings(count=20, seed=1, size=64)).batch(range(20))
    assert not (other["image"] == scenes["image"][:20]).all(axis=(1, 2, 3)).any()
    assert not np.isin(other["x"][other["shape"] > 0], scenes["x"]).any()


def test_the_default_is_the_papers_clevr6(scenes):
    kinds = (SHAPES, MATERIALS, tuple(COLOURS), tuple(SIZES))
    assert ClevrScenesSettings() == ClevrScenesSettings(60000, 0, 128, 3, 6, *kinds)
    number = (scenes["shape"] > 0).sum(1)
    assert set(number.tolist()) == {3, 4, 5, 6}


def test_rows_without_an_object_are_zero_and_labels_have_a_row(scenes):
    absent = scenes["shape"] == 0
    assert absent.any()
    assert not any(scenes[name][absent].any() for name in scenes if name not in ("image", "labels"))
    for mask, shape in zip(scenes["labels"], scenes["shape"], strict=True):
        assert (shape[np.unique(mask[mask > 0]) - 1] > 0).all()


def test_boxes_are_those_of_the_visible_pixels(scenes):
    for mask, boxes in zip(scenes["labels"], scenes["boxes"], strict=True):
        for label, box in enumerate(boxes, start=1):
            rows, columns = np.nonzero(mask == label)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
            assert box.tolist() == tight


def test_the_height_is_the_size(scenes):
    heights = np.array([0, *SIZES.values()], np.float32)
    assert np.array_equal(scenes["z"], heights[scenes["size"]])


def test_most_objects_are_in_the_crop(scenes):
    present = scenes["shape"] > 0
    in_crop = scenes["boxes"].any(-1)[present].mean()
    assert 0.9 < in_crop < 1  # of the published files, .94


def test_settings_choose_other_distributions():
    shifted = ClevrScenesSettings(
        count=8,
        size=32,
        min_objects=7,
        max_objects=10,
        shapes=("cylinder",),
        materials=("metal",),
        colours=("cyan", "red"),
    )
    generated = ClevrScenes(shifted).batch(range(8))
    present = generated["shape"] > 0
    assert present.sum(1).min() >= 7
    assert set(generated["shape"][present]) == {SHAPES.index("cylinder") + 1}
    assert set(generated["material"][present]) == {MATERIALS.index("metal") + 1}
    assert set(generated["color"][present]) == {list(COLOURS).index(name) + 1 for name in ("cyan", "red")}
    assert generated["visible_pixels"][present].min() >= 200


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifted_scenes_agree_with_themselves(shift):
    source = ClevrScenes(ClevrScenesSettings(count=30, seed=4, size=48, **SHIFTS[shift]))
    generated = source.batch(range(12))
    for name, values in source.batch([7, 2]).items():
        assert np.array_equal(values, generated[name][[7, 2]]), name
    for mask, boxes, shape in zip(generated["labels"], generated["boxes"], generated["shape"], strict=True):
        assert (shape[np.unique(mask[mask > 0]) - 1] > 0).all()
        for label, box in enumerate(boxes, start=1):
            rows, columns = np.nonzero(mask == label)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0]
            assert box.tolist() == tight


def test_settings_choose_cones_and_unseen_colours():
    unseen = {name: SHIFTS[name] for name in ("unseen_shape", "unseen_colour")}
    batches = [ClevrScenes(ClevrScenesSettings(size=32, **changes)).batch(range(12)) for changes in unseen.values()]
    cones, coloured = ({name: set(batch[name][batch["shape"] > 0]) for name in ("shape", "color")} for batch in batches)
    assert cones["shape"] == {ALL_SHAPES.index("cone") + 1}
    assert cones["color"] <= set(range(1, 9))
    assert coloured["shape"] == {1, 2, 3}
    assert coloured["color"] == {list(ALL_COLOURS).index(name) + 1 for name in UNSEEN_COLOURS}


def test_colours_of_ours_are_far_from_clevrs():
    def seen(colours):  # sRGB, by a power that is near enough
        return 255 * (np.array(list(colours.values())) / 255) ** (1 / 2.2)

    apart = np.linalg.norm(seen(UNSEEN_COLOURS)[:, None] - seen(COLOURS), axis=-1)
    between = np.linalg.norm(seen(COLOURS)[:, None] - seen(COLOURS), axis=-1)
    assert apart.min() > between[between > 0].min()


def test_an_occluder_hides_and_changes_nothing_else(scenes):
    generated = ClevrScenes(ClevrScenesSettings(count=COUNT, size=64, occluder=0.4)).batch(range(COUNT))
    for name in generated.keys() - {"image", "labels", "boxes"}:
        assert np.array_equal(generated[name], scenes[name]), name
    differs = (generated["image"] != scenes["image"]).any(axis=-1)
    assert (generated["image"][differs] == 51).all()
    assert (generated["labels"][differs] == 0).all()
    elsewhere = ~differs & (generated["image"] != 51).any(axis=-1)  # hidden pixels may have had that grey
    assert np.array_equal(generated["labels"][elsewhere], scenes["labels"][elsewhere])
    assert 24**2 < differs.sum(axis=(1, 2)).min() <= differs.sum(axis=(1, 2)).max() == 26**2
    gone = scenes["boxes"].any(-1) & ~generated["boxes"].any(-1)
    assert gone.any()


def test_a_crop_is_traced_anew_in_the_middle():
    whole, cropped = (
        ClevrScenes(ClevrScenesSettings(size=size, crop=crop)).batch(range(6)) for size, crop in ((96, 1.0), (48, 0.5))
    )
    assert np.array_equal(cropped["labels"], whole["labels"][:, 24:72, 24:72])
    apart = np.abs(cropped["image"].astype(int) - whole["image"][:, 24:72, 24:72]).mean()
    assert 0 < apart < 6  # the same rays, but for chance in shadows and mirrors
    for name in ("shape", "x", "visible_pixels"):
        assert np.array_equal(cropped[name], whole[name])


def test_objects_have_their_colours():
    source = ClevrScenes(ClevrScenesSettings(count=40, size=64, materials=("rubber",), max_objects=4))
    generated = source.batch(range(40))
    colours = np.array(list(COLOURS.values()), float)
    right = total = 0
    for image, mask, color in zip(generated["image"], generated["labels"], generated["color"], strict=True):
        for label, named in enumerate(color, start=1):
            if (mask == label).sum() < 30:
                continue
            linear = ((np.median(image[mask == label], 0) / 255 + 0.055) / 1.055) ** 2.4
            direction = linear / np.linalg.norm(linear) @ (colours / np.linalg.norm(colours, axis=1, keepdims=True)).T
            right, total = right + (direction.argmax() == named - 1), total + 1
    assert total > 80
    assert right / total > 0.9  # a shade of brown may be nearer to red


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count must be 1 or more, not 0"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"size": 8}, "size must be 16 or more, not 8"),
        ({"min_objects": 7}, "min_objects must be at most max_objects, 6, not 7"),
        ({"max_objects": 11}, "max_objects must be from 1 to 10, not 11"),
        ({"min_objects": 0, "max_objects": 0}, "max_objects must be from 1 to 10, not 0"),
        ({"shapes": ("cub",)}, "shapes must be of cube, sphere, cylinder, cone, not cub. Did you mean 'cube'"),
        ({"colours": ("grey",)}, "Did you mean 'gray'"),
        ({"materials": ()}, r"materials must be one or more of rubber, metal, each once, not \[\]"),
        ({"sizes": ("large", "large")}, r"sizes must be .* each once, not \[large, large\]"),
        ({"crop": 0.2}, "crop must be from 0.25 to 1, not 0.2"),
        ({"crop": 1.01}, "crop must be from 0.25"),
        ({"occluder": 2.0}, "occluder must be from 0 to 1, not 2.0"),
    ],
)
def test_impossible_settings_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        ClevrScenesSettings(**values)


def test_wrong_indices_are_refused():
    source = ClevrScenes(ClevrScenesSettings(count=4))
    with pytest.raises(DataError, match="sample 4 was asked for"):
        source.batch([4])
    with pytest.raises(ShapeError, match="whole numbers"):
        source.batch([0.5])


def test_an_empty_batch_has_all_arrays(scenes):
    empty = ClevrScenes(ClevrScenesSettings(count=COUNT, size=64)).batch([])
    assert {name: values.shape[1:] for name, values in empty.items()} == {
        name: values.shape[1:] for name, values in scenes.items()
    }


def test_without_numba_the_error_names_the_extra():
    code = """
import sys
sys.modules["numba"] = None
from unscene.data.clevr.dataset import ClevrScenes
from unscene.errors import DataError
try:
    ClevrScenes().batch([0])
except DataError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'unscene[render]'" in ran.stdout


def test_no_room_is_an_error(monkeypatch):
    from unscene.data.clevr import placement

    monkeypatch.setattr(placement, "placed_scenes", lambda *_: None)
    with pytest.raises(DataError, match=r"did not place up to 6 objects, .* Lower max_objects"):
        ClevrScenes().batch([0])


def test_it_is_registered_and_generates_a_file(tmp_path):
    assert source_class("clevr_scenes") is ClevrScenes
    settings = {"count": 5, "seed": 9, "size": 32, "colours": ["red", "cyan"]}
    assert generate("clevr_scenes", tmp_path / "clevr.h5", settings, progress=False) == 5
    store = SceneStore(tmp_path / "clevr.h5")
    generated = ClevrScenes(ClevrScenesSettings(5, 9, 32, colours=("red", "cyan"))).batch(range(5))
    assert store.attributes["source"] == "clevr_scenes"
    assert store.attributes["generator_version"] == 1
    assert json.loads(json.dumps(store.attributes["settings"]))["colours"] == ["red", "cyan"]
    for name, values in store.batch(range(5)).items():
        assert np.array_equal(values, generated[name]), name
