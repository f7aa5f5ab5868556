"""A page in the browser to look at a model: drop an image, see its objects, move latents, remove and swap objects.

`Exploration` computes what the page shows, without gradio; `build_page` lays the page out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unscene.data.hdf5.reader import SceneStore
from unscene.data.image_file import ContrastSettings, change_contrast, read_image
from unscene.data.image_resize import ResizeGeometry, fit_image
from unscene.errors import RecipeError, UnsceneError, import_extra
from unscene.inference.found_objects import found_objects
from unscene.inference.image_files import named_images
from unscene.report.figures import image_bytes
from unscene.report.slots import enlarged, overlay
from unscene.runs.loading import LoadedModel
from unscene.scene import Decomposition, Scene

EXAMPLES = 12  # images offered at most
COLUMNS = ("object", "score", "pixels", "x1", "y1", "x2", "y2")
_SIDE = 256  # pixels of the smallest picture that is shown
_EMPTY = -40.0  # log share of a removed slot

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Exploration:
    """One decomposed image, and the changes of its scene."""

    loaded: LoadedModel
    pixels: Pixels  # [H, W, 3]
    geometry: ResizeGeometry
    images: Tensor  # [1, 3, size, size], what the model saw
    decomposition: Decomposition
    latents: Tensor | None  # [K, D] as changed; None for a model that cannot redraw
    removed: tuple[int, ...] = ()  # slots

    @classmethod
    def of_image(cls, loaded: LoadedModel, pixels: Pixels) -> Exploration:
        """Decompose an image [H, W, 3] as the training saw its images; after one on crops, the middle crop."""
        pixels = pixels.copy()
        change_contrast(pixels, loaded.contrast)
        if loaded.crop:
            height, width = (min(side, loaded.crop) for side in pixels.shape[:2])
            top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
            pixels = pixels[top : top + height, left : left + width]
        square, geometry = fit_image(pixels, loaded.size, loaded.fit)
        images = Scene.from_batch({"image": square[None]}).images
        decomposition = loaded.decompose(images)
        latents = decomposition.latents if hasattr(loaded.model, "redraw") else None
        return cls(loaded, pixels, geometry, images, decomposition, None if latents is None else latents[0])

    def objects(self, min_score: float) -> tuple[Pixels, list[list[float | int]]]:
        """The image with masks and boxes, and a row of `COLUMNS` for each object, at the image's own resolution."""
        found = found_objects(self.decomposition, 0, self.geometry, min_score=min_score)
        numbers = zip(
            found.slots.tolist(), found.scores.tolist(), found.areas.tolist(), found.boxes.tolist(), strict=True
        )
        rows = [[slot, round(score, 3), area, *map(round, box)] for slot, score, area, box in numbers]
        zoom = _zoom(self.pixels)
        pixels, labels = enlarged(self.pixels, zoom), enlarged(found.labels, zoom)
        return overlay(pixels, labels, found.boxes * zoom, slots=found.slots), rows

    def slots(self) -> list[tuple[Pixels, str]]:
        """For each slot its mask and its component beside each other, and a caption."""
        masks = self.decomposition.masks()[0].expand(-1, 3, -1, -1)
        pairs = torch.cat([masks, self.decomposition.components[0]], dim=3)
        pictures = map(image_bytes, pairs)
        return [
            (enlarged(picture, _zoom(picture)), name) for picture, name in zip(pictures, self.slot_names(), strict=True)
        ]

    def slot_names(self) -> list[str]:
        """`background`, or the object's number on the overlay; by the slot's index."""
        numbers = {slot: str(number) for number, slot in enumerate(self.decomposition.foreground, start=1)}
        return [numbers.get(slot, "background") for slot in range(self.decomposition.num_slots)]

    def scene(self) -> Pixels:
        """The scene drawn from the latents as they are, without the removed slots."""
        drawn = self.decomposition
        if self.latents is not None and not torch.equal(self.latents, self._inferred()):
            device, model = self.loaded.device, cast(Any, self.loaded.model)
            with torch.no_grad():
                drawn = model.redraw(self.images.to(device), self.latents[None].to(device))
            drawn = drawn.map(Tensor.cpu)
        log_masks = drawn.log_masks.clone()
        log_masks[:, list(self.removed)] = _EMPTY
        kept = replace(drawn, log_masks=log_masks.log_softmax(dim=1))
        picture = image_bytes(kept.reconstruction()[0])
        return enlarged(picture, _zoom(picture))

    def _inferred(self) -> Tensor:
        assert self.decomposition.latents is not None
        return self.decomposition.latents[0]

    def with_latent(self, slot: int, values: Sequence[float]) -> Exploration:
        """The same with the first latent numbers of a slot changed."""
        assert self.latents is not None
        latents = self.latents.clone()
        latents[slot, : len(values)] = torch.tensor(values)
        return replace(self, latents=latents)

    def swapped(self, first: int, second: int) -> Exploration:
        """The same with the latents of two slots exchanged."""
        assert self.latents is not None
        order = list(range(len(self.latents)))
        order[first], order[second] = second, first
        return replace(self, latents=self.latents[order])

    def reset(self) -> Exploration:
        """The same without changes."""
        return replace(self, latents=None if self.latents is None else self._inferred(), removed=())


def example_images(loaded: LoadedModel, data: Path | None) -> list[Pixels]:
    """The first images of an HDF5 file, an image or a folder; without `data` of the recipe's test, if it is drawn."""
    if data is None:
        if loaded.recipe.locations("test"):
            return []
        with suppress(UnsceneError):  # numba or a download is missing
            source = loaded.recipe.source("test")
            return list(source.batch(range(min(EXAMPLES, len(source))))["image"])
        return []
    if data.suffix in (".h5", ".hdf5"):
        store = SceneStore(data)
        return list(store.batch(range(min(EXAMPLES, len(store))))["image"])
    _, named = named_images([data])
    channels = ContrastSettings(channels=loaded.contrast.channels)  # `Exploration` does the rest
    return [read_image(image.path, image.frame, channels) for image in named[:EXAMPLES]]


def explore(loaded: LoadedModel, data: Path | None = None, port: int | None = None, browser: bool = True) -> None:
    """Serve the page on this machine alone until Ctrl-C. ExtraError: the extra `explore` is not installed."""
    page = build_page(loaded, example_images(loaded, data))
    try:
        page.launch(**page_settings(), server_port=port, inbrowser=browser)
    except OSError as error:
        raise RecipeError(f"no page can be served there ({error}). Name another port with --port.") from error


def page_settings() -> dict[str, Any]:
    """How gradio serves the page: to this machine alone, with this machine's fonts."""
    gradio = import_gradio()
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return {"server_name": "127.0.0.1", "share": False, "show_error": True, "theme": theme, "footer_links": []}


def import_gradio() -> Any:
    """gradio, which then reports nothing to its makers."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    return import_extra("gradio", "explore")


def build_page(loaded: LoadedModel, examples: Sequence[Pixels] = ()) -> Any:
    """The page of a model as gradio's Blocks. What the model lacks is shown, but cannot be used."""
    gradio = import_gradio()
    blank = Exploration.of_image(loaded, np.full((loaded.size, loaded.size, 3), 128, np.uint8))
    names = blank.slot_names()
    choices = [(name, slot) for slot, name in enumerate(names)]
    first = blank.decomposition.foreground[0]
    redraws = blank.latents is not None
    length = 0 if blank.latents is None else blank.latents.shape[1]
    has_slots = can_change_slots(loaded)
    models = {len(names): loaded}

    part = f"its middle {loaded.crop} x {loaded.crop} pixels, resized to" if loaded.crop else "it as"
    with gradio.Blocks(title=f"unscene: {loaded.name}") as page:
        gradio.Markdown(f"## {loaded.name}\nDrop an image. The model sees {part} {loaded.size} x {loaded.size} pixels.")
        state = gradio.State()
        with gradio.Row():
            image = gradio.Image(label="Image", type="numpy", image_mode="RGB", sources=["upload", "clipboard"])
            found = gradio.Image(label="Masks and boxes", interactive=False, format="png")
        gallery = gradio.Gallery(
            list(examples),
            label="Examples",
            columns=6,
            height=200,
            fit_columns=False,
            visible=bool(examples),
            allow_preview=False,
        )
        with gradio.Row():
            threshold = gradio.Slider(0, 1, 0, step=0.01, label="Least score of an object")
            count = gradio.Slider(
                2, max(16, len(names)), len(names), step=1, label="Slots K, background included", interactive=has_slots
            )
        table = gradio.Dataframe(
            headers=list(COLUMNS), label="Objects, boxes in pixels of the image", interactive=False
        )
        slots = gradio.Gallery(
            label="Slots: mask, component", columns=3, height="auto", object_fit="contain", interactive=False
        )
        gradio.Markdown(
            "### Change the scene" if redraws else "### Change the scene\nThis model draws no scene from latents alone."
        )
        with gradio.Row():
            scene = gradio.Image(label="Redrawn scene", interactive=False, format="png")
            with gradio.Column():
                removed = gradio.CheckboxGroup(choices, label="Removed slots")
                slot = gradio.Dropdown(choices, value=first, label="Slot", interactive=redraws)
                other = gradio.Dropdown(choices, value=None, label="Swap its latent with that of", interactive=redraws)
                reset = gradio.Button("Undo all changes")
        with gradio.Accordion(f"Latent of the slot, {length} numbers", open=redraws, visible=redraws), gradio.Row():
            sliders = [
                gradio.Slider(-4, 4, 0, step=0.01, label=f"z {number}", min_width=160) for number in range(length)
            ]

        def sliders_of(now: Exploration | None, slot: int) -> list[Any]:
            values = [0.0] * length if now is None or now.latents is None else now.latents[slot].tolist()
            return [gradio.update(value=value, minimum=min(-4.0, value), maximum=max(4.0, value)) for value in values]

        def show_objects(now: Exploration | None, threshold: float) -> tuple[Any, Any]:
            return (None, None) if now is None else now.objects(threshold)

        def decompose(pixels: Pixels | None, count: int, threshold: float) -> list[Any]:
            if pixels is None:
                return [None] * 5 + [gradio.update()] * (3 + length)
            try:
                if count not in models:
                    models[count] = loaded.with_slots(count)
                now = Exploration.of_image(models[count], pixels)
            except UnsceneError as error:
                raise gradio.Error(str(error)) from error
            choices = [(name, slot) for slot, name in enumerate(now.slot_names())]
            first = now.decomposition.foreground[0]
            values: tuple[Any, ...] = ([], first, None)
            lists = [gradio.update(choices=choices, value=value) for value in values]
            return [now, *now.objects(threshold), now.slots(), now.scene(), *lists, *sliders_of(now, first)]

        def changed(change: Any, now: Exploration | None, *values: Any) -> tuple[Any, Any]:
            now = None if now is None else change(now, *values)
            return now, None if now is None else now.scene()

        def move(now: Exploration, slot: int, *values: float) -> Exploration:
            return now.with_latent(slot, values)

        def remove(now: Exploration, removed: list[int]) -> Exploration:
            return replace(now, removed=tuple(removed))

        def swap(now: Exploration | None, slot: int, other: int | None) -> list[Any]:
            if now is not None and other is not None:
                now = now.swapped(slot, other)
            return [*changed(lambda same: same, now), *sliders_of(now, slot)]

        def pick(event: Any) -> Pixels:
            return examples[int(event.index)]

        pick.__annotations__["event"] = gradio.SelectData

        def undo(now: Exploration | None, slot: int) -> list[Any]:
            return [*changed(lambda same: same.reset(), now), [], None, *sliders_of(now and now.reset(), slot)]

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        results = [state, found, table, slots, scene, removed, slot, other, *sliders]
        for event in (image.change, count.release):
            event(decompose, [image, count, threshold], results, **quiet)
        gallery.select(pick, None, image, **quiet)
        threshold.release(show_objects, [state, threshold], [found, table], **quiet)
        removed.input(partial(changed, remove), [state, removed], [state, scene], **quiet)
        slot.input(sliders_of, [state, slot], sliders, **quiet)
        other.input(swap, [state, slot, other], [state, scene, *sliders], **quiet)
        reset.click(undo, [state, slot], [state, scene, removed, other, *sliders], **quiet)
        for slider in sliders:
            slider.release(partial(changed, move), [state, slot, *sliders], [state, scene], **quiet)
    return page


def _zoom(picture: Pixels) -> int:
    return -(-_SIDE // int(min(picture.shape[:2])))


def can_change_slots(loaded: LoadedModel) -> bool:
    """Whether the weights fit another number of slots."""
    try:
        loaded.with_slots(loaded.config["model"]["num_slots"] + 1)
    except UnsceneError:
        return False
    return True
