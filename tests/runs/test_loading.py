"""loading: the same model from a run, a checkpoint and a weights file, and a plain word where there is none."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

import unscene
from unscene.errors import CheckpointError, DataError, RecipeError, ShapeError
from unscene.recipes import load_recipe
from unscene.runs import loading
from unscene.runs.run_folder import RunFolder
from unscene.scene import Decomposition, Scene, Sequence

WITHOUT_BOXES = {
    "model.detection": False,
    "model.vae.encoder_region": "image",
    "model.vae.decoder_region": "image",
}  # a map for each slot
SMALL_REDO = {
    "data.size": 16,
    **{f"model.{network}_channels": 4 for network in ("mask", "generator", "discriminator", "code")},
}


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_run_checkpoint_and_weights_are_one_model(trained, images):
    results = [unscene.load(path).decompose(images) for path in (trained.path, trained.best, trained.weights)]
    for other in results[1:]:
        assert torch.equal(other.log_masks, results[0].log_masks)
        assert torch.equal(other.components, results[0].components)


def test_a_loaded_model_knows_itself(trained):
    loaded = unscene.load(str(trained.path))
    assert (loaded.name, loaded.size, loaded.run.path) == ("rmonet_unet/multi_dsprites_cpu", 32, trained.path)
    assert (loaded.provenance["step"], loaded.provenance["weights"]) == (6, "weights.safetensors")
    assert not loaded.model.training
    assert loaded.config["data"]["count"] == 40


def test_decomposing_in_parts_changes_nothing(trained, images):
    loaded = unscene.load(trained.path)
    whole, parts = loaded.decompose(images), loaded.decompose(images, batch_size=2)
    assert torch.allclose(whole.log_masks, parts.log_masks, atol=1e-4)
    assert whole.log_masks.shape == parts.log_masks.shape == (5, 6, 1, 32, 32)
    assert whole.log_masks.dtype == torch.float32
    assert len(loaded.decompose(images[:1]).components) == 1


def test_more_slots_have_the_same_weights(trained, images):
    loaded = unscene.load(trained.path)
    more = loaded.with_slots(11)
    found = more.decompose(images)
    assert found.log_masks.shape[:2] == (5, 11)
    assert (more.config["model"]["num_slots"], loaded.config["model"]["num_slots"]) == (11, 6)
    assert (more.name, more.run) == (loaded.name, loaded.run)
    assert more.provenance == {**loaded.provenance, "num_slots": 11}
    assert not more.model.training
    for name, weights in loaded.model.state_dict().items():
        assert torch.equal(more.model.state_dict()[name], weights)
    assert loaded.with_slots(6) is loaded
    assert torch.equal(more.with_slots(6).decompose(images).log_masks, loaded.decompose(images).log_masks)


@pytest.mark.parametrize(
    ("recipe", "fit"),
    [
        ("rmonet_unet/images", "stretch"),  # crops are square
        ("explicit_localization/images", "stretch"),
        ("rmonet_unet/coco", "crop"),
        ("redo/flowers", "crop"),
        ("monet/multi_dsprites", "stretch"),  # its images are square
    ],
)
def test_images_are_fitted_as_the_recipes_data(recipe, fit):
    changes = {"data.folder": "photos"} if recipe.endswith("images") else {}
    assert loading.LoadedModel(torch.nn.Identity(), load_recipe(recipe, changes), {}).fit == fit


@pytest.mark.parametrize("model", ["monet", "iodine", "explicit_localization", "space"])
def test_models_that_take_any_number_of_slots(model):
    recipe = load_recipe(f"{model}/multi_dsprites", {"trainer.precision": "float32"})
    more = loading.LoadedModel(recipe.build_model(), recipe, {}).with_slots(8)
    assert more.decompose(torch.rand(1, 3, more.size, more.size)).num_slots == 8


def test_weights_for_one_number_of_slots_are_refused_with_another(tiny):
    for recipe in (load_recipe("redo/flowers", SMALL_REDO), tiny(WITHOUT_BOXES)):
        loaded = loading.LoadedModel(recipe.build_model(), recipe, {})
        with pytest.raises(RecipeError, match=f"of '{recipe.name}' are for [26] slots, not for 11"):
            loaded.with_slots(11)


def test_weights_with_a_median_image_are_loaded_without_it_and_not_the_other_way():
    recipe = load_recipe("explicit_localization/multi_dsprites_cpu", {"model.median_background": True})
    loaded = loading.LoadedModel(recipe.build_model(), recipe, {})
    loaded.model.median.fill_(0.5)
    without = loaded.with_settings({"median_background": False})
    assert "median" not in without.model.state_dict()
    for name, weights in without.model.state_dict().items():
        assert torch.equal(weights, loaded.model.state_dict()[name])
    with pytest.raises(RecipeError, match="are for a model of median_background False, not of median_background True"):
        without.with_settings({"median_background": True})


@pytest.mark.parametrize("changes", [{"proposals.score_threshold": 0.9}, {"proposals": {"score_threshold": 0.9}}])
def test_settings_of_a_part_are_changed_by_dotted_name_or_together(trained, changes):
    loaded = unscene.load(trained.path)
    changed = loaded.with_settings(changes)
    assert changed.model.settings.proposals.score_threshold == 0.9
    assert changed.provenance == loaded.provenance | {"proposals.score_threshold": 0.9}
    assert changed.with_settings(changes) is changed
    with pytest.raises(RecipeError, match="score_threshhold"):
        loaded.with_settings({"proposals.score_threshhold": 0.9})


def test_settings_beside_a_changed_one_stay_as_they_were_trained(trained):
    loaded = unscene.load(trained.path)
    before = loaded.model.settings.pseudo_boxes
    assert (before.min_score, before.by_quality) == (0.2, True)  # neither is the default
    after = loaded.with_settings({"pseudo_boxes": {"min_side": 4}}).model.settings.pseudo_boxes
    assert after == replace(before, min_side=4)


def test_impossible_slots_are_refused(trained):
    with pytest.raises(RecipeError, match=r"proposals\.top_n_after is 20"):
        unscene.load(trained.path).with_slots(22)


def test_images_of_another_size_are_refused(trained):
    with pytest.raises(ShapeError, match="images must have the axes"):
        unscene.load(trained.path).decompose(torch.rand(1, 3, 64, 64))


def test_images_of_another_type_and_broken_values_are_not_blamed_on_the_weights(trained, images):
    loaded = unscene.load(trained.path)
    for wrong in (images.double(), (255 * images).byte()):
        with pytest.raises(ShapeError, match=r"images must be float32 in 0\.\.1, but are torch"):
            loaded.decompose(wrong)
    broken = images.clone()
    broken[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="images hold values that are not finite"):
        loaded.decompose(broken)


@pytest.mark.parametrize("part", ["backbone", "proposals", "vae.decoder"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_named(trained, images, part, value):
    loaded = unscene.load(trained.path)
    with torch.no_grad():
        for parameter in loaded.model.get_submodule(part).parameters():
            parameter.fill_(value)
    with pytest.raises(CheckpointError, match=rf"{trained.path}\) answers with .* not finite: its weights are broken"):
        loaded.decompose(images)


class Answer(torch.nn.Module):
    """Two slots for images of 32 pixels, some of whose numbers are given."""

    def __init__(self, share: float, colour: float) -> None:
        super().__init__()
        self.share, self.colour = torch.nn.Parameter(torch.tensor(share)), colour

    def forward(self, images: torch.Tensor) -> Decomposition:
        shares = torch.stack([self.share, 1 - self.share]).view(1, 2, 1, 1, 1).expand(len(images), 2, 1, 32, 32)
        components = torch.zeros(len(images), 2, 3, 32, 32)
        components[-1, 0, 0, 0, 0] = self.colour
        return Decomposition(shares.log(), components)


def test_an_empty_slot_is_no_broken_one(trained, images):
    loaded = unscene.load(trained.path)
    assert replace(loaded, model=Answer(0.0, 1.0)).decompose(images).log_masks.amin() == float("-inf")
    for colour in (float("nan"), float("inf"), float("-inf")):
        with pytest.raises(CheckpointError, match="answers with components that are not finite"):
            replace(loaded, model=Answer(0.0, colour), run=None).decompose(images)


def test_a_run_without_its_weights_file_loads_the_best_checkpoint(trained, tmp_path, images):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "a"))
    run.weights.unlink()
    loaded = unscene.load(run.path)
    assert loaded.provenance == {"weights": "best.ckpt", "run": "a", "step": 6}
    assert torch.equal(loaded.decompose(images).log_masks, unscene.load(trained.path).decompose(images).log_masks)
    run.best.unlink()
    assert unscene.load(run.path).provenance["weights"] == "last.ckpt"
    run.last.unlink()
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        unscene.load(run.path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere does not exist\. Name a run's folder"):
        unscene.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"a\.ckpt does not exist"):
        unscene.load(tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"^/a\.ckpt does not exist"):
        unscene.load("/a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.safetensors does not exist"):
        unscene.load(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"holds no recipe\.yaml"):
        unscene.load(tmp_path)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(CheckpointError, match=r"photo\.jpg is no weights file"):
        unscene.load(tmp_path / "photo.jpg")


def test_a_recipe_of_another_model_is_refused(trained, tmp_path):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "a"))
    run.weights.unlink()
    run.recipe.write_text(run.recipe.read_text().replace("fpn_channels: 8", "fpn_channels: 16"))
    with pytest.raises(
        CheckpointError, match=r"best\.ckpt holds the weights of another model than recipe 'rmonet_unet"
    ):
        unscene.load(run.path)
    run.recipe.write_text(run.recipe.read_text().replace("num_slots", "n_slots"))
    with pytest.raises(CheckpointError, match=r"its recipe cannot be used here.*'model\.n_slots'"):
        unscene.load(run.path)


def test_shipped_weights_are_found_by_their_recipes_name(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "SHIPPED", tmp_path)
    with pytest.raises(CheckpointError, match="shipped weights: none"):
        unscene.load("rmonet_unet/tiny")
    shutil.copy(trained.weights, tmp_path / "rmonet_unet--tiny.safetensors")
    assert loading.shipped_weights() == {"rmonet_unet/tiny": tmp_path / "rmonet_unet--tiny.safetensors"}
    assert unscene.load("rmonet_unet/tiny").provenance["weights"] == "rmonet_unet--tiny.safetensors"


def test_a_model_that_began_with_imagenet_weights_is_loaded_without_them(monkeypatch, tiny):
    def no_network():
        raise AssertionError("nothing may be downloaded for weights that are replaced at once")

    monkeypatch.setattr("unscene.models.rmonet.resnet_fpn.imagenet_weights", no_network)
    settings = {"model.normalise": "imagenet", "model.backbone.width": 64, "model.backbone.pretrained": True}
    recipe = tiny(settings)
    assert isinstance(recipe.build_model(pretrained=False), torch.nn.Module)
    with pytest.raises(AssertionError, match="nothing may be downloaded"):
        recipe.build_model()


def test_frames_are_decomposed_with_the_state_of_those_before_them(images):
    changes = {"data.size": 32, "model.num_slots": 3, "model.network.channels": [4, 4], "model.over_frames": True}
    changes |= {"trainer.precision": "float32"}
    recipe = load_recipe("explicit_localization/multi_dsprites_cpu", changes)
    loaded = loading.LoadedModel(recipe.build_model().eval(), recipe, {"weights": "none"})
    state, expected = None, []
    for image in images.split(1):
        decomposition, state = loaded.model.decompose_next(image, state)
        expected.append(decomposition.masks())
    frames = loaded.for_frames()
    found = torch.cat([frames.decompose(part).masks() for part in images.split(2)])
    assert torch.allclose(found, torch.cat(expected), atol=1e-5)
    assert torch.allclose(loaded.for_frames().decompose(images[:1]).masks(), expected[0], atol=1e-5)  # begins anew
    assert not torch.allclose(loaded.decompose(images[4:]).masks(), expected[4], atol=1e-2)
    clips = Sequence.from_clips(Scene(torch.cat([images[:3], images[:3].flip(0)])), 3)
    together = torch.stack([frame.masks() for frame in loaded.decompose_sequence(clips)])  # [T, B, K, 1, H, W]
    assert torch.allclose(together[:, 0], torch.cat(expected[:3]), atol=1e-3)
    backwards = loaded.for_frames().decompose(images[:3].flip(0))
    assert torch.allclose(together[:, 1], backwards.masks(), atol=1e-3)
    alone = loaded.with_settings({"over_frames": False})
    assert alone.for_frames() is alone
    assert alone.provenance == {"weights": "none", "over_frames": False}
    assert torch.equal(alone.decompose(images).log_masks, loaded.decompose(images).log_masks)


def test_a_model_without_a_state_takes_frames_as_any_images(trained):
    loaded = unscene.load(trained.path)
    assert loaded.for_frames() is loaded
    images = torch.rand(6, 3, loaded.size, loaded.size)
    frames = list(loaded.decompose_sequence(Sequence.from_clips(Scene(images), 2)))
    assert [len(frame.log_masks) for frame in frames] == [3, 3]
    assert torch.allclose(frames[1].masks(), loaded.decompose(images[1::2]).masks(), atol=1e-6)
