"""Plain values, as YAML or the command line gives them, checked against a dataclass of settings and made one."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from typing import Any

import jsonargparse
import yaml

from unscene.errors import RecipeError, did_you_mean

Values = dict[str, Any]
EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")  # 1e-4: a number to us, a word to YAML
WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "dict": "a mapping",
    "tuple": "a list",
}


def typed_settings(settings_class: Any, values: Any, section: str, recipe: str) -> Any:
    """Make a settings dataclass of plain values.

    Args:
        settings_class: the dataclass.
        values: by name; what is left out is the default.
        section: of the recipe, for the message.
        recipe: its name, for the message.

    Raises:
        RecipeError: an unknown name (with the nearest known one), or a value of another type or range.
    """
    check_names(settings_class, values, section, recipe)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--settings", type=settings_class)
    try:
        settings = parser.instantiate_classes(parser.parse_object({"settings": values})).settings
    except (jsonargparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        raise RecipeError(f"recipe '{recipe}': {_reason(error, section, values)}") from None
    _check_finite(plain(settings), section, recipe)
    return settings


def read_value(text: str) -> Any:
    """What a value on the command line means, as YAML reads it, and 1e-4 as the number that it is."""
    if EXPONENT.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() else number
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def check_names(settings_class: Any, values: Any, prefix: str, recipe: str) -> None:
    """Check that a dataclass, and those in it, have every setting that is named.

    Raises:
        RecipeError: one does not exist; the message names the nearest that does.
    """
    if not isinstance(values, dict):
        raise RecipeError(f"recipe '{recipe}': '{prefix}' holds settings, it cannot be {values!r} itself.")
    hints = typing.get_type_hints(settings_class)
    for key, value in values.items():
        if key not in hints:
            named = ["name"] if prefix in ("model", "data") else []
            known = [f"{prefix}.{each}" for each in (*named, *_dotted_names(settings_class))]
            raise RecipeError(
                f"recipe '{recipe}' has no setting '{prefix}.{key}'.{did_you_mean(f'{prefix}.{key}', known)} "
                f"`unscene recipes {recipe} --all` shows every setting."
            )
        if dataclasses.is_dataclass(hints[key]):
            check_names(hints[key], value, f"{prefix}.{key}", recipe)


def plain(value: Any) -> Any:
    """Dataclasses, tuples and their like as dictionaries and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict | types.MappingProxyType):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def _dotted_names(settings_class: Any) -> list[str]:
    names = []
    for key, hint in typing.get_type_hints(settings_class).items():
        names += [f"{key}.{each}" for each in _dotted_names(hint)] if dataclasses.is_dataclass(hint) else [key]
    return names


def _check_finite(values: Any, name: str, recipe: str) -> None:
    if isinstance(values, float) and not math.isfinite(values):
        raise RecipeError(f"recipe '{recipe}': {name} must be a finite number, not {values}.")
    if isinstance(values, list):
        values = dict(enumerate(values))
    for key, value in values.items() if isinstance(values, dict) else ():
        _check_finite(value, f"{name}.{key}", recipe)


def _reason(error: BaseException, section: str, values: Values) -> str:
    """What was wrong: the settings' own words where one of them refused, else jsonargparse's, in ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RecipeError):
            return f"{section}: {cause}" if section in ("data", "validation", "test") else str(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    missing = re.search(r"required: settings\.([\w.]+)", text)
    if missing:
        return f"{section}.{missing[1]} must be given."
    key = re.search(r'Parser key "settings\.?([^"]*)"', text)
    if key is None:
        empty = [name for name, value in values.items() if value is None]
        return f"{section}.{empty[0]} is empty. Give it a value, or leave it out." if empty else f"{section}: {text}"
    name = f"{section}.{key[1]}".rstrip(".")
    found = text.rpartition("value: ")[2]
    choices = re.search(r"Literal\[(.*?)\]", text)
    if choices:
        known = [each.strip(" '\"") for each in choices[1].split(",")]
        other = next((f"{WORDS[each]} or " for each in ("int", "bool") if f"Expected a <class '{each}'>" in text), "")
        return f"{name} must be {other}one of {', '.join(known)}, not {found}.{did_you_mean(found, known)}"
    expected = [WORDS.get(each, each) for each in re.findall(r"Expected a <class '(\w+)'>", text)]
    hint = f" As a path it is written ./{found}." if expected == ["text"] and key[1] in ("path", "folder") else ""
    return (
        f"{name} must be {' or '.join(dict.fromkeys(expected))}, not {found}.{hint}" if expected else f"{name}: {text}"
    )
