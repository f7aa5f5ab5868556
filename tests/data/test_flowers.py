"""flowers: a miniature in the published layout; masks and crops by hand and against torchvision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import transforms

from unscene.data import flowers
from unscene.data.flowers import Flowers, FlowersSettings, download_flowers, flower_mask, middle_square
from unscene.errors import DataError, RecipeError


@pytest.fixture
def root(tmp_path):
    """Six images of 40 x 60 pixels, a bright disc on green; their segmentations show it on blue."""
    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    (folder / "segmim").mkdir()
    rows, columns = np.mgrid[:40, :60]
    for number in range(1, 7):
        flower = (rows - 20) ** 2 + (columns - 25 - number) ** 2 < 100
        image = np.where(flower[..., None], (230, 120, 90), (30, 90, 20)).astype(np.uint8)
        segmentation = np.where(flower[..., None], (230, 120, 90), (0, 0, 254)).astype(np.uint8)
        Image.fromarray(image).save(folder / "jpg" / f"image_{number:05d}.jpg", quality=95)
        Image.fromarray(segmentation).save(folder / "segmim" / f"segmim_{number:05d}.jpg", quality=100, subsampling=0)
    savemat(folder / "setid.mat", {"trnid": [[2]], "valid": [[1, 3]], "tstid": [[6, 4, 5]]})
    savemat(folder / "imagelabels.mat", {"labels": [[1] * 6]})
    return tmp_path


def source(root, **changes) -> Flowers:
    return Flowers(FlowersSettings(root=str(root), size=32, **changes))


@pytest.mark.slow
def test_training_uses_the_file_s_test_ids_as_in_redo(root):
    assert source(root).ids.tolist() == [6, 4, 5]
    assert source(root, split="validation").ids.tolist() == [1, 3]
    assert source(root, split="test").ids.tolist() == [2]
    assert len(source(root, count=2)) == 2


def test_an_image_has_its_mask_and_box(root):
    batch = source(root).batch([1, 0, 1])  # number 4: the disc's middle is column 29 of 60
    assert batch["image"].shape == (3, 32, 32, 3)
    assert batch["labels"].dtype == np.uint8
    assert np.array_equal(batch["labels"][0], batch["labels"][2])
    rows, columns = np.nonzero(batch["labels"][0])
    assert rows.mean() + 0.5 == pytest.approx(16, abs=0.5)
    assert columns.mean() + 0.5 == pytest.approx((29.5 - 10) * 0.8, abs=0.5)  # 10 columns are cut off on the left
    assert batch["labels"][0].sum() == pytest.approx(np.pi * 64, rel=0.1)
    x1, y1, x2, y2 = batch["boxes"][0, 0]
    assert (x2 - x1, y2 - y1) == pytest.approx((16, 16), abs=3)  # JPEG blurs the blue
    flower = batch["image"][0][batch["labels"][0] == 1]
    assert np.median(flower, axis=0) == pytest.approx((230, 120, 90), abs=5)


def test_mask_rules_by_hand():
    colours = np.array([[[0, 9, 9], [9, 0, 9], [9, 9, 254], [1, 1, 253], [40, 40, 230], [200, 0, 90]]], np.uint8)
    assert flower_mask(colours, "redo").tolist() == [[0, 0, 0, 1, 1, 0]]
    assert flower_mask(colours, "distance").tolist() == [[1, 1, 0, 0, 1, 1]]


@pytest.mark.parametrize("shape", [(40, 60), (60, 41), (37, 37), (128, 200)])
def test_the_square_is_torchvisions(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    theirs = transforms.Compose(
        [
            transforms.Resize(32, transforms.InterpolationMode.NEAREST),
            transforms.CenterCrop(32),
            transforms.PILToTensor(),
        ]
    )(Image.fromarray(pixels))
    ours = middle_square(pixels, 32)
    assert torch.equal(torch.from_numpy(ours.copy()).permute(2, 0, 1), theirs)


def test_missing_files_are_named_with_a_hint(root, tmp_path):
    with pytest.raises(DataError, match=r"jpg, segmim, setid\.mat is missing.*--data\.download true"):
        source(tmp_path / "elsewhere")
    (root / "flowers-102" / "segmim" / "segmim_00004.jpg").unlink()
    with pytest.raises(DataError, match=r"segmim_00004\.jpg"):
        source(root).batch([1])
    Image.new("RGB", (9, 9)).save(root / "flowers-102" / "segmim" / "segmim_00004.jpg")
    with pytest.raises(DataError, match="image 4 has 60 x 40 pixels, its segmentation 9 x 9"):
        source(root).batch([1])
    (root / "flowers-102" / "setid.mat").write_bytes(b"no matlab file")
    with pytest.raises(DataError, match=r"setid\.mat cannot be read"):
        source(root)


def test_more_than_there_are_and_impossible_settings_are_refused(root):
    with pytest.raises(DataError, match="train has 3"):
        source(root, count=4)
    for changes in ({"size": 0}, {"count": -1}, {"root": ""}, {"split": "all"}):
        with pytest.raises(RecipeError, match=f"^{next(iter(changes))} "):
            FlowersSettings(**changes)


def test_a_download_brings_the_segmentations_too(tmp_path, monkeypatch):
    asked = []

    class Images:
        def __init__(self, root, download):
            asked.append((root, download))

    monkeypatch.setattr("torchvision.datasets.Flowers102", Images)
    monkeypatch.setattr(
        "torchvision.datasets.utils.download_and_extract_archive", lambda *given, **named: asked.append((given, named))
    )
    download_flowers(tmp_path)
    segmentations = ((flowers.SEGMENTATIONS, str(tmp_path / "flowers-102")), {"md5": flowers.SEGMENTATIONS_MD5})
    assert asked == [(str(tmp_path), True), segmentations]


def test_without_a_connection_the_error_says_what_to_do(tmp_path, monkeypatch):
    def fails(*given, **named):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.Flowers102", fails)
    with pytest.raises(DataError, match=r"no route to host.*Check the connection"):
        Flowers(FlowersSettings(root=str(tmp_path), download=True))
