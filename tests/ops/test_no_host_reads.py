"""What runs on a GPU in a training step gives the host nothing to wait for: no value read, no number copied there.

All of it runs without a GPU: the first test forbids operations on CPU tensors that are told to go a GPU's way, the
others run shapes alone, on tensors that say they are on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from unscene.models import model_class
from unscene.models.rmonet import multi_otsu
from unscene.models.rmonet.proposals import RegionProposals
from unscene.models.rmonet.pseudo_boxes import pseudo_boxes
from unscene.models.rmonet.settings import ProposalSettings, PseudoBoxSettings
from unscene.ops import boxes as boxes_module
from unscene.ops import components
from unscene.ops.boxes import batched_nms

WAITS = {
    "aten._local_scalar_dense": "a value is read (item, int, bool)",
    "aten.equal": "two tensors are compared",
    "aten.is_nonzero": "a value is read",
    "aten.nonzero": "a shape depends on values",
    "aten.masked_select": "a shape depends on values",
    "aten._unique2": "a shape depends on values",
    "aten.bincount": "a shape depends on values",
    "aten.repeat_interleave": "a shape depends on values",
    "aten.lift_fresh": "numbers become a tensor on the host, and are copied",
}


class NoHostReads(TorchDispatchMode):
    """Raises where PyTorch would make the host wait for a GPU."""

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = str(function.overloadpacket)
        if name in WAITS:
            raise AssertionError(f"{name}: {WAITS[name]}")
        if name in ("aten.index", "aten.index_put_") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool for index in args[1]
        ):
            raise AssertionError(f"{name} with a mask: a shape depends on values")
        devices = {value.device.type for value in args if isinstance(value, Tensor) and value.ndim > 0}
        target = (kwargs or {}).get("device")
        if len(devices) > 1 or (target is not None and devices - {torch.device(target).type}):
            raise AssertionError(f"{name}: from one device to another")
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _no_cached_bins() -> Iterator[None]:
    """The bins that are cached for each device must not come from, nor stay for, another test's kind of tensors."""
    multi_otsu._last_bins.cache_clear()
    yield
    multi_otsu._last_bins.cache_clear()


def region_stage(device: str) -> Callable[[], tuple[Tensor, ...]]:
    """A training step's region stage for two images of 64 px: boxes of the image, pseudo boxes, and their loss."""
    torch.manual_seed(0)
    with torch.device(device):
        rpn = RegionProposals(ProposalSettings(), channels=8)
        pyramid = tuple(torch.randn(2, 8, side, side) for side in (16, 8, 4, 2, 1))
        masks = torch.rand(2, 5, 64, 64)

    def run() -> tuple[Tensor, ...]:
        predicted = rpn(pyramid, (64, 64))
        boxes = rpn.propose(predicted, (64, 64), 5, 0.1).boxes
        found = pseudo_boxes(masks, PseudoBoxSettings(min_score=0.2, floor=1e-4))
        return *rpn.loss(predicted, found[0], found[2]), boxes, found[0]

    return run


def test_gpu_body_reads_no_value_and_equals_the_cpu_body(monkeypatch):
    run = region_stage("cpu")
    torch.manual_seed(1)
    read = run()
    for module in (components, boxes_module):
        monkeypatch.setattr(module, "host_may_read", lambda _: False)
    torch.manual_seed(1)
    with NoHostReads():
        unread = run()
    for expected, found in zip(read, unread, strict=True):
        assert torch.equal(expected, found)
    assert unread[2].any()
    assert unread[3].any()


def test_gpu_body_runs_on_a_gpu_with_shapes_that_depend_on_no_value():
    with FakeTensorMode():  # it has shapes and no values, so what needs a value fails
        run = region_stage("cuda")
        run()
        with NoHostReads():
            shapes = [(tuple(tensor.shape), tensor.device.type) for tensor in run()]
    assert shapes == [((2,), "cuda"), ((2,), "cuda"), ((2, 5, 4), "cuda"), ((2, 32, 4), "cuda")]


@pytest.mark.parametrize("name", ["iodine", "monet", "space"])
def test_loss_and_decomposition_stay_on_the_gpu(name, monkeypatch):
    """With the default settings, in shapes alone. Autograd wants a real GPU: IODINE's own gradients are zeros here."""
    monkeypatch.setattr(
        torch.autograd, "grad", lambda outputs, inputs, **_: [torch.zeros_like(tensor) for tensor in inputs]
    )
    kind = model_class(name)
    with FakeTensorMode():
        with torch.device("cuda"):
            model, images = kind(kind.Settings()), torch.rand(2, 3, 64, 64)
        for module in model.modules():  # `Module.to` does not take these tensors
            for label, buffer in module.named_buffers(recurse=False):
                setattr(module, label, buffer.to("cuda"))
        with NoHostReads():
            losses, trained = model.loss(images, 3)
            with torch.no_grad():
                output = model.eval()(images)
    found = [*losses.terms.values(), *vars(trained).values(), *vars(output).values()]
    assert {tensor.device.type for tensor in found if isinstance(tensor, Tensor)} == {"cuda"}
    assert {term.dtype for term in losses.terms.values()} == {torch.float32}


def test_host_read_guard_raises_on_a_read():
    values = torch.rand(5)
    boxes, scores, valid = torch.rand(1, 3, 4), torch.rand(1, 3), torch.ones(1, 3, dtype=torch.bool)
    for waits in (
        lambda: values.sum().item(),
        lambda: bool(values.any()),
        lambda: values[values > 0.5],
        lambda: values.nonzero(),
        lambda: torch.equal(values, values),
        lambda: torch.tensor([1.0, 2.0]),
        lambda: batched_nms(boxes, scores, valid, 0.5),
    ):
        with pytest.raises(AssertionError, match="aten"), NoHostReads():
            waits()
