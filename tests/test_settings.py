"""settings: declared constraints hold in Python and in a recipe, messages name the setting, words are read by type."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, PositiveFloat, PositiveInt

from unscene.errors import RecipeError
from unscene.settings import Word, plain, read_words, settings_dataclass, typed_settings


@settings_dataclass
class Group:
    prefix: str
    rate: PositiveFloat = 0.1


@settings_dataclass
class Inner:
    rate: float = 0.5
    kind: Literal["round", "square"] = "round"
    low: int = 0
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise RecipeError(f"low must be at most high, but they are {self.low} and {self.high}.")


@dataclass(frozen=True)
class Foreign:
    """Of the standard library, as a user's own model may have it."""

    depth: int = 1
    share: float = 0.5


@settings_dataclass
class Outer:
    number: PositiveInt
    path: str = "a"
    sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    beta: Annotated[float, Field(ge=0, lt=1)] = 0.0
    side: Annotated[int, Field(multiple_of=32, ge=32)] = 32
    crop: float | None = None
    devices: PositiveInt | Literal["auto"] = "auto"
    normalise: bool | Literal["imagenet"] = False
    rates: dict[str, float] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    foreign: Foreign = field(default_factory=Foreign)
    groups: tuple[Group, ...] = ()


def read(**values):
    return typed_settings(Outer, {"number": 3} | values, "model", "recipe 'r'", "Look it up.")


def test_values_become_what_the_dataclass_says():
    outer = read(sizes=[4, 5], inner={"rate": 2}, groups=[{"prefix": "vae"}])
    assert outer == Outer(3, sizes=(4, 5), inner=Inner(2.0), groups=(Group("vae"),))
    assert isinstance(outer.sizes, tuple)
    assert isinstance(outer.inner.rate, float)


def test_plain_and_back():
    outer = Outer(3, "b", (7,), inner=Inner(0.25, "square"), rates={"vae": 0.1})
    values = plain(outer)
    assert values["sizes"] == [7]
    assert values["inner"] == {"rate": 0.25, "kind": "square", "low": 0, "high": 9}
    assert typed_settings(Outer, values, "model", "r") == outer


def test_a_path_object_is_text():
    assert read(path=Path("photos") / "mine").path == "photos/mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmber": 1}, r"recipe 'r' has no setting 'model\.nmber'\. Did you mean 'model\.number'\? Look it up\."),
        ({"inner": {"rat": 1}}, r"has no setting 'model\.inner\.rat'\. Did you mean 'model\.inner\.rate'"),
        ({"foreign": {"dept": 1}}, r"has no setting 'model\.foreign\.dept'\. Did you mean 'model\.foreign\.depth'"),
        ({"number": 0, "inner": {"rat": 1}}, r"has no setting 'model\.inner\.rat'"),
        ({"inner": {"kind": "squar"}}, r"model\.inner\.kind must be one of round, square, not squar.*'square'"),
        ({"inner": {"rate": [1]}}, r"model\.inner\.rate must be a number, not \[1\]"),
        ({"inner": {"rate": float("nan")}}, r"model\.inner\.rate must be a finite number, not nan"),
        ({"inner": {"low": 10}}, r"recipe 'r': model\.inner\.low must be at most high, but they are 10 and 9"),
        ({"inner": 5}, r"'model\.inner' holds settings, it cannot be 5 itself"),
        ({"foreign": {"depth": "1"}}, r"model\.foreign\.depth must be a whole number, not 1"),
        ({"foreign": {"share": float("inf")}}, r"model\.foreign\.share must be a finite number"),
        ({"number": "3"}, r"model\.number must be a whole number, not 3"),
        ({"number": 1.5}, r"model\.number must be a whole number, not 1\.5"),
        ({"number": True}, r"model\.number must be a whole number, not True"),
        ({"number": 0}, r"model\.number must be 1 or more, not 0"),
        ({"number": None}, r"model\.number is empty\. Give it a value, or leave it out"),
        ({"number": {1, 2}}, r"holds a value that no setting can have \(\{1, 2\} is a set\)"),
        ({"inner": {"rate": True}}, r"model\.inner\.rate must be a number, not True"),
        ({"sizes": [1, float("inf")]}, r"model\.sizes must be a whole number, not inf"),
        ({"sizes": [1, 0]}, r"model\.sizes must be 1 or more, not 0"),
        ({"sizes": []}, r"model\.sizes must be a list of 1 or more, not \[\]"),
        ({"sizes": 8}, r"model\.sizes must be a list, not 8"),
        ({"pair": [1, 2, 3]}, r"model\.pair must be a list of 2, not \[1, 2, 3\]"),
        ({"share": 0}, r"model\.share must be above 0 and at most 1, not 0"),
        ({"beta": 1}, r"model\.beta must be from 0 to below 1, not 1"),
        ({"side": 33}, r"model\.side must be a multiple of 32"),
        ({"devices": "two"}, r"model\.devices must be a whole number or one of auto, not two"),
        ({"devices": 0}, r"model\.devices must be 1 or more, not 0"),
        ({"normalise": "imagnet"}, r"model\.normalise must be true or false or one of imagenet, not imagnet.*imagenet"),
        ({"rates": 3}, r"model\.rates must be a mapping, not 3"),
        ({"rates": {"vae": "x"}}, r"model\.rates\.vae must be a number, not x"),
        ({"groups": [{"prefix": "a"}, {"prefix": "b", "rate": 0}]}, r"model\.groups\.1\.rate must be above 0, not 0"),
        ({"path": 5}, r"model\.path must be text, not 5\. In quotes it is text: '5'"),
        ({"path": "a\udcff"}, r"'model' holds text that is not Unicode"),
        ({"number": "x" * 500}, r"not x{80}\.\.\.\.$"),
    ],
)
def test_errors_name_the_setting(values, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read(**values)
    assert "\n" not in str(caught.value)


def test_settings_are_a_mapping():
    with pytest.raises(RecipeError, match=r"r: 'model' holds settings, it cannot be 3 itself"):
        typed_settings(Outer, 3, "model", "r")


def test_a_setting_without_default_must_be_given():
    with pytest.raises(RecipeError, match=r"model\.number must be given"):
        typed_settings(Outer, {}, "model", "r")
    with pytest.raises(RecipeError, match=r"number must be given"):
        Outer()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Outer(0), r"^number must be 1 or more, not 0\.$"),
        (lambda: Outer(True), r"^number must be a whole number, not True\.$"),
        (lambda: Outer(1, share=2), r"^share must be above 0 and at most 1, not 2\.$"),
        (lambda: Outer(1, shar=2), r"^Outer has no setting 'shar'\. Did you mean 'share'\?$"),
        (lambda: Inner(low=10), r"^low must be at most high, but they are 10 and 9\.$"),
        (lambda: dataclasses.replace(Outer(1), beta=1.5), r"^beta must be from 0 to below 1, not 1\.5\.$"),
        (lambda: Outer(1, inner={"rate": 1}), r"^'inner' holds settings, it cannot be"),
    ],
)
def test_constraints_hold_in_python(build, message):
    with pytest.raises(RecipeError, match=message):
        build()


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner().rate = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "path", ["photos #2", "trip: 2024", "007", "2024", "1e5", "true", "null", "[a]", "- x", "", "a,b", "~/x", "'q'"]
)
def test_a_path_on_the_command_line_is_the_word_as_it_stands(path):
    assert read(path=Word(path)).path == path


@pytest.mark.parametrize(
    ("name", "word", "value"),
    [
        ("number", "7", 7),
        ("number", "1e3", 1000),
        ("share", "1e-2", 0.01),
        ("share", "1", 1.0),
        ("sizes", "[3, 1e1]", (3, 10)),
        ("rates", "{vae: 0.001}", {"vae": 0.001}),
        ("crop", "null", None),
        ("crop", "0.5", 0.5),
        ("devices", "auto", "auto"),
        ("devices", "2", 2),
        ("normalise", "true", True),
        ("normalise", "imagenet", "imagenet"),
        ("inner", "{rate: 2}", Inner(2.0)),
        ("inner", {"kind": Word("square"), "rate": Word("3")}, Inner(3.0, "square")),
        ("rates", {"vae": Word("0.5")}, {"vae": 0.5}),
    ],
)
def test_a_word_is_read_by_the_type_of_its_setting(name, word, value):
    given = Word(word) if isinstance(word, str) else word
    assert getattr(read(**{name: given}), name) == value


@pytest.mark.parametrize(
    ("name", "word", "message"),
    [
        ("number", "many", r"model\.number must be a whole number, not many"),
        ("number", "1.5", r"model\.number must be a whole number, not 1\.5"),
        ("number", "true", r"model\.number must be a whole number, not true"),
        ("number", "", r"model\.number is empty"),
        ("number", "9" * 5000, r"is too large a number"),
        ("normalise", "yes", r"model\.normalise must be true or false or one of imagenet, not yes"),
        ("sizes", "[3", r"'\[3' is not valid YAML"),
        ("sizes", "8", r"model\.sizes must be a list, not 8"),
        ("inner", "2", r"'model\.inner' holds settings, it cannot be 2 itself"),
    ],
)
def test_a_word_that_cannot_be_meant(name, word, message):
    with pytest.raises(RecipeError, match=message):
        read(**{name: Word(word)})


def test_values_other_than_words_are_unchanged():
    assert read_words(Outer, {"number": "3", "path": "a"}) == {"number": "3", "path": "a"}
