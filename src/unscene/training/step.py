"""The parts of a training step: the loss of a batch, its check, the optimisers, the clipping of gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.optim import Optimizer

from unscene.distributed.processes import mean_over_processes
from unscene.errors import RecipeError, TrainingError, did_you_mean
from unscene.runs.trainer_settings import OptimizerName, OptimizerSettings, TemporalSettings
from unscene.scene import Decomposition, Losses, Sequence

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}
_SMALLEST = 1e-6  # of a probability
NOT_FINITE_HINT = (
    "Lower --optimizer.learning_rate, or set --optimizer.clip_norm 10 or --trainer.precision float32. The last "
    "checkpoint, if there is one, is from before it."
)


def autocast(device: torch.device, bfloat16: bool) -> torch.autocast:
    """The precision of a training: bfloat16 in convolutions and matrix products, or float32 everywhere.

    Without a cache: where a weight is used several times, its gradients are added in float32.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False)


class BatchLoss(nn.Module):
    """The loss of a batch as a forward pass, where DistributedDataParallel averages the gradients."""

    def __init__(self, model: nn.Module, bfloat16: bool, temporal: TemporalSettings | None = None) -> None:
        super().__init__()
        self.model, self.in_bfloat16, self.temporal = model, bfloat16, temporal or TemporalSettings()
        reason = getattr(model, "constant_masks", None)
        if reason and self.temporal.motion_weight:  # of a single step the masks do not tell: see `background_steps`
            raise RecipeError(f"trainer.temporal.motion_weight must be 0 where {reason}.")

    def forward(self, images: Tensor, step: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return `loss` and its terms by name, and `Losses.observed`: [B] each, of images [B, 3, H, W] in 0..1."""
        with autocast(images.device, self.in_bfloat16):
            losses: Losses
            losses, decomposition = self.model.loss(images, step)  # type: ignore[operator]
            if self.temporal.is_used:
                pairs = Sequence(images.unflatten(0, (2, -1)))  # of `consecutive_frames`
                terms, weights = temporal_losses(pairs, decomposition, self.temporal)
                losses = replace(losses, terms=losses.terms | terms, weights=losses.weights | weights)
            return {"loss": losses.total, **losses.terms}, losses.observed


def temporal_losses(
    pairs: Sequence, decomposition: Decomposition, settings: TemporalSettings
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The terms [B] that `settings` weigh, in nats for an image, and their weights.

        motion = -sum over the pixels that change of log(1 - m_t m_{t+1}),   m the background's mask
        continuity = sum over objects of w |z_t - z_{t+1}|^2 / 2

    Objects are the foreground's slots, matched by the Hungarian method on the overlap w of their masks,
    sum min(m_t, m_{t+1}) / max(1, sum max(m_t, m_{t+1})).

    Args:
        pairs: frames t and t + 1 of B/2 clips.
        decomposition: of all B images, those of frame t first.
        settings: the weights.

    Raises:
        RecipeError: the model has no background's slot or latents, or they have no gradient.
    """
    terms, weights = {}, {}
    masks = decomposition.masks().squeeze(2)  # [B, K, H, W]
    if settings.motion_weight:
        background = decomposition.background
        # all background: a model that does not learn its objects yet (`background_steps`)
        if background is None or not (masks.requires_grad or (masks[:, background] == 1).all()):
            raise RecipeError("trainer.temporal.motion_weight must be 0: this model learns no mask of the background.")
        first, second = pairs
        changed = (second.images - first.images).abs().amax(dim=1) > settings.motion_threshold  # [B/2, H, W]
        still = masks[:, background].unflatten(0, (2, -1)).prod(dim=0)
        motion = -((1 - still).clamp_min(_SMALLEST).log() * changed).sum(dim=(1, 2))
        terms["motion"], weights["motion"] = motion.repeat(2), settings.motion_weight
    if settings.continuity_weight:
        if decomposition.latents is None or not decomposition.latents.requires_grad:
            raise RecipeError("trainer.temporal.continuity_weight must be 0: this model learns no latents.")
        slots = decomposition.foreground
        distances = []
        of_frames = masks[:, slots].detach().flatten(2), decomposition.latents[:, slots].float()
        halves = [half for values in of_frames for half in values.chunk(2)]
        for m_t, m_next, z_t, z_next in zip(*halves, strict=True):
            shared = torch.minimum(m_t[:, None], m_next[None]).sum(dim=2)  # [K', K']
            overlap = shared / (m_t.sum(dim=1)[:, None] + m_next.sum(dim=1)[None] - shared).clamp_min(1)
            rows, columns = linear_sum_assignment(overlap.cpu().numpy(), maximize=True)
            distance = (z_t[rows] - z_next[columns]).square().sum(dim=1) / 2
            distances.append((overlap[rows, columns] * distance).sum())
        terms["continuity"], weights["continuity"] = torch.stack(distances).repeat(2), settings.continuity_weight
    return terms, weights


def check_finite(mean_loss: Tensor, losses: dict[str, Tensor], step: int) -> None:
    """Raise a TrainingError in all processes if one's mean loss is not finite. `losses`: `loss` and its terms, [B]."""
    if torch.isfinite(mean_over_processes(mean_loss.detach())):
        return
    means = {name: float(mean_over_processes(term.detach().double().mean())) for name, term in losses.items()}
    del means["loss"]
    cause = " and ".join(name for name, mean in means.items() if not math.isfinite(mean)) or "the weighted total"
    shown = ", ".join(f"{name} {mean:.6g}" for name, mean in means.items())
    raise TrainingError(f"step {step:,}: the loss is not finite, because of {cause} ({shown}). {NOT_FINITE_HINT}")


def build_optimizers(model: nn.Module, settings: OptimizerSettings) -> list[Optimizer]:
    """Return one optimiser for each name that the settings use; together they hold every parameter once."""
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
    # Fused Adam rounds differently: with clipping, the plain one keeps the numbers of earlier runs.
    adam: dict[str, Any] = {"betas": settings.betas} | ({} if settings.clip_norm else {"fused": True})
    return [OPTIMIZERS[name](own, **({} if name == "rmsprop" else adam)) for name, own in groups.items()]


def parameters_by_prefix(model: nn.Module, prefixes: Iterable[str]) -> dict[str, list[nn.Parameter]]:
    """Return the parameters by the longest prefix of their name; those without a prefix are last, under ""."""
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


def param_groups(optimizers: list[Optimizer]) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def clip_gradients(optimizers: list[Optimizer], norm: float) -> None:
    """Scale all gradients so that their common norm is at most `norm`."""
    nn.utils.clip_grad_norm_([weight for group in param_groups(optimizers) for weight in group["params"]], norm)
