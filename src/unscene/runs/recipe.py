"""A recipe: every setting of one training, as YAML, checked against those of the model and the data that it names."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import os
import re
import shlex
import typing
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from unscene.data import source_class
from unscene.errors import RecipeError, did_you_mean
from unscene.models import model_class
from unscene.plain_yaml import to_yaml
from unscene.runs.earlier_settings import with_todays_names
from unscene.runs.trainer_settings import OptimizerSettings, ScheduleSettings, TrainerSettings
from unscene.settings import Values, plain, read_words, settings_dataclass, typed_settings

Part = typing.Literal["data", "validation", "test"]


@settings_dataclass
class About:
    title: str = ""  # one line
    origin: typing.Literal["paper", "ours"] = "ours"  # `ours` if no paper has it
    source: str = ""  # of its numbers
    note: str = ""  # what a user should know before starting it
    reported: dict[str, float] = field(default_factory=dict)  # scores of the paper, by our metrics' names
    status: str = "not trained here yet"  # results measured here, or why there are none


@settings_dataclass
class _Training:
    """The sections that are alike for every model and source."""

    about: About = field(default_factory=About)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: the typed settings of its sections, see there."""

    name: str  # for instance `rmonet_unet/multi_dsprites`
    about: About
    seed: int  # of weights, order of the data, and every draw in training
    model_name: str
    model: Any
    data_name: str
    data: Any
    validation: Values  # settings that differ from `data` for validation, by name
    test: Values  # and for evaluation
    optimizer: OptimizerSettings
    schedule: ScheduleSettings
    trainer: TrainerSettings
    parts: Mapping[Part, Any]  # typed settings of the data for each part
    values: Values  # the recipe as plain values, nothing left to a default: what `recipe.yaml` of a run holds

    def build_model(self, pretrained: bool = True, training: bool = False) -> Any:
        """Return the model, with fresh weights.

        Args:
            pretrained: False for a model whose own weights are loaded next. It needs no ImageNet weights.
            training: whether gradients, the optimiser's state and a batch must fit into the memory as well.

        Raises:
            RecipeError: its parts do not fit together, or not into this machine's memory.
            CheckpointError: the ImageNet weights are not available.
        """
        settings = random = self.model
        if hasattr(settings, "backbone"):
            random = dataclasses.replace(settings, backbone=dataclasses.replace(settings.backbone, pretrained=False))
        try:
            self._check_memory(random, training)
            return model_class(self.model_name)(settings if pretrained else random)
        except RecipeError as error:
            raise RecipeError(f"recipe '{self.name}', model: {error}") from error

    def _check_memory(self, model_settings: Any, training: bool) -> None:
        """Raise a RecipeError that names the largest setting before anything larger than the memory is allocated."""
        batch_size, size = self.trainer.batch_size, getattr(self.data, "size", None)
        settings = leaves("model", plain(self.model)) | ({"trainer.batch_size": batch_size} if training else {})
        settings |= {"data.size": size, "model.size": None} if size else {}  # the model's follows
        lists = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
        sizes = [(value, name) for name in lists for value in lists[name] if type(value) is int and "step" not in name]
        largest, name = max(sizes, default=(0, ""))
        slots = getattr(self.model, "num_slots", 1)
        needed = 12 * slots * batch_size * (size or 1) ** 2 if training else 0  # the components
        if largest > _IMPOSSIBLE_SIZE:
            needed = 2**80
        elif largest > _USUAL_SIZE:
            try:
                with torch.random.fork_rng([]), torch.device("meta"):
                    model = model_class(self.model_name)(model_settings)
                weights = sum(tensor.nbytes for tensor in itertools.chain(model.parameters(), model.buffers()))
                needed += weights * (4 if training else 1)  # gradients, Adam's two moments
            except (NotImplementedError, RuntimeError) as error:
                if re.search("overflow|allocate", str(error)):  # else it needs values of tensors
                    needed = 2**80
        memory = memory_limit()
        if needed > memory:
            raise RecipeError(
                f"it needs {needed / 2**30:,.0f} GiB of memory or more, and {memory / 2**30:,.1f} may be used here. "
                f"Its largest setting is {name}, {largest}: lower that."
            )

    def data_settings(self, part: Part = "data", **changes: Any) -> Any:
        """Return the typed settings of a part of the data, changed by name. RecipeError: one cannot be."""
        settings = self.parts[part]
        if not changes:
            return settings
        return typed_settings(type(settings), plain(settings) | changes, "data", f"recipe '{self.name}'")

    def locations(self, part: Part = "data") -> dict[str, str]:
        """The settings of a part of the data that name a file or a folder, if the recipe sets them."""
        fields = dataclasses.fields(self.parts[part])
        values = {item.name: getattr(self.parts[part], item.name) for item in fields if item.name in LOCATIONS}
        return {item.name: values[item.name] for item in fields if values.get(item.name, item.default) != item.default}

    def training_locations(self) -> dict[str, str]:
        """The settings that name the files and folders of a training, by dotted name."""
        named = {f"data.{name}": value for name, value in self.locations().items()}
        own = {name: value for name, value in self.locations("validation").items() if name in self.validation}
        return named | {f"validation.{name}": value for name, value in own.items()}

    def source(self, part: Part = "data", **changes: Any) -> Any:
        """Return the data source of a part, with settings changed by name.

        Raises:
            RecipeError: an unknown setting, or an impossible value.
            DataError: the data cannot be used.
        """
        return source_class(self.data_name)(self.data_settings(part, **changes))

    def text(self) -> str:
        """The whole recipe as YAML."""
        return to_yaml({"name": self.name, **self.values})


LOCATIONS = ("folder", "path", "root")  # settings of data that name a file or a folder
_USUAL_SIZE, _IMPOSSIBLE_SIZE = 2**12, 10**8  # of a model's setting that is no step
SECTIONS = ("about", "seed", "model", "data", "validation", "test", "optimizer", "schedule", "trainer")


def read_recipe(values: Values, name: str, changes: Values | None = None) -> Recipe:
    """Check the values of a recipe, with changes by dotted name (`{"model.num_slots": 7}`), and return it.

    RecipeError: a section, a setting or a value that cannot be; the message names the nearest that can.
    """
    where, hint = f"recipe '{name}'", f"`unscene recipes {name} --all` shows every setting."
    typed = functools.partial(typed_settings, where=where, names_hint=hint)
    values = with_todays_names(copy.deepcopy(values))
    values.pop("name", None)
    _change(values, changes or {})
    for section in values:
        if section not in SECTIONS:
            raise RecipeError(f"{where} has no section '{section}'.{did_you_mean(str(section), SECTIONS)}")
    model_name, model_values = _named(values, "model", where)
    data_name, data_values = _named(values, "data", where)
    model_settings, data_settings = model_class(model_name).Settings, source_class(data_name).Settings
    parts: dict[Part, Any] = {"data": typed(data_settings, data_values, "data")}
    differing: dict[Any, Values] = {part: values.get(part) or {} for part in ("validation", "test")}
    for part, own in differing.items():
        if not isinstance(own, dict):
            raise RecipeError(f"{where}: '{part}' holds settings, it cannot be {own} itself.")
        parts[part] = typed(data_settings, {**data_values, **own}, part)
        differing[part] = {key: plain(getattr(parts[part], key)) for key in own}
    size = getattr(parts["data"], "size", None)
    for part in differing:
        if getattr(parts[part], "size", None) != size:
            sizes = f"{part}.size is {parts[part].size} but data.size is {size}"
            raise RecipeError(f"{where}: {sizes}. Set --data.size only.")
    if size is not None and "size" in {item.name for item in dataclasses.fields(model_settings)}:
        model_values.setdefault("size", size)
    model = typed(model_settings, model_values, "model")
    if size is not None and getattr(model, "size", size) != size:
        sizes = f"model.size is {model.size} but data.size is {size}"
        raise RecipeError(f"{where}: {sizes}. Set --data.size only; the model follows.")
    training = {item.name: values[item.name] for item in dataclasses.fields(_Training) if item.name in values}
    sections: dict[str, Any] = {**differing, **vars(typed(_Training, training, ""))}
    sections |= {"model_name": model_name, "model": model, "data_name": data_name, "data": parts["data"]}
    recipe = Recipe(name=name, parts=parts, values={}, **sections)
    resolved = {section: plain(getattr(recipe, section)) for section in SECTIONS}
    for section, registered in (("model", model_name), ("data", data_name)):
        resolved[section] = {"name": registered, **resolved[section]}
    return dataclasses.replace(recipe, values=resolved)


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: of the machine, or the limit of its cgroup (v2 or v1) if less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**62]
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            kind, file = ("memory", "memory.limit_in_bytes") if controllers else ("", "memory.max")
            for group in (Path(path), *Path(path).parents) if controllers in ("", "memory") else ():
                with suppress(OSError, ValueError):  # no limit: there is no file, or `max` is in it
                    limits.append(int((root / "sys/fs/cgroup" / kind / str(group).lstrip("/") / file).read_text()))
    return min(limits)


def as_words(settings: Mapping[str, str]) -> str:
    """Settings by dotted name as the words of a command line, each after a space."""
    return "".join(f" --{name} {shlex.quote(value)}" for name, value in settings.items())


def leaves(name: str, value: Any) -> Values:
    """The values of nested mappings by their dotted names, which begin with `name`."""
    if not isinstance(value, dict):
        return {name: value}
    inner = [leaves(f"{name}.{key}".lstrip("."), item) for key, item in value.items()]
    return {key: leaf for found in inner for key, leaf in found.items()}


def _named(values: Values, section: str, where: str) -> tuple[str, Values]:
    """The name that a section states, and its other values."""
    rest = dict(_mapping(values, section))
    name = rest.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f"{where} must say '{section}.name'.")
    return str(name), rest  # not a `Word`


def _mapping(values: Values, section: str) -> Values:
    return values[section] if isinstance(values.get(section), dict) else {}


def _change(values: Values, changes: Values) -> None:
    """Put changes by dotted name into the values, in place; another data source keeps what it has a setting for."""
    before, source = values.get("data"), changes.get("data.name")
    if isinstance(before, dict) and source not in (None, before.get("name")):
        known = {item.name for item in dataclasses.fields(source_class(str(source)).Settings)}
        for part in ("data", "validation", "test"):
            values[part] = {key: value for key, value in _mapping(values, part).items() if key in known}
        if {"first", "count"} <= known:
            _hold_out(values, changes, str(source))
    for name, value in changes.items():
        *parents, last = name.split(".")
        section = values
        for parent in parents:
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise RecipeError(f"'{parent}' of '{name}' is a value, it has no settings below it.")
        section[last] = copy.deepcopy(value)  # a later change may be within it


def _hold_out(values: Values, changes: Values, source: str) -> None:
    """One data set for all parts: its last scenes are the test, those before them the validation, all others training.

    RecipeError: the recipe does not say how many each has.
    """
    held_out = ("validation", "test")
    counts = [read_words(int, changes.get(f"{part}.count", values[part].get("count"))) for part in held_out]
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise RecipeError(
            f"data.name {source} takes training, validation and test from one data set, but the "
            "recipe does not say how many scenes to hold out: add --validation.count and --test.count, 1 or more each."
        )
    validation, test = counts
    values["data"] |= {"first": 0, "count": -(validation + test)}
    values["validation"] |= {"first": -(validation + test), "count": validation}
    values["test"] |= {"first": -test, "count": test}
