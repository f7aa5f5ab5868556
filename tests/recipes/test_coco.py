"""rmonet_unet/coco on a miniature, from the command line: only a training that begins asks for the ImageNet weights."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models.resnet import ResNet18_Weights, resnet18

from unscene.cli.main import main
from unscene.runs.weights import read_weights

SMALL = {
    "data.size": 32,
    "validation.count": 2,
    "test.first": 0,
    "model.backbone.fpn_channels": 8,
    "model.head.channels": 8,
    "model.head.bottleneck": 16,
    "model.vae.encoder_channels": "[8,8]",
    "model.vae.encoder_hidden": 16,
    "model.vae.decoder_channels": 8,
    "trainer.batch_size": 4,
    "trainer.max_steps": 2,
    "trainer.log_every": 1,
    "trainer.precision": "float32",
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}


@pytest.fixture
def words(coco_root: Path) -> list[str]:
    """To train on the miniature."""
    settings = [f"--{name}={value}" for name, value in (SMALL | {"data.folder": coco_root}).items()]
    return ["train", "rmonet_unet/coco", *settings, f"--out={coco_root / 'run'}"]


def offline(*arguments, **options):
    raise URLError("no route to host")


@pytest.mark.slow
def test_it_trains_from_the_imagenet_weights_and_is_resumed_and_scored_without(words, coco_root, capsys, monkeypatch):
    published, asked = resnet18(weights=None).state_dict(), []
    monkeypatch.setattr(
        torch.hub, "load_state_dict_from_url", lambda url, **options: asked.append((url, options)) or published
    )
    assert main([*words, "--optimizer.learning_rate=1e-12"]) == 0
    ((url, options),) = asked
    assert (url, options["weights_only"]) == (ResNet18_Weights.IMAGENET1K_V1.url, True)
    run = coco_root / "run"
    weights, recipe, _ = read_weights(run / "weights.safetensors")
    assert recipe["model"]["backbone"]["pretrained"] is True
    torch.testing.assert_close(weights["backbone.layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("unscene.evaluation.evaluate.training_curves", lambda path: None)  # which takes seconds
    assert main(["train", "--resume", str(run), "--trainer.max_steps=3", f"--data.folder={coco_root}"]) == 0
    assert read_weights(run / "weights.safetensors")[1]["model"]["backbone"]["pretrained"] is True
    hint = capsys.readouterr().out.splitlines()[-1]
    assert hint.startswith("Score it:  unscene evaluate ")
    assert main(shlex.split(hint)[3:]) == 0
    found = json.loads((run / "report" / "metrics.json").read_text())
    assert found["provenance"]["data"]["count"] == 4
    assert found["ari_fg_images"] == 3  # image 12 has no instance
    capsys.readouterr()


def test_error_without_a_connection_names_the_download_and_leaves_no_file(words, coco_root, capsys, monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "CheckpointError: pretrained" in line
    assert "no route to host" in line
    assert f"{Path(torch.hub.get_dir()) / 'checkpoints'}" in line
    assert not (coco_root / "run").exists()


def test_without_the_data_it_says_where_it_belongs(words, coco_root, capsys, monkeypatch):
    monkeypatch.chdir(coco_root)
    assert main([word for word in words if "folder" not in word]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "DataError: COCO: there is no data/coco/train2017. Unpack COCO's zips" in line
