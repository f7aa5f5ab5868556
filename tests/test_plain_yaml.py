"""plain_yaml: types of scalars, refused values, and reading what was written."""

from __future__ import annotations

import time

import pytest
import yaml

from unscene.errors import RecipeError
from unscene.plain_yaml import read_yaml, to_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("+1_000", 1000),
        ("0.5", 0.5),
        ("1e-4", 1e-4),
        (".5E+2", 50),
        ("-2.5e-3", -0.0025),
        ("1e5", 100_000),
        ("1.0", 1.0),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
        ("true", True),
        ("null", None),
        ("", None),
        ("yes", "yes"),
        ("007", "007"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        ("e4", "e4"),
        ("'7'", "7"),
        ("[1, 2e1]", [1, 20]),
        ("{vae: 0.001}", {"vae": 0.001}),
        ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
    ],
)
def test_scalars_of_yaml_1_2(text, value):
    assert read_yaml(text, "it") == value
    assert type(read_yaml(text, "it")) is type(value)


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "\n".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "is not valid YAML"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("!!python/object:os.system x", "could not determine a constructor"),
        ("!!binary aGVsbG8=", "a bytes is neither text"),
        ("!!int x", "is not valid YAML"),
        ("9" * 5000, "too large a number"),
        ("[" * 3000, "is not valid YAML"),
        (BOMB, "more than 20,000 values"),
        ("a: &a [*a]", "more than 20,000 values"),
        ("x" * 300_000, "300,000 characters"),
    ],
    ids=["open", "twice", "object", "binary", "int", "huge", "deep", "bomb", "circle", "long"],
)
def test_what_is_refused(text, message):
    with pytest.raises(RecipeError, match=message) as caught:
        read_yaml(text, "it")
    assert str(caught.value).startswith("it is not valid YAML")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "value", ["7", "1e5", "1e-4", "yes", "true", "null", "", "a: b", "007", "1:30", "2024-01-01", "~", ".5", "#", "é"]
)
def test_text_stays_text_for_every_reader(value):
    assert read_yaml(to_yaml({"path": value}), "it") == {"path": value}
    assert yaml.safe_load(to_yaml({"path": value})) == {"path": value}


def test_numbers_come_back():
    values = {"a": 1e-5, "b": 3, "c": True, "d": None, "e": [0.1, 1e22]}
    assert read_yaml(to_yaml(values), "it") == values


def test_an_impossible_date_is_text_as_every_date_is():
    """Of YAML 1.1 it is a date, whose reading fails; YAML 1.2 has no dates."""
    assert read_yaml("title: 2020-13-45", "it") == {"title": "2020-13-45"}


def test_a_bomb_of_aliases_takes_no_time():
    levels = ["&l0 [x,x,x,x,x,x,x,x,x,x]"]
    levels += [f"&l{n} [{','.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 30)]
    start = time.process_time()
    with pytest.raises(RecipeError, match="more than 20,000 values"):
        read_yaml(f"about: {{title: [{', '.join(levels)}]}}", "it")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["".join(f"{' ' * n}a{n}:\n" for n in range(600)), "{a: " * 2000])
def test_deep_nesting_is_refused_in_one_line(text):
    with pytest.raises(RecipeError, match="is not valid YAML") as caught:
        read_yaml(text, "it")
    assert len(str(caught.value)) < 300
