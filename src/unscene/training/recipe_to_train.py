"""A recipe with the settings that follow from its images: for crops of large images, what the objects' size decides."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm import tqdm

from unscene.data.image_crops import ImageCropsSettings
from unscene.data.image_file import image_size, read_image
from unscene.data.object_size import propose_object_size
from unscene.distributed.processes import is_first_process
from unscene.errors import DataError
from unscene.recipes import load_recipe
from unscene.runs.recipe import Recipe

_SIDE = 3  # of a crop, in diameters of an object
_DENSITY = 0.75  # of the crop's area in squares around objects: as densely as discs are packed
_MOST_SLOTS = 33
_LOOKED_AT = 4  # images


def recipe_to_train(name: str, changes: dict[str, Any]) -> Recipe:
    """Return a recipe with settings changed by dotted name, and with those that `data.object_size` decides.

    This is for data of `image_crops` with an object's size, or with `crop: auto`, whose objects are measured in a first
    look at the images unless their size is given. A crop is 3 objects wide. A model has a slot for every object of a
    densely filled crop, at most 33. The least side of a pseudo box is a third of an object, the longest side of a
    proposed box two objects. What `changes` give stays. The first process prints what was chosen. RecipeError: as
    `load_recipe`. DataError: the images cannot be used, or show no object of a clear size.
    """
    recipe = load_recipe(name, changes)
    data = recipe.data
    if not isinstance(data, ImageCropsSettings) or (data.crop != "auto" and data.object_size is None):
        return recipe
    known = data.object_size if isinstance(data.object_size, float) else None
    diameter, measured = (known, "") if known else _measured(data)
    folder = data.images()
    smallest = min(min(image_size(*image)) for image in zip(folder.paths, folder.frames, strict=True))
    # where not even 2 objects fit into an image, no crop fits, and an error of the source names it
    crop = data.crop if data.crop != "auto" else max(min(round(_SIDE * diameter), smallest), round(2 * diameter))
    seen = data.size * diameter / crop  # pixels of an object in the model's square
    chosen: dict[str, Any] = {"data.crop": crop, "data.object_size": round(diameter, 1)}
    if hasattr(recipe.model, "num_slots"):
        slots = 1 + round(_DENSITY * (crop / diameter) ** 2)
        chosen["model.num_slots"] = min(max(3, slots), _MOST_SLOTS)
    if hasattr(recipe.model, "pseudo_boxes"):
        chosen["model.pseudo_boxes.min_side"] = max(3, round(seen / 3))
    if hasattr(recipe.model, "proposals"):
        chosen["model.proposals.max_side"] = round(2 * seen, 1)
    given = {key: value for key, value in changes.items() if key not in ("data.crop", "data.object_size")}
    if is_first_process():
        shown = ", ".join(f"{key} {given.get(key, value)}" for key, value in chosen.items())
        tqdm.write(f"{measured}For objects of this size: {shown}, data.size {data.size} (an object has {seen:.0f}).")
    return load_recipe(name, chosen | given)


def _measured(data: ImageCropsSettings) -> tuple[float, str]:
    """The diameter of the objects in a few images, and how sure it is."""
    folder = data.images()
    count = len(folder.paths)
    chosen = sorted({round(number) for number in np.linspace(0, count - 1, min(count, _LOOKED_AT))})
    pixels = (read_image(folder.paths[index], folder.frames[index], data.contrast) for index in chosen)
    try:
        size = propose_object_size(pixels)
    except DataError as error:
        raise DataError(
            f"{data.folder}: {error} Give their usual diameter in pixels, --data.object_size N, or train on whole "
            "images, --data.name images."
        ) from None
    images = "1 image" if len(chosen) == 1 else f"{len(chosen)} images"
    doubt = "fairly sure" if size.is_sure else "not sure"
    return size.diameter, (
        f"Objects of about {size.diameter:.0f} pixels: {size.blobs} blobs in {images}, half of them {size.low:.0f} to "
        f"{size.high:.0f} wide ({doubt}). If that is wrong: --data.object_size PIXELS.\n"
    )
