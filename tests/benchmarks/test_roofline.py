"""The bounds on a step's time, and the command that prints and draws them."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import machine_rates, roofline
from benchmarks.machine_rates import MachineRates
from benchmarks.operation_counter import Operation
from benchmarks.part_work import PartWork, work_of_parts
from benchmarks.roofline import table
from unscene.errors import RecipeError, RunError

# 100 FLOP/s in bfloat16, 10 in float32; 50 bytes a second within the cache, 5 beyond
RATES = MachineRates(
    matmul={torch.bfloat16: 100.0, torch.float32: 8.0},
    convolution={torch.bfloat16: 60.0, torch.float32: 10.0},
    copy={100: 50.0, 1000: 5.0},
)


def operation(flops: int = 0, moved: int = 0, part: str = "a", dtype=torch.bfloat16, seconds: float = 1.0) -> Operation:
    return Operation(part, "mm" if flops else "add", flops, moved, dtype, seconds)


def test_roof_is_the_better_of_the_two_rates():
    assert RATES.flops(torch.bfloat16) == 100
    assert RATES.flops(torch.float32) == 10
    assert RATES.flops(torch.float64) == 100, "not measured: no bound may be too high"


def test_bytes_move_at_the_rate_of_a_copy_that_is_no_larger():
    assert RATES.bandwidth(50) == 50
    assert RATES.bandwidth(999) == 50
    assert RATES.bandwidth(1000) == 5
    assert RATES.bandwidth(10**9) == 5
    risen = MachineRates(RATES.matmul, RATES.convolution, {100: 1.0, 1000: 5.0})
    assert risen.bandwidth(100) == 5, "what a large copy reaches, a small one is allowed"


def test_better_of_two_measurements():
    first = MachineRates({torch.float32: 1.0}, {torch.float32: 4.0}, {8: 3.0, 16: 2.0})
    second = MachineRates({torch.float32: 2.0}, {torch.float32: 3.0}, {8: 1.0, 16: 5.0})
    assert first.best(second) == MachineRates({torch.float32: 2.0}, {torch.float32: 4.0}, {8: 3.0, 16: 5.0})


def test_bounds_by_hand():
    operations = [
        operation(flops=200, moved=50),  # 2 s of FLOPs, 1 s of bytes
        operation(flops=10, moved=100, dtype=torch.float32),  # 1 s, 2 s
        operation(moved=5000),  # 1000 s of bytes
    ]
    work = PartWork.of(operations, RATES, seconds=2010.0)
    assert (work.flops, work.matrix_bytes, work.other_bytes, work.operations) == (210, 150, 5000, 3)
    assert work.flops_seconds == pytest.approx(3)
    assert work.bytes_seconds == pytest.approx(1003)
    assert work.bound == pytest.approx(2 + 2 + 1000)
    assert work.share == pytest.approx(1004 / 2010)


def test_part_without_work_has_no_share():
    assert PartWork.of([], RATES, seconds=0.0).share == 0


def test_parts_time_is_the_median_of_the_steps():
    steps = [
        [operation(seconds=seconds), operation(seconds=seconds), operation(part="b")] for seconds in (1.0, 2.0, 50.0)
    ]
    work = work_of_parts(["a", "b", "c"], steps, RATES)
    assert {name: part.seconds for name, part in work.items()} == {"a": 4.0, "b": 1.0, "c": 0}
    assert work["a"].operations == 2


def test_table_has_the_unexplained_time():
    work = {"a": PartWork.of([operation(flops=100, moved=50)], RATES, 2.0)}
    total = PartWork.of([operation(flops=100, moved=50)], RATES, 5.0)
    lines = table(work, total).splitlines()
    assert lines[1].split()[0] == "a"
    assert lines[1].split()[-2:] == ["2,000.00", "0.50"]
    assert lines[2].split()[-1] == "3,000.00"
    assert lines[3].split()[-1] == "0.20"


def test_rates_are_measured_for_the_dtypes_of_the_training(monkeypatch):
    monkeypatch.setattr(machine_rates, "_ROUNDS", 1)
    monkeypatch.setattr(machine_rates, "_SECONDS", 0)
    monkeypatch.setattr(machine_rates, "_SIZES", (2**18, 2**20))
    rates = machine_rates.measured_rates("cpu", bfloat16=True, smaller=64)
    assert set(rates.matmul) == set(rates.convolution) == {torch.bfloat16, torch.float32}
    assert list(rates.copy) == [2**12, 2**14]
    assert min([*rates.matmul.values(), *rates.convolution.values(), *rates.copy.values()]) > 0
    assert set(machine_rates.measured_rates("cpu", bfloat16=False, smaller=64).matmul) == {torch.float32}


@pytest.fixture
def quick(monkeypatch, tmp_path, tiny):
    """Words for a command that takes a second."""
    monkeypatch.setattr(roofline, "measured_rates", lambda device, bfloat16: RATES_OF_A_MACHINE)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(tiny().text())
    return ["--recipe", str(recipe), "--batch", "2", "--rounds", "1", "--seconds", "0"]


RATES_OF_A_MACHINE = MachineRates({torch.float32: 1e11}, {torch.float32: 2e11}, {2**20: 5e10, 2**30: 1e10})


def test_command_writes_json_and_figure(quick, tmp_path, capsys):
    written, figure = tmp_path / "roofline.json", tmp_path / "roofline.png"
    roofline.main([*quick, "--json", str(written), "--figure", str(figure), "--set", "model.num_slots=3"])
    found = json.loads(written.read_text())
    parts = found["parts"].values()
    assert sum(part["flops"] for part in parts) == found["step"]["flops"] > 0
    assert sum(part["bound"] for part in parts) == pytest.approx(found["step"]["bound"])
    assert found["precision"] == "float32"
    assert found["settings"] == ["model.num_slots=3"]
    assert found["rates"]["convolution_flops"] == {"float32": 2e11}
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert "vae.decoder" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["roofline.json", "roofline.png", "tiny.yaml"]


def test_figure_that_cannot_be_written(quick, tmp_path):
    with pytest.raises(RunError, match="cannot be written"):
        roofline.main([*quick, "--json", str(tmp_path / "a.json"), "--figure", str(tmp_path / "none" / "a.png")])


def test_change_without_a_value(quick):
    with pytest.raises(RecipeError, match="NAME=VALUE"):
        roofline.main([*quick, "--set", "model.num_slots"])
