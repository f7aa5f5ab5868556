"""Settings of earlier recipes, which shipped weights and old runs carry, under today's names."""

from __future__ import annotations

from typing import Any

from unscene.settings import Values

# By dotted name and value, today's settings by dotted name. None: the setting is gone, and this value is what remains.
EARLIER: dict[str, dict[Any, dict[str, Any] | None]] = {
    "model.empty_slots": {"left_out": {"model.skip_empty_slots": True}, "decoded": {"model.skip_empty_slots": False}},
    "model.masks": {"stick_breaking": None},
    "model.alpha_inside_box": {True: None},
    "model.head.image_skip": {False: None},
    "model.location.seeds": {kind: {"model.location.initial_means": kind} for kind in ("random", "centre")},
    "model.location.recentred": {shifts: {"model.location.window_shifts": shifts} for shifts in range(3)},
}


def with_todays_names(values: Values) -> Values:
    """Rename the settings of `EARLIER` in a recipe's values to today's names, in place, and return the values.

    A setting whose value is not in `EARLIER` keeps its name, so that the error names it.
    """
    for name, meanings in EARLIER.items():
        *sections, last = name.split(".")
        section: Any = values
        for key in sections:
            section = section.get(key) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section or section[last] not in meanings:
            continue
        for today, value in (meanings[section.pop(last)] or {}).items():
            *parents, setting = today.split(".")
            target = values
            for key in parents:
                target = target.setdefault(key, {})
            target[setting] = value
    return values
