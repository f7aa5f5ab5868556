"""A recipe: every setting of one training, as YAML, checked against the settings of the model and of the data it names."""

from __future__ import annotations

import copy
import dataclasses
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any

import jsonargparse
import yaml

from unscene.data import source_classes
from unscene.errors import RecipeError, did_you_mean
from unscene.models import model_class
from unscene.training.settings import OptimizerSettings, ScheduleSettings, TrainerSettings

Values = dict[str, Any]
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # 1e-4: a number to us, a word to YAML


@dataclass(frozen=True)
class About:
    """What a recipe is.

    Attributes:
        title: one line.
        origin: `paper`, or `ours` for what no paper has.
        source: where its numbers stand.
        note: what a user should know before starting it.
        reported: scores of the paper, by our metrics' names.
        status: what it was seen to reach here, honestly.
    """

    title: str = ""
    origin: typing.Literal["paper", "ours"] = "ours"
    source: str = ""
    note: str = ""
    reported: dict[str, float] = field(default_factory=dict)
    status: str = "not trained here yet"


@dataclass(frozen=True)
class Recipe:
    """A checked recipe.

    Attributes:
        name: for instance `rmonet_unet/multi_dsprites`.
        about: see `About`.
        seed: of weights, order of the data, and every draw in training.
        model_name, model: the registered model and its settings.
        data_name, data: the registered source and its settings.
        validation: settings that differ from `data` for validation, by name.
        test: settings that differ from `data` for evaluation.
        optimizer, schedule, trainer: see `unscene.training.settings`.
        values: all of it as plain values, nothing left to a default: what `recipe.yaml` of a run holds.
    """

    name: str
    about: About
    seed: int
    model_name: str
    model: Any
    data_name: str
    data: Any
    validation: Values
    test: Values
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    trainer: TrainerSettings
    values: Values

    def build_model(self) -> Any:
        """Return the model, with fresh weights."""
        return model_class(self.model_name)(self.model)

    def source(self, part: typing.Literal["data", "validation", "test"] = "data", **changes: Any) -> Any:
        """Return the data source of a part, with settings changed by name.

        Raises:
            RecipeError: a setting that the source does not have.
            DataError: the data cannot be used.
        """
        settings = copy.deepcopy(self.values["data"])
        settings |= {} if part == "data" else copy.deepcopy(self.values[part])
        settings |= changes
        source, settings_class = source_classes(settings.pop("name"))
        return source(typed_settings(settings_class, settings, "data", self.name))

    def text(self) -> str:
        """The whole recipe as YAML."""
        return yaml.safe_dump({"name": self.name, **self.values}, sort_keys=False, allow_unicode=True, width=110)


SECTIONS = ("about", "seed", "model", "data", "validation", "test", "optimizer", "schedule", "trainer")


def read_recipe(values: Values, name: str, changes: Values | None = None) -> Recipe:
    """Check the values of a recipe and return it.

    Args:
        values: sections `model` and `data` with their `name`, and any of the others; what is left out is the default.
        name: what the recipe is called in messages.
        changes: settings by dotted name that replace those of `values`: `{"model.num_slots": 7}`.

    Raises:
        RecipeError: a section, a setting or a value that cannot be; the message names the nearest that can.
    """
    values = copy.deepcopy(values)
    values.pop("name", None)
    for key, value in (changes or {}).items():
        _replace(values, key.split("."), value)
    for section in values:
        if section not in SECTIONS:
            raise RecipeError(f"recipe '{name}' has no section '{section}'.{did_you_mean(section, SECTIONS)}")
    for section in ("model", "data"):
        if not isinstance(values.get(section), dict) or "name" not in values[section]:
            raise RecipeError(f"recipe '{name}' must say '{section}.name'.")
    model, data = dict(values["model"]), dict(values["data"])
    model_name, data_name = model.pop("name"), data.pop("name")
    model_settings = model_class(model_name).Settings
    data_settings = source_classes(data_name)[1]
    parsed_data = typed_settings(data_settings, data, "data", name)
    if "size" in {each.name for each in dataclasses.fields(model_settings)} and hasattr(parsed_data, "size"):
        if model.setdefault("size", parsed_data.size) != parsed_data.size:
            raise RecipeError(
                f"recipe '{name}': model.size is {model['size']} but data.size is {parsed_data.size}. "
                "Set --data.size only; the model follows."
            )
    parsed = {
        "about": typed_settings(About, values.get("about", {}), "about", name),
        "model": typed_settings(model_settings, model, "model", name),
        "data": parsed_data,
        "optimizer": typed_settings(OptimizerSettings, values.get("optimizer", {}), "optimizer", name),
        "schedule": typed_settings(ScheduleSettings, values.get("schedule", {}), "schedule", name),
        "trainer": typed_settings(TrainerSettings, values.get("trainer", {}), "trainer", name),
    }
    parts = {part: dict(values.get(part) or {}) for part in ("validation", "test")}
    for part, differing in parts.items():
        typed_settings(data_settings, {**data, **differing}, part, name)
    seed = values.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise RecipeError(f"recipe '{name}': seed must be a whole number of 0 or more, not {seed!r}.")
    resolved = {
        "about": _plain(parsed["about"]),
        "seed": seed,
        "model": {"name": model_name, **_plain(parsed["model"])},
        "data": {"name": data_name, **_plain(parsed["data"])},
        **parts,
        **{section: _plain(parsed[section]) for section in ("optimizer", "schedule", "trainer")},
    }
    return Recipe(
        name=name, seed=seed, model_name=model_name, data_name=data_name, values=resolved, **parts, **parsed
    )


def typed_settings(settings_class: Any, values: Values, section: str, recipe: str) -> Any:
    """Make a settings dataclass of plain values.

    Raises:
        RecipeError: an unknown name (with the nearest known one), or a value of another type or range.
    """
    _check_names(settings_class, values, section, recipe)
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--settings", type=settings_class)
    try:
        return parser.instantiate_classes(parser.parse_object({"settings": values})).settings
    except RecipeError as error:
        raise RecipeError(f"recipe '{recipe}': {error}") from None
    except (jsonargparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, RecipeError):
                raise RecipeError(f"recipe '{recipe}': {cause}") from None
            cause = cause.__cause__ or cause.__context__
        reason = re.sub(r'Parser key "settings\.?([^"]*)":', lambda key: f"{section}.{key[1]}:", str(error))
        raise RecipeError(f"recipe '{recipe}': {' '.join(reason.split())}") from None


def read_value(text: str) -> Any:
    """What a value on the command line means, as YAML reads it, and 1e-4 as the number that it is."""
    try:
        return float(text) if EXPONENT.fullmatch(text) else yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _check_names(settings_class: Any, values: Any, prefix: str, recipe: str) -> None:
    if not isinstance(values, dict):
        raise RecipeError(f"recipe '{recipe}': '{prefix}' holds settings, it cannot be {values!r} itself.")
    hints = typing.get_type_hints(settings_class)
    for key, value in values.items():
        if key not in hints:
            known = [f"{prefix}.{each}" for each in _dotted_names(settings_class)]
            raise RecipeError(
                f"recipe '{recipe}' has no setting '{prefix}.{key}'.{did_you_mean(f'{prefix}.{key}', known)} "
                f"`unscene recipes {recipe}` shows every setting."
            )
        if dataclasses.is_dataclass(hints[key]):
            _check_names(hints[key], value, f"{prefix}.{key}", recipe)


def _dotted_names(settings_class: Any) -> list[str]:
    names = []
    for key, hint in typing.get_type_hints(settings_class).items():
        names += [f"{key}.{each}" for each in _dotted_names(hint)] if dataclasses.is_dataclass(hint) else [key]
    return names


def _replace(values: Values, path: list[str], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        below = values.setdefault(parent, {})
        values[parent] = below = {} if below is None else below
        if not isinstance(below, dict):
            raise RecipeError(f"'{parent}' of '{'.'.join(path)}' is a value, it has no settings below it.")
        values = below
    values[last] = value


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and their like as dictionaries and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, dict | types.MappingProxyType):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
