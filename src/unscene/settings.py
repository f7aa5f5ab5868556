"""Typed settings: a frozen dataclass declares what a setting allows; recipes and the command line are read by it.

A settings class has the decorator `@settings_dataclass`, and its annotations hold its constraints:

    @settings_dataclass
    class VAESettings:
        latent_dim: PositiveInt = 16                      # of pydantic, as NonNegativeFloat
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

They hold in Python (`VAESettings(latent_dim=0)`) and in a recipe (`typed_settings`). Nothing is converted silently:
`"3"`, `True` and `1.5` are no whole numbers. `__post_init__` checks relations between settings and raises a RecipeError
that names the class's own settings; the reader of the recipe adds the dotted name.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo

from unscene.errors import RecipeError, did_you_mean
from unscene.plain_yaml import read_number, read_yaml

Values = dict[str, Any]
T = TypeVar("T")

NonEmptyText = Annotated[str, Field(min_length=1)]
_CONFIG = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", dict: "a mapping"}
_WORDS |= dict.fromkeys((tuple, list), "a list")
_LIMITS = {
    "multiple_of": "a multiple of {}",
    "gt": "above {}",
    "ge": "{} or more",
    "lt": "below {}",
    "le": "at most {}",
    "min_length": "a list of {} or more",
    "max_length": "a list of at most {}",
}
_LONGEST_SHOWN = 80  # characters of a value in a message


def registered_class(table: Mapping[str, str], name: str, kind: str) -> Any:
    """Return a class by its name from a table `{"monet": "unscene.models.monet.model:MONet"}` of this `kind`.

    RecipeError: it is not in the table; the message names the nearest that is.
    """
    if name not in table:
        raise RecipeError(
            f"there is no {kind} '{name}'.{did_you_mean(name, table)} The {kind}s are: {', '.join(sorted(table))}."
        )
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def settings_dataclass(cls: type[T]) -> type[T]:
    """Return a frozen dataclass that checks its values: one that is not allowed is a RecipeError. See the module."""
    checked: Any = pydantic_dataclass(frozen=True, config=_CONFIG)(cls)
    init = checked.__init__

    @functools.wraps(init)
    def checked_init(self: Any, *args: Any, **values: Any) -> None:
        try:
            init(self, *args, **values)
        except ValidationError as error:
            raise RecipeError(_message(error, checked)) from None

    checked.__init__ = checked_init
    return typing.cast(type[T], checked)


def distinct_names(known: Iterable[str]) -> AfterValidator:
    """A constraint on a tuple of text: one or more of these names, each once."""
    choices = list(known)

    def check(names: Sequence[str]) -> Sequence[str]:
        for name in names:
            if name not in choices:
                raise RecipeError(f"must be of {', '.join(choices)}, not {_shown(name)}.{did_you_mean(name, choices)}")
        if not names or len(set(names)) < len(names):
            raise RecipeError(f"must be one or more of {', '.join(choices)}, each once, not [{', '.join(names)}].")
        return names

    return AfterValidator(check)


class Word(str):
    """A value of the command line: text whose meaning depends on the type of its setting, see `read_words`."""


def typed_settings(settings_class: Any, values: Any, section: str, where: str, names_hint: str = "") -> Any:
    """Return an object of any dataclass from plain values by name; a `Word` is read by the type of its setting.

    Dotted names in messages begin with the recipe's `section`. `where` is the owner of the values (`recipe
    'monet/clevr'`), and `names_hint` an addition to the message about an unknown name. RecipeError: an unknown name
    (with the nearest known one), or a value of another type or range.
    """
    try:
        text = json.dumps(read_words(settings_class, values), default=_path_text)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecipeError(f"{where}: '{section}' holds a value that no setting can have ({error}).") from None
    try:
        return _adapter(settings_class).validate_json(text, strict=True)
    except ValidationError as error:
        raise RecipeError(_message(error, settings_class, section, where, names_hint)) from None


def read_words(hint: Any, value: Any) -> Any:
    """Return a value with every `Word` in it replaced by its meaning for that type.

    A word is YAML if the type is a list or a mapping, a number if it is a number; else it stays the text that it is, so
    that a path may be `photos #2`, `trip: 2024` or `007`.
    """
    bare = _bare(hint)
    if isinstance(value, Word):
        return _word_value(hint, str(value))
    if isinstance(value, dict) and (_is_settings(bare) or typing.get_origin(bare) is dict):
        hints = _hints(bare) if _is_settings(bare) else dict.fromkeys(value, typing.get_args(bare)[1])
        return {key: read_words(hints.get(key, str), inner) for key, inner in value.items()}
    return value


def plain(value: Any) -> Any:
    """Return dataclasses and tuples as dictionaries and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, dict | types.MappingProxyType):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _path_text(value: Any) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    raise TypeError(f"{_shown(value)} is a {type(value).__name__}")


_is_settings: Callable[[Any], bool] = dataclasses.is_dataclass


@functools.cache
def _adapter(settings_class: Any) -> TypeAdapter:
    if "__pydantic_config__" not in vars(settings_class):
        settings_class.__pydantic_config__ = _CONFIG  # reads a dataclass of the standard library as strictly
    return TypeAdapter(settings_class)


@functools.cache
def _hints(settings_class: Any) -> dict[str, Any]:
    return typing.get_type_hints(settings_class, include_extras=True)


def _dotted_names(settings_class: Any) -> list[str]:
    names = []
    for key, hint in _hints(settings_class).items():
        inner = _bare(hint)
        names += [f"{key}.{name}" for name in _dotted_names(inner)] if _is_settings(inner) else [key]
    return names


def _options(hint: Any) -> list[tuple[Any, tuple[Any, ...]]]:
    """The types of a union (or the one type), with their constraints."""
    if typing.get_origin(hint) is Annotated:
        inner, *limits = typing.get_args(hint)
        return [(member, (*others, *limits)) for member, others in _options(inner)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for member in typing.get_args(hint) for option in _options(member)]
    return [(hint, ())]


def _bare(hint: Any) -> Any:
    """A type without Annotated and without None."""
    members: list[Any] = [member for member, _ in _options(hint) if member is not types.NoneType]
    return members[0] if len(members) == 1 else hint


def _choices(hint: Any) -> list[Any]:
    """The values of the Literals of a type."""
    literals = (member for member, _ in _options(hint) if typing.get_origin(member) is Literal)
    return [choice for literal in literals for choice in typing.get_args(literal)]


def _kinds(hint: Any) -> list[Any]:
    return [typing.get_origin(member) or member for member, _ in _options(hint)] + [*map(type, _choices(hint))]


def _word_value(hint: Any, text: str) -> Any:
    kinds = _kinds(hint)
    if any(kind in (tuple, list, dict) or _is_settings(kind) for kind in kinds):
        return read_yaml(text, f"'{_shown(text)}'")
    if (text == "null" and types.NoneType in kinds) or (not text and str not in kinds):
        return None
    if text in ("true", "false") and bool in kinds:
        return text == "true"
    if int not in kinds and float not in kinds:
        return text
    try:
        number = read_number(text)
    except ValueError as error:
        raise RecipeError(f"{error}.") from None
    return text if number is None else number


def _message(
    error: ValidationError, settings_class: Any, section: str = "", where: str = "", names_hint: str = ""
) -> str:
    """One line about the first setting that pydantic refuses; an unknown name comes before a wrong value."""
    details = error.errors(include_url=False)
    details.sort(key=lambda detail: detail["type"] != "unexpected_keyword_argument")
    located = [_locate(settings_class, detail["loc"], section) for detail in details]
    name, hint = located[0]
    if details[0]["type"] == "unexpected_keyword_argument":
        own = ["name"] if section in ("model", "data") else []
        known = [f"{section}.{other}".lstrip(".") for other in (*own, *_dotted_names(settings_class))]
        owner = where or settings_class.__name__
        return f"{owner} has no setting '{name}'.{did_you_mean(name, known)} {names_hint}".rstrip()
    same_setting = [detail for detail, (other, _) in zip(details, located, strict=True) if other == name]
    return f"{where}: {_refusal(same_setting, name, hint, section)}".removeprefix(": ")


def _refusal(details: Sequence[Any], name: str, hint: Any, section: str) -> str:
    """What is wrong with one setting; pydantic gives a detail for every type of a union."""
    kinds, value = {detail["type"] for detail in details}, details[0]["input"]
    if "value_error" in kinds:
        reason = str(details[0]["ctx"]["error"])
        if not _is_settings(_bare(hint)):  # a constraint of one setting
            return f"{name} {reason}"
        if not name:
            return reason
        first = re.split(r"\W", reason)[0]
        return f"{name}{'.' if first in _hints(_bare(hint)) else ': '}{reason}"
    if kinds & {"missing", "missing_argument"}:
        return f"{name} must be given."
    if kinds & {"dataclass_type", "dataclass_exact_type"}:
        return f"'{name}' holds settings, it cannot be {_shown(value)} itself."
    if kinds & {"json_invalid", "string_unicode"}:
        return f"'{section or name}' holds text that is not Unicode. Rename the file or folder, or set a UTF-8 locale."
    if value is None:
        return f"{name} is empty. Give it a value, or leave it out."
    if value == "" and "string_too_short" in kinds:
        return f"{name} is empty. Give it a value{f': --{name} VALUE' if section else ''}."
    if "finite_number" in kinds and int not in _kinds(hint):
        return f"{name} must be a finite number, not {value}."
    outside = any(kind.startswith(("greater_", "less_", "multiple_", "too_")) for kind in kinds)
    expected = (_range(hint) if outside else "") or _type(hint)
    correction = did_you_mean(value, map(str, _choices(hint))) if isinstance(value, str) else ""
    if str in _kinds(hint) and not _choices(hint):
        correction = f" In quotes it is text: '{_shown(value)}'."
    return f"{name} must be {expected}, not {_shown(value)}.{correction}"


def _locate(settings_class: Any, location: Iterable[int | str], section: str) -> tuple[str, Any]:
    """The dotted name of a setting and its type, from where pydantic found an error."""
    names, hint = [section] if section else [], settings_class
    for part in location:
        inner = _bare(hint)
        kind = typing.get_origin(inner)
        if _is_settings(inner):
            hints = _hints(inner)
            names.append(list(hints)[part] if isinstance(part, int) else part)  # a number: of an argument without name
            hint = hints.get(names[-1], Any)
        elif kind is dict:
            names.append(str(part))
            hint = typing.get_args(inner)[1]
        elif kind in (tuple, list) and isinstance(part, int):
            hint = typing.get_args(inner)[0]
            names += [str(part)] if _is_settings(hint) else []
        # any other part names the member of a union that was tried
    return ".".join(names), hint


def _type(hint: Any) -> str:
    words = [_WORDS.get(kind) for kind in (typing.get_origin(member) or member for member, _ in _options(hint))]
    choices = [f"one of {', '.join(map(str, _choices(hint)))}"] if _choices(hint) else []
    items = [item for item in typing.get_args(_bare(hint)) if item is not Ellipsis]
    if typing.get_origin(_bare(hint)) is tuple and Ellipsis not in typing.get_args(_bare(hint)):
        return f"a list of {len(items)}"
    return " or ".join([word for word in dict.fromkeys(words) if word] + choices) or "another value"


def _range(hint: Any) -> str:
    """The limits that a type declares, in words."""
    limits: dict[str, Any] = {}
    for _, declared in _options(hint):
        for limit in (part for item in declared for part in (item.metadata if isinstance(item, FieldInfo) else [item])):
            limits |= {key: getattr(limit, key) for key in _LIMITS if getattr(limit, key, None) is not None}
    if int in _kinds(hint):  # above 0 is 1 or more
        limits |= {"ge": limits.pop("gt") + 1} if "gt" in limits else {}
        limits |= {"le": limits.pop("lt") - 1} if "lt" in limits else {}
    if "ge" in limits and limits.keys() & {"le", "lt"}:
        return f"from {limits['ge']} to {limits['le'] if 'le' in limits else 'below ' + str(limits['lt'])}"
    return " and ".join(text.format(limits[key]) for key, text in _LIMITS.items() if key in limits)


def _shown(value: Any) -> str:
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
