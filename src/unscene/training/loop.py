"""The training loop, in the order in which everything happens.

A step:    batch, loss, finite?, backward, clip, optimiser.
After it:  log, checkpoint, validate (best checkpoint, restart), stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from unscene.data import Source, clip_length
from unscene.data.batches import StepSampler, consecutive_frames, ordered_batches, training_batches
from unscene.distributed.processes import mean_over_processes
from unscene.distributed.sync_batch_norm import synchronise_batch_norm
from unscene.errors import CheckpointError, DataError
from unscene.files import write_text
from unscene.metrics.health import Health
from unscene.runs.recipe import Recipe
from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import use_bfloat16
from unscene.runs.weights import read_checkpoint
from unscene.scene import Scene
from unscene.training.checkpoints import Progression, checkpoint_content, set_random_state, write_checkpoint
from unscene.training.devices import loader_workers
from unscene.training.log import TrainingLog
from unscene.training.step import BatchLoss, autocast, build_optimizers, check_finite, clip_gradients, param_groups
from unscene.training.validation import MAX_BATCH, SCORE, evaluating, show_validation, validate


class TrainingLoop:
    """One training, from its first step or from a checkpoint, whose weights `model` then has.

    The launched `fabric` tells which process this is, and averages the gradients of all processes. `sample_images`
    [B, 3, H, W] are those of the sample figure; `interrupted` tells whether a signal asked the training to end.
    """

    def __init__(
        self,
        fabric: Fabric,
        recipe: Recipe,
        run: RunFolder,
        model: nn.Module,
        source: Source,
        validation_source: Source,
        sample_images: Tensor,
        interrupted: Callable[[], bool],
        checkpoint: dict[str, Any] | None = None,
    ) -> None:
        self.fabric, self.recipe, self.settings, self.run = fabric, recipe, recipe.trainer, run
        self.source, self.validation_source, self.sample_images = source, validation_source, sample_images
        self.interrupted = interrupted
        self.model = synchronise_batch_norm(model, fabric.device) if fabric.world_size > 1 else model
        warmup = getattr(getattr(model, "settings", None), "warmup", None)
        self.masks = recipe.values["model"].get("masks")  # a resumed run may show others, whose scores do not compare
        self.warmup_steps: int = warmup.steps if warmup else 0
        self.bfloat16 = use_bfloat16(self.settings.precision, fabric.device)
        self.loss = fabric.setup_module(BatchLoss(self.model, self.bfloat16, recipe.trainer.temporal))
        self.optimizers = build_optimizers(self.model, recipe.optimizer)
        self.peak_rates = [group["lr"] for group in param_groups(self.optimizers)]
        self.log = TrainingLog(run, recipe.trainer, writes=fabric.is_global_zero)
        self.progression = Progression.from_sources(source, validation_source)
        self.random_state: dict[str, Tensor] | None = None
        if checkpoint is not None:
            self.restore(checkpoint)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Continue from a checkpoint. DataError: the scenes are not those of the run."""
        scenes = self.progression.scenes
        try:
            self.progression = Progression.from_checkpoint({"scenes": scenes, **checkpoint})
            for optimizer, state in zip(self.optimizers, checkpoint["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            self.log.load_state_dict(checkpoint["log"])
            self.random_state = {name: torch.as_tensor(state) for name, state in checkpoint["random_state"].items()}
            torch.Generator().set_state(self.random_state["cpu"])  # which refuses what is no state
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = repr(error)[:200]
            raise CheckpointError(f"{self.run.last} cannot be resumed: it is not of this run ({reason}).") from error
        if self.progression.scenes != scenes:
            before = f"it had {str(self.progression.scenes)[:100]}, now there are {scenes}"
            raise DataError(f"the data changed since the run began: {before}. Restore it, or start a new run.")

    def run_to_end(self) -> None:
        """Train until the last step, the time limit or a signal."""
        settings, progression = self.settings, self.progression
        batches = self._batches()
        best = read_checkpoint(self.run.best) if self.run.best.is_file() else {}  # it holds its own score
        comparable = best.get("masks", self.masks) == self.masks
        self.best_score: float | None = best.get("best_score") if comparable else None
        self.log.start(progression.step, progression.validation_due)
        self.time_limit = Timer(settings.max_minutes)
        self.validation_timer = Timer(settings.validate_minutes)
        self.checkpoint_timer = Timer(settings.checkpoint_minutes)
        stop = progression.step >= settings.max_steps
        try:
            if progression.validation_due:  # the process that began it was killed
                self.validate(last=stop)
            while not stop:
                losses = self.step(next(batches))
                self.log.log_step(progression.step, losses, param_groups(self.optimizers)[0]["lr"])
                stop = self.save_and_validate()
        finally:
            self.log.close()

    def step(self, images: Tensor) -> dict[str, Tensor]:
        """Take one step on this process's images [B, 3, H, W] in 0..1.

        Returns:
            The loss, its terms and what the model observed, by name: [B] each.
        """
        losses, observed = self.loss(images, self.progression.attempt_step)
        loss = losses["loss"].mean()
        check_finite(loss, losses, self.progression.step)
        self.model.zero_grad()
        self.fabric.backward(loss)
        if self.recipe.optimizer.clip_norm:
            clip_gradients(self.optimizers, self.recipe.optimizer.clip_norm)
        self._set_learning_rates()
        for optimizer in self.optimizers:
            optimizer.step()
        self.progression.step += 1
        self.progression.observed = {name: values.detach().float().mean() for name, values in observed.items()}
        return {**losses, **observed}

    def save_and_validate(self) -> bool:
        """Write last.ckpt and validate if it is time; return whether the training ends.

        All processes decide alike. Their clocks and signals differ, and a process that decided alone would wait for the
        others for ever.
        """
        requests = [
            self.interrupted(),
            self.progression.step >= self.settings.max_steps or self.time_limit.is_over(),
            self.validation_timer.is_over(),
            self.checkpoint_timer.is_over(),
        ]
        counts = mean_over_processes(torch.tensor(requests, dtype=torch.float32, device=self.fabric.device))
        interrupted, ended, validation_due, checkpoint_due = (counts > 0).tolist()
        self.progression.validation_due = validation_due or ended
        if interrupted or ended or validation_due or checkpoint_due:
            self.save()
        if not self.progression.validation_due or interrupted:  # a user who pressed Ctrl-C is waiting
            return bool(interrupted or ended)
        self.validate(last=ended)
        settled = self.progression.is_settled(self.settings.patience)
        if settled and not ended and self.fabric.is_global_zero:
            gained = f"neither {SCORE} nor the reconstruction gained 2 % in {self.settings.patience} validations"
            tqdm.write(f"step {self.progression.step:,}: {gained}, so the training ends (trainer.patience).")
        return bool(ended or settled)

    def validate(self, last: bool) -> None:
        """Validate, log it, keep the best checkpoint, and restart after a collapse unless this is the last step."""
        progression, settings, device = self.progression, self.settings, self.fabric.device
        count = min(len(self.validation_source), settings.validate_images)
        batch_size = min(settings.batch_size, MAX_BATCH)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        batches = ordered_batches(self.validation_source, count, batch_size, rank, world)
        with self.log.paused():
            with evaluating(self.model, autocast(device, self.bfloat16)):
                scores, health = validate(self.model, batches, settings.keep_best_by, device)
                if self.fabric.is_global_zero:
                    images, shown = self.sample_images, self.model(self.sample_images.to(device))
                    show_validation(self.run, progression.step, scores, health, progression.observed, images, shown)
            self.log.write(progression.step, scores | {f"health/{name}": n for name, n in health.compute().items()})
            progression.validation_due = False
            # the warm-up's loss is another: without labels its scores do not compare
            counts = f"val/{settings.keep_best_by}" in scores or progression.attempt_step >= self.warmup_steps
            score, best = scores[SCORE], -math.inf if self.best_score is None else self.best_score
            if counts:
                progression.validations.append([score, -scores["val/reconstruction_mse"]])
            if settings.keep_best_by == "last" or (not counts and self.best_score is None):
                self.save(best=True)
            elif counts and math.isfinite(score) and score > best:
                self.best_score = score
                self.save(best=True)
            if not last:
                self.restart_if_collapsed(health)
            self.save()
        self.validation_timer.restart()

    def restart_if_collapsed(self, health: Health) -> None:
        """Start again from new initial weights if the validation found a collapse and a restart is left.

        Optimisers, schedules and annealing start again as well; the steps taken still count. best.ckpt stays until a
        later validation is better.
        """
        settings, progression = self.settings.restart, self.progression
        taken, attempt = progression.attempt_step, len(progression.restarts) + 1
        if attempt > settings.times or not settings.from_step <= taken <= settings.until_step:
            return
        reason = health.collapse(settings.largest_slot, settings.foreground_won)
        if reason is None:
            return
        again = f"starts again from new weights, restart {attempt} of {settings.times}"
        message = f"step {progression.step:,}: collapsed after {taken:,} steps ({reason}); {again}"
        progression.first_step = progression.step
        progression.restarts.append(message)
        progression.validations.clear()
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed + attempt)
            self.model.load_state_dict(self.recipe.build_model().state_dict())
        for optimizer in self.optimizers:
            optimizer.state.clear()
        if self.fabric.is_global_zero:
            write_text(self.run.restarts, "".join(f"{line}\n" for line in progression.restarts))
            tqdm.write(message)

    def save(self, best: bool = False) -> None:
        """Write last.ckpt, or best.ckpt. Every process takes part, the first one writes."""
        log, best_score = self.log.state_dict(), self.best_score
        content = checkpoint_content(self.progression, self.model, self.optimizers, log, best_score)
        content["masks"] = self.masks
        if self.fabric.is_global_zero:
            if best:
                self.run.weights.unlink(missing_ok=True)  # exported from the one before
            write_checkpoint(content, self.run.best if best else self.run.last)
        if not best:
            self.checkpoint_timer.restart()

    def _set_learning_rates(self) -> None:
        """Set the rates of the middle of the step, so that the first is not 0, and the last of a cycle not a peak."""
        steps_per_epoch = max(1, len(self.source) // self.settings.batch_size)
        factor = self.recipe.schedule.factor((self.progression.attempt_step + 0.5) / steps_per_epoch)
        for group, peak in zip(param_groups(self.optimizers), self.peak_rates, strict=True):
            group["lr"] = peak * factor

    def _batches(self) -> Iterator[Tensor]:
        """This process's images [B, 3, H, W] of every step from now on, on the device."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        settings, device = self.settings, self.fabric.device
        order = settings.batch_size, self.recipe.seed, self.progression.step, rank, world
        sampler: Iterable[NDArray[np.int64]] = StepSampler(len(self.source), *order)
        if settings.temporal.is_used:
            sampler = consecutive_frames(len(self.source), clip_length(self.source), *order)
        workers, pin_memory = loader_workers(settings), device.type == "cuda"
        for batch in training_batches(self.source, sampler, workers, settings.prefetch, pin_memory):
            if self.random_state is not None:  # not earlier: the loader takes a random number before its first batch
                set_random_state(self.random_state)
                self.random_state = None
            yield Scene.from_batch({"image": batch["image"].to(device, non_blocking=True)}).images


class Timer:
    """Whether some minutes have passed; 0 minutes never pass."""

    def __init__(self, minutes: float) -> None:
        self.seconds = minutes * 60
        self.restart()

    def restart(self) -> None:
        self.started = time.monotonic()

    def is_over(self) -> bool:
        return 0 < self.seconds <= time.monotonic() - self.started
