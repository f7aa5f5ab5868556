from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.resnet import ResNet, ResNet18_Weights, resnet18

from unscene.errors import CheckpointError, RecipeError
from unscene.models.rmonet.resnet_fpn import ResNetFPN
from unscene.models.rmonet.settings import IMAGENET_MEAN, IMAGENET_STD, BackboneSettings


@pytest.fixture(scope="module")
def theirs() -> ResNet:
    torch.manual_seed(0)
    network = resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean):
                values.normal_(0.5, 0.2)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def test_names_and_shapes_are_torchvisions(theirs):
    expected = {name: shape for name, shape in shapes(theirs).items() if not name.startswith("fc.")}
    ours = {name: shape for name, shape in shapes(ResNetFPN(BackboneSettings())).items() if not name.startswith("fpn.")}
    assert ours == expected


@pytest.mark.parametrize("training", [False, True])
def test_maps_are_those_of_torchvision_with_the_same_weights(theirs, training):
    ours = ResNetFPN(BackboneSettings())
    ours.load_state_dict(theirs.state_dict(), strict=False)
    ours.train(training)
    images = torch.rand(2, 3, 64, 96)
    reference = resnet18(weights=None)
    reference.load_state_dict(theirs.state_dict())
    reference.train(training)
    expected = [reference.relu(reference.bn1(reference.conv1(images)))]
    below = reference.maxpool(expected[0])
    for layer in (reference.layer1, reference.layer2, reference.layer3, reference.layer4):
        expected.append(below := layer(below))
    with torch.no_grad():
        features = ours(images)
    for ours_map, their_map, stride in zip(features.conv, expected, (2, 4, 8, 16, 32), strict=True):
        assert ours_map.shape[2:] == (64 // stride, 96 // stride)
        assert_close(ours_map, their_map, rtol=1e-4, atol=1e-5)
    if training:
        assert_close(ours.bn1.running_mean, reference.bn1.running_mean)


def test_the_pyramid_is_torchvisions(theirs):
    reference = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    ).eval()
    ours = ResNetFPN(BackboneSettings()).eval()
    ours.load_state_dict({name.removeprefix("body."): value for name, value in reference.state_dict().items()})
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected, features = reference(images), ours(images)
    assert len(features.pyramid) == 5
    for ours_map, their_map in zip(features.pyramid.values(), expected.values(), strict=True):
        assert_close(ours_map, their_map, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("width", [8, 20])
def test_any_width_and_four_channels(width):
    features = ResNetFPN(BackboneSettings(width=width, fpn_channels=12), in_channels=4)(torch.rand(2, 4, 96, 96))
    assert [tuple(tensor.shape[1:]) for tensor in features.conv] == [
        (width, 48, 48), (width, 24, 24), (2 * width, 12, 12), (4 * width, 6, 6), (8 * width, 3, 3),
    ]  # fmt: skip
    assert [tuple(level_features.shape[1:]) for level_features in features.pyramid.values()] == [
        (12, 24, 24), (12, 12, 12), (12, 6, 6), (12, 3, 3), (12, 2, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", [{"width": 0}, {"fpn_channels": -1}])
def test_a_backbone_without_channels_is_refused(wrong):
    with pytest.raises(RecipeError, match="must be 1 or more"):
        BackboneSettings(**wrong)


def download_of(monkeypatch: pytest.MonkeyPatch, output: dict | Exception) -> list[str]:
    """Replace torch.hub's download by `output`; return the list of the addresses that it is called with."""
    asked = []

    def load_state_dict_from_url(url, **options):
        asked.append(url)
        assert options["check_hash"]
        if isinstance(output, Exception):
            raise output
        return output

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", load_state_dict_from_url)
    return asked


def test_pretrained_starts_from_the_downloaded_weights(monkeypatch, theirs):
    published = {name: value for name, value in theirs.state_dict().items() if "num_batches_tracked" not in name}
    asked = download_of(monkeypatch, published)
    ours = ResNetFPN(BackboneSettings(pretrained=True))
    assert asked == [ResNet18_Weights.IMAGENET1K_V1.url]
    transform = ResNet18_Weights.IMAGENET1K_V1.transforms()
    assert (tuple(transform.mean), tuple(transform.std)) == (IMAGENET_MEAN, IMAGENET_STD)
    for name, value in ours.state_dict().items():
        if name in published:
            assert torch.equal(value, published[name])
    assert all(parameter.requires_grad for parameter in ours.parameters())


@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 64), (torch.float32, 96)])
def test_a_pretrained_backbone_sees_what_torchvisions_sees(monkeypatch, theirs, dtype, size):
    """With its batch normalisation's running statistics, every stage to 1e-5 of its largest value."""
    download_of(monkeypatch, theirs.state_dict())
    ours = ResNetFPN(BackboneSettings(pretrained=True)).eval().to(dtype)
    reference = resnet18(weights=None).eval()
    reference.load_state_dict(theirs.state_dict())
    names = {"relu": "conv1", **{f"layer{stage}": f"conv{stage + 1}" for stage in range(1, 5)}}
    extractor = create_feature_extractor(reference, names).to(dtype)
    images = torch.rand(2, 3, size, size, dtype=dtype)
    with torch.no_grad():
        expected, found = extractor(images), ours(images).conv
    for ours_map, their_map in zip(found, expected.values(), strict=True):
        assert ours_map.dtype == dtype
        assert (ours_map - their_map).abs().max() <= 1e-5 * their_map.abs().max()


def test_without_pretrained_nothing_is_downloaded(monkeypatch):
    asked = download_of(monkeypatch, URLError("no network"))
    ResNetFPN(BackboneSettings(width=4, fpn_channels=4))
    assert asked == []


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("invalid hash value"), ConnectionResetError()])
def test_a_failed_download_says_what_to_do(monkeypatch, error):
    download_of(monkeypatch, error)
    with pytest.raises(
        CheckpointError, match=r"pretrained.*put a good resnet18\S*\.pth, from https:.*, into .*checkpoints"
    ):
        ResNetFPN(BackboneSettings(pretrained=True))


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_a_damaged_file_in_the_hubs_folder_is_an_error_that_names_it(monkeypatch, tmp_path, content):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    file = tmp_path / "checkpoints" / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    file.parent.mkdir()
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=file.name):
        ResNetFPN(BackboneSettings(pretrained=True))


def test_weights_of_another_network_are_refused(monkeypatch):
    download_of(monkeypatch, {"layer9.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="are not ResNet18's"):
        ResNetFPN(BackboneSettings(pretrained=True))


def test_pretrained_needs_the_published_width(monkeypatch):
    asked = download_of(monkeypatch, {})
    with pytest.raises(RecipeError, match=r"pretrained needs width 64, not 32"):
        BackboneSettings(width=32, pretrained=True)
    assert asked == []
