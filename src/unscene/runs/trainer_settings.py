"""The settings of a training that are no model's and no data set's: optimiser, learning rate, trainer."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from unscene.errors import RecipeError

OptimizerName = Literal["adam", "adamw", "rmsprop"]


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser.

    Attributes:
        name: `adam`, `adamw` or `rmsprop`, of every parameter that `names` does not name.
        names: optimisers by the beginning of a parameter's name, for instance `{background: adam}`. They step together;
            `betas` and `weight_decay` are those of all that have them.
        learning_rate: of every parameter that no group names.
        groups: learning rates by the beginning of a parameter's name, for instance `{vae: 0.001}`.
        betas: of Adam and AdamW.
        weight_decay: see PyTorch.
        decays: weight decays by the beginning of a parameter's name, for those of `groups` and others.
        clip_norm: the gradients' global norm is cut to it; 0 leaves them.
    """

    name: OptimizerName = "adam"
    names: dict[str, OptimizerName] = field(default_factory=dict)
    learning_rate: float = 1e-4
    groups: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    decays: dict[str, float] = field(default_factory=dict)
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or min(self.groups.values(), default=0.0) < 0:
            raise RecipeError(
                "optimizer.learning_rate must be above 0, and no rate of optimizer.groups below it (0 keeps a part as "
                f"it is), but they are {self.learning_rate:g} and {self.groups}."
            )
        _not_below(0, "optimizer", weight_decay=self.weight_decay, clip_norm=self.clip_norm)
        _not_below(0, "optimizer.decays", **self.decays)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError(f"optimizer.betas must be from 0 to below 1, not {list(self.betas)}.")


@dataclass(frozen=True)
class ScheduleSettings:
    """The learning rate's factor over the training, in epochs (an epoch is one pass over data.count scenes).

    Attributes:
        warmup_epochs: it rises linearly from 0 to 1.
        cycle_epochs: length of each cosine cycle; 0 keeps it constant after the warm-up.
        restart_factor: the peak is multiplied by it at each restart ("learning rate reset decay").
        lowest: the cosine ends at this share of the peak.
    """

    warmup_epochs: float = 0.0
    cycle_epochs: float = 0.0
    restart_factor: float = 1.0
    lowest: float = 0.0

    def __post_init__(self) -> None:
        _not_below(0, "schedule", **dataclasses.asdict(self))

    def factor(self, epoch: float) -> float:
        """The factor at an epoch, whole or broken; a pure function, so a resumed run needs no state for it."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if not self.cycle_epochs:
            return 1.0
        cycle, place = divmod(epoch - self.warmup_epochs, self.cycle_epochs)
        cosine = 0.5 * (1 + math.cos(math.pi * place / self.cycle_epochs))
        return float(self.restart_factor**cycle) * (self.lowest + (1 - self.lowest) * cosine)


@dataclass(frozen=True)
class RestartSettings:
    """When a training that does not decompose begins again with other first weights (`trainer.restart`).

    It is looked for after each validation, in its health numbers: nothing of it reads a label.

    Attributes:
        times: at most so often; 0 leaves it at the verdict.
        from_step: not before this step of an attempt.
        until_step: nor after this one; what has gone well so far is not given up later.
        largest_slot: collapsed, if the largest slot holds more than this share of the foreground.
        foreground_won: or if the objects' slots win less than this share of the pixels.
    """

    times: int = 0
    from_step: int = 0
    until_step: int = 7000
    largest_slot: float = 0.9
    foreground_won: float = 0.005

    def __post_init__(self) -> None:
        _not_below(0, "trainer.restart", times=self.times, from_step=self.from_step, until_step=self.until_step)
        if not (0 < self.largest_slot <= 1 and 0 <= self.foreground_won < 1):
            raise RecipeError(
                "trainer.restart.largest_slot must be above 0 and at most 1, and foreground_won from 0 to below 1, not "
                f"{self.largest_slot:g} and {self.foreground_won:g}."
            )


@dataclass(frozen=True)
class TrainerSettings:
    """How long, on what, and how often it writes.

    Attributes:
        batch_size: images a step, over all devices together.
        max_steps: the training ends there.
        max_minutes: or there, counted anew when resumed; 0 sets no limit.
        precision: `auto` is bfloat16 autocast where the machine is fast at it, else float32.
        accelerator: `auto` is the GPU where there is one.
        devices: a number, or `auto`: under torchrun or srun the processes that these have started (and as many
            machines), else every GPU, or one process on a CPU. Each has its share of every batch.
        num_nodes: machines that train together.
        strategy: `ddp` is one process a device; `auto` chooses it where there are several.
        workers: processes that load data, for each process that trains; -1 chooses: up to eight where a GPU trains,
            none where a CPU does, which they would take cores from.
        prefetch: batches that each worker keeps ready.
        threads: of the CPU; 0 leaves PyTorch's choice.
        validate_minutes: between two validations, each with a sample figure, a health verdict and a checkpoint.
        validate_images: of the validation's scenes, at most so many, the first ones.
        keep_best_by: the score of the validation whose best weights are kept. It reads labels; without any, and where
            it does not apply, the reconstruction's error decides.
        checkpoint_minutes: between two checkpoints by the clock.
        log_every: steps between two rows of metrics.csv.
        restart: see `RestartSettings`.
    """

    batch_size: int = 64
    max_steps: int = 500_000
    max_minutes: float = 0.0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    strategy: Literal["auto", "ddp"] = "auto"
    workers: int = -1
    prefetch: int = 4
    threads: int = 0
    validate_minutes: float = 5.0
    validate_images: int = 1000
    keep_best_by: Literal["ari_fg", "ami_fg", "map_50", "mask_iou", "iou_polarity", "located"] = "ari_fg"
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    restart: RestartSettings = field(default_factory=RestartSettings)

    def __post_init__(self) -> None:
        counts = ("batch_size", "max_steps", "log_every", "num_nodes", "validate_images", "prefetch")
        _not_below(1, "trainer", **{name: getattr(self, name) for name in counts})
        _not_below(0, "trainer", max_minutes=self.max_minutes, threads=self.threads)
        _not_below(-1, "trainer", workers=self.workers)
        if self.devices != "auto":
            _not_below(1, "trainer", devices=self.devices)
        for name in ("validate_minutes", "checkpoint_minutes"):
            if getattr(self, name) <= 0:
                raise RecipeError(f"trainer.{name} must be above 0, not {getattr(self, name):g}.")


def _not_below(least: int, section: str, **values: float) -> None:
    for name, value in values.items():
        if value < least:
            raise RecipeError(f"{section}.{name} must be {least} or more, not {value:g}.")
