"""A recipe: every setting of one training, as YAML, checked against those of the model and the data that it names."""

from __future__ import annotations

import copy
import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any

import yaml

from unscene.data import source_classes
from unscene.errors import RecipeError, did_you_mean
from unscene.models import model_class
from unscene.runs.trainer_settings import OptimizerSettings, ScheduleSettings, TrainerSettings
from unscene.settings import Values, check_names, plain, typed_settings


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
        optimizer, schedule, trainer: see `unscene.runs.trainer_settings`.
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

    def build_model(self, pretrained: bool = True) -> Any:
        """Return the model, with fresh weights.

        Args:
            pretrained: False for a model whose own weights are put in next: the ImageNet weights, which its recipe may
                begin with, are neither needed nor downloaded.

        Raises:
            CheckpointError: the ImageNet weights cannot be had.
        """
        settings = self.model
        if not pretrained and hasattr(settings, "backbone"):
            settings = dataclasses.replace(settings, backbone=dataclasses.replace(settings.backbone, pretrained=False))
        return model_class(self.model_name)(settings)

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
    _change(values, changes or {})
    for section in values:
        if section not in SECTIONS:
            raise RecipeError(f"recipe '{name}' has no section '{section}'.{did_you_mean(str(section), SECTIONS)}")
    model_name, model = _named(values, "model", name)
    data_name, data = _named(values, "data", name)
    model_settings, data_settings = model_class(model_name).Settings, source_classes(data_name)[1]
    typed_data = typed_settings(data_settings, data, "data", name)
    _follow_size(model, model_settings, typed_data, name)
    parts = {part: values.get(part) or {} for part in ("validation", "test")}
    for part, differing in parts.items():
        check_names(data_settings, differing, part, name)
        typed_settings(data_settings, {**data, **differing}, part, name)
    recipe = Recipe(
        name=name,
        about=typed_settings(About, values.get("about", {}), "about", name),
        seed=_checked_seed(values.get("seed", 0), name),
        model_name=model_name,
        model=typed_settings(model_settings, model, "model", name),
        data_name=data_name,
        data=typed_data,
        **parts,
        optimizer=typed_settings(OptimizerSettings, values.get("optimizer", {}), "optimizer", name),
        schedule=typed_settings(ScheduleSettings, values.get("schedule", {}), "schedule", name),
        trainer=typed_settings(TrainerSettings, values.get("trainer", {}), "trainer", name),
        values={},
    )
    resolved = {section: plain(getattr(recipe, section)) for section in SECTIONS}
    resolved["model"] = {"name": model_name, **resolved["model"]}
    resolved["data"] = {"name": data_name, **resolved["data"]}
    return dataclasses.replace(recipe, values=resolved)


def _follow_size(model: Values, model_settings: Any, data: Any, recipe: str) -> None:
    """Give the model the size of the data's images, in place."""
    if "size" not in {each.name for each in dataclasses.fields(model_settings)} or not hasattr(data, "size"):
        return
    if model.setdefault("size", data.size) != data.size:
        raise RecipeError(
            f"recipe '{recipe}': model.size is {model['size']} but data.size is {data.size}. "
            "Set --data.size only; the model follows."
        )


def _checked_seed(seed: Any, recipe: str) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise RecipeError(f"recipe '{recipe}': seed must be a whole number from 0 to 2**32 - 1, not {seed!r}.")
    return seed


def _named(values: Values, section: str, recipe: str) -> tuple[str, Values]:
    """The name that a section says, and its other values."""
    rest = dict(_mapping(values, section))
    named = rest.pop("name", None)
    if not isinstance(named, str):
        raise RecipeError(f"recipe '{recipe}' must say '{section}.name'.")
    return named, rest


def _change(values: Values, changes: Values) -> None:
    """Put changes by dotted name into the values, in place; another data source keeps what it has a setting for."""
    before, source = values.get("data"), changes.get("data.name")
    if isinstance(before, dict) and source not in (None, before.get("name")):
        counts = {part: _count(values, changes, part) for part in ("validation", "test")}
        known = {each.name for each in dataclasses.fields(source_classes(str(source))[1])}
        for part in ("data", "validation", "test"):
            values[part] = {key: value for key, value in _mapping(values, part).items() if key in known}
        if {"first", "count"} <= known:
            _hold_out(values, str(source), **counts)
    for key, value in changes.items():
        _replace(values, key.split("."), value)


def _count(values: Values, changes: Values, part: str) -> int:
    count = changes.get(f"{part}.count", _mapping(values, part).get("count", 0))
    return count if isinstance(count, int) else 0


def _mapping(values: Values, section: str) -> Values:
    return values[section] if isinstance(values.get(section), dict) else {}


def _hold_out(values: Values, source: str, validation: int, test: int) -> None:
    """One data set for all parts: its last scenes are the test, those before them the validation, all others training.

    Raises:
        RecipeError: it is not said how many each has.
    """
    if min(validation, test) < 1:
        raise RecipeError(
            f"data.name {source} takes training, validation and test from one data set, but the "
            "recipe does not say how many scenes to hold out: add --validation.count and --test.count, 1 or more each."
        )
    values["data"] |= {"first": 0, "count": -(validation + test)}
    values["validation"] |= {"first": -(validation + test), "count": validation}
    values["test"] |= {"first": -test, "count": test}


def _replace(values: Values, path: list[str], value: Any) -> None:
    *parents, last = path
    for parent in parents:
        below = values.setdefault(parent, {})
        values[parent] = below = {} if below is None else below
        if not isinstance(below, dict):
            raise RecipeError(f"'{parent}' of '{'.'.join(path)}' is a value, it has no settings below it.")
        values = below
    values[last] = value
