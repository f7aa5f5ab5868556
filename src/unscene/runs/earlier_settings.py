"""Settings of earlier recipes, which shipped weights and old runs carry, under today's names."""

from __future__ import annotations

from typing import Any

from unscene.settings import Values

# Dotted name, value, and today's settings in the same section. Without any, the value is the only one that is left.
EARLIER: list[tuple[str, Any, Values]] = [
    ("model.empty_slots", "left_out", {"skip_empty_slots": True}),
    ("model.empty_slots", "decoded", {"skip_empty_slots": False}),
    ("model.masks", "stick_breaking", {}),
    ("model.alpha_inside_box", True, {}),
    ("model.head.image_skip", False, {}),
    ("model.pseudo_boxes.variant", "skimage016", {}),
    ("model.background.mask_stride", 1, {}),
    *(("model.foreground_cells", number, {"foreground_colours": number}) for number in (0, 1)),
    *(("model.location.seeds", kind, {"initial_means": kind}) for kind in ("random", "centre")),
    *(("model.location.recentred", shifts, {"window_shifts": shifts}) for shifts in range(3)),
]
_BY_PREFIX = {"names": "name", "groups": "learning_rate", "decays": "weight_decay"}


def with_todays_names(values: Values) -> Values:
    """Rename earlier settings in a recipe's values to today's names, in place, and return the values.

    A setting whose value is not in `EARLIER` keeps its name, so that the error names it.
    """
    for name, value, today in EARLIER:
        *sections, setting = name.split(".")
        section: Any = values
        for key in sections:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict) and section.get(setting) == value:
            del section[setting]
            section.update(today)
    optimizer = values.get("optimizer")
    if isinstance(optimizer, dict):
        _rename_groups(optimizer)
    return values


def _rename_groups(optimizer: Values) -> None:
    """Turn mappings by prefix, in each of which the longest prefix decided, into `param_groups`."""
    groups: dict[str, Values] = {}
    for earlier, setting in _BY_PREFIX.items():
        if isinstance(optimizer.get(earlier), dict):
            for prefix, value in optimizer.pop(earlier).items():
                groups.setdefault(prefix, {"prefix": prefix})[setting] = value
    for prefix in groups:
        inherited = [groups[other] for other in sorted(groups, key=len) if prefix.startswith(other)]
        groups[prefix] = {key: value for group in inherited for key, value in group.items()}
    if groups:
        optimizer["param_groups"] = list(groups.values())
