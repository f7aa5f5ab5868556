"""compilation: parts make a whole, and what is kept is known by the code of its parts."""

from __future__ import annotations

import math
from types import ModuleType

from unscene.ops.numba_jit import code_of, compiled_part


def test_parts_call_each_other_and_divide_as_ieee_has_it():
    @compiled_part
    def inverse(number: float) -> float:
        return 1.0 / number

    @compiled_part
    def twice_the_inverse(number: float) -> float:
        return 2 * inverse(number)

    assert twice_the_inverse(4.0) == 0.5
    assert twice_the_inverse(0.0) == math.inf


def test_another_code_has_another_digest(tmp_path):
    modules = []
    for name in ("one", "other"):
        module = ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        (tmp_path / f"{name}.py").write_text("a = 1\n")
        modules.append(module)
    before = code_of(*modules)
    assert code_of(*modules) == before
    (tmp_path / "other.py").write_text("a = 2\n")
    assert code_of(*modules) != before
