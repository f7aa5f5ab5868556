"""The models by name. Adding one: its file, its recipe, its test, and a line here."""

from __future__ import annotations

from typing import Any

from unscene.settings import registered_class

MODELS = {
    "explicit_localization": "unscene.models.explicit_localization.model:ExplicitLocalization",
    "iodine": "unscene.models.iodine.model:IODINE",
    "monet": "unscene.models.monet.model:MONet",
    "redo": "unscene.models.redo.model:ReDO",
    "rmonet": "unscene.models.rmonet.model:RMONet",
    "space": "unscene.models.space.model:SPACE",
}


def model_class(name: str) -> Any:
    """Return the class of a registered model; it has `Settings`, `forward` and `loss`.

    If its settings can give its masks no gradient, it has `constant_masks`: the setting that does so, or None.

    RecipeError: no model of this name.
    """
    return registered_class(MODELS, name, "model")
