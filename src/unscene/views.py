"""What a `Decomposition` is shown as and converted to: functions by name, which `unscene/__init__` enters.

So `scene`, below all rooms, needs none that draws or writes files; nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

VIEWS: dict[str, str] = {}  # by name, "module:function"


def view(name: str) -> Any:
    module, _, function = VIEWS[name].partition(":")
    return getattr(import_module(module), function)
