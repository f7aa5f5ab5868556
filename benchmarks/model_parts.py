"""Which part of a model an operation belongs to, forwards and backwards."""

from __future__ import annotations

import bisect
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._C._autograd import _get_sequence_nr
from torch.autograd.graph import Node

REST = "rest"


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """A model's parts by name: its children; of a child that is not called itself (it has no `forward`) the children.

    `RMONet` gives backbone, proposals, head, vae.encoder and vae.decoder.
    """
    parts: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        if type(child).forward is not nn.Module.forward:
            parts[name] = child
        else:
            parts |= {f"{name}.{below}": part for below, part in parts_of(child).items()}
    return parts


class ModelParts:
    """Follows which part is at work.

    Forwards, a part is at work while one of its public methods runs (`proposals.loss` as well as its `forward`).
    Backwards, every node of autograd's graph is of the part in which it was made: nodes are numbered in the order of
    their making, so the numbers at which parts took turns say whose a node is.

    Args:
        model: see `parts_of`.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts = parts_of(model)
        self.names = [*self.parts, REST]
        self._working = [REST]
        self._first_nodes: list[int] = []  # rising: from this node on ...
        self._makers: list[str] = []  # ... they are of this part

    def current(self) -> str:
        """The part whose operation runs now."""
        node: Node | None = torch._C._current_autograd_node()
        if node is None or not self._makers:
            return self._working[-1]
        # a node that only stores a parameter's gradient has the greatest number of all: no part's
        return self._makers[bisect.bisect_right(self._first_nodes, node._sequence_nr()) - 1]

    @contextmanager
    def at_work(self, part: str) -> Iterator[None]:
        """Within it, this part is at work."""
        self._working.append(part)
        self._note()
        try:
            yield
        finally:
            self._working.pop()
            self._note()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Within it, the model's parts say when they are at work."""
        self._first_nodes, self._makers = [], []
        self._note()
        methods = [(name, module, method) for name, module in self.parts.items() for method in _methods(module)]
        for name, module, method in methods:
            object.__setattr__(module, method, self._announced(name, getattr(module, method)))
        try:
            yield
        finally:
            for _, module, method in methods:
                object.__delattr__(module, method)  # the class's own is seen again

    def _note(self) -> None:
        self._first_nodes.append(_get_sequence_nr())
        self._makers.append(self._working[-1])

    def _announced(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def announced(*args: Any, **kwargs: Any) -> Any:
            with self.at_work(part):
                return method(*args, **kwargs)

        return announced


def _methods(module: nn.Module) -> list[str]:
    """`forward`, and the public methods of the module's own class."""
    own = (name for name, value in vars(type(module)).items() if inspect.isfunction(value) and not name.startswith("_"))
    return sorted({"forward", *own})
