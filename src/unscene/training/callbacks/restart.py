"""A training that does not decompose begins again with other first weights, at most so often, and says so."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from unscene.files import write_text
from unscene.metrics.health import Health
from unscene.runs.recipe import Recipe
from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import RestartSettings
from unscene.training.module import SceneModule


def collapse(health: Health, settings: RestartSettings) -> str | None:
    """What the health of a validation says against going on; None for nothing."""
    numbers = {name.removeprefix("health/"): value for name, value in health.compute().items()}
    if numbers["foreground_won"] < settings.foreground_won:
        return f"the objects' slots win {numbers['foreground_won']:.3f} of the pixels"
    if numbers.get("largest_slot", 0.0) > settings.largest_slot:
        return f"the largest slot holds {numbers['largest_slot']:.3f} of the foreground"
    return None


class Restart(Callback):
    """Draws the weights anew after a validation that found a collapse (ReDO restarts so; SPACE's authors advise it).

    The optimiser forgets, schedules and annealing begin again, and the steps of the attempt that failed are spent. The
    best weights so far stay the best until a later validation is better. Every restart is a line of restarts.txt.

    Args:
        run: where that stands.
        recipe: of the training; attempt n draws its weights by seed + n.
    """

    def __init__(self, run: RunFolder, recipe: Recipe) -> None:
        self.run, self.recipe, self.settings = run, recipe, recipe.trainer.restart
        self.attempt, self.first_step = 0, 0

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"attempt": self.attempt, "first_step": self.first_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a checkpoint."""
        self.attempt, self.first_step = int(state_dict["attempt"]), int(state_dict["first_step"])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Tell the module where its attempt began."""
        assert isinstance(pl_module, SceneModule)
        pl_module.first_step = self.first_step

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look, in every process alike: each has the health of all scenes."""
        assert isinstance(pl_module, SceneModule)
        taken = pl_module.attempt_step
        if self.attempt >= self.settings.times or not self.settings.from_step <= taken <= self.settings.until_step:
            return
        found = collapse(pl_module.health, self.settings)
        if found is None or trainer.should_stop:
            return
        self.attempt, self.first_step = self.attempt + 1, trainer.global_step
        pl_module.first_step = self.first_step
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed + self.attempt)
            pl_module.model.load_state_dict(self.recipe.build_model().state_dict())
        for optimizer in trainer.optimizers:
            optimizer.state.clear()
        if trainer.is_global_zero:
            said = (
                f"step {trainer.global_step:,}: collapsed after {taken:,} steps ({found}); begins again with other "
                f"weights, restart {self.attempt} of {self.settings.times}"
            )
            before = self.run.restarts.read_text(encoding="utf-8") if self.run.restarts.is_file() else ""
            write_text(self.run.restarts, f"{before}{said}\n")
            tqdm.write(said)
