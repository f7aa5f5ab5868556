"""Every command runs on a tiny case; implementations that are timed side by side compute the same."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import inference, label_free_score, localization, metrics, pseudo_boxes, stages, training_step
from benchmarks.model_stages import HEAD, LIKELIHOOD, PSEUDO_BOXES, RPN_LOSS, WHOLE, OurStages, backwards
from benchmarks.plain_stages import PlainStages
from benchmarks.plain_step import PAPERS_LETTER, plain_model
from benchmarks.recipe_step import RecipeStep, recipe_to_measure
from benchmarks.training_step import LETTER, PLAIN, default_recipes
from unscene.errors import RecipeError, TrainingError
from unscene.recipes import load_recipe

COMPACT = "rmonet_unet/multi_dsprites_cpu"
SMALL = {
    "model.backbone.width": 8,
    "model.backbone.fpn_channels": 8,
    "model.head.channels": 8,
    "model.vae.decoder_channels": 8,
    "data.size": 32,
}
QUICK = ["--rounds", "1", "--seconds", "0"]
TINY = [*QUICK, "--recipe", COMPACT, "--batch", "2"]
TINY += ["--set", "model.skip_empty_slots=true"]
TINY += [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]


def written(command, words, tmp_path):
    command.main([*words, "--json", str(tmp_path / "out.json")])
    return json.loads((tmp_path / "out.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("command", [training_step, inference])
def test_recipe_is_measured_against_the_plain_reference(command, tmp_path, capsys):
    content = written(command, TINY, tmp_path)
    (comparison,) = content["comparisons"]
    assert comparison["reference"] == PLAIN
    assert {"float32", PLAIN} <= comparison["subjects"].keys()
    assert any(name.endswith(LETTER) for name in comparison["subjects"])
    assert comparison["subjects"][PLAIN]["times_as_fast"]["median"] == 1
    assert all(subject["images_per_second"]["min"] > 0 for subject in comparison["subjects"].values())
    assert f"{COMPACT}, batch 2 (1 round)" in capsys.readouterr().out


def test_default_recipes_are_the_registered_ones_on_sprites():
    assert {COMPACT, "rmonet_unet/multi_dsprites", "rmonet_lite/multi_dsprites"} <= set(default_recipes())
    assert "rmonet_unet/images" not in default_recipes()


TINY_LOCALIZATION = [
    *("--batch", "2", "--set", "data.size=32", "--set", "model.network.channels=[4, 4]", "--set", "model.num_slots=3"),
    *("--recipe", "explicit_localization/multi_dsprites_cpu"),
]


def test_share_of_the_location_masks(tmp_path, capsys):
    content = written(localization, [*QUICK, *TINY_LOCALIZATION], tmp_path)
    assert len(content["shares"]) == 2
    assert all(share["median"] > 0 for share in content["shares"].values())
    assert "location masks take" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="another model"):
        written(localization, TINY, tmp_path)


def test_timed_step_computes_every_slot():
    recipe = recipe_to_measure("explicit_localization/multi_dsprites_cpu", ["model.network.channels=[4, 4]"])
    step = RecipeStep(recipe, 2)
    assert step.busiest_step == recipe.model.background_steps > 0
    assert RecipeStep(recipe_to_measure(COMPACT), 2).busiest_step == 0


def test_only_the_unet_variant_has_a_plain_reference():
    assert plain_model(load_recipe("rmonet_lite/multi_dsprites")) is None
    shortcuts = {"model.skip_empty_slots": True, "model.vae.encoder_region": "roi", "model.vae.decoder_region": "roi"}
    plain = plain_model(load_recipe(COMPACT, {**SMALL, **shortcuts}))
    assert plain is not None
    assert not plain.model.settings.skip_empty_slots
    assert plain.model.settings.vae.decoder_region == "image"


def total(outputs, images=2):
    """The sum of all numbers; torchvision's losses are means over the images, ours have one number an image."""
    return float(sum(tensor.double().sum() * (images if tensor.ndim == 0 else 1) for tensor in outputs))


def test_stages_compute_the_same_in_both():
    recipe = load_recipe(COMPACT, {**SMALL, **PAPERS_LETTER, "model.proposals.batch_size": 100_000})
    torch.manual_seed(0)
    model, plain = recipe.build_model().eval(), plain_model(recipe)
    with torch.no_grad():
        model.head.to_alpha.weight *= 4
    plain.model.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 32, 32)
    ours = OurStages(model, images, bfloat16=False).by_name()
    theirs = PlainStages(plain.eval(), images).by_name()
    assert ours.keys() == theirs.keys()
    for name in ours.keys() - {PSEUDO_BOXES}:
        torch.manual_seed(0)
        found = [tensor.detach() for tensor in ours[name]()]
        torch.manual_seed(0)
        expected = [tensor.detach() for tensor in theirs[name]()]
        # torchvision divides by the anchors sampled of the whole batch, ours image by image
        tolerance = 1e-2 if name == RPN_LOSS else 1e-4
        assert total(found) == pytest.approx(total(expected), rel=tolerance, abs=1e-4), name
    boxes, _, valid = ours[PSEUDO_BOXES]()
    assert [boxes[i, valid[i]].tolist() for i in range(2)] == [tensor.tolist() for tensor in theirs[PSEUDO_BOXES]()]


def test_stage_backwards_reaches_the_parameters_of_its_part_alone():
    model = load_recipe(COMPACT, SMALL).build_model()
    found = OurStages(model, torch.rand(2, 3, 32, 32), bfloat16=False).by_name()
    backwards(found[LIKELIHOOD])()
    assert all(parameter.grad is None for parameter in model.parameters())
    backwards(found[HEAD])()
    reached = {name.partition(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {"head"}
    backwards(found[WHOLE])()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_stages_shares_are_of_the_whole(tmp_path, capsys):
    content = written(stages, [*TINY, "--no-reference"], tmp_path)
    (shares,) = content["shares"].values()
    (subject,) = content["shares"].keys()
    by_title = {
        comparison["title"]: comparison["subjects"][subject]["seconds"]["median"]
        for comparison in content["comparisons"]
    }
    expected = by_title[f"{HEAD}, {stages.BOTH}"] / by_title[f"{WHOLE}, {stages.BOTH}"]
    assert shares[HEAD] == pytest.approx(expected)
    assert WHOLE not in shares
    assert "share of the whole" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="another model"):
        stages.stages_of(load_recipe(COMPACT, {**SMALL, **PAPERS_LETTER, "model.detection": False}), 2, "cpu")


def test_pseudo_boxes_are_compared_before_they_are_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(pseudo_boxes, "IMAGES", 4)
    content = written(pseudo_boxes, [*QUICK, "--size", "32"], tmp_path)
    assert len(content["comparisons"]) == 2
    assert content["comparisons"][0]["items"] == 20
    monkeypatch.setattr(pseudo_boxes, "plain_pseudo_boxes", lambda masks, _: [(torch.zeros(1, 4), None)] * len(masks))
    with pytest.raises(TrainingError, match=r"images \[0, 1, 2, 3\] are not scikit-image's"):
        pseudo_boxes.main([*QUICK, "--size", "32", "--json", str(tmp_path / "never.json")])
    assert not (tmp_path / "never.json").exists()


def test_metrics_agree_with_scikit_learn_and_pycocotools(tmp_path, monkeypatch):
    content = written(metrics, [*QUICK, "--count", "40"], tmp_path)
    titles = [comparison["title"] for comparison in content["comparisons"]]
    assert titles == ["foreground ARI from label maps", "foreground ARI from masks", "box AP"]
    scene, decomposition = metrics.scenes_and_answers(20)
    whole, in_batches = (metrics.by_metric("ari_fg", scene, decomposition, batch)() for batch in (20, 7))
    assert whole == in_batches
    assert 0.2 < whole["ari_fg"] < 0.9
    monkeypatch.setattr(metrics, "plain_box_ap", lambda *_: 0.123)
    with pytest.raises(TrainingError, match=r"pycocotools says 0.123"):
        metrics.compared_box_ap(scene, decomposition, 1, 0)


def test_score_without_labels_is_compared_with_those_of_labels(trained, tmp_path, capsys):
    words = [str(trained.path), "--noise", "0", "0.5", "1", "--scenes", "20"]
    found = written(label_free_score, words, tmp_path)
    assert [row["noise"] for row in found["rows"]] == [0, 0.5, 1]
    assert all({"label_free", "-mse", "ari_fg"} <= row.keys() for row in found["rows"])
    assert len({row["-mse"] for row in found["rows"]}) == 3
    shown = capsys.readouterr().out
    assert all(f"Spearman of {pair}: {value:.2f}" in shown for pair, value in found["spearman"].items())
    assert all(-1 <= value <= 1 for value in found["spearman"].values())
