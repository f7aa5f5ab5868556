"""Compiled functions and their cache key, and loops shared among threads."""

from __future__ import annotations

import math
import multiprocessing
import threading
from itertools import chain
from types import ModuleType

import pytest
import torch

from unscene.ops.numba_jit import code_of, compiled_part, on_all_threads


def test_parts_call_each_other_and_division_follows_ieee_754():
    @compiled_part
    def inverse(number: float) -> float:
        return 1.0 / number

    @compiled_part
    def twice_the_inverse(number: float) -> float:
        return 2 * inverse(number)

    assert twice_the_inverse(4.0) == 0.5
    assert twice_the_inverse(0.0) == math.inf


def test_changed_code_changes_the_digest(tmp_path):
    modules = []
    for name in ("first", "second"):
        module = ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        (tmp_path / f"{name}.py").write_text("a = 1\n")
        modules.append(module)
    digest = code_of(*modules)
    assert code_of(*modules) == digest
    (tmp_path / "second.py").write_text("a = 2\n")
    assert code_of(*modules) != digest


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    initial = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(initial)


@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_parts_cover_the_range_in_order(threads, count):
    parts = on_all_threads(lambda start, stop: list(range(start, stop)), count)
    assert list(chain.from_iterable(parts)) == list(range(count))
    assert len(parts) == max(1, min(threads, count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_parts_run_at_the_same_time(threads):
    together = threading.Barrier(threads)  # no thread passes before all arrive
    on_all_threads(lambda start, stop: together.wait(timeout=20), threads)


def test_few_items_stay_on_one_thread(threads):
    assert len(on_all_threads(lambda start, stop: None, 1)) == 1


def test_an_error_in_any_part_is_raised(threads):
    def fails(start, stop):
        if stop == 10:
            raise ValueError("the last part")

    with pytest.raises(ValueError, match="the last part"):
        on_all_threads(fails, 10)


def _in_a_child(results):
    torch.set_num_threads(2)
    results.put(on_all_threads(lambda start, stop: stop - start, 4))


def test_a_forked_process_starts_its_own_threads(threads):
    on_all_threads(lambda start, stop: None, 4)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_in_a_child, args=(results,))
    child.start()
    assert results.get(timeout=30) == [2, 2]
    child.join()
