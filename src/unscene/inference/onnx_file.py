"""A model as an ONNX file, for programs without PyTorch.

The graph takes `images` [B, 3, size, size] float32 in 0..1, with B and K fixed, and gives the tensors of a
`Decomposition` by their names. It computes the plain bodies of all operations. The file's metadata hold the recipe, the
provenance of the weights and the index of the background's slot.
"""

from __future__ import annotations

import copy
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from unscene.errors import RecipeError, RunError, import_extra
from unscene.files import write_bytes
from unscene.scene import Decomposition

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

TOLERANCE = 1e-4  # see `_difference`
CANNOT = {
    "explicit_localization": "it reads numbers from tensors while it runs",
    "iodine": "it differentiates its decoder while it runs, and ONNX has no gradients",
}


def export_onnx(loaded: LoadedModel, path: Path, batch_size: int = 1) -> float:
    """Write a model as an ONNX file for `batch_size` images at once; return its largest difference from PyTorch.

    Raises:
        RecipeError: the model cannot be an ONNX graph, or the graph differs by more than 1e-4, and more than float32
            rounds: four times what PyTorch differs from its result in float64. Nothing is written.
        RunError: the file exists, or cannot be written.
        ExtraError: a package of the extra `export` is not installed.
    """
    name = loaded.recipe.model_name
    if name in CANNOT:
        raise RecipeError(f"{name} cannot be exported: {CANNOT[name]}. Run it with unscene, or export another model.")
    if path.exists():
        raise RunError(f"{path} exists, and a model file is never overwritten. Name another one.")
    if batch_size < 1:
        raise RecipeError(f"the number of images at once must be 1 or more, but is {batch_size}.")
    onnxruntime, *_ = (import_extra(package, "export") for package in ("onnxruntime", "onnx", "onnxscript"))
    shape = (batch_size, 3, loaded.size, loaded.size)
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(loaded.device)
    graph = _Graph(loaded.model)
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        expected = graph.decomposition(images)  # before the export: a model may keep constants of its first call
        exported = torch.export.export(graph, (images,), strict=False)
        for logger in ("torch.onnx", "onnx_ir"):
            logging.getLogger(logger).setLevel(logging.ERROR)
        names = list(expected.tensors())
        program = torch.onnx.export(exported, input_names=["images"], output_names=names, verbose=False)
    assert program is not None
    facts = {"recipe": loaded.recipe.text(), "provenance": json.dumps(loaded.provenance, default=str)}
    program.model.metadata_props.update(facts | {"background": str(expected.background)})
    content = program.model_proto.SerializeToString()
    outputs = onnxruntime.InferenceSession(content).run(names, {"images": images.cpu().numpy()})
    found = replace(expected, **{name: torch.as_tensor(output) for name, output in zip(names, outputs, strict=True)})
    expected = expected.map(Tensor.cpu)
    difference, limit = _difference(expected, found), TOLERANCE
    if TOLERANCE < difference < 10 * TOLERANCE:  # is it the rounding of float32? Both differ from float64 then
        with torch.no_grad():
            exact = copy.deepcopy(loaded.model).double()(images.double())
        limit = 4 * _difference(exact.map(Tensor.cpu), expected)
    if not difference <= limit:
        raise RecipeError(
            f"the exported {loaded.name} differs from PyTorch by {difference:.1g}, more than {limit:.1g}. Nothing was "
            "written; run it with unscene."
        )
    write_bytes(path, content)
    return difference


class _Graph(nn.Module):
    """A model that returns the tensors of its Decomposition alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.decomposition = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.decomposition(images).tensors().values())


def _difference(first: Decomposition, second: Decomposition) -> float:
    """The largest difference of two decompositions: of shares, of colours times their shares, of boxes in sides."""
    largest = [(first.masks() * first.components - second.masks() * second.components).abs().max()]
    for name, expected in first.tensors().items():
        found = getattr(second, name)
        if name == "log_masks":
            expected, found = expected.exp(), found.exp()
        if name != "components":  # a colour without a share is not seen: SPACE divides it by its share
            size = float(first.log_masks.shape[-1]) if name == "boxes" else 1.0
            largest.append((expected.float() - found.float()).abs().max() / size)
    return float(torch.stack(largest).max())
