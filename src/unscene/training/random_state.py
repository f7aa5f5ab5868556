"""The random numbers in the checkpoint: a resumed training draws what the unbroken one would have drawn."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

State = dict[str, torch.Tensor]


class RandomState(Callback):
    """Keeps the generators' states, of every process, as tensors: a checkpoint holds nothing that could run.

    Args:
        seed: of the training; with several processes each draws numbers of its own.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.state: State | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Part the processes, which were all seeded alike to begin with the same weights."""
        if trainer.world_size > 1:
            torch.manual_seed(self.seed * trainer.world_size + trainer.global_rank)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the states."""
        mine = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            mine["cuda"] = torch.cuda.get_rng_state()
        everyone: list[Any] = [mine] * trainer.world_size
        if trainer.world_size > 1:
            torch.distributed.all_gather_object(everyone, mine)
        checkpoint["random_state"] = everyone

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep this process's until the first step, since the data loader draws before it."""
        states = checkpoint.get("random_state")
        if isinstance(states, dict):  # of one process, as unscene wrote it at first
            states = [states]
        if states and len(states) == trainer.world_size:  # another number of processes draws anew
            self.state = states[trainer.global_rank]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put it back, once."""
        if self.state is not None:
            torch.set_rng_state(self.state["cpu"].cpu())
            if "cuda" in self.state and torch.cuda.is_available():
                torch.cuda.set_rng_state(self.state["cuda"].cpu())
            self.state = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember where a validation begins."""
        self.after_step = torch.get_rng_state()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Go back there: PyTorch's loader drew a number, and the training must not depend on when the clock struck."""
        torch.set_rng_state(self.after_step)
