"""What the counter says of operations whose FLOPs and bytes are worked out by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.model_parts import REST, ModelParts, parts_of
from benchmarks.operation_counter import Operation, OperationCounter, stored_bytes
from benchmarks.recipe_step import RecipeStep
from benchmarks.roofline import OPTIMISER, counted_steps


class TwoParts(nn.Module):
    """An encoder that is called, and a pair that only holds two modules: `pair.a` and `pair.b` are parts."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 5, bias=False)
        self.pair = nn.Module()
        self.pair.a = nn.Linear(5, 7, bias=False)
        self.pair.b = WithLoss()

    def forward(self, values: Tensor) -> Tensor:
        return self.pair.b.loss(self.pair.a(self.encoder(values)) * 2)


class WithLoss(nn.Module):
    """A part whose work is not all in `forward`."""

    def forward(self, values: Tensor) -> Tensor:
        return values

    def loss(self, values: Tensor) -> Tensor:
        return values.square().sum()


def counted(work, model: nn.Module | None = None) -> list[Operation]:
    parts = ModelParts(model or nn.Module())
    counter = OperationCounter(parts)
    with parts.followed(), counter:
        work()
    return counter.operations()


def named(operations: list[Operation], name: str) -> Operation:
    (found,) = (operation for operation in operations if operation.name == name)
    return found


def test_linear_layer_forwards_and_backwards():
    # [4, 3] to [4, 5]: 2 * 4 * 3 * 5 = 120 FLOPs, and as many for the weight's gradient and for the input's
    values = torch.ones(4, 3, requires_grad=True)
    layer = nn.Linear(3, 5)
    operations = counted(lambda: layer(values).sum().backward())
    assert [operation.flops for operation in operations if operation.flops] == [120, 120, 120]
    # bias [5], values [4, 3], weight [3, 5] read, [4, 5] written, 4 bytes each
    assert named(operations, "addmm").bytes == 4 * (5 + 12 + 15 + 20)


def test_convolution_forwards_and_backwards():
    # 2 images, 3 to 8 channels, 3x3, padded, 6x6 pixels: 2 * 2 * 36 * 8 * 3 * 9 = 31,104 FLOPs; twice that backwards
    images = torch.ones(2, 3, 6, 6, requires_grad=True)
    kernel = torch.ones(8, 3, 3, 3, requires_grad=True)
    operations = counted(lambda: F.conv2d(images, kernel, padding=1).sum().backward())
    forwards, backwards = named(operations, "convolution"), named(operations, "convolution_backward")
    assert (forwards.flops, backwards.flops) == (31_104, 62_208)
    assert forwards.bytes == 4 * (images.numel() + kernel.numel() + 2 * 8 * 36)
    # the gradient comes from a sum: one number, seen as [2, 8, 6, 6]
    assert backwards.bytes == 4 * (1 + 2 * (images.numel() + kernel.numel()))


def test_images_that_need_no_gradient_cost_none():
    kernel = torch.ones(8, 3, 3, 3, requires_grad=True)
    operations = counted(lambda: F.conv2d(torch.ones(2, 3, 6, 6), kernel, padding=1).sum().backward())
    assert named(operations, "convolution_backward").flops == 31_104


@pytest.mark.parametrize(
    ("work", "numbers"),
    [
        (lambda a, b: a + b, 300),  # two read, one written
        (lambda a, b: a.add_(b), 300),  # itself read and written
        (lambda a, b: a.copy_(b), 200),  # itself written only
        (lambda a, b: a.zero_(), 100),
        (lambda a, b: torch.zeros_like(a), 100),
        (lambda a, b: torch.empty_like(a), 0),
        (lambda a, b: a.view(20, 5).transpose(0, 1)[2:4], 0),  # views of it
        (lambda a, b: a.clone(), 200),
        (lambda a, b: a + b[:1].expand(10, 10), 210),  # ten numbers, ten times over
        (lambda a, b: torch.cat([a, b]), 400),
        (lambda a, b: torch._foreach_add_([a, b], 1.0), 400),  # each read and written
        (lambda a, b: a.sum(), 101),
        (lambda a, b: torch.add(a, 1, out=b), 200 + 100),  # an output is handed in, and may be read
    ],
)
def test_bytes_of_what_is_read_and_written(work, numbers):
    first, second = torch.ones(10, 10), torch.ones(10, 10)
    assert sum(operation.bytes for operation in counted(lambda: work(first, second))) == 4 * numbers


def test_half_precision_is_half_the_bytes():
    (addition,) = counted(lambda: torch.ones(8, dtype=torch.bfloat16).add_(1))[-1:]
    assert (addition.bytes, addition.dtype) == (2 * 8 * 2, torch.bfloat16)


def test_stored_bytes():
    assert stored_bytes(torch.ones(3, 1).expand(3, 100)) == 12
    assert stored_bytes(torch.ones(2, 0)) == 0
    assert stored_bytes(torch.ones((), dtype=torch.float64)) == 8


def test_every_operation_belongs_to_its_part_backwards_too():
    model = TwoParts()
    assert list(parts_of(model)) == ["encoder", "pair.a", "pair.b"]
    operations = counted(lambda: model(torch.ones(2, 3)).backward(), model)
    flops = {
        name: sum(operation.flops for operation in operations if operation.part == name)
        for name in (*parts_of(model), REST)
    }
    assert flops == {
        "encoder": 2 * (2 * 2 * 3 * 5),  # forwards, and the weight's gradient; the input needs none
        "pair.a": 3 * (2 * 2 * 5 * 7),
        "pair.b": 0,
        REST: 0,
    }
    loss_operations = [operation.name for operation in operations if operation.part == "pair.b"]
    assert {"pow", "sum"} <= set(loss_operations)
    assert loss_operations.count("mul") >= 1, "the square's gradient"
    assert [operation.name for operation in operations if operation.part == REST].count("mul") == 2, (
        "times 2, there and back"
    )


def test_model_is_as_before_when_no_longer_followed():
    model = TwoParts()
    before = {name: dict(vars(part)) for name, part in parts_of(model).items()}
    with ModelParts(model).followed():
        assert "forward" in vars(model.encoder)
    assert {name: dict(vars(part)) for name, part in parts_of(model).items()} == before


def test_training_step_has_the_flops_of_pytorchs_own_counter(tiny):
    step = RecipeStep(tiny({"optimizer.clip_norm": 0}))  # with clipping Adam is not one fused operation
    with FlopCounterMode(display=False) as theirs:  # the same step: the rounds of its NMS depend on the boxes
        parts, (operations,) = counted_steps(step, 1)
    assert sum(operation.flops for operation in operations) == theirs.get_total_flops() > 0
    assert parts == ["backbone", "proposals", "head", "vae.encoder", "vae.decoder", OPTIMISER, REST]
    assert {operation.part for operation in operations} == set(parts)
    assert all(operation.seconds > 0 for operation in operations)
    updates = [operation for operation in operations if operation.part == OPTIMISER and "adam" in operation.name]
    parameters = sum(parameter.numel() for parameter in step.model.parameters())
    # weight, gradient and two averages are read, all but the gradient is written; and the count of steps is
    assert sum(operation.bytes for operation in updates) == pytest.approx(7 * 4 * parameters, rel=0.02)
