"""What happens beside the steps: the log, the progress bar, sample figures, checkpoints, and an orderly end."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from unscene.training.module import SceneModule
from unscene.training.run_folder import MetricsTable, RunFolder, write_text
from unscene.training.samples import sample_figure, save_figure

SAMPLES = 8  # images in a figure


class MetricsLog(Callback):
    """Writes metrics.csv and TensorBoard: the mean of every loss term over the steps since the last row, and validations.

    Sums are kept on the device and read once a row, since reading costs a synchronisation.
    """

    def __init__(self, run: RunFolder, every: int) -> None:
        self.run, self.every = run, every
        self.table = MetricsTable(run.metrics)
        self.sums: dict[str, torch.Tensor] = {}
        self.steps = 0
        self.latest: dict[str, float] = {}

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Begin where the checkpoint left off: rows after it are measured again."""
        if trainer.is_global_zero:
            self.table.keep_until(trainer.global_step)
            self.writer = SummaryWriter(str(self.run.tensorboard), purge_step=trainer.global_step or None)
        self.began = time.monotonic() - self.table.last_seconds()
        self.row_began = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add up, and write a row now and then."""
        assert isinstance(pl_module, SceneModule)
        losses = pl_module.last_losses
        assert losses is not None
        for name, values in {"loss": losses.total, **losses.terms, **losses.observed}.items():
            self.sums[name] = self.sums.get(name, torch.zeros((), device=values.device)) + values.detach().mean()
        self.steps += 1
        if trainer.global_step % self.every == 0 or trainer.global_step >= trainer.max_steps:
            self._write_row(trainer, batch["images"].shape[0] * trainer.world_size)

    def _write_row(self, trainer: lightning.Trainer, images: int) -> None:
        row = {f"train/{name}": float(value) / self.steps for name, value in self.sums.items()}
        now = time.monotonic()
        row["train/images_per_second"] = self.steps * images / (now - self.row_began)
        row["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        self.write(trainer, row)
        self.row_began, self.sums, self.steps = now, {}, 0

    def write(self, trainer: lightning.Trainer, values: dict[str, float]) -> None:
        """Put values into both logs at the current step."""
        self.latest |= values
        if trainer.is_global_zero:
            seconds = round(time.monotonic() - self.began, 2)
            rounded = {name: float(f"{value:.7g}") for name, value in values.items()}
            self.table.append({"step": trainer.global_step, "seconds": seconds, **rounded})
            for name, value in values.items():
                self.writer.add_scalar(name, value, trainer.global_step)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Log the validation, and do not count its time as the training's speed."""
        assert isinstance(pl_module, SceneModule)
        self.write(trainer, pl_module.results | pl_module.health.compute())
        self.row_began, self.sums, self.steps = time.monotonic(), {}, 0

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Close TensorBoard's file."""
        if hasattr(self, "writer"):
            self.writer.close()


class Progress(Callback):
    """One line on the terminal: steps, time left, the loss, images a second, the last validation."""

    def __init__(self, log: MetricsLog) -> None:
        self.metrics_log = log

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the bar, on the first process only."""
        self.bar = tqdm(
            total=trainer.max_steps,
            initial=trainer.global_step,
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
        shown = {"loss": "train/loss", "img/s": "train/images_per_second", "ARI": "val/ari_fg"}
        self.bar.set_postfix(
            {label: f"{latest[name]:.4g}" for label, name in shown.items() if name in latest}, refresh=False
        )
        self.bar.update(trainer.global_step - self.bar.n)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Leave the bar as it stands."""
        if hasattr(self, "bar"):
            self.bar.close()


class Samples(Callback):
    """After every validation: a figure of the same scenes, and the health verdict in words."""

    def __init__(self, run: RunFolder, batch: dict[str, torch.Tensor]) -> None:
        self.run = run
        self.images = batch["images"][:SAMPLES].float() / 255

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw and judge, on the first process only."""
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SceneModule)
        verdict = pl_module.health.verdict()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            decomposition = pl_module.model(self.images.to(pl_module.device))
        title = f"step {trainer.global_step:,}   {verdict}"
        save_figure(sample_figure(self.images, decomposition, title), self.run.samples / f"step_{trainer.global_step:07d}.png")
        scores = ", ".join(f"{name.removeprefix('val/')} {value:.3f}" for name, value in pl_module.results.items())
        write_text(self.run.health, f"step {trainer.global_step}: {verdict}\n")
        tqdm.write(f"step {trainer.global_step:,}: {scores}\n  health: {verdict}")


class RandomState(Callback):
    """Keeps the random numbers in the checkpoint, so that a resumed run draws what the unbroken one would have drawn."""

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store the generators' states, as tensors: a checkpoint holds nothing that could run."""
        checkpoint["random_state"] = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            checkpoint["random_state"]["cuda"] = torch.cuda.get_rng_state()

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep them until the first step, since the data loader draws before it."""
        self.state = checkpoint.get("random_state")

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put them back, once."""
        state = getattr(self, "state", None)
        if state is not None:
            torch.set_rng_state(state["cpu"].cpu())
            if "cuda" in state and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda"].cpu())
            self.state = None


class OrderlyStop(Callback):
    """Ctrl-C (or SIGTERM) ends the step that runs, writes a checkpoint and stops; a second one ends at once."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.asked = False

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Catch the signals for as long as the training lasts."""
        self.before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        tqdm.write("Stopping after this step; once more stops at once.")

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop between two steps, where everything is whole."""
        if self.asked and not trainer.should_stop:
            save_checkpoint(trainer, self.run)
            trainer.should_stop = True

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in getattr(self, "before", {}).items():
            signal.signal(number, handler)


def save_checkpoint(trainer: lightning.Trainer, run: RunFolder) -> None:
    """Write last.ckpt, whole or not at all."""
    temporary = run.last.with_suffix(".part")
    trainer.save_checkpoint(temporary)
    if trainer.is_global_zero:
        temporary.replace(run.last)


def checkpoint_callbacks(run: RunFolder, minutes: float) -> list[Callback]:
    """last.ckpt by the clock and best.ckpt by `val/score`."""
    return [
        ModelCheckpoint(
            dirpath=run.checkpoints,
            filename="best",
            monitor="val/score",
            mode="max",
            save_top_k=1,
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        ),
        ByTheClock(run, timedelta(minutes=minutes)),
    ]


class ByTheClock(Callback):
    """Writes last.ckpt every so often."""

    def __init__(self, run: RunFolder, every: timedelta) -> None:
        self.run, self.every = run, every.total_seconds()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock."""
        self.written = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time; all processes follow the first one's clock."""
        due = trainer.strategy.broadcast(time.monotonic() - self.written >= self.every) if trainer.world_size > 1 else (
            time.monotonic() - self.written >= self.every
        )
        if due:
            save_checkpoint(trainer, self.run)
            self.written = time.monotonic()

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The last step is kept as well."""
        save_checkpoint(trainer, self.run)

