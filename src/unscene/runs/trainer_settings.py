"""The settings of a training: optimiser, learning rate, trainer."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from unscene.errors import RecipeError
from unscene.settings import settings_dataclass

OptimizerName = Literal["adam", "adamw", "rmsprop"]
Beta = Annotated[float, Field(ge=0, lt=1)]


@settings_dataclass
class ParamGroup:
    """Settings of the parameters whose names begin with a prefix; None is the setting of all others.

    Attributes:
        prefix: for instance `vae` or `vae.decoder`; the longest one that fits decides.
        name: name of their optimiser.
        learning_rate: 0 keeps these parameters as they are.
        weight_decay: see PyTorch.
    """

    prefix: Annotated[str, Field(min_length=1)]
    name: OptimizerName | None = None
    learning_rate: NonNegativeFloat | None = None
    weight_decay: NonNegativeFloat | None = None


@settings_dataclass
class OptimizerSettings:
    """The optimiser.

    Attributes:
        name: `adam`, `adamw` or `rmsprop`.
        learning_rate: the peak; see `ScheduleSettings`.
        betas: betas of Adam and AdamW.
        weight_decay: see PyTorch.
        clip_norm: limit of the common norm of all gradients; 0 sets no limit.
        param_groups: parts of the model with settings of their own.
    """

    name: OptimizerName = "adam"
    learning_rate: PositiveFloat = 1e-4
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: NonNegativeFloat = 0.0
    param_groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        prefixes = [group.prefix for group in self.param_groups]
        if len(set(prefixes)) < len(prefixes):
            raise RecipeError(f"param_groups has a prefix twice: {', '.join(prefixes)}. Write one group for it.")


@settings_dataclass
class ScheduleSettings:
    """The learning rate's factor over the training, in epochs (an epoch is one pass over data.count scenes).

    Attributes:
        warmup_epochs: it rises linearly from 0 to 1.
        cycle_epochs: length of each cosine cycle; 0 keeps it constant after the warm-up.
        restart_factor: the peak is multiplied by it at each restart ("learning rate reset decay").
        lowest: share of the peak at which the cosine ends.
    """

    warmup_epochs: NonNegativeFloat = 0.0
    cycle_epochs: NonNegativeFloat = 0.0
    restart_factor: NonNegativeFloat = 1.0
    lowest: NonNegativeFloat = 0.0

    def factor(self, epoch: float) -> float:
        """The factor at an epoch, which may be a fraction; a pure function, so a checkpoint holds no state of it."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if not self.cycle_epochs:
            return 1.0
        cycle, offset = divmod(epoch - self.warmup_epochs, self.cycle_epochs)
        cosine = 0.5 * (1 + math.cos(math.pi * offset / self.cycle_epochs))
        return float(self.restart_factor**cycle) * (self.lowest + (1 - self.lowest) * cosine)


@settings_dataclass
class RestartSettings:
    """When a training that does not decompose starts again from new initial weights (`trainer.restart`).

    The health of each validation decides; it reads no label.

    Attributes:
        times: largest number of restarts.
        from_step: first step of an attempt at which it may restart.
        until_step: last step of an attempt at which it may restart.
        largest_slot: collapsed if the largest slot holds more than this share of the foreground.
        foreground_won: collapsed if the objects' slots win less than this share of the pixels.
    """

    times: NonNegativeInt = 0
    from_step: NonNegativeInt = 0
    until_step: NonNegativeInt = 7000
    largest_slot: Annotated[float, Field(gt=0, le=1)] = 0.9
    foreground_won: Annotated[float, Field(ge=0, lt=1)] = 0.005


@settings_dataclass
class TrainerSettings:
    """How long, on what, and how often it writes.

    Attributes:
        batch_size: images a step, over all devices together.
        max_steps: the training ends after so many steps.
        max_minutes: or after so many minutes, counted from each start; 0 sets no limit.
        precision: `auto` is bfloat16 autocast where the machine is fast at it, else float32.
        accelerator: `auto` is the GPU where there is one.
        devices: processes on a machine, or `auto`: those that torchrun or srun started, else one for each GPU, or one
            on a CPU. Each has its share of every batch.
        num_nodes: machines that train together.
        strategy: `ddp` is one process a device; `auto` chooses it where there are several.
        workers: processes that load data, for each process that trains; -1 is up to eight beside a GPU, none on a CPU.
        prefetch: batches that each worker keeps ready.
        threads: threads of the CPU; 0 leaves PyTorch's choice.
        validate_minutes: between two validations, each with a sample figure, a health verdict and a checkpoint.
        validate_images: the first scenes of the validation, at most so many.
        keep_best_by: the score whose best weights are kept; where it does not apply, and without labels, the error of
            the reconstruction decides.
        checkpoint_minutes: between two checkpoints.
        log_every: steps between two rows of metrics.csv.
        restart: see `RestartSettings`.
    """

    batch_size: PositiveInt = 64
    max_steps: PositiveInt = 500_000
    max_minutes: NonNegativeFloat = 0.0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    num_nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp"] = "auto"
    workers: Annotated[int, Field(ge=-1)] = -1
    prefetch: PositiveInt = 4
    threads: NonNegativeInt = 0
    validate_minutes: PositiveFloat = 5.0
    validate_images: PositiveInt = 1000
    keep_best_by: Literal["ari_fg", "ami_fg", "map_50", "mask_iou", "iou_polarity", "located"] = "ari_fg"
    checkpoint_minutes: PositiveFloat = 5.0
    log_every: PositiveInt = 50
    restart: RestartSettings = field(default_factory=RestartSettings)


def use_bfloat16(precision: Literal["auto", "bf16", "float32"], device: torch.device | str) -> bool:
    """Whether a training of `trainer.precision` runs in bfloat16 on a device."""
    return precision == "bf16" or (precision == "auto" and fast_at_bfloat16(device))


def fast_at_bfloat16(device: torch.device | str) -> bool:
    """Whether a device is faster in bfloat16: a GPU of compute capability 8 or above, a CPU with AMX or AVX512-bf16."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return kind == "cpu" and any(getattr(torch.cpu, check, lambda: False)() for check in checks)
