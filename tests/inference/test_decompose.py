"""decompose_images: own images in, files at their own resolution out, whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from unscene.data.image_file import ContrastSettings
from unscene.data.image_resize import FitKind
from unscene.errors import DataError, RecipeError, RunError
from unscene.inference import decompose as decompose_images
from unscene.inference.decompose import decompose_paths
from unscene.runs.loading import LoadedModel, load


def squares(height: int, width: int) -> np.ndarray:
    """A red and a blue rectangle on white, whose sides are eighths of the image's."""
    image = np.full((height, width, 3), 255, np.uint8)
    image[height // 8 : height // 2, width // 8 : width // 2] = (200, 0, 0)
    image[3 * height // 4 : 7 * height // 8, width // 2 : 7 * width // 8] = (0, 0, 200)
    return image


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "trip").mkdir(parents=True)
    Image.fromarray(squares(64, 64)).save(folder / "1.png")
    Image.fromarray(squares(128, 192)).save(folder / "trip" / "1.png")
    return folder


@pytest.fixture
def small(make_loaded, make_model):
    return make_loaded(make_model(num_slots=3), size=64)


def coco(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def test_masks_overlays_and_arrays_have_the_images_own_size(small, photos, tmp_path):
    out = tmp_path / "out"
    summary = decompose_paths(small, [photos], out, progress=False)
    assert (summary.images, summary.objects, summary.skipped) == (2, 4, ())
    for name, size in (("1", (64, 64)), ("trip/1", (192, 128))):
        with Image.open(out / f"{name}.masks.png") as masks, Image.open(out / f"{name}.overlay.png") as overlay:
            assert masks.size == overlay.size == size
            assert masks.mode == "P"
            assert set(np.unique(np.asarray(masks))) == {0, 1, 2}
    with np.load(out / "trip/1.npz") as arrays:
        assert arrays["image_size"].tolist() == [128, 192]
        assert arrays["slots"].tolist() == [1, 2]
        assert arrays["boxes"][0] == pytest.approx([24, 16, 96, 64], abs=6)  # its soft border is another colour
        assert arrays["scores"].tolist() == pytest.approx([0.95, 0.6])
        assert arrays["latents"].shape == (2, 3)
        assert arrays["model_boxes"][0] == pytest.approx(arrays["boxes"][0], abs=3)


def test_objects_json_is_a_coco_file_of_the_same_masks(small, photos, tmp_path):
    out = tmp_path / "out"
    decompose_paths(small, [photos], out, progress=False)
    found = coco(out / "objects.json")
    names = {image["id"]: image["file_name"] for image in found.loadImgs(found.getImgIds())}
    assert sorted(names.values()) == ["1.png", "trip/1.png"]
    for annotation in found.loadAnns(found.getAnnIds()):
        with Image.open(out / names[annotation["image_id"]].replace(".png", ".masks.png")) as masks:
            assert (found.annToMask(annotation) == (np.asarray(masks) == annotation["slot"])).all()
        assert len(annotation["latent"]) == 3
    assert found.dataset["info"]["model"] == small.name
    assert found.dataset["info"]["weights"]["sha256"] == "12ab"


def test_locations_are_in_every_result(make_loaded, make_model, photos, tmp_path):
    out = tmp_path / "out"
    decompose_paths(make_loaded(make_model(num_slots=3, locations=True)), [photos], out, progress=False)
    found = json.loads((out / "objects.json").read_text())
    assert len(found["annotations"]) == 4
    for annotation in found["annotations"]:
        x, y, width, height = annotation["bbox"]
        image = found["images"][annotation["image_id"] - 1]
        middle = [(y + height / 2) / image["height"], (x + width / 2) / image["width"]]
        assert annotation["location"] == pytest.approx(middle, abs=0.03)
    assert np.load(out / "1.npz")["locations"].shape == (2, 2)
    assert "<summary>Locations</summary>" in (out / "index.html").read_text(encoding="utf-8")


def test_the_contact_sheet_links_to_files_that_exist(small, photos, tmp_path):
    Image.fromarray(squares(64, 64)).save(photos / "a b&c#.png")
    decompose_paths(small, [photos], tmp_path / "out", progress=False)
    links = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attrs):
            links.extend(value for name, value in attrs if tag == "a" and name == "href")

    Links().feed((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert sorted(links) == ["1.overlay.png", "a%20b%26c%23.overlay.png", "trip/1.overlay.png"]
    assert (tmp_path / "out" / "a b&c#.overlay.png").is_file()


def test_page_outlines_the_first_images_and_counts_all_objects(small, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(decompose_images, "_SHOWN_ALONE", 1)
    summary = decompose_paths(small, [photos], tmp_path / "out", progress=False)
    first, second = summary.pictures
    assert (first.size, [outline.label for outline in first.outlines]) == ((64, 64), [1, 2])
    assert [(outline.x, outline.y) for outline in first.outlines] == [(20, 20), (44, 52)]  # by hand
    assert (second.size, second.outlines) == (None, ())
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<b>4</b>" in text
    assert text.count("<rect") >= 2
    monkeypatch.setattr(decompose_images, "_OUTLINED", 1)
    few = decompose_paths(small, [photos], tmp_path / "few", progress=False)
    assert [picture.size for picture in few.pictures] == [None, None]


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_however_an_image_is_fitted_boxes_return_to_its_pixels(small, tmp_path, fit: FitKind):
    image = np.full((96, 128, 3), 255, np.uint8)
    image[32:64, 48:80] = (200, 0, 0)
    Image.fromarray(image).save(tmp_path / "1.png")
    decompose_paths(small, [tmp_path / "1.png"], tmp_path / "out", fit=fit, progress=False)
    with Image.open(tmp_path / "out" / "1.masks.png") as masks:
        found = np.asarray(masks)
    assert found.shape == (96, 128)
    assert found[48, 64] > 0
    assert (found[36:60, 52:76] == found[48, 64]).all()
    assert (found[:, :40] == 0).all()
    assert (found[:, 88:] == 0).all()


def test_every_mask_lies_in_its_box_and_small_objects_are_left_out(small, photos, tmp_path):
    decompose_paths(small, [photos], tmp_path / "all", progress=False)
    areas = []
    for annotation in json.loads((tmp_path / "all" / "objects.json").read_text())["annotations"]:
        assert annotation["bbox"] == coco_mask.toBbox(annotation["segmentation"]).tolist()
        assert len(annotation["model_bbox"]) == 4
        areas.append(annotation["area"])
    decompose_paths(small, [photos], tmp_path / "large", min_area=min(areas) + 1, progress=False)
    found = json.loads((tmp_path / "large" / "objects.json").read_text())
    assert sorted(annotation["area"] for annotation in found["annotations"]) == sorted(areas)[1:]
    assert found["info"]["min_area"] == min(areas) + 1


def test_tiles_find_each_object_of_a_large_image_once(small, tmp_path):
    image = np.full((1120, 1190, 3), 255, np.uint8)
    for y in range(5, 1120, 70):  # 16 x 17 squares; a tile, as large as the model's square, sees one at most
        for x in range(5, 1190, 70):
            image[y : y + 6, x : x + 6] = (200, 0, 0)
    Image.fromarray(image).save(tmp_path / "large.png")
    out = tmp_path / "out"
    summary = decompose_paths(small, [tmp_path / "large.png"], out, tile=64, overlap=8, progress=False)
    assert summary.objects == 16 * 17
    with Image.open(out / "large.masks.png") as masks:
        found = np.asarray(masks)
    assert found.dtype == np.uint16  # more than 255 labels
    assert ((found > 0) == (image[..., 2] == 0)).all()
    assert np.bincount(found.ravel())[1:].tolist() == [36] * (16 * 17)
    with Image.open(out / "large.overlay.png") as overlay:
        unchanged = (np.asarray(overlay) == image).all(axis=-1)
    assert unchanged[found == 0].mean() > 0.98  # all but the lines of the boxes
    assert not unchanged[found > 0].any()
    info = json.loads((out / "objects.json").read_text())["info"]
    assert (info["tile"], info["overlap"], "fit" in info) == (64, 8, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 32, "overlap": 32}, "overlap must be from 0"),
        ({"tile": 0}, "a tile must have 1 pixel"),
        ({"overlap": 8}, "an overlap needs tiles"),
        ({"tile": 32, "fit": "pad"}, "leave out --fit or --tile"),
        ({"overlap": 8, "fit": "pad"}, "leave out --fit or --tile"),
        ({"scale": 2, "fit": "pad"}, "leave out --fit or --tile"),
        ({"tile": 32, "scale": 2}, "give one of them"),
        ({"scale": 1, "object_size": 5}, "give one of them"),
        ({"scale": 0}, "not 0 times"),
        ({"scale": float("nan")}, "not nan times"),
        ({"object_size": 5}, "does not state how large objects were"),
        ({"min_contrast": -0.1}, "least contrast of an object must be from 0 to 1"),
        ({"min_score": float("nan")}, "must be from 0 to 1"),
        ({"min_score": 1.5}, "must be from 0 to 1"),
    ],
)
def test_options_that_contradict_each_other_leave_no_result(small, photos, tmp_path, options, message):
    with pytest.raises(RecipeError, match=message):
        decompose_paths(small, [photos], tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def squares_every(step, side, count):
    image = np.full((step * count, step * count, 3), 255, np.uint8)
    for y in range(step // 4, step * count, step):
        for x in range(step // 4, step * count, step):
            image[y : y + side, x : x + side] = (200, 0, 0)
    return image


def test_tiles_have_the_trainings_scale_times_a_factor(small, make_loaded, make_model, tmp_path):
    Image.fromarray(squares_every(70, 6, 5)).save(tmp_path / "1.png")
    Image.fromarray(squares_every(140, 12, 5)).save(tmp_path / "2.png")
    crops = make_loaded(make_model(num_slots=3), size=64, crop=72, tile=72, object_size=6)
    for number, (model, options, side) in enumerate(
        [
            (small, {"tile": "auto"}, 64),
            (small, {"tile": "auto", "scale": 2}, 128),
            (small, {"scale": 0.5}, 32),
            (crops, {}, 72),
            (crops, {"object_size": 12}, 144),
            (crops, {"tile": 40}, 40),
        ]
    ):
        out = tmp_path / str(number)
        path = tmp_path / ("2.png" if side > 100 else "1.png")
        decompose_paths(model, [path], out, progress=False, **options)
        info = json.loads((out / "objects.json").read_text())["info"]
        assert (info["tile"], info["overlap"]) == (side, side // 2)


def test_models_of_whole_photographs_need_the_side_of_a_tile(tiny, photos, tmp_path):
    recipe = tiny(images=str(photos))
    loaded = LoadedModel(recipe.build_model(), recipe, {})
    with pytest.raises(RecipeError, match=r"one square, so the side of a tile is not known\. Give it: --tile"):
        decompose_paths(loaded, [photos], tmp_path / "out", tile="auto", progress=False)


def test_table_of_objects_repeats_the_coco_file(small, photos, tmp_path):
    decompose_paths(small, [photos], tmp_path / "out", progress=False)
    rows = list(csv.DictReader((tmp_path / "out" / "objects.csv").open(encoding="utf-8")))
    annotations = json.loads((tmp_path / "out" / "objects.json").read_text())["annotations"]
    assert len(rows) == len(annotations) == 4
    for row, annotation in zip(rows, annotations, strict=True):
        x, y, width, height = annotation["bbox"]
        assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == [x, y, x + width, y + height]
        assert (int(row["label"]), int(row["area"])) == (annotation["slot"], annotation["area"])
        assert float(row["score"]) == annotation["score"]
    assert [rows[0][f"mean_{colour}"] for colour in ("red", "green", "blue")] == ["200.0", "0.0", "0.0"]
    assert {row["image"] for row in rows} == {"1.png", "trip/1.png"}
    with Image.open(tmp_path / "out" / "1.labels.tif") as tiff, Image.open(tmp_path / "out" / "1.masks.png") as png:
        assert (np.asarray(tiff) == np.asarray(png)).all()


def test_parts_of_a_slot_are_objects_on_request(small, tmp_path):
    image = np.full((64, 64, 3), 255, np.uint8)
    image[10:20, 10:20] = image[40:50, 40:50] = (200, 0, 0)
    Image.fromarray(image).save(tmp_path / "1.png")
    for options, count in (({}, 1), ({"split_parts": True}, 2), ({"split_parts": True, "tile": 64}, 2)):
        out = tmp_path / f"out{len(options)}"
        assert decompose_paths(small, [tmp_path / "1.png"], out, progress=False, **options).objects == count


@pytest.mark.parametrize("tile", [None, 64])
def test_pieces_one_pixel_apart_are_joined_on_request(small, tmp_path, tile):
    image = np.full((64, 64, 3), 255, np.uint8)
    image[10:20, 10:20] = image[10:20, 21:31] = (200, 0, 0)
    Image.fromarray(image).save(tmp_path / "1.png")
    for join_alike, count in ((False, 2), (True, 1)):
        how = {"split_parts": True, "join_alike": join_alike, "tile": tile, "progress": False}
        assert decompose_paths(small, [tmp_path / "1.png"], tmp_path / str(join_alike), **how).objects == count


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (1, 1), (5, 7), (300, 10)])
@pytest.mark.parametrize("tile", [None, 64])
@pytest.mark.parametrize("colour", [0, 255])
def test_strips_and_images_smaller_than_a_tile_have_results_of_their_size(small, tmp_path, size, tile, colour):
    Image.fromarray(np.full((*size, 3), colour, np.uint8)).save(tmp_path / "1.png")
    summary = decompose_paths(small, [tmp_path / "1.png"], tmp_path / "out", tile=tile, progress=False)
    assert (summary.images, summary.objects) == (1, 0)
    with Image.open(tmp_path / "out" / "1.labels.tif") as labels:
        assert np.asarray(labels).shape == size


def test_pixels_that_are_no_numbers_are_named_and_leave_nothing(small, photos, tmp_path):
    Image.fromarray(np.full((20, 20), np.nan, np.float32)).save(photos / "z.tif")
    with pytest.raises(DataError, match=r"z\.tif has pixels that are no numbers.*--skip-damaged"):
        decompose_paths(small, [photos], tmp_path / "out", tile=64, progress=False)
    assert not (tmp_path / "out").exists()


def test_mixed_sizes_and_depths_are_decomposed_together(small, photos, tmp_path):
    Image.fromarray(np.arange(30 * 400, dtype=np.uint16).reshape(30, 400)).save(photos / "deep.tif")
    Image.fromarray(np.linspace(0, 1, 900, dtype=np.float32).reshape(30, 30)).save(photos / "float.tif")
    assert decompose_paths(small, [photos], tmp_path / "out", tile=64, progress=False).images == 4


@pytest.mark.parametrize("model", ["rmonet_unet/multi_dsprites_cpu", "explicit_localization/multi_dsprites_cpu"])
@pytest.mark.parametrize("tile", [None, 64])
def test_shipped_weights_find_nothing_in_empty_images(tmp_path, model, tile):
    rng = np.random.default_rng(0)
    images = [np.full((96, 96, 3), colour) for colour in [(0, 0, 0), (255, 255, 255), (0, 170, 0), (200, 60, 90)]]
    images += [rng.integers(0, 256, (96, 96, 3)), np.full((96, 96, 1), 120) + rng.normal(0, 10, (96, 96, 3))]
    for number, image in enumerate(images):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{number}.png")
    how = {"tile": tile, "progress": False}
    loaded = load(model)
    assert decompose_paths(loaded, [tmp_path], tmp_path / "out", **how).objects == 0
    assert decompose_paths(loaded, [tmp_path], tmp_path / "all", min_contrast=0, **how).objects > 2


def test_without_boxes_they_are_of_the_masks(make_loaded, make_model, photos, tmp_path):
    small = make_loaded(make_model(num_slots=3, boxes=False))
    decompose_paths(small, [photos / "1.png"], tmp_path / "out", progress=False)
    with np.load(tmp_path / "out" / "1.npz") as arrays:
        assert arrays["boxes"].tolist() == [[8, 8, 32, 32], [32, 48, 56, 56]]
        assert arrays["areas"].tolist() == [24 * 24, 24 * 8]


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_by_default_images_are_fitted_as_in_the_training(small, make_loaded, make_model, tmp_path, fit: FitKind):
    Image.fromarray(squares(96, 160)).save(tmp_path / "1.png")
    trained = make_loaded(make_model(num_slots=3), size=64, fit=fit)
    decompose_paths(trained, [tmp_path / "1.png"], tmp_path / "own", progress=False)
    decompose_paths(small, [tmp_path / "1.png"], tmp_path / "asked", fit=fit, progress=False)
    own, asked = (json.loads((tmp_path / name / "objects.json").read_text()) for name in ("own", "asked"))
    assert own["info"]["fit"] == asked["info"]["fit"] == fit
    assert own["annotations"] == asked["annotations"]


def test_images_are_scaled_as_in_the_training(small, make_loaded, make_model, tmp_path):
    Image.fromarray(squares(64, 64)).save(tmp_path / "1.png")
    dark = ContrastSettings(gamma=40.0)  # all but white becomes black, so red and blue are one object
    scaled = make_loaded(make_model(num_slots=3), size=64, contrast=dark)
    counts = [
        decompose_paths(model, [tmp_path / "1.png"], tmp_path / name, progress=False).objects
        for name, model in (("scaled", scaled), ("stored", small))
    ]
    assert counts == [1, 2]


@pytest.mark.parametrize(("fit", "near"), [("crop", 0), ("pad", 4), ("stretch", 4)])
def test_each_fit_returns_masks_and_boxes_to_the_image(
    make_loaded, make_model, tmp_path, fit: FitKind, near
):  # by hand
    image = np.full((64, 128, 3), 255, np.uint8)
    image[16:48, 40:72] = (200, 0, 0)  # in the crop, which is columns 32 to 96 at full size
    Image.fromarray(image).save(tmp_path / "1.png")
    loaded = make_loaded(make_model(num_slots=3, boxes=False))
    decompose_paths(loaded, [tmp_path / "1.png"], tmp_path / "out", fit=fit, progress=False)
    with np.load(tmp_path / "out" / "1.npz") as arrays, Image.open(tmp_path / "out" / "1.masks.png") as masks:
        labels, boxes, areas = np.asarray(masks), arrays["boxes"], arrays["areas"]
        red = arrays["slots"].tolist().index(labels[32, 56])
    assert labels.shape == (64, 128)
    assert boxes[red] == pytest.approx([40, 16, 72, 48], abs=near)
    rows, columns = np.nonzero(labels == labels[32, 56])
    assert boxes[red].tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert areas[red] == len(rows)
    annotation = json.loads((tmp_path / "out" / "objects.json").read_text())["annotations"][red]
    x, y, width, height = annotation["bbox"]
    assert [x, y, x + width, y + height] == boxes[red].tolist()
    assert annotation["segmentation"]["size"] == [64, 128]


def test_an_image_without_objects_has_files_too(small, tmp_path):
    Image.fromarray(np.full((20, 20, 3), 9, np.uint8)).save(tmp_path / "1.png")
    assert decompose_paths(small, [tmp_path / "1.png"], tmp_path / "out", progress=False).objects == 0
    assert coco(tmp_path / "out" / "objects.json").getAnnIds() == []
    with np.load(tmp_path / "out" / "1.npz") as arrays:
        assert arrays["boxes"].shape == (0, 4)


def test_every_page_of_a_stack_on_request(small, tmp_path):
    pages = [Image.fromarray(squares(side, side)) for side in (64, 96)]
    pages[0].save(tmp_path / "s.tif", save_all=True, append_images=pages[1:])
    decompose_paths(small, [tmp_path / "s.tif"], tmp_path / "first", progress=False)
    decompose_paths(small, [tmp_path / "s.tif"], tmp_path / "all", frames="all", progress=False)
    first, every = (json.loads((tmp_path / name / "objects.json").read_text())["images"] for name in ("first", "all"))
    assert first == [{"id": 1, "file_name": "s.tif", "height": 64, "width": 64}]
    assert [(image["file_name"], image["height"], image["frame"]) for image in every] == [
        ("s.tif", 64, 1),
        ("s.tif", 96, 2),
    ]
    assert (tmp_path / "all" / "s.frame2.masks.png").is_file()


def test_a_damaged_image_is_named_and_nothing_is_left(small, photos, tmp_path):
    (photos / "2.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"2\.png.*--skip-damaged"):
        decompose_paths(small, [photos], tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_a_damaged_image_is_left_out_on_request(small, photos, tmp_path):
    (photos / "2.png").write_bytes(b"no image")
    summary = decompose_paths(small, [photos], tmp_path / "out", skip_damaged=True, progress=False)
    assert (summary.images, summary.skipped) == (2, (photos / "2.png",))
    assert "2.png" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    with pytest.raises(DataError, match="none of the 1 images"):
        decompose_paths(small, [photos / "2.png"], tmp_path / "other", skip_damaged=True, progress=False)


def test_results_are_overwritten_on_request_alone_and_other_files_stay(small, photos, tmp_path):
    out = tmp_path / "out"
    decompose_paths(small, [photos / "1.png"], out, progress=False)
    (out / "mine.txt").write_text("mine")
    before = (out / "objects.json").read_bytes()
    with pytest.raises(RunError, match="--overwrite"):
        decompose_paths(small, [photos / "1.png"], out, fit="pad", progress=False)
    assert (out / "objects.json").read_bytes() == before
    decompose_paths(small, [photos / "1.png"], out, fit="pad", overwrite=True, progress=False)
    assert json.loads((out / "objects.json").read_text())["info"]["fit"] == "pad"
    assert (out / "mine.txt").read_text() == "mine"


def test_an_interruption_leaves_the_folder_as_it_was(small, photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(decompose_images, "write_page", interrupted)  # after all images
    with pytest.raises(KeyboardInterrupt):
        decompose_paths(small, [photos], out, progress=False)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_a_file_in_place_of_the_folder_is_refused(small, photos, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(RunError, match="is a file"):
        decompose_paths(small, [photos], tmp_path / "out", progress=False)


def test_results_beside_the_images_are_not_decomposed_in_turn(small, photos):
    decompose_paths(small, [photos], photos, progress=False)
    assert decompose_paths(small, [photos], photos, overwrite=True, progress=False).images == 2


def test_few_images_are_held_at_once_and_results_do_not_depend_on_it(small, photos, tmp_path, monkeypatch):
    decompose_paths(small, [photos], tmp_path / "a", progress=False)
    monkeypatch.setattr(decompose_images, "_IMAGES_AT_ONCE", 1)
    decompose_paths(small, [photos], tmp_path / "b", progress=False)
    monkeypatch.setattr(decompose_images, "_IMAGES_AT_ONCE", 9)
    monkeypatch.setattr(decompose_images, "_PIXELS_AT_ONCE", 64 * 64 + 1)
    decompose_paths(small, [photos], tmp_path / "c", progress=False)
    assert small.batches == [2, 1, 1, 1, 1]
    for name in ("1.masks.png", "trip/1.overlay.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
