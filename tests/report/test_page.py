"""page: one file that holds everything, shows everything, and runs nothing."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from unscene.report import page
from unscene.report.page import Histogram, Outline, Picture, Section, data_uri, write_page
from unscene.report.results import Curves, ExampleScene, ModelResult, page_values


def png(width=20, height=10):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


def result(name="rmonet/a", metrics=None, **more):
    return ModelResult(
        name=name,
        metrics=metrics or {"ari_fg": 0.5, "map_50": None, "ms_per_image": 1.25},
        health={"largest_slot": 0.25},
        verdict="decomposing: several slots share the foreground (largest slot 0.25)",
        provenance={
            "evaluation": {"device": "cpu", "batch_size": 64, "gpu": None},
            "data": {"name": "multi_dsprites", "scenes": 320},
            "weights": {"step": 1000, "starts": [{"cpu": "A"}, {"cpu": "B"}]},
        },
        recipe={"about": {"reported": {"ari_fg": 0.951}}},
        scenes=(ExampleScene(7, "best", 0.5, Picture(png(), "seven")),),
        curves=Curves(png(), png(8, 8), "curves"),
        **more,
    )


class Parsed(HTMLParser):
    """The texts, the images and the addresses of a page."""

    def __init__(self, path):
        super().__init__()
        self.images, self.addresses, self.tags, self.texts = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.addresses += [values[name] for name in ("src", "href", "srcset") if name in values]

    def handle_data(self, data):
        self.texts.append(data)


def test_page_shows_numbers_beside_the_papers_and_not_applicable(tmp_path):
    write_page(tmp_path / "index.html", "Title & more", **page_values([result()]))
    shown = Parsed(tmp_path / "index.html")
    assert "Title & more" in shown.text
    assert "ARI, foreground 0.500 paper 0.951" in shown.text
    assert "not applicable" in shown.text
    assert "1.25 ms CPU, batch 64" in shown.text
    assert "320 scenes of multi_dsprites, weights of step 1,000" in shown.text
    assert "Health: decomposing: several slots share the foreground." in shown.text
    assert "Scene 7: ARI, foreground 0.500" in shown.text
    assert "starts.2.cpu B" in shown.text


def test_page_loads_no_other_file_and_images_have_alt_texts(tmp_path):
    section = Section("Own", "Words.", (Picture(png(), "own", "x", "a.png"),))
    write_page(tmp_path / "index.html", "T", [section], **page_values([result()]))
    shown = Parsed(tmp_path / "index.html")
    assert "script" not in shown.tags
    assert [address for address in shown.addresses if not address.startswith("data:")] == ["a.png"]
    assert [image["alt"] for image in shown.images] == ["seven", "curves", "own"]
    first = shown.images[0]["src"].removeprefix("data:image/png;base64,")
    assert base64.b64decode(first) == png()


def test_several_models_have_a_column_each(tmp_path):
    other = result("rmonet/b", metrics={"ari_fg": 0.75, "reconstruction_psnr": 30.0})
    write_page(tmp_path / "index.html", "T", **page_values([result(), other]))
    shown = Parsed(tmp_path / "index.html")
    assert "Metric rmonet/a rmonet/b" in shown.text
    assert "0.500 paper 0.951 0.750 paper 0.951" in shown.text
    assert "not applicable 30.0 dB" in shown.text


def test_names_are_escaped(tmp_path):
    evil = "<script>alert(1)</script>"
    section = Section(evil, evil, (Picture(png(), f'"{evil}', evil, f'"{evil}'),))
    write_page(tmp_path / "index.html", evil, [section], **page_values([result(evil)]))
    shown = Parsed(tmp_path / "index.html")
    assert "script" not in shown.tags
    assert evil in shown.text


def test_control_characters_of_a_name_are_replaced(tmp_path):
    name = "a\x1b[31mred\x07.png"
    write_page(tmp_path / "index.html", name, [Section(name, "", (Picture(png(), name, name),))])
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "a\ufffd[31mred\ufffd.png" in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_page_of_sections_alone_has_no_empty_parts(tmp_path):
    write_page(tmp_path / "index.html", "Images", [Section("Overlays")])
    shown = Parsed(tmp_path / "index.html")
    assert "Overlays" in shown.text
    assert "Provenance" not in shown.text
    assert "table" not in shown.tags


def test_pictures_too_large_for_the_page_are_reduced(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_FOR_PICTURES", 40_000)
    pictures = tuple(Picture(png(200, 100), "noise") for _ in range(3))  # 60 kB each
    write_page(tmp_path / "index.html", "T", [Section("S", "", pictures)])
    shown = Parsed(tmp_path / "index.html")
    assert len(shown.images) == 3
    sizes = {Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))).size for image in shown.images}
    assert len(sizes) == 1
    width, height = sizes.pop()
    assert width < 200
    assert width == pytest.approx(2 * height, abs=2)
    assert (tmp_path / "index.html").stat().st_size < 40_000 * 4 / 3 + 20_000


def test_data_uri_names_the_image_format():
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "JPEG")
    assert data_uri(file.getvalue(), 1, []).startswith("data:image/jpeg;base64,")
    assert data_uri(png(), 1, []).startswith("data:image/png;base64,")


def test_picture_with_outlines_can_be_enlarged_without_a_script(tmp_path):
    outline = Outline(7, "#ff0000", "M2 2l4 0 0 4z", 1.5, 2.5, 3.0, "7: area 4, score 0.50 & more")
    picture = Picture(png(), "two discs", "a.png: 1 object", "a.overlay.png", size=(20, 10), outlines=(outline,))
    bars = Histogram.from_values("Areas in pixels", np.array([0.0, 10.0, 10.0]), 0, 10, 0)
    assert (sum(bars.counts), bars.counts[0], bars.counts[-1]) == (3, 1, 2)
    section = Section("Objects", "Words.", (picture,), numbers=(("Objects", "1"),), histograms=(bars,))
    write_page(tmp_path / "index.html", "T", [section])
    shown, text = Parsed(tmp_path / "index.html"), (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "script" not in shown.tags
    assert shown.tags.count("input") == 6  # four steps of enlargement, outlines, numbers
    assert shown.tags.count("rect") == 2  # bins that hold a value
    assert '<path d="M2 2l4 0 0 4z" style="--slot: #ff0000"><title>7: area 4, score 0.50 &amp; more</title>' in text
    assert 'viewBox="0 0 20 10"' in text
    # closed: a browser would take what follows for a part of the image, and not show it
    assert 'height="10" preserveAspectRatio="none" class="pixels"/>' in text
    assert "a.png: 1 object" in shown.text


def test_many_outlines_leave_less_room_for_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "_FOR_PICTURES", 200_000)
    outlines = tuple(Outline(1, "#fff", "M0 0l" + "1 1 " * 400, 0, 0, 1, "") for _ in range(80))
    picture = Picture(png(300, 300), "noise", size=(300, 300), outlines=outlines)
    write_page(tmp_path / "index.html", "T", [Section("S", "", (picture,))])
    assert (tmp_path / "index.html").stat().st_size < 330_000
