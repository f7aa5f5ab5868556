"""The optimisers of a recipe: one for each name that it uses, with a group for each part of the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from unscene.errors import RecipeError, did_you_mean
from unscene.runs.trainer_settings import OptimizerName, OptimizerSettings

OPTIMIZERS: dict[OptimizerName, type[Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}


def build_optimizers(model: nn.Module, settings: OptimizerSettings) -> list[Optimizer]:
    """Return optimisers that together hold every parameter once.

    Raises:
        RecipeError: no parameter begins with the prefix of a group.
    """
    by_prefix = {group.prefix: group for group in settings.param_groups}
    groups: dict[OptimizerName, list[dict[str, Any]]] = {}
    for prefix, parameters in parameters_by_prefix(model, by_prefix).items():
        own = {key: value for key, value in vars(by_prefix[prefix]).items() if value is not None} if prefix else {}
        group = {
            "params": parameters,
            "lr": own.get("learning_rate", settings.learning_rate),
            "weight_decay": own.get("weight_decay", settings.weight_decay),
        }
        groups.setdefault(own.get("name", settings.name), []).append(group)
    return [OPTIMIZERS[name](own_groups, **_options(name, settings)) for name, own_groups in groups.items()]


def parameters_by_prefix(model: nn.Module, prefixes: Iterable[str]) -> dict[str, list[nn.Parameter]]:
    """Return the model's parameters by the longest prefix of their name; those without one are last, under "".

    Raises:
        RecipeError: no parameter begins with a prefix.
    """
    found: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in (*sorted(prefixes, key=len, reverse=True), "")}
    for name, parameter in model.named_parameters():
        found[next(prefix for prefix in found if name.startswith(prefix))].append(parameter)
    for prefix, parameters in found.items():
        if prefix and not parameters:
            parts = list(dict(model.named_children()))
            raise RecipeError(
                f"optimizer.param_groups has the prefix '{prefix}', but no parameter of the model begins with it."
                f"{did_you_mean(prefix, parts)} The model's parts are: {', '.join(parts)}."
            )
    return {prefix: parameters for prefix, parameters in found.items() if parameters}


def param_groups(optimizers: Sequence[Optimizer]) -> list[dict[str, Any]]:
    """The parameter groups of all optimisers."""
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def clip_gradients(optimizers: Sequence[Optimizer], norm: float) -> None:
    """Scale all gradients so that their common norm is at most `norm`."""
    nn.utils.clip_grad_norm_([each for group in param_groups(optimizers) for each in group["params"]], norm)


def _options(name: OptimizerName, settings: OptimizerSettings) -> dict[str, Any]:
    if name == "rmsprop":
        return {}
    # The fused body rounds differently: with clipping the plain one keeps the numbers of earlier runs.
    return {"betas": settings.betas} | ({} if settings.clip_norm else {"fused": True})
