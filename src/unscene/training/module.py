"""The Lightning module: one step of training, one of validation, whatever the model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import lightning
import torch
from torch import Tensor, nn

from unscene.distributed.processes import mean_over_processes
from unscene.errors import RecipeError, TrainingError, did_you_mean
from unscene.metrics import new_metric
from unscene.metrics.health import Health
from unscene.runs.recipe import Recipe
from unscene.runs.trainer_settings import OptimizerName, OptimizerSettings
from unscene.scene import Losses, Scene
from unscene.training.optimizers import CombinedOptimizer

OPTIMIZERS: dict[OptimizerName, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
Value = TypeVar("Value")
_VALIDATION = ("ari_fg", "ari_fg_objects", "ari", "box_ap", "reconstruction")
_METRIC_OF = {"map_50": "box_ap", "located": "object_locations"}  # of a score with another name


class SceneModule(lightning.LightningModule):
    """Trains any registered model by a recipe.

    Args:
        recipe: the whole of it; the learning rate follows its schedule as a function of the step.
        steps_per_epoch: steps in which the data is seen once.
        pretrained: False where a checkpoint's weights are put in next: see `Recipe.build_model`.
    """

    HOW_TO_GO_ON: ClassVar[str] = (
        "Resume the run, whose last checkpoint is from before it, with a lower --optimizer.learning_rate, with "
        "--optimizer.clip_norm 10, or with --trainer.precision float32."
    )

    def __init__(self, recipe: Recipe, steps_per_epoch: int, pretrained: bool = True) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.model = recipe.build_model(pretrained).to(memory_format=torch.channels_last)
        self.last_losses: Losses | None = None
        self.first_step = 0  # of this attempt; later than 0 after a restart

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser with a group of parameters for each prefix that the recipe names; several step as one."""
        settings = self.recipe.optimizer
        groups = parameter_groups(self.model, dict.fromkeys([*settings.groups, *settings.decays, *settings.names]))
        by_name: dict[OptimizerName, list[dict[str, Any]]] = {}
        for prefix, parameters in groups.items():
            group = {
                "params": parameters,
                "lr": _longest(settings.groups, prefix, settings.learning_rate),
                "weight_decay": _longest(settings.decays, prefix, settings.weight_decay),
            }
            by_name.setdefault(_longest(settings.names, prefix, settings.name), []).append(group)
        optimizers = [OPTIMIZERS[name](each, **_options(name, settings)) for name, each in by_name.items()]
        optimizer = optimizers[0] if len(optimizers) == 1 else CombinedOptimizer(optimizers)
        self.peaks = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    @property
    def attempt_step(self) -> int:
        """Steps since the weights were drawn; schedules and annealing follow it."""
        return self.global_step - self.first_step

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the rates of the step's middle: the first is not 0, nor is a cycle's last one the next cycle's peak."""
        factor = self.recipe.schedule.factor((self.attempt_step + 0.5) / self.steps_per_epoch)
        for group, peak in zip(self.trainer.optimizers[0].param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch.

        Raises:
            TrainingError: a term is not finite; the message names it and the step.
        """
        losses, _ = self.model.loss(Scene.from_batch(batch).images, self.attempt_step)
        total: Tensor = losses.total.mean()
        if not torch.isfinite(mean_over_processes(total.detach())):  # alike in all, lest one waits for another
            raise TrainingError(_not_finite(losses, self.global_step))
        self.last_losses = losses
        return total

    def on_validation_epoch_start(self) -> None:
        """Fresh metrics: boxes, masks and reconstruction against the truth where it is known, and the health."""
        by = self.recipe.trainer.keep_best_by
        self.scores = [new_metric(name) for name in dict.fromkeys([*_VALIDATION, _METRIC_OF.get(by, by)])]
        self.health = Health()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Decompose a batch and count."""
        scene = Scene.from_batch(batch)
        decomposition = self.model(scene.images)
        for score in self.scores:
            score.update(scene, decomposition)
        self.health.update(decomposition)

    def on_validation_epoch_end(self) -> None:
        """Put the scores together over all processes; `val/score` is what the best checkpoint is chosen by."""
        if self.trainer.world_size > 1:
            self._gather()
        computed = [each for score in self.scores for each in score.compute().items()]
        results = {name: value for name, value in computed if isinstance(value, float)}  # counts are no curves
        score = results.get(self.recipe.trainer.keep_best_by, -results["reconstruction_mse"])
        self.results = {f"val/{name}": value for name, value in results.items()} | {"val/score": score}
        self.log("val/score", score, rank_zero_only=self.trainer.world_size > 1, logger=False)

    def _gather(self) -> None:
        """Merge the metrics of all processes, in the order of their ranks."""
        everyone: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(everyone, (self.scores, self.health))
        self.scores, self.health = everyone[0]
        for scores, health in everyone[1:]:
            for mine, theirs in zip(self.scores, scores, strict=True):
                mine.merge(theirs)
            self.health.merge(health)


def parameter_groups(model: nn.Module, prefixes: Iterable[str]) -> dict[str, list[nn.Parameter]]:
    """The model's parameters by the longest prefix of their name; those of no prefix are last, under "".

    Raises:
        RecipeError: a prefix that no parameter begins with.
    """
    grouped: dict[str, list[nn.Parameter]] = {each: [] for each in (*sorted(prefixes, key=len, reverse=True), "")}
    for name, parameter in model.named_parameters():
        grouped[next(prefix for prefix in grouped if name.startswith(prefix))].append(parameter)
    for prefix, parameters in grouped.items():
        if prefix and not parameters:
            known = list(dict(model.named_children()))
            raise RecipeError(
                f"optimizer.groups, decays or names has '{prefix}', but no parameter of the model begins so."
                f"{did_you_mean(prefix, known)} Its parts are: {', '.join(known)}."
            )
    return {prefix: parameters for prefix, parameters in grouped.items() if parameters}


def _options(name: OptimizerName, settings: OptimizerSettings) -> dict[str, Any]:
    """What an optimiser is told besides rates and decays."""
    if name == "rmsprop":
        return {}
    # Lightning clips no fused optimiser's gradients in bfloat16
    return {"betas": settings.betas} | ({} if settings.clip_norm else {"fused": True})


def _longest(values: dict[str, Value], prefix: str, otherwise: Value) -> Value:
    """The value of the longest beginning of a prefix that has one."""
    known = [each for each in values if prefix.startswith(each)]
    return values[max(known, key=len)] if known else otherwise


def _not_finite(losses: Losses, step: int) -> str:
    values = {name: float(mean_over_processes(term.detach().double().mean())) for name, term in losses.terms.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    shown = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
    cause = " and ".join(broken) or "the weighted total"
    return f"step {step:,}: the loss is not finite, because of {cause} ({shown}). {SceneModule.HOW_TO_GO_ON}"
