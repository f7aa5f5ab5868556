from __future__ import annotations

import multiprocessing
import threading
from itertools import chain

import pytest
import torch

from unscene.ops.threads import on_all_threads


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 11])
def test_the_parts_are_the_whole_in_order(threads, count):
    parts = on_all_threads(lambda start, stop: list(range(start, stop)), count)
    assert list(chain.from_iterable(parts)) == list(range(count))
    assert len(parts) == max(1, min(threads, count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_parts_run_at_the_same_time(threads):
    together = threading.Barrier(threads)  # nobody passes it before all have come
    on_all_threads(lambda start, stop: together.wait(timeout=20), threads)


def test_few_things_are_not_spread(threads):
    assert len(on_all_threads(lambda start, stop: None, 15, least=8)) == 1


def test_an_error_in_any_part_is_raised(threads):
    def fails(start, stop):
        if stop == 10:
            raise ValueError("the last part")

    with pytest.raises(ValueError, match="the last part"):
        on_all_threads(fails, 10)


def _in_a_child(answers):
    torch.set_num_threads(2)
    answers.put(on_all_threads(lambda start, stop: stop - start, 4))


def test_a_forked_process_has_threads_of_its_own(threads):
    on_all_threads(lambda start, stop: None, 4)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_a_child, args=(answers,))
    child.start()
    assert answers.get(timeout=30) == [2, 2]
    child.join()
