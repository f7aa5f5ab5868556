"""YAML of plain values, bounded in size, with the scalars of YAML 1.2: `yes` and `007` are text, 1e-4 is a number.

It does not import pydantic, so that `unscene recipes` is quick.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from unscene.errors import RecipeError

_MOST_CHARACTERS = 250_000
_MOST_VALUES = 20_000  # an alias counts as all of its values
_LARGEST = 2**63
_INT = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_EXPONENT = r"[eE][-+]?[0-9]+"
_FLOAT = re.compile(rf"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)({_EXPONENT})?|[0-9]+{_EXPONENT})|[-+]?\.inf|\.nan")


def read_yaml(text: str, where: str) -> Any:
    """Return the text, numbers, true, false, null, lists and mappings of a YAML text.

    RecipeError: no YAML, a key twice in one mapping, a value of another kind, or too many values.
    """
    try:
        if len(text) > _MOST_CHARACTERS:
            raise ValueError(f"it has {len(text):,} characters, and {_MOST_CHARACTERS:,} are allowed")
        values = yaml.load(text, _Loader)
        _check_plain(values)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise RecipeError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from None
    return values


def to_yaml(values: Any) -> str:
    """Return plain values as YAML. Text that any version of YAML would read as another type is quoted."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML declares it so); without those of YAML 1.1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"'{twice}' stands twice in one mapping, {node.start_mark}")
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        number = read_number(node.value)
        if number is None:
            raise ValueError(f"'{node.value}' is no number")
        return number


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as another type."""


for _kind in (_Loader, _Dumper):
    for _tag, _pattern in {
        "null": "~|null|Null|NULL|",
        "bool": "true|True|TRUE|false|False|FALSE",
        "int": _INT.pattern,
        "float": _FLOAT.pattern,
    }.items():
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), None)
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def read_number(text: str) -> int | float | None:
    """Parse a number, None if it is not one. 1e3 is an int, 1.0 a float. ValueError: a whole number is too large."""
    if _INT.fullmatch(text):
        if len(text) > 20 or abs(int(text)) >= _LARGEST:
            raise ValueError(f"{text[:20]}{'...' if len(text) > 20 else ''} is too large a number")
        return int(text)
    if not _FLOAT.fullmatch(text):
        return None
    number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return int(number) if "e" in text.lower() and abs(number) < _LARGEST and number.is_integer() else number


def _check_plain(values: Any) -> None:
    waiting, seen = [values], 0
    while waiting:
        value = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise ValueError(f"it holds more than {_MOST_VALUES:,} values")
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif value is not None and not isinstance(value, str | int | float):
            raise ValueError(f"a {type(value).__name__} is neither text, number, list nor mapping")
