"""metrics.csv and TensorBoard: what every loss term was over the last steps, and what each validation found."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from unscene.distributed.processes import mean_over_processes
from unscene.files import writing
from unscene.runs.metrics_csv import MetricsTable
from unscene.runs.run_folder import RunFolder
from unscene.training.module import SceneModule


class MetricsLog(Callback):
    """A row is the mean of every loss term over the steps since the last row, or a validation.

    Sums are kept on the device and read once a row, since reading costs a synchronisation. They are in the checkpoint,
    so that a resumed training writes the rows of the unbroken one.

    Args:
        run: whose logs are written, by the first process.
        every: steps between two rows.

    Attributes:
        latest: every value that was logged last, by name.
    """

    def __init__(self, run: RunFolder, every: int) -> None:
        self.run, self.every = run, every
        self.table = MetricsTable(run.metrics)
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.latest: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        """The sums so far, of all processes' images."""
        sums = self._mean_sums()
        return {"sums": {name: value.cpu() for name, value in sums.items()}, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the sums of the checkpoint."""
        self.sums, self.steps = dict(state_dict["sums"]), int(state_dict["steps"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin where the checkpoint left off: rows after it are measured again."""
        self.began = self.speed_since = time.monotonic()
        self.speed_steps = 0
        if trainer.is_global_zero:
            self.table.keep_until(trainer.global_step)
            self.began -= self.table.last_seconds()
            with writing(self.run.tensorboard):
                self.writer = SummaryWriter(str(self.run.tensorboard), purge_step=trainer.global_step or None)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up, and write a row now and then."""
        assert isinstance(pl_module, SceneModule)
        losses = pl_module.last_losses
        assert losses is not None
        for name, values in {"loss": losses.total, **losses.terms, **losses.observed}.items():
            before = self.sums.get(name, torch.zeros((), device=values.device)).to(values.device)
            self.sums[name] = before + values.detach().mean()
        self.steps += 1
        self.speed_steps += 1
        if trainer.global_step % self.every == 0 or trainer.global_step >= trainer.max_steps:
            self._write_row(trainer, len(batch["image"]) * trainer.world_size)

    def _write_row(self, trainer: lightning.Trainer, images: int) -> None:
        sums = torch.stack(list(self._mean_sums().values())).tolist()
        row = {f"train/{name}": value / self.steps for name, value in zip(self.sums, sums, strict=True)}
        now = time.monotonic()
        row["train/images_per_second"] = self.speed_steps * images / (now - self.speed_since)
        row["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self.write(trainer, row)
        self.sums, self.steps = {}, 0
        self.speed_since, self.speed_steps = now, 0

    def _mean_sums(self) -> dict[str, Tensor]:
        """The sums, in which the other processes' images count as well."""
        if not self.sums:
            return {}
        return dict(zip(self.sums, mean_over_processes(torch.stack(list(self.sums.values()))), strict=True))

    def write(self, trainer: lightning.Trainer, values: dict[str, float]) -> None:
        """Put values into both logs at the current step."""
        self.latest |= values
        if trainer.is_global_zero:
            seconds = round(time.monotonic() - self.began, 2)
            rounded = {name: float(f"{value:.7g}") for name, value in values.items()}
            self.table.append({"step": trainer.global_step, "seconds": seconds, **rounded})
            with writing(self.run.tensorboard):
                for name, value in values.items():
                    self.writer.add_scalar(name, value, trainer.global_step)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Stop the clock of the training's speed."""
        self.paused = time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the validation, whose time does not count as the training's."""
        assert isinstance(pl_module, SceneModule)
        self.write(trainer, pl_module.results | pl_module.health.compute())
        self.speed_since += time.monotonic() - self.paused

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """As `teardown`, which Lightning leaves out after an error."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Close TensorBoard's file."""
        if hasattr(self, "writer"):
            self.writer.close()
