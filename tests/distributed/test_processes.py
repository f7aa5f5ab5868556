"""Which process of a distributed training writes, the processes' mean, and noise as one process would draw it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import unscene
from unscene.distributed import processes
from unscene.distributed.processes import (
    is_first_process,
    mean_over_processes,
    normal_like,
    rank_and_world,
    rows_of_all_processes,
    shared_noise,
)
from unscene.models.common.gaussian import sample_gaussian
from unscene.models.rmonet.proposals import sample_anchors

PACKAGE = Path(unscene.__file__).parent
DRAWS = {"rand", "randn", "rand_like", "randn_like", "randint", "randperm", "normal", "bernoulli", "multinomial"}
DRAWS |= {"dropout", "Dropout", "Dropout2d", "rsample"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_NTASKS": "3"}
NAMES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", *STEP)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"LOCAL_RANK": "0"}, True),
        ({"LOCAL_RANK": "1"}, False),  # Lightning's own
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),  # torchrun, second machine
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "2"} | STEP, False),
        ({"SLURM_PROCID": "2"}, True),  # an allocation whose process srun did not start
    ],
)
def test_the_environment_says(monkeypatch, environment, first):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is first


def test_a_mean_over_one_process_is_the_values():
    values = torch.tensor([1.0, 2.0])
    assert mean_over_processes(values) is values


def test_a_mean_over_processes_leaves_this_ones_values(monkeypatch):
    monkeypatch.setattr(processes, "rank_and_world", lambda: (0, 4))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(10.0))
    values = torch.tensor([2.0, 6.0])
    assert mean_over_processes(values).tolist() == [3.0, 4.0]
    assert values.tolist() == [2.0, 6.0]


def test_the_rows_of_all_processes_are_the_whole_batch(monkeypatch):
    whole = torch.rand(6, 3, 4, 5)
    assert rows_of_all_processes(whole) is whole

    def gather(shares: list[torch.Tensor], own: torch.Tensor) -> None:
        assert torch.equal(own, whole[1::3])
        for rank, share in enumerate(shares):
            share.copy_(whole[rank::3])

    monkeypatch.setattr(processes, "rank_and_world", lambda: (1, 3))
    monkeypatch.setattr(torch.distributed, "all_gather", gather)
    own = whole[1::3].contiguous(memory_format=torch.channels_last)
    assert torch.equal(rows_of_all_processes(own), whole)


@pytest.fixture
def as_process(monkeypatch):
    """`as_process(rank, world)` makes this the process of that rank."""
    return lambda rank, world: monkeypatch.setattr(processes, "rank_and_world", lambda: (rank, world))


def test_a_process_alone_is_the_first_of_one():
    assert rank_and_world() == (0, 1)


@pytest.mark.parametrize("shape", [(4, 6, 16), (3, 5), (1,)])
def test_one_process_draws_as_pytorch_does(shape):
    for draw in (torch.randn, torch.rand):
        torch.manual_seed(3)
        shared, then = shared_noise(draw, shape), torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(shared, draw(*shape))
        assert torch.equal(then, torch.rand(1))


def test_noise_like_half_of_a_tensor_is_that_of_randn_like():
    half = torch.zeros(3, 4, 10).chunk(2, dim=-1)[0]
    torch.manual_seed(0)
    shared = normal_like(half)
    torch.manual_seed(0)
    assert torch.equal(shared, torch.randn_like(half))
    assert normal_like(half.double()).dtype == torch.float64


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_draw_the_numbers_of_one_process(as_process, world):
    torch.manual_seed(7)
    whole, then = torch.randn(2 * world, 5), torch.rand(1)
    for rank in range(world):
        as_process(rank, world)
        torch.manual_seed(7)
        assert torch.equal(shared_noise(torch.randn, (2, 5)), whole[rank::world])
        assert torch.equal(torch.rand(1), then)  # all generators go on alike


def test_latents_and_anchors_of_a_part_equal_those_of_the_full_batch(as_process):
    mean, log_variance = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    labels = torch.randint(-1, 2, (4, 50))

    def draw(rank: int, world: int) -> tuple[torch.Tensor, ...]:
        as_process(rank, world)
        torch.manual_seed(1)
        mine = slice(rank, None, world)
        return sample_gaussian(mean[mine], log_variance[mine]), *sample_anchors(labels[mine], 16, 0.5)

    whole = draw(0, 1)
    for rank in range(2):
        for share_noise, whole_noise in zip(draw(rank, 2), whole, strict=True):
            assert torch.equal(share_noise, whole_noise[rank::2])


@pytest.mark.parametrize("room", ["models", "ops"])
def test_nothing_else_draws_in_training(room):
    """A block that drew by itself would draw the same for other scenes, and part from what one process computes."""
    found = [
        f"{path.name} line {node.lineno}: {node.attr}"
        for path in sorted((PACKAGE / room).rglob("*.py"))
        if path.name != "shared_noise.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in DRAWS
        if not _is_handed_over(path, node) and not _is_made_once(path, node)
    ]
    assert (PACKAGE / room).is_dir()
    assert found == []


def _is_handed_over(path: Path, node: ast.Attribute) -> bool:
    """Whether it is the `draw` of a call of shared_noise."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return any(
        isinstance(call.func, ast.Name)
        and call.func.id == "shared_noise"
        and any((argument.lineno, argument.col_offset) == (node.lineno, node.col_offset) for argument in call.args)
        for call in calls
    )


def _is_made_once(path: Path, node: ast.Attribute) -> bool:
    """Whether it is drawn in an `__init__`, by a generator of its own: the same in every process, and no training's."""
    return any(
        isinstance(call, ast.Call)
        and (call.func.lineno, call.func.col_offset) == (node.lineno, node.col_offset)
        and any(keyword.arg == "generator" for keyword in call.keywords)
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef) and function.name == "__init__"
        for call in ast.walk(function)
    )
