"""views: what `unscene` enters are functions, found without any room that `scene` imports."""

import ast
import inspect

import pytest

import unscene
from unscene import scene
from unscene.views import VIEWS, view


@pytest.mark.parametrize("name", ["picture", "coco", "detections"])
def test_package_enters_a_function_of_a_decomposition(name):
    assert next(iter(inspect.signature(view(name)).parameters)) == "decomposition"


def test_each_view_that_a_decomposition_asks_for_is_entered():
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(scene))) if isinstance(node, ast.Call)]
    names = {ast.literal_eval(call.args[0]) for call in calls if ast.unparse(call.func) == "view"}
    assert names == set(VIEWS)
    assert unscene.Decomposition is scene.Decomposition
