"""The switch between the two kinds of body that an operation has: a plain one, its definition, and fast ones."""

from __future__ import annotations

import os


def use_plain() -> bool:
    """Return whether every operation must take its plain body: `UNSCENE_PLAIN` is set to anything but 0.

    An operation asks at every call, so a test can set the variable for one call. Plain bodies are for reading, for
    debugging and as the tests' oracle; they give the fast bodies' results, up to the rounding of float32.
    """
    return os.environ.get("UNSCENE_PLAIN", "0") not in ("", "0")
