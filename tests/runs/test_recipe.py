"""recipe: an error names the wrong setting and suggests the nearest valid one."""

from __future__ import annotations

import os

import pytest
import yaml

from unscene.errors import RecipeError
from unscene.recipes import recipe_values
from unscene.runs.recipe import memory_limit, read_recipe
from unscene.runs.trainer_settings import OptimizerSettings, ParamGroup
from unscene.settings import Word

BASE = "rmonet_unet/multi_dsprites_cpu"


def read(changes=None, **sections):
    return read_recipe(recipe_values(BASE) | sections, BASE, changes)


def test_changes_replace_settings_by_dotted_name():
    changes = {"model.num_slots": 4, "model.vae.latent_dim": 8, "optimizer.clip_norm": 0.5, "seed": 7}
    recipe = read(changes, optimizer={"learning_rate": 0.001})
    assert (recipe.model.num_slots, recipe.model.vae.latent_dim, recipe.seed) == (4, 8, 7)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.clip_norm) == (0.001, 0.5)
    assert recipe.values["model"]["num_slots"] == 4


def test_the_optimiser_of_an_earlier_recipe_is_read():
    """Of old runs and shipped weights: mappings by prefix, in each of which the longest prefix decided."""
    earlier = {"name": "rmsprop", "names": {"vae": "adam"}, "groups": {"vae": 0.25, "vae.decoder": 0.5}, "decays": {}}
    assert read(optimizer=earlier).optimizer == OptimizerSettings(
        name="rmsprop",
        param_groups=(
            ParamGroup("vae", name="adam", learning_rate=0.25),
            ParamGroup("vae.decoder", name="adam", learning_rate=0.5),
        ),
    )
    assert read(optimizer={"names": {}, "groups": {}, "decays": {}}).optimizer == OptimizerSettings()


def test_given_values_stay_as_they_are():
    values = recipe_values(BASE)
    before = yaml.safe_dump(values)
    read_recipe(values, BASE, {"model.vae.latent_dim": 8, "data.name": "hdf5", "data.path": "a.h5"})
    assert yaml.safe_dump(values) == before


def test_given_changes_stay_as_they_are():
    changes = {"data": {"name": "hdf5", "path": "a.h5", "size": 64}, "validation": {"count": 4}, "test": {"count": 4}}
    changes["data.path"] = "b.h5"
    assert read_recipe(recipe_values(BASE), BASE, changes).values["data"]["path"] == "b.h5"
    assert changes["data"] == {"name": "hdf5", "path": "a.h5", "size": 64}


def test_the_text_read_again_is_the_same():
    recipe = read({"model.num_slots": 4, "optimizer.learning_rate": 1e-5})
    values = yaml.safe_load(recipe.text())
    assert values["name"] == BASE
    again = read_recipe(values, BASE)
    assert again == recipe
    assert again.text() == recipe.text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.n_slots": 7}, r"has no setting 'model\.n_slots'\. Did you mean 'model\.num_slots'\?"),
        ({"model.latent_dim": 7}, r"Did you mean 'model\.vae\.latent_dim'\?"),
        (
            {"model.vae.latentdim": 7},
            r"has no setting 'model\.vae\.latentdim'\. Did you mean 'model\.vae\.latent_dim'\?",
        ),
        ({"data.nam": "hdf5"}, r"Did you mean 'data\.name'\?"),
        ({"trainer.max_stps": 3}, r"Did you mean 'trainer\.max_steps'\?"),
        ({"validation.cont": 3}, r"has no setting 'validation\.cont'\. Did you mean 'validation\.count'\?"),
        ({"optimiser.name": "adam"}, r"has no section 'optimiser'\. Did you mean 'optimizer'\?"),
        ({"data.name": "hdf6"}, r"there is no data source 'hdf6'\. Did you mean 'hdf5'\?"),
        ({"model.name": "rmone"}, r"there is no model 'rmone'\. Did you mean 'rmonet'\?"),
    ],
)
def test_a_misspelt_setting_names_the_nearest(changes, message):
    with pytest.raises(RecipeError, match=message):
        read(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.num_slots": "x"}, r"model\.num_slots must be a whole number, not x"),
        ({"model.num_slots": 7.5}, r"model\.num_slots must be a whole number, not 7\.5"),
        ({"model.num_slots": True}, r"model\.num_slots must be a whole number, not True"),
        ({"model.num_slots": None}, r"model\.num_slots is empty\. Give it a value"),
        ({"model.num_slots": 1}, r"model\.num_slots must be 2 or more"),
        ({"model.mixture_over": "pixels"}, r"model\.mixture_over must be one of pixel, channel.*'pixel'\?"),
        ({"model.head.kind": "unit"}, r"model\.head\.kind must be one of unet, lite, roi_align, not unit.*'unet'\?"),
        ({"model.vae": 5}, r"'model\.vae' holds settings, it cannot be 5 itself"),
        ({"model.vae.encoder_channels": 8}, r"model\.vae\.encoder_channels must be a list, not 8"),
        ({"model.vae.encoder_channels": [8, "x"]}, r"model\.vae\.encoder_channels must be a whole number, not x"),
        ({"model.weights.latent": float("nan")}, r"model\.weights\.latent must be a finite number, not nan"),
        ({"optimizer.learning_rate": float("inf")}, r"optimizer\.learning_rate must be a finite number, not inf"),
        ({"optimizer.learning_rate": "fast"}, r"optimizer\.learning_rate must be a number, not fast"),
        ({"optimizer.param_groups": 3}, r"optimizer\.param_groups must be a list, not 3"),
        ({"optimizer.param_groups": [{}]}, r"optimizer\.param_groups.*prefix must be given"),
        ({"optimizer": None}, r"'optimizer' holds settings, it cannot be None"),
        ({"validation": [1]}, r"'validation' holds settings, it cannot be \[1\]"),
        ({"validation.count": 0}, r"validation\.count must be 1 or more, not 0"),
        ({"model.normalise": "imagnet"}, r"model\.normalise must be true or false or one of imagenet, not imagnet"),
        (
            {"model.backbone.pretrained": True, "model.backbone.width": 64},
            r"model\.backbone\.pretrained needs normalise imagenet",
        ),
        ({"trainer.devices": "two"}, r"trainer\.devices must be a whole number or one of auto, not two"),
        ({"trainer.strategy": "dpp"}, r"trainer\.strategy must be one of auto, ddp, not dpp\. Did you mean 'ddp'\?"),
        ({"model": 3}, r"must say 'model\.name'"),
        ({"model.name": ["rmonet"]}, r"must say 'model\.name'"),
        ({"seed": -1}, r": seed must be from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, r": seed must be from 0 to 4294967295"),
        ({"seed": True}, r": seed must be a whole number, not True"),
        ({"seed.x": 1}, r"'seed' of 'seed\.x' is a value"),
        ({"data.name": "images", "data.folder": 2024}, r"data\.folder must be text, not 2024\. In quotes .* '2024'"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read(changes)
    assert "\n" not in str(caught.value)
    assert "<class" not in str(caught.value)


def test_a_message_names_the_recipe():
    with pytest.raises(RecipeError, match=rf"recipe '{BASE}'.*unscene recipes {BASE} --all"):
        read({"model.n_slots": 7})


def test_sizes_that_contradict_each_other():
    with pytest.raises(RecipeError, match=r"model\.size is 32 but data\.size is 64\. Set --data\.size only"):
        read({"model.size": 32})
    assert read({"data.size": 32}).model.size == 32


def test_parts_of_the_data_differ_where_they_say_so():
    recipe = read({"validation.count": 7, "data.max_objects": 3})
    assert len(recipe.source("validation")) == 7
    assert recipe.source("validation").settings.max_objects == 3
    assert (recipe.source().settings.seed, recipe.source("validation").settings.seed) == (0, 1)
    assert recipe.source("test", count=5, seed=9).settings.seed == 9
    with pytest.raises(RecipeError, match=r"has no setting 'data\.cuont'\. Did you mean 'data\.count'"):
        recipe.source(cuont=5)


def test_a_name_from_the_command_line_is_written_as_text():
    recipe = read({"data.name": Word("hdf5"), "data.path": Word("a.h5")})
    assert yaml.safe_load(recipe.text())["data"]["name"] == "hdf5"


def test_another_source_keeps_what_it_knows():
    recipe = read({"data.name": "images", "data.folder": "photos", "data.size": 128})
    assert recipe.values["data"] == {
        "name": "images",
        "folder": "photos",
        "size": 128,
        "skip_damaged": False,
        "fit": "crop",
        "frames": "first",
        "contrast": {"channels": [], "percentiles": None, "gamma": 1.0},
    }
    assert recipe.validation == recipe.test == {}


def test_one_file_is_parted_into_training_validation_and_test():
    recipe = read({"data.name": "hdf5", "data.path": "a.h5"})
    parted = {"name": "hdf5", "path": "a.h5", "first": 0, "count": -1920, "size": 64, "ignore_label": None}
    assert recipe.values["data"] == parted
    assert recipe.validation == {"first": -1920, "count": 320}
    assert recipe.test == {"first": -1600, "count": 1600}
    smaller = read({"data.name": "hdf5", "data.path": "a.h5", "validation.count": 10, "test.count": 5})
    assert (smaller.data.count, smaller.validation["first"], smaller.test["first"]) == (-15, -15, -5)


def test_coco_is_parted_as_a_file_is():
    recipe = read({"data.name": "coco"})
    assert (recipe.data.images, recipe.data.first, recipe.data.count) == ("train2017", 0, -1920)
    assert recipe.validation == {"first": -1920, "count": 320}
    assert recipe.test == {"first": -1600, "count": 1600}


@pytest.mark.parametrize(("source", "setting"), [("hdf5", "path"), ("coco", "folder")])
@pytest.mark.parametrize("counts", [{}, {"validation.count": 3}, {"validation.count": 3, "test.count": 0}])
def test_parts_without_a_count_are_refused_where_one_data_set_is_for_all(source, setting, counts):
    changes = {"data.name": source, f"data.{setting}": "mine"}
    with pytest.raises(RecipeError, match=rf"data\.name {source} takes .*add --validation\.count and --test\.count"):
        read_recipe(recipe_values("explicit_localization/images"), "explicit_localization/images", changes | counts)
    counted = changes | {"validation.count": 3, "test.count": 2}
    recipe = read_recipe(recipe_values("explicit_localization/images"), "explicit_localization/images", counted)
    assert (recipe.data.count, recipe.validation["first"], recipe.test["first"]) == (-5, -5, -2)


def test_the_same_source_changes_nothing():
    assert read({"data.name": "multi_dsprites"}) == read()


@pytest.mark.parametrize("sections", [{"validation": [1]}, {"data": [1]}, {"data": {"name": "hdf5"}}, {"test": 3}])
def test_a_broken_recipe_with_another_source(sections):
    with pytest.raises(RecipeError):
        read({"data.name": "images"}, **sections)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_another_size_of_a_part_is_refused_at_once(part):
    with pytest.raises(RecipeError, match=rf"{part}\.size is 32 but data\.size is 64\. Set --data\.size only"):
        read({f"{part}.size": 32})


@pytest.mark.parametrize(
    ("recipe", "setting"),
    [
        (BASE, "model.vae.latent_dim"),
        (BASE, "model.vae.decoder_layers"),  # as many modules would be built
        (BASE, "model.backbone.width"),
        ("monet/small_sprites", "model.num_slots"),
        ("iodine/small_sprites", "model.latent_dim"),
    ],
)
def test_a_setting_too_large_for_the_memory_is_named_before_anything_is_allocated(recipe, setting):
    changed = read_recipe(recipe_values(recipe), recipe, {setting: 10**12})
    with pytest.raises(RecipeError, match=rf"GiB of memory.*Its largest setting is {setting}, 1000000000000: lower"):
        changed.build_model()


def test_a_model_of_more_weights_than_memory_is_refused():
    with pytest.raises(RecipeError, match=r"Its largest setting is model\.vae\.encoder_hidden, 40000000: lower"):
        read({"model.vae.encoder_hidden": 40_000_000}).build_model()


@pytest.mark.parametrize("changes", [{"trainer.batch_size": 10**9}, {"data.size": 10**6}])
def test_a_batch_larger_than_the_memory_is_refused_in_training_only(changes):
    (name,) = changes
    recipe = read(changes)
    with pytest.raises(RecipeError, match=rf"Its largest setting is {name}, "):
        recipe.build_model(training=True)
    if name == "trainer.batch_size":
        recipe.build_model()


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="needs the number of pages")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/job/step\n", {"job/step/memory.max": "max\n", "job/memory.max": "4096\n", "memory.max": "max\n"}, 4096),
        ("0::/inside\n", {"memory.max": "8192\n"}, 8192),  # a container shows its own group as the root
        ("9:cpu:/\n4:memory:/job\n0::/\n", {"memory/job/memory.limit_in_bytes": "12288\n"}, 12288),
        ("4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("damaged", {}, None),
    ],
)
def test_memory_is_that_of_the_container(tmp_path, groups, files, expected):
    limits = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": groups, **limits}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit(tmp_path) == (expected or machine)
    assert memory_limit(tmp_path / "nothing") == machine
