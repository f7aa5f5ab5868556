"""The progress bar: one line on the terminal with steps, time left, the loss, images a second, the last validation."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from unscene.training.callbacks.metrics_log import MetricsLog

SHOWN = {"loss": "train/loss", "img/s": "train/images_per_second", "ARI": "val/ari_fg"}


class Progress(Callback):
    """A bar of the first process.

    Args:
        log: where the numbers beside the bar come from.
        max_minutes: the training's limit, said before the bar; 0 for none.
    """

    def __init__(self, log: MetricsLog, max_minutes: float) -> None:
        self.metrics_log = log
        self.limit = f"at most {max_minutes:g} min" if max_minutes else None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar."""
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
            desc=self.limit,
            unit="step",
            dynamic_ncols=True,
            disable=not trainer.is_global_zero,
            mininterval=1.0,
        )

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move on."""
        latest = self.metrics_log.latest
        self.bar.set_postfix(
            {label: f"{latest[name]:.4g}" for label, name in SHOWN.items() if name in latest}, refresh=False
        )
        self.bar.update(trainer.global_step - self.bar.n)

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """As `teardown`, which Lightning leaves out after an error."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Leave the bar as it stands."""
        if hasattr(self, "bar"):
            self.bar.close()
