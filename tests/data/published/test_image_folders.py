"""ClevrTex, ShapeStacks and CLEVR v1.0 in folders of the published schema, written here byte by byte."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unscene.cli.main import main
from unscene.data.hdf5.reader import SceneStore
from unscene.data.published import image_folders
from unscene.data.published.conversion import convert
from unscene.data.published.image_folders import png_pixels
from unscene.errors import DataError

rng = np.random.default_rng(0)


def png(pixels: np.ndarray) -> bytes:
    """A PNG of [H, W] or [H, W, C] uint8, as its specification says."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = {1: 0, 3: 2, 4: 6}[1 if pixels.ndim == 2 else pixels.shape[2]]
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def objects(count: int, **more) -> list[dict]:
    return [
        {"3d_coords": [n, 0.5, 0.7], "pixel_coords": [9, n, 8.5], "rotation": 10.5 * n, **more} for n in range(count)
    ]


def write_clevrtex(folder: Path, count: int, variant: str = "full", height: int = 48) -> Path:
    """Scene `n` has the grey 10 n, and its object 1 in rows 20 to 27 and columns 24 to 39."""
    for number in range(count):
        below = folder / str(number // 1000)
        below.mkdir(parents=True, exist_ok=True)
        stem = f"CLEVRTEX_{variant}_{number:06d}"
        image = np.full((height, height * 4 // 3, 4), 255, np.uint8)  # with an alpha channel
        image[..., :3] = 10 * number
        labels = np.zeros(image.shape[:2], np.uint8)
        labels[20:28, 24:40] = 1
        (below / f"{stem}.png").write_bytes(png(image))
        (below / f"{stem}_flat.png").write_bytes(png(labels))
        scene = {"ground_material": "wood", "objects": objects(2, shape="cube", material="clay", size="small")}
        (below / f"{stem}.json").write_text(json.dumps(scene, indent=2))
    return folder


def store_of(name: str, folder: Path, skip_damaged: bool = False, **settings) -> SceneStore:
    out = folder.parent / "out.h5"
    out.unlink(missing_ok=True)
    convert(name, [folder], out, settings, skip_damaged, progress=False)
    return SceneStore(out)


class TestClevrTex:
    def test_scenes_by_hand(self, tmp_path):
        store = store_of("clevrtex", write_clevrtex(tmp_path / "clevrtex_full", 1), size=0)
        sample = store.batch([0])
        assert store.image_size == (38, 38)  # int(.8 * 48), from row (48 - 38) // 2 = 5 and column (64 - 38) // 2 = 13
        labels = np.zeros((38, 38), np.uint8)
        labels[15:23, 11:27] = 1
        np.testing.assert_array_equal(sample["labels"][0], labels)
        assert sample["boxes"][0, :2].tolist() == [[11, 15, 27, 23], [0, 0, 0, 0]]
        assert sample["visibility"][0].tolist() == [1, 1] + [0] * 8
        assert sample["rotation"][0].tolist() == [0, 10.5] + [0] * 8
        assert sample["3d_coords"][0, 1].tolist() == pytest.approx([1, 0.5, 0.7])

    def test_images_are_128_px_as_pillow_resizes_them(self, tmp_path):
        folder = write_clevrtex(tmp_path / "clevrtex_full", 1, height=240)
        image = rng.integers(0, 256, (240, 320, 3), np.uint8)
        (folder / "0" / "CLEVRTEX_full_000000.png").write_bytes(png(image))
        sample = store_of("clevrtex", folder).batch([0])
        cropped = Image.fromarray(image).crop((64, 24, 256, 216))
        expected = np.asarray(cropped.resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(sample["image"][0] - expected).max() <= 1

    def test_the_published_split(self, tmp_path):
        folder = write_clevrtex(tmp_path / "clevrtex_full", 20)

        def numbers(**settings) -> list[int]:
            store = store_of("clevrtex", folder, **settings)
            return (store.batch(range(len(store)))["image"][:, 0, 0, 0] // 10).tolist()

        assert numbers(split="test") == [0, 1]
        assert numbers(split="validation") == [2, 3]
        assert numbers() == [*range(4, 20), 2, 3, 0, 1]  # so the last ones are the test, those before the validation

    def test_outd_is_a_test_set(self, tmp_path):
        folder = write_clevrtex(tmp_path / "clevrtex_outd", 3, "outd")
        assert len(store_of("clevrtex", folder, split="test")) == 3

    def test_two_variants_and_a_missing_number(self, tmp_path):
        folder = write_clevrtex(tmp_path / "both", 3)
        (folder / "0" / "CLEVRTEX_full_000001.png").unlink()
        with pytest.raises(DataError, match=r"has no CLEVRTEX_full_000001\.png, but other"):
            store_of("clevrtex", folder)
        write_clevrtex(folder, 1, "pbg")
        with pytest.raises(DataError, match=r"has full and pbg\. Name the unpacked folder of one variant"):
            store_of("clevrtex", folder)

    @pytest.mark.parametrize("number", [0, 2])
    def test_the_first_and_the_last_image_are_missed_too(self, tmp_path, number):
        folder = write_clevrtex(tmp_path / "clevrtex_full", 3)
        (folder / "0" / f"CLEVRTEX_full_{number:06d}.png").unlink()
        with pytest.raises(DataError, match=f"has no CLEVRTEX_full_{number:06d}.png"):
            store_of("clevrtex", folder)

    @pytest.mark.parametrize("suffix", [".png", "_flat.png"])
    def test_every_flipped_byte_of_an_image_is_named(self, tmp_path, suffix):
        folder = write_clevrtex(tmp_path / "clevrtex_full", 2, height=20)
        path = folder / "0" / f"CLEVRTEX_full_000001{suffix}"
        content = path.read_bytes()
        for position in range(0, len(content), 7):
            path.write_bytes(content[:position] + bytes([content[position] ^ 0x04]) + content[position + 1 :])
            with pytest.raises(DataError, match=f"000001{suffix}"):
                store_of("clevrtex", folder, size=0)

    def test_damaged_scenes_are_left_out(self, tmp_path, caplog):
        folder = write_clevrtex(tmp_path / "clevrtex_full", 4)
        (folder / "0" / "CLEVRTEX_full_000001_flat.png").unlink()
        (folder / "0" / "CLEVRTEX_full_000002.json").write_text('{"objects": [{"rotation": ')
        with pytest.raises(DataError, match=r"000001_flat\.png does not exist.*--skip-damaged"):
            store_of("clevrtex", folder)
        store = store_of("clevrtex", folder, skip_damaged=True)
        assert (store.batch([0, 1])["image"][:, 0, 0, 0] // 10).tolist() == [0, 3]
        assert store.attributes["damaged_left_out"] == 2
        assert "000002.json is damaged" in caplog.text

    def test_an_interrupted_conversion_is_resumed(self, tmp_path, monkeypatch):
        folder, out = write_clevrtex(tmp_path / "clevrtex_full", 5), tmp_path / "out.h5"
        monkeypatch.setattr("unscene.data.published.conversion._BATCH", 1)
        monkeypatch.setattr("unscene.data.hdf5.resumable_writer._BATCHES_A_PART", 2)
        decode, names = png_pixels, []

        def stops(content: bytes, where: str) -> np.ndarray:
            names.append(where)
            if "000003.png" in where and len(names) < 9:
                raise KeyboardInterrupt
            return decode(content, where)

        monkeypatch.setattr(image_folders, "png_pixels", stops)
        with pytest.raises(KeyboardInterrupt, match="2 scenes are kept in"):
            convert("clevrtex", [folder], out, {"split": "train"}, progress=False)
        names.extend([""] * 9)
        assert convert("clevrtex", [folder], out, {"split": "train"}, progress=False) == 4
        assert not any("000001" in name for name in names[18:])  # the first two are not read again

    def test_two_commands_train_monet_on_it(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        write_clevrtex(Path("clevrtex_full"), 12)
        assert main(["convert", "clevrtex", "clevrtex_full", "--out", "clevrtex.h5", "--data.size", "32"]) == 0
        small = "--trainer.max_steps 2 --trainer.batch_size 2 --model.unet.channels [4,4] --model.unet.hidden 4"
        words = "train monet/clevr_scenes --data.name hdf5 --data.path clevrtex.h5 --data.size 32 --validation.count 1"
        assert main(f"{words} --test.count 1 --out run {small} --trainer.precision float32".split()) == 0
        assert main(["evaluate", "run", "--data", "clevrtex.h5", "--out", "report"]) == 0


def write_shapestacks(folder: Path) -> Path:
    for number, scenario in enumerate(("env_a", "env_b", "env_c")):
        for kind in ("recordings", "iseg"):
            (folder / kind / scenario).mkdir(parents=True)
        for camera in (1, 10):
            image = np.full((224, 224, 3), 20 * number + camera, np.uint8)
            labels = np.zeros((224, 224, 4), np.uint8)
            labels[14:24, 14:34, :3] = 2 * 32
            labels[..., 3] = 255
            name = f"w=5-f=2-l=1-c=unique-cam_{camera}-mono-0.png"
            (folder / "recordings" / scenario / f"rgb-{name}").write_bytes(png(image))
            name = f"iseg-w=0-f=0-l=0-c=original-cam_{camera}-mono-0.map"
            (folder / "iseg" / scenario / name).write_bytes(png(labels))
    (folder / "splits" / "default").mkdir(parents=True)
    for name, text in {"train": "env_c\nenv_a\n", "eval": "env_b\n", "test": ""}.items():
        (folder / "splits" / "default" / f"{name}.txt").write_text(text)
    return folder


class TestShapeStacks:
    def test_scenes_by_hand(self, tmp_path):
        folder = write_shapestacks(tmp_path / "shapestacks")
        store = store_of("shapestacks", folder, size=0)
        assert store.image_size == (196, 196)
        sample = store.batch(range(len(store)))
        assert sample["image"][:, 0, 0, 0].tolist() == [41, 50, 1, 10, 21, 30]  # the lists' order, cameras by name
        assert sample["boxes"][0, :2].tolist() == [[0, 0, 0, 0], [0, 0, 20, 10]]
        assert sample["visibility"][0].tolist() == [0, 1, 0, 0, 0, 0, 0]
        assert len(store_of("shapestacks", folder, split="validation")) == 2

    def test_maps_beside_the_images_and_no_lists(self, tmp_path):
        folder = write_shapestacks(tmp_path / "shapestacks")
        for path in list((folder / "iseg").rglob("*.map")):
            path.rename(folder / "recordings" / path.parent.name / path.name)
        for path in (folder / "splits" / "default").iterdir():
            path.unlink()
        store = store_of("shapestacks", folder)
        assert (len(store), store.image_size) == (6, (64, 64))

    def test_a_flipped_byte_of_a_map_is_named(self, tmp_path):
        folder = write_shapestacks(tmp_path / "shapestacks")
        path = next((folder / "iseg" / "env_b").glob("*cam_10*"))
        content = path.read_bytes()
        path.write_bytes(content[:60] + bytes([content[60] ^ 1]) + content[61:])
        with pytest.raises(DataError, match=r"env_b/iseg.*cam_10-mono-0\.map is damaged .*chunk at byte 33"):
            store_of("shapestacks", folder)

    def test_a_view_and_a_scenario_that_are_missing_are_named(self, tmp_path):
        folder = write_shapestacks(tmp_path / "shapestacks")
        next((folder / "recordings" / "env_b").glob("*cam_10*")).unlink()
        with pytest.raises(DataError, match=r"has no recordings/env_b/rgb-\*-cam_10-mono-0\.png"):
            store_of("shapestacks", folder)
        (folder / "splits" / "default" / "eval.txt").write_text("env_x")
        with pytest.raises(DataError, match="has no recordings/env_x/"):
            store_of("shapestacks", folder)

    def test_a_list_names_nothing_outside_of_the_folder(self, tmp_path):
        folder = write_shapestacks(tmp_path / "shapestacks")
        write_shapestacks(tmp_path / "other")
        (folder / "splits" / "default" / "train.txt").write_text("../../other/recordings/env_a\n")
        store = store_of("shapestacks", folder, split="train")
        assert store.batch(range(2))["image"][:, 0, 0, 0].tolist() == [1, 10]  # its own env_a

    def test_another_folder(self, tmp_path):
        with pytest.raises(DataError, match="has no folder recordings/"):
            store_of("shapestacks", tmp_path / "nothing")


def write_clevr(folder: Path) -> Path:
    names = {"shape": "sphere", "material": "metal", "color": "cyan", "size": "small"}
    for part, count in (("train", 3), ("val", 2), ("test", 1)):
        (folder / "images" / part).mkdir(parents=True)
        scenes = []
        for number in range(count):
            name = f"CLEVR_{part}_{number:06d}.png"
            (folder / "images" / part / name).write_bytes(png(np.full((240, 320, 4), 10 + number, np.uint8)))
            scenes.append(
                {"image_filename": name, "objects": objects(number + 1, **names), "relations": {"left": [[]]}}
            )
        if part != "test":
            (folder / "scenes").mkdir(exist_ok=True)
            text = json.dumps({"info": {"version": "1.0"}, "scenes": scenes})
            (folder / "scenes" / f"CLEVR_{part}_scenes.json").write_text(text)
    return folder


class TestClevrImages:
    def test_scenes_by_hand(self, tmp_path):
        folder = write_clevr(tmp_path / "CLEVR_v1.0")
        store = store_of("clevr_images", folder)
        sample = store.batch(range(len(store)))
        assert store.image_size == (128, 128)
        assert "labels" not in sample
        assert sample["image"][:, 0, 0, 0].tolist() == [10, 11, 12, 10, 11]
        assert sample["visibility"].sum(axis=1).tolist() == [1, 2, 3, 1, 2]
        factors = [sample[name][0, 0] for name in ("shape", "material", "color", "size")]
        assert factors == [2, 2, 7, 2]  # counted from 1 as those of `clevr_scenes`

    def test_a_choice_by_the_number_of_objects(self, tmp_path):
        assert len(store_of("clevr_images", write_clevr(tmp_path / "clevr"), min_objects=2)) == 3

    def test_the_test_has_images_alone(self, tmp_path):
        store = store_of("clevr_images", write_clevr(tmp_path / "clevr"), split="test")
        assert set(store.batch([0])) == {"image"}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda text: text.replace('"objects"', '"objects', 2), "scene 0 is damaged or cut short"),
            (lambda text: text[:-120], r"scene 2 is damaged or cut short .*--count 2 to keep"),
            (lambda text: text.replace("10.5", "1" + 400 * "0"), "scene 1 has an object that cannot be read"),
            (lambda text: text.replace('"objects": [', '"objects": ' + 20_000 * "[", 1), "scene 0 is damaged"),
            (lambda text: text.replace("cyan", "cyaN"), "scene 0 has an object that cannot be read"),
            (lambda text: text.replace("000001.png", "000009.png"), r"CLEVR_train_000009\.png does not exist"),
        ],
    )
    def test_damage_is_named(self, tmp_path, change, message):
        folder = write_clevr(tmp_path / "clevr")
        path = folder / "scenes" / "CLEVR_train_scenes.json"
        path.write_text(change(path.read_text()))
        with pytest.raises(DataError, match=message):
            store_of("clevr_images", folder)


def test_a_list_of_scenes_is_read_in_pieces(tmp_path, monkeypatch):
    path = tmp_path / "scenes.json"
    items = [{"n": n, "text": "x" * 40} for n in range(30)]
    path.write_text(json.dumps({"scenes": items}, indent=1))
    monkeypatch.setattr(image_folders, "_MAX_SCENE", 100)
    assert list(image_folders._scenes_of(path)) == items


@pytest.mark.parametrize("channels", [None, 3, 4])
def test_png_pixels(channels):
    pixels = rng.integers(0, 256, (5, 7) if channels is None else (5, 7, channels), np.uint8)
    np.testing.assert_array_equal(png_pixels(png(pixels), "a.png"), pixels)
