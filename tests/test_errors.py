from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unscene import errors
from unscene.errors import ExtraError, ShapeError, UnsceneError, check_shape, did_you_mean, import_extra

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_one_root_and_shows_its_message_alone(kind):
    assert issubclass(kind, UnsceneError)
    assert str(kind("what was wrong")) == "what was wrong"
    assert kind.__doc__
    copied = pickle.loads(pickle.dumps(kind("from a worker")))  # as data loaders send them
    assert type(copied) is kind
    assert str(copied) == "from a worker"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [("ShapeError", ValueError), ("DataError", ValueError), ("RunError", OSError), ("TrainingError", RuntimeError)],
)
def test_errors_are_also_of_the_builtin_kind(kind, builtin):
    with pytest.raises(builtin):
        raise getattr(errors, kind)("x")


def test_check_shape_returns_the_lettered_sizes():
    assert check_shape(torch.zeros(2, 6, 1, 4, 8), "B K 1 H W") == {"B": 2, "K": 6, "H": 4, "W": 8}
    assert check_shape(np.zeros((5, 5)), "N N") == {"N": 5}
    assert check_shape(np.zeros(()), "") == {}


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((2, 3), "B K C"), ((2, 3, 4), "B K"), ((2, 3), "B 1"), ((2, 3), "N N"), ((), "B"), ((3,), ""), ((0, 4), "1 4")],
)
def test_check_shape_shows_expected_and_found(shape, axes):
    with pytest.raises(ShapeError) as caught:
        check_shape(torch.zeros(shape), axes, "the masks")
    assert str(caught.value) == (
        f"the masks must have the axes [{', '.join(axes.split())}], but its shape is {list(shape)}."
    )


@given(st.lists(st.integers(0, 4), max_size=5))
def test_a_shape_fits_its_own_sizes_and_letters(shape):
    array = np.zeros(shape)
    assert check_shape(array, " ".join(map(str, shape))) == {}
    letters = "ABCDE"[: len(shape)]
    assert check_shape(array, " ".join(letters)) == dict(zip(letters, shape, strict=True))


def test_the_nearest_word_is_offered():
    assert did_you_mean("model.n_slots", ["model.num_slots", "model.size"]) == " Did you mean 'model.num_slots'?"


@pytest.mark.parametrize("known", [[], ["entirely", "other"]])
def test_nothing_is_offered_when_nothing_is_near(known):
    assert did_you_mean("zzz", known) == ""


def test_a_package_of_an_extra_is_imported_or_named_with_its_command(tmp_path, monkeypatch):
    assert import_extra("json", "hub").loads("[1]") == [1]
    with pytest.raises(ExtraError, match=r"no_such_package is not installed, .*: pip install 'unscene\[hub\]'\.$"):
        import_extra("no_such_package", "hub")
    (tmp_path / "broken_package.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_package'"):  # not installed completely
        import_extra("broken_package", "hub")
