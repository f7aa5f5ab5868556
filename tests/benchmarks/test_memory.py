"""The memory of a step, measured in processes of their own, and the search for the largest batch."""

from __future__ import annotations

import functools
import inspect
import json
import mmap
import subprocess
import sys

import pytest

from benchmarks import memory
from benchmarks.memory import batch_sizes, largest_batch, table
from benchmarks.step_memory import FULL, KILLED, StepMemory, resident_bytes, step_memory
from unscene.errors import RecipeError, TrainingError

MIB = 2**20

# An image of this size shows among a library's megabytes. Not the width of 8 that `tiny` has: at 256 pixels, oneDNN's
# 1x1 convolution of stride 2 from 8 channels writes past its memory when it computes the gradient of the kernel.
LARGE = {"data.size": 256, "model.backbone.width": 16}


class Machine:
    """A training that takes `base` bytes and `per_image` more an image, on a machine that has `installed`."""

    def __init__(self, base: float, per_image: float, installed: float = float("inf")) -> None:
        self.base, self.per_image, self.installed = base, per_image, installed
        self.asked: list[int] = []

    def __call__(self, size: int) -> StepMemory:
        self.asked.append(size)
        peak = int(self.base + self.per_image * size)
        return StepMemory(size, peak if peak <= self.installed else None)


def test_batch_sizes_by_hand():
    assert batch_sizes(40) == [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40]


def test_line_is_followed_at_once():
    machine = Machine(100, 10)
    found = largest_batch(machine, limit=1000, first=8)  # 90 would fit: 80 does, 96 does not
    assert (found.fitting, found.beyond) == (StepMemory(80, 900), StepMemory(96, 1060))
    assert found.predicted == pytest.approx(900)
    assert machine.asked == [4, 8, 80, 96]


@pytest.mark.parametrize("first", [1, 3, 64, 1000])
@pytest.mark.parametrize("installed", [float("inf"), 700])
@pytest.mark.parametrize("limit", [120, 190, 513, 699])
def test_answer_fits_and_the_next_does_not(first, installed, limit):
    machine = Machine(100, 7, installed)
    found = largest_batch(machine, limit, first)
    sizes = batch_sizes()
    assert found.fitting is not None
    assert found.fitting.fits(limit)
    assert not found.beyond.fits(limit)
    assert sizes.index(found.beyond.batch_size) == sizes.index(found.fitting.batch_size) + 1
    assert len(machine.asked) == len(set(machine.asked)), "a measurement is dear"


def test_growth_that_is_not_linear_is_found_all_the_same():
    found = largest_batch(lambda size: StepMemory(size, 100 + size**2), limit=1000, first=2)
    assert found.fitting == StepMemory(28, 884)
    assert found.beyond == StepMemory(32, 1124)


def test_not_even_one_image():
    found = largest_batch(Machine(100, 10), limit=50, first=8)
    assert (found.fitting, found.predicted) == (None, None)
    assert found.beyond.batch_size == 1
    assert "none" in table({"a": (StepMemory(8, 180), found)}, limit_gib=1)


def test_limit_that_never_binds_is_an_error():
    with pytest.raises(RecipeError, match="--limit-gib"):
        largest_batch(Machine(100, 0), limit=1000, first=8)


def test_step_and_fit():
    assert StepMemory(8, 300, baseline=100).step == 200
    assert StepMemory(8, None).step is None
    assert StepMemory(8, 300).fits(300)
    assert not StepMemory(8, 300).fits(299)
    assert not StepMemory(8, None).fits(1e12)


def test_peak_stays_when_memory_is_given_back():
    before = resident_bytes()
    held = mmap.mmap(-1, 200 * MIB)  # the system's own: what the process has kept would be used again
    held[::4096] = b"x" * (200 * MIB // 4096)  # written, so that every page is there
    during = resident_bytes()
    held.close()
    assert during - before > 190 * MIB
    assert resident_bytes(peak=True) >= during - MIB  # the kernel counts in batches
    assert resident_bytes() < during - 190 * MIB


def test_parents_memory_is_not_its_childs():
    held = b"x" * (300 * MIB)
    imports = "import resource, sys\nfrom contextlib import suppress\nfrom pathlib import Path\n"
    script = f"{imports}{inspect.getsource(resident_bytes)}\nprint(resident_bytes(peak=True))"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(held) == 300 * MIB
    assert 1 * MIB < int(child.stdout) < 100 * MIB


@pytest.mark.slow
def test_largest_batch_fits_and_double_of_it_does_not(tiny, tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny(LARGE).text())
    measured = functools.cache(lambda size: step_memory(str(recipe), size, threads=1, steps=2))
    one, two = measured(1), measured(2)
    assert one.peak is not None
    assert two.peak is not None
    assert one.step == one.peak - one.baseline
    assert two.peak - one.peak > 20 * MIB
    assert one.baseline == pytest.approx(two.baseline, rel=0.1)
    limit = (one.peak + two.peak) / 2
    found = largest_batch(measured, limit, first=2)
    assert (found.fitting, found.beyond) == (one, two)
    assert found.predicted == pytest.approx(one.peak)


def test_command_writes_json(monkeypatch, tiny, tmp_path, capsys):
    recipe, written = tmp_path / "tiny.yaml", tmp_path / "memory.json"
    recipe.write_text(tiny().text())
    machine = Machine(100 * MIB, 10 * MIB)
    monkeypatch.setattr(memory, "step_memory", lambda name, size, *rest: machine(size))
    words = ["--recipe", str(recipe), "--limit-gib", "1", "--set", "trainer.batch_size=24"]
    memory.main([*words, "--json", str(written)])
    found = json.loads(written.read_text())["recipes"][str(recipe)]
    assert found["own_batch"] == {"batch_size": 24, "peak": 340 * MIB, "baseline": 0, "step": 340 * MIB}
    assert found["fitting"]["batch_size"] == 80
    assert found["beyond"] == {"batch_size": 96, "peak": 1060 * MIB, "baseline": 0}
    assert machine.asked == [24, 12, 80, 96]
    last = capsys.readouterr().out.splitlines()[-2].split()
    assert last[1:] == ["24", "0.33", "0.33", "10.0", "80", "0.88", "0.88", "96:", "1.04"]


@pytest.mark.parametrize(("returned", "told"), [(KILLED, None), (FULL, None), (1, "no setting")])
def test_process_that_fails(monkeypatch, returned, told):
    ended = subprocess.CompletedProcess([], returned, "", "a warning\nthere is no setting 'model.slots'\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: ended)
    if told is None:
        assert step_memory("any", 8) == StepMemory(8, None), "too little memory is an answer"
    else:
        with pytest.raises(TrainingError, match=told):
            step_memory("any", 8)
