"""recipes: every one is valid and builds, and the papers' rows carry the numbers of the papers' tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml

from unscene.data.published.deepmind import NUM_TEST, NUM_TRAIN
from unscene.errors import RecipeError
from unscene.metrics import default_metrics
from unscene.models.space.settings import SPACESettings
from unscene.recipes import FOLDER, load_recipe, recipe_names, recipe_text, recipe_values
from unscene.runs.recipe import SECTIONS, Recipe, leaves, read_recipe
from unscene.runs.trainer_settings import ParamGroup, ScheduleSettings
from unscene.training.step import build_optimizers

IMAGES = ("rmonet_unet/images", "explicit_localization/images")
NEEDED = {name: {"data.folder": "photos"} for name in IMAGES}  # what a recipe leaves to its user

OFF = {"start_step": 0, "end_step": 0, "start": 0.0, "end": 0.0}  # a term of ours
# R-MONet (ICLR 2021 submission), appendix: the M-dSprites tables of R-MONet(Lite) and R-MONet(UNet), typed by hand
BOTH = {
    "data.size": 64,  # input image dimension (64, 64)
    "trainer.batch_size": 64,
    "trainer.max_steps": 20 * 60_000 // 64,  # Fig. 17: the last stage is seen after about 20 epochs
    "optimizer.name": "adam",
    "optimizer.learning_rate": 0.0001,
    "optimizer.param_groups": [],
    "model.head.expand": 0.3,  # expand ratio sigma
    "model.proposals.anchor_sizes": [16, 32, 64, 128, 256],
    "model.proposals.anchor_ratios": [0.5, 1.0, 2.0],
    "model.proposals.level_nms_threshold": 0.3,  # NMS threshold inside each layer
    "model.proposals.final_nms_threshold": 0.3,  # NMS threshold for output bbox
    "model.proposals.top_n_before": 100,  # pre layer NMS top n
    "model.proposals.top_n_after": 20,  # post layer NMS top n
    "model.proposals.foreground_iou": 0.7,
    "model.proposals.background_iou": 0.3,
    "model.proposals.batch_size": 256,  # batch size per image
    "model.proposals.positive_fraction": 0.5,
    "model.proposals.score_threshold": 0.5,  # prediction score threshold
    "model.proposals.regression_normaliser": "anchors",  # Section 3.5: N_reg is the number of anchors in an image
    "model.proposals.smooth_l1_beta": 1.0,  # Section 3.5: the smooth L1 of Girshick (2015)
    "model.pseudo_boxes.min_side": 3,  # bbox minimum size
    "model.pseudo_boxes.max_ratio": 3.0,  # bbox maximum h/w and w/h ratio
    "model.pseudo_boxes.nms_threshold": 0.7,
    "model.pseudo_boxes.bins": 5,
    "model.vae.latent_dim": 16,  # z dimension
    "model.sigma_background": 0.09,
    "model.sigma_foreground": 0.11,
    "model.num_slots": 6,  # component number K; "NMS top n" is K - 1 = 5
    # beta, gamma, delta, lambda
    "model.weights": {"latent": 0.5, "mask": 0.5, "objectness": 1.0, "regression": 1.0, "posterior": OFF},
    "model.warmup.steps": 0,
    "model.backbone.width": 64,  # ResNet18
}
TABLES = {
    "rmonet_unet/multi_dsprites": {
        "model.normalise": False,  # image normalization: -
        "model.head.kind": "unet",
        "schedule.warmup_epochs": 5,
        "schedule.cycle_epochs": 50,  # learning rate decay interval
        "schedule.restart_factor": 0.1,  # learning rate reset decay
    },
    "rmonet_lite/multi_dsprites": {
        "model.normalise": True,  # image normalization: (0.5, 0.5)
        "model.head.kind": "lite",
        "schedule.warmup_epochs": 10,
        "schedule.cycle_epochs": 200,
        "schedule.restart_factor": 0.05,
    },
}
# the CLEVR tables of R-MONet(Lite) and R-MONet(UNet), typed by hand where they differ from those above
CLEVR = {
    "data.size": 128,  # input image dimension (128, 128)
    "trainer.batch_size": 50,
    "trainer.max_steps": 20 * 48_400 // 50,
    "model.normalise": False,  # image normalization: -
    "model.pseudo_boxes.min_side": 5,  # bbox minimum size
    "model.sigma_background": 0.06,
    "model.sigma_foreground": 0.10,
    "model.num_slots": 7,  # component number K; "NMS top n" is K - 1 = 6
}
TABLES |= {
    "rmonet_unet/clevr": {
        **CLEVR,
        "model.head.kind": "unet",
        "schedule.warmup_epochs": 5,
        "schedule.cycle_epochs": 50,
        "schedule.restart_factor": 0.1,
    },
    "rmonet_lite/clevr": {
        **CLEVR,
        "model.head.kind": "lite",
        "schedule.warmup_epochs": 10,
        "schedule.cycle_epochs": 200,
        "schedule.restart_factor": 0.05,
    },
}
# Fig. 21 (COCO) names the pretrained backbone and no number: CLEVR's stand in, but for what its weights need
COCO = {
    **TABLES["rmonet_unet/clevr"],
    "model.normalise": "imagenet",
    "model.backbone.pretrained": True,
    "data.name": "coco",
    "data.labels": False,
    "data.images": "train2017",
    "data.annotations": "annotations/instances_train2017.json",
}
# the M-dSprites table of MONet, typed by hand; its two variants have no table of their own
MONET = {
    "data.size": 64,  # input image dimension (64, 64)
    "trainer.batch_size": 64,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 0.0001,
    "schedule.cycle_epochs": 200,  # learning rate decay interval
    "schedule.restart_factor": 0.05,  # learning rate reset decay
    "schedule.warmup_epochs": 10,
    "model.vae.latent_dim": 16,  # z dimension
    "model.sigma_background": 0.09,
    "model.sigma_foreground": 0.11,
    "model.num_slots": 6,  # component number K
    "model.latent_weight": 0.5,  # beta
    "model.mask_weight": 0.5,  # gamma
}
ON_CLEVR = {  # the CLEVR tables, where they differ from those on Multi-dSprites
    "monet": {
        "data.size": 128,  # input image dimension (128, 128)
        "trainer.batch_size": 50,
        "model.sigma_background": 0.06,
        "model.sigma_foreground": 0.10,
        "model.num_slots": 7,
        "model.unet.channels": [32, 32, 32, 64, 64, 64],  # of Burgess et al. for 128 pixels
    },
    "iodine": {
        "data.size": 128,
        "trainer.batch_size": 20,
        "optimizer.learning_rate": 0.0003,
        "model.num_slots": 7,
        "model.latent_dim": 64,
        "model.refinement.channels": [64, 64, 64, 64],  # convolution output channel 64, 4 layers
        "model.refinement.hidden": 256,  # mlp units
        "model.decoder_channels": 64,
        "model.decoder_layers": 4,
    },
    "space": {"data.size": 128, "model.scale": 1, "model.foreground.boundary_end_step": 50000},
}
MONETS = {  # attention, head; Table 1: foreground ARI
    "monet/clevr": ("unet", None, 0.927),
    "monet_resnet_fpn/clevr": ("resnet_fpn", "rmonet_lite/multi_dsprites", 0.822),
    "monet_resnet_fpn_unet/clevr": ("resnet_fpn", "rmonet_unet/multi_dsprites", 0.825),
    "monet/multi_dsprites": ("unet", None, 0.944),
    "monet_resnet_fpn/multi_dsprites": ("resnet_fpn", "rmonet_lite/multi_dsprites", 0.607),
    "monet_resnet_fpn_unet/multi_dsprites": ("resnet_fpn", "rmonet_unet/multi_dsprites", 0.853),
}
# the same paper's appendix: the M-dSprites table of IODINE, typed by hand
IODINE = {
    "data.size": 64,  # input image dimension (64, 64)
    "trainer.batch_size": 64,
    "optimizer.name": "adam",
    "optimizer.learning_rate": 0.0001,
    "optimizer.clip_norm": 5.0,  # of IODINE's paper
    "model.num_slots": 6,  # component number K
    "model.iterations": 5,  # iteration T
    "model.latent_dim": 16,
    "model.refinement.channels": [32, 32, 32],  # refine network: convolution output channel, convolution layers
    "model.refinement.hidden": 128,  # mlp units
    "model.refinement.kernel": 3,
    "model.refinement.stride": 2,
    "model.decoder_channels": 32,
    "model.sigma": 0.1,  # decoder standard deviation
    "model.decoder_layers": 5,
    "model.decoder_stride": 1,
    "model.latent_weight": 1.0,
}
# R-MONet, appendix: the M-dSprites table of SPACE, typed by hand
SPACE = {
    "data.size": 64,  # input image dimension (128, 128) (upscale from (64, 64))
    "model.scale": 2,
    "trainer.batch_size": 48,
    "optimizer.name": "rmsprop",  # fg optimizer
    "optimizer.learning_rate": 0.00001,  # fg learning rate
    "optimizer.param_groups": [  # bg optimizer, bg learning rate
        {"prefix": "background", "name": "adam", "learning_rate": 0.001, "weight_decay": None}
    ],
    "optimizer.clip_norm": 1,
    "model.foreground.grid": 8,
    "model.foreground.sigma": 0.11,  # fg standard deviation
    "model.foreground.presence": {"start_step": 4000, "end_step": 10000, "start": 0.1, "end": 0.01},  # z_pres
    "model.foreground.scale_mean": {"start_step": 0, "end_step": 20000, "start": -1.0, "end": -2.0},  # z_scale
    "model.foreground.scale_std": 0.1,
    "model.foreground.temperature": {"start_step": 0, "end_step": 20000, "start": 2.5, "end": 0.5},  # tau
    "model.background.components": 3,  # bg component number K
    "model.background.sigma": 0.09,  # bg standard deviation
    "model.foreground.boundary_end_step": None,  # boundary loss true, - (to the end of training)
    "model.foreground.boundary_width": 2,
}
# Tables 1 and 2: foreground ARI; mAP 50:95, 50, 75
REPORTED = {
    "rmonet_unet/multi_dsprites": (0.951, 0.435, 0.839, 0.407),
    "rmonet_lite/multi_dsprites": (0.801, 0.427, 0.802, 0.419),
    "rmonet_roi_align/multi_dsprites": (0.633, 0.319, 0.711, 0.237),
    "space/multi_dsprites": (0.844, 0.309, 0.757, 0.174),
    "space/clevr": (0.934, 0.592, 0.863, 0.679),
    "rmonet_unet/clevr": (0.981, 0.645, 0.969, 0.775),
    "rmonet_lite/clevr": (0.949, 0.611, 0.935, 0.730),
    "rmonet_roi_align/clevr": (0.878, 0.488, 0.865, 0.496),
}


def packaged(name: str) -> Recipe:
    return load_recipe(name, NEEDED.get(name))


def setting(recipe: Recipe, dotted: str) -> object:
    value = recipe.values
    for key in dotted.split("."):
        value = value[key]
    return value


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_its_model(name):
    with torch.device("meta"):
        model = packaged(name).build_model(pretrained=False)
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_a_fixed_point(name):
    recipe = packaged(name)
    again = read_recipe(yaml.safe_load(recipe.text()), name)
    assert again == recipe
    assert again.text() == recipe.text()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_says_what_it_is(name):
    about = packaged(name).about
    assert set(recipe_values(name)) == set(SECTIONS)
    assert about.title
    assert about.source
    assert about.origin == ("paper" if about.reported else "ours")
    assert set(about.reported) <= {score for metric in default_metrics().values() for score in metric.compute()}


def test_flowers_are_trained_on_scored_and_tested_as_in_redo():
    for name in ("redo/flowers", "explicit_localization/flowers"):
        values = packaged(name).values
        splits = [{**values["data"], **values[part]}["split"] for part in ("data", "validation", "test")]
        assert splits == ["train", "validation", "test"]
        assert values["data"]["size"] == 128


def test_montezumas_letter_is_nine_epochs_of_an_auto_encoder_with_skips():
    recipe = packaged("explicit_localization/montezuma")
    steps_per_epoch = recipe.values["data"]["count"] / recipe.trainer.batch_size
    assert round(recipe.trainer.max_steps / steps_per_epoch, 2) == 9.0
    assert recipe.values["data"]["count"] == 10_000
    assert (recipe.model.network.skips, recipe.model.latent_weight) == (True, 0.0)


def test_redo_has_the_numbers_of_its_authors():
    recipe = packaged("redo/flowers")
    assert recipe.optimizer.betas == (0.0, 0.9)
    # generators, discriminator and codes have 1e-4
    assert recipe.optimizer.param_groups == (ParamGroup("masks", learning_rate=1e-5, weight_decay=1e-4),)
    assert recipe.trainer.restart.largest_slot == 0.9  # a region covers less than a tenth
    assert (recipe.model.latent_dim, recipe.model.code_weight, recipe.trainer.batch_size) == (32, 5.0, 20)


DRAWN = [name for name in recipe_names() if packaged(name).data_name in ("multi_dsprites", "clevr_scenes")]
OF_FILES = [name for name in recipe_names() if packaged(name).data_name == "hdf5"]


@pytest.mark.parametrize("name", OF_FILES)
def test_stretches_of_a_file_do_not_overlap(name):
    values = packaged(name).values
    seen: dict[str, int] = {}
    for part in ("data", "validation", "test"):
        section = {**values["data"], **(values[part] if part != "data" else {})}
        assert section["first"] >= seen.get(section["path"], 0)
        assert section["count"] > 0
        seen[section["path"]] = section["first"] + section["count"]


@pytest.mark.parametrize("name", DRAWN)
def test_training_validation_and_test_do_not_overlap(name):
    recipe = packaged(name)
    sources = [recipe.source(part) for part in ("data", "validation", "test")]
    assert len({source.settings.seed for source in sources}) == 3  # another seed draws unrelated scenes
    assert len(sources[2]) == 1600


@pytest.mark.parametrize("name", IMAGES)
def test_a_recipe_that_needs_a_folder_says_so(name):
    with pytest.raises(RecipeError, match=r"data\.folder is empty\. Give it a value: --data\.folder VALUE"):
        load_recipe(name)


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_recipes_carry_the_appendix_table(name):
    recipe = packaged(name)
    table = BOTH | TABLES[name]
    assert {dotted: setting(recipe, dotted) for dotted in table} == table
    assert recipe.about.origin == "paper"


def test_coco_is_fig_21_with_the_numbers_of_clevr():
    recipe = packaged("rmonet_unet/coco")
    table = BOTH | COCO
    assert {dotted: setting(recipe, dotted) for dotted in table} == table
    held_out = {"images": "val2017", "annotations": "annotations/instances_val2017.json", "labels": True}
    assert recipe.values["validation"] == {**held_out, "first": 0, "count": 320}
    assert recipe.values["test"] == {**held_out, "first": 320}  # to the end: COCO's val2017 has 5,000
    clevr, coco = packaged("rmonet_unet/clevr"), recipe
    assert (coco.optimizer, coco.schedule, coco.trainer) == (clevr.optimizer, clevr.schedule, clevr.trainer)
    differing = {key for key, value in clevr.values["model"].items() if coco.values["model"][key] != value}
    assert differing == {"normalise", "backbone"}


@pytest.mark.parametrize("name", MONETS)
def test_monets_carry_their_table_and_r_monets_backbones(name):
    recipe = packaged(name)
    attention, like, reported = MONETS[name]
    table = MONET | (ON_CLEVR["monet"] if name.endswith("clevr") else {})
    if like:
        table.pop("model.unet.channels", None)
    assert {dotted: setting(recipe, dotted) for dotted in table} == table
    assert recipe.about.reported == {"ari_fg": reported}
    assert recipe.model.attention == attention
    if like:  # "the spatial attention network in R-MONet"
        assert recipe.model.backbone == packaged(like).model.backbone
        assert recipe.model.head == packaged(like).model.head


@pytest.mark.parametrize("data", ["multi_dsprites", "clevr"])
def test_spaces_recipe_carries_the_appendix_table(data):
    recipe = packaged(f"space/{data}")
    table = SPACE | (ON_CLEVR["space"] if data == "clevr" else {})
    assert {dotted: setting(recipe, dotted) for dotted in table} == table
    assert recipe.about.origin == "paper"
    assert recipe.schedule == ScheduleSettings()
    if data == "multi_dsprites":
        assert recipe.model == replace(SPACESettings(), mixture_over="channel")
    restart = recipe.trainer.restart
    assert (restart.from_step, restart.until_step) == (10_000, 15_000)  # "if the foreground stays empty by step 10-15k"


def test_the_foreground_and_the_background_of_space_have_optimisers_of_their_own():
    recipe = packaged("space/multi_dsprites")
    optimizers = build_optimizers(recipe.build_model(), recipe.optimizer)
    rates = {type(optimizer).__name__: {group["lr"] for group in optimizer.param_groups} for optimizer in optimizers}
    assert rates == {"RMSprop": {1e-5}, "Adam": {1e-3}}


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("/clevr")])
def test_clevr_is_split_as_it_is_converted(name):  # 48,400 to train, 1,600 to test; ours: the last 320 to validate
    values = packaged(name).values
    sections = [{**values["data"], **values[part]} for part in ("data", "validation", "test")]
    assert [(section["first"], section["count"]) for section in sections] == [
        (0, 48_080),
        (48_080, 320),
        (48_400, 1_600),
    ]
    assert (NUM_TRAIN, NUM_TEST) == (48_400, 1_600)
    assert {(section["name"], section["path"], section["size"]) for section in sections} == {("hdf5", "clevr.h5", 128)}


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.endswith("/clevr")])
def test_clevr_like_scenes_are_trained_on_as_clevr_is(name):
    published, generated = packaged(name), packaged(f"{name}_scenes")
    for part in ("seed", "model", "optimizer", "schedule", "trainer"):
        assert generated.values[part] == published.values[part]
    assert (generated.data_name, len(generated.source("data"))) == (
        "clevr_scenes",
        NUM_TRAIN,
    )  # an epoch as long as theirs
    assert generated.about.reported == {}  # the papers' scores are of the published scenes


def test_every_model_has_a_recipe_for_clevr_like_scenes():
    models = {name.split("/")[0] for name in recipe_names()}
    assert {f"{model}/clevr_scenes" for model in models} <= set(recipe_names())


def test_a_collapse_of_redo_on_clevr_like_scenes_is_more_than_their_ground():
    scenes = packaged("redo/clevr_scenes")
    ground = (scenes.source("validation").batch(range(16))["labels"] == 0).mean()
    assert ground < scenes.trainer.restart.largest_slot


@pytest.mark.parametrize("data", ["multi_dsprites", "clevr"])
def test_roi_align_has_the_lite_variants_settings_but_for_its_head(data):
    align, lite = packaged(f"rmonet_roi_align/{data}"), packaged(f"rmonet_lite/{data}")
    differing = {key for key in lite.values["model"] if align.values["model"][key] != lite.values["model"][key]}
    assert differing == {"head"}
    assert align.model.head.kind == "roi_align"
    assert (align.optimizer, align.schedule, align.trainer) == (lite.optimizer, lite.schedule, lite.trainer)


def test_the_compact_lite_recipe_is_the_unets_but_for_the_head_and_the_last_phase():
    lite, unet = packaged("rmonet_lite/multi_dsprites_cpu"), packaged("rmonet_unet/multi_dsprites_cpu")
    settings = [leaves("", {**recipe.values, "about": None}) for recipe in (lite, unet)]
    differing = {name for name in settings[0] if settings[0][name] != settings[1][name]}
    last_phase = {f"model.weights.posterior.{name}" for name in ("start_step", "end_step", "end")}
    last_phase |= {"schedule.cycle_growth", "schedule.restart_factor", "trainer.max_steps"}
    assert differing == {"model.head.kind", *last_phase}
    steps = lite.trainer.max_steps
    assert unet.model.weights.posterior.at(steps) == 0 < unet.model.weights.posterior.at(unet.trainer.max_steps)
    for step in (0, 5_000, steps - 1):
        epoch = step * lite.trainer.batch_size / lite.values["data"]["count"]
        assert lite.schedule.factor(epoch) == pytest.approx(unet.schedule.factor(epoch))


@pytest.mark.parametrize("name", REPORTED)
def test_reported_scores_are_those_of_tables_1_and_2(name):
    expected = dict(zip(("ari_fg", "map_50_95", "map_50", "map_75"), REPORTED[name], strict=True))
    assert packaged(name).about.reported == expected


@pytest.mark.parametrize(("data", "reported"), [("multi_dsprites", 0.724), ("clevr", 0.962)])  # Table 1
def test_iodine_has_the_table_and_the_score_of_the_r_monet_paper(data, reported):
    recipe = packaged(f"iodine/{data}")
    table = IODINE | (ON_CLEVR["iodine"] if data == "clevr" else {})
    assert {dotted: setting(recipe, dotted) for dotted in table} == table
    assert recipe.about.reported == {"ari_fg": reported}


def test_names_are_paths():
    assert recipe_names() == sorted(recipe_names())
    for name in recipe_names():
        assert (FOLDER / f"{name}.yaml").read_text(encoding="utf-8") == recipe_text(name)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(
        RecipeError, match=r"no recipe 'rmonet_unet/multi_dsprite'\. Did you mean 'rmonet_unet/multi_dspri"
    ):
        load_recipe("rmonet_unet/multi_dsprite")
    with pytest.raises(RecipeError, match="`unscene recipes` lists them"):
        load_recipe("../recipes/rmonet_unet/images")


def test_a_recipe_of_ones_own_is_named_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(recipe_text("rmonet_unet/multi_dsprites_cpu").replace("num_slots: 6", "num_slots: 4"))
    recipe = load_recipe(str(path), {"seed": 5})
    assert (recipe.name, recipe.model.num_slots, recipe.seed) == (str(path), 4, 5)
    with pytest.raises(RecipeError, match=r"there is no recipe file .*yours\.yaml"):
        load_recipe(str(tmp_path / "yours.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "is not valid YAML"),
        (b"", "holds no settings"),
        (b"- 1", "holds no settings"),
        (b"\xff\xfe\x80", "cannot be read as text"),
        (b"modle: {name: rmonet}", r"has no section 'modle'\. Did you mean 'model'"),
        (b"model: {name: rmonet}", r"must say 'data\.name'"),
    ],
)
def test_a_broken_file_is_named(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(str(path))
    assert "mine.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)
