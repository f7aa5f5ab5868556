"""Classes by name, as `module:Class`. A module is imported when its class is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from unscene.errors import RecipeError, did_you_mean


def registered_class(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Return the class of a name.

    Args:
        table: `{"monet": "unscene.models.monet.model:MONet"}`.
        name: the one asked for.
        kind: what the table holds, for the message: `model`.

    Raises:
        RecipeError: it is not in the table; the message names the nearest that is.
    """
    if name not in table:
        raise RecipeError(
            f"there is no {kind} '{name}'.{did_you_mean(name, table)} The {kind}s are: {', '.join(sorted(table))}."
        )
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
