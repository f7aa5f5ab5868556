"""Published data sets, converted to HDF5 files of scenes. Adding one: its declaration, its test, and a line here.

A declaration is a `conversion.DataSet`. `catalogue.yaml` says of each where it is, how large, which licence and split.
"""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path
from typing import Any

from unscene.errors import RecipeError, did_you_mean
from unscene.plain_yaml import read_yaml

DATA_SETS = {
    "tetrominoes": "unscene.data.published.deepmind:TETROMINOES",
    "objects_room": "unscene.data.published.deepmind:OBJECTS_ROOM",
    "multi_dsprites": "unscene.data.published.deepmind:MULTI_DSPRITES",
    "multi_dsprites_binarized": "unscene.data.published.deepmind:MULTI_DSPRITES_BINARIZED",
    "multi_dsprites_colored_on_colored": "unscene.data.published.deepmind:MULTI_DSPRITES_COLORED_ON_COLORED",
    "clevr": "unscene.data.published.deepmind:CLEVR",
    "cater": "unscene.data.published.deepmind:CATER",
    "clevrtex": "unscene.data.published.image_folders:CLEVRTEX",
    "object_centric_library": "unscene.data.published.hdf5_files:OBJECT_CENTRIC_LIBRARY",
    "movi": "unscene.data.published.movi:MOVI",
    "shapestacks": "unscene.data.published.image_folders:SHAPESTACKS",
    "clevr_images": "unscene.data.published.image_folders:CLEVR_IMAGES",
    "efficient_morl": "unscene.data.published.hdf5_files:EFFICIENT_MORL",
}


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """What `unscene data` says of every data set, by its name."""
    path = Path(__file__).with_name("catalogue.yaml")
    return read_yaml(path.read_text(encoding="utf-8"), str(path))


def catalogue_text(name: str | None = None) -> str:
    """A line for every data set, or all about one: where it is, its size, licence, files, split and format.

    RecipeError: there is none of this name.
    """
    sets = catalogue()
    if name is None:
        width = max(map(len, sets))
        return "\n".join(f"{key:<{width}}  {about['title']}" for key, about in sets.items())
    if name not in sets:
        raise RecipeError(
            f"there is no published data set '{name}'.{did_you_mean(name, sets)} The data sets are: {', '.join(sets)}."
        )
    lines = [f"{name}: {sets[name]['title']}"]
    for key in ("where", "size", "licence", "split", "files", "result", "convert"):
        lines += textwrap.wrap(f"{key:<8}  {sets[name][key]}", 110, subsequent_indent=" " * 10, break_long_words=False)
    return "\n".join(lines)
