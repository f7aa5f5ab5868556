"""The Lightning module: one step of training, one of validation, whatever the model."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor

from unscene.errors import TrainingError
from unscene.metrics import METRICS
from unscene.scene import Losses, Scene
from unscene.training.batches import images_of
from unscene.training.health import Health
from unscene.training.recipe import Recipe

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}


class SceneModule(lightning.LightningModule):
    """Trains any registered model by a recipe.

    Args:
        recipe: the whole of it; the learning rate follows its schedule as a function of the step.
        steps_per_epoch: steps in which the data is seen once.
    """

    def __init__(self, recipe: Recipe, steps_per_epoch: int) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        self.model = recipe.build_model().to(memory_format=torch.channels_last)
        self.last_losses: Losses | None = None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser with a group of parameters for each prefix that the recipe names."""
        settings = self.recipe.optimizer
        rates = dict(sorted(settings.groups.items(), key=lambda each: -len(each[0])))  # the longest prefix first
        grouped: dict[str | None, list[torch.nn.Parameter]] = {prefix: [] for prefix in (*rates, None)}
        for name, parameter in self.model.named_parameters():
            grouped[next((prefix for prefix in rates if name.startswith(prefix)), None)].append(parameter)
        for prefix in rates:
            if not grouped[prefix]:
                raise TrainingError(f"optimizer.groups names '{prefix}', but no parameter of the model begins so.")
        groups = [
            {"params": parameters, "lr": (rate := rates.get(prefix or "", settings.learning_rate)), "peak": rate}
            for prefix, parameters in grouped.items()
            if parameters
        ]
        options: dict[str, Any] = {"weight_decay": settings.weight_decay}
        if settings.name != "rmsprop":
            options["fused"] = True
        return OPTIMIZERS[settings.name](groups, **options)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rates of this step; the warm-up's first step is not 0."""
        factor = self.recipe.schedule.factor((self.global_step + 1) / self.steps_per_epoch)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["peak"] * factor

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """The mean loss of a batch.

        Raises:
            TrainingError: a term is not finite; the message names it and the step.
        """
        losses, _ = self.model.loss(images_of(batch), self.global_step)
        total = losses.total.mean()
        if not torch.isfinite(total):
            raise TrainingError(_not_finite(losses, self.global_step))
        self.last_losses = losses
        return total

    def on_validation_epoch_start(self) -> None:
        """Fresh metrics: boxes, masks and reconstruction against the truth where it is known, and the health."""
        self.scores = [METRICS[name]() for name in ("ari_fg", "ari", "box_ap", "reconstruction")]
        self.health = Health()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Decompose a batch and count."""
        scene = Scene(images_of(batch), batch.get("labels"), batch.get("boxes"))
        decomposition = self.model(scene.images)
        for score in self.scores:
            score.update(scene, decomposition)
        self.health.update(decomposition)

    def on_validation_epoch_end(self) -> None:
        """Put the scores together over all processes; `val/score` is what the best checkpoint is chosen by."""
        if self.trainer.world_size > 1:
            self._gather()
        results = {name: value for score in self.scores for name, value in score.compute().items() if value is not None}
        score = results.get("ari_fg", -results["reconstruction_mse"])
        self.results = {f"val/{name}": float(value) for name, value in results.items()} | {"val/score": float(score)}
        self.log("val/score", float(score), rank_zero_only=self.trainer.world_size > 1, logger=False)

    def _gather(self) -> None:
        """Merge the metrics of all processes, in the order of their ranks."""
        everyone: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(everyone, (self.scores, self.health))
        self.scores, self.health = everyone[0]
        for scores, health in everyone[1:]:
            for mine, theirs in zip(self.scores, scores, strict=True):
                mine.merge(theirs)
            self.health.merge(health)


def _not_finite(losses: Losses, step: int) -> str:
    values = {name: float(term.detach().mean()) for name, term in losses.terms.items()}
    broken = [name for name, term in losses.terms.items() if not bool(torch.isfinite(term).all())]
    shown = ", ".join(f"{name} {value:.6g}" for name, value in values.items())
    return (
        f"step {step:,}: the loss is not finite, because of {' and '.join(broken) or 'the weighted total'} ({shown}). "
        "The last checkpoint is from before it: lower optimizer.learning_rate, set optimizer.clip_norm, or set "
        "trainer.precision=float32, and resume."
    )
