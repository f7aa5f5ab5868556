"""typed_settings: what words on the command line mean, and plain values made a dataclass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from unscene.errors import RecipeError
from unscene.settings import plain, read_value, typed_settings


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: Literal["round", "square"] = "round"


@dataclass(frozen=True)
class Outer:
    number: int
    path: str = "a"
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise RecipeError("number must be 0 or more.")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        (".5E+2", 50),
        ("-2.5e-3", -0.0025),
        ("1e5", 100_000),
        ("true", True),
        ("[1,2]", [1, 2]),
        ("{vae: 0.001}", {"vae": 0.001}),
        ("my_photos/", "my_photos/"),
        ("e4", "e4"),
        ("[1", "[1"),
        ("", None),
    ],
)
def test_words_mean_what_they_look_like(text, value):
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_a_whole_number_with_an_exponent_is_whole():
    assert typed_settings(Outer, {"number": read_value("1e3")}, "model", "r") == Outer(1000)


def test_values_become_what_the_dataclass_says():
    made = typed_settings(Outer, {"number": 3, "sizes": [4, 5], "inner": {"rate": 2}}, "model", "r")
    assert made == Outer(3, "a", (4, 5), Inner(2.0))
    assert isinstance(made.sizes, tuple)


def test_plain_and_back():
    made = Outer(3, "b", (7,), Inner(0.25, "square"))
    values = plain(made)
    assert values == {"number": 3, "path": "b", "sizes": [7], "inner": {"rate": 0.25, "kind": "square"}}
    assert typed_settings(Outer, values, "model", "r") == made


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": 3, "inner": {"rat": 1}}, r"has no setting 'model\.inner\.rat'\. Did you mean 'model\.inner\.rate'"),
        (
            {"number": 3, "inner": {"kind": "squar"}},
            r"model\.inner\.kind must be one of round, square, not squar.*'square'",
        ),
        ({"number": 3, "inner": {"rate": [1]}}, r"model\.inner\.rate must be a number, not \[1\]"),
        ({"number": 3, "sizes": [1, float("inf")]}, r"model\.sizes must be a whole number, not inf"),
        ({"number": 3, "inner": {"rate": float("nan")}}, r"model\.inner\.rate must be a finite number"),
        ({"number": -1}, r"recipe 'r': number must be 0 or more"),
        ({"number": 3, "path": 5}, r"model\.path must be text, not 5\. As a path it is written \./5"),
        (3, r"'model' holds settings, it cannot be 3"),
    ],
)
def test_errors_name_the_setting(values, message):
    with pytest.raises(RecipeError, match=message):
        typed_settings(Outer, values, "model", "r")


def test_a_setting_without_default_must_be_given():
    with pytest.raises(RecipeError, match=r"model\.number must be given"):
        typed_settings(Outer, {}, "model", "r")
