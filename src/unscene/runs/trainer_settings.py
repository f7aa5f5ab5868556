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
    """Settings of the parameters whose names begin with a prefix; None is the setting of all others."""

    prefix: Annotated[str, Field(min_length=1)]  # `vae` or `vae.decoder`; the longest one that fits decides
    name: OptimizerName | None = None
    learning_rate: NonNegativeFloat | None = None  # 0 keeps these parameters as they are
    weight_decay: NonNegativeFloat | None = None


@settings_dataclass
class OptimizerSettings:
    """The optimiser; see PyTorch for what is not explained here."""

    name: OptimizerName = "adam"
    learning_rate: PositiveFloat = 1e-4  # the peak; see `ScheduleSettings`
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: NonNegativeFloat = 0.0  # limit of the common norm of all gradients; 0 sets no limit
    param_groups: tuple[ParamGroup, ...] = ()  # parts of the model with settings of their own

    def __post_init__(self) -> None:
        prefixes = [group.prefix for group in self.param_groups]
        if len(set(prefixes)) < len(prefixes):
            raise RecipeError(f"param_groups has a prefix twice: {', '.join(prefixes)}. Write one group for it.")


@settings_dataclass
class ScheduleSettings:
    """The learning rate's factor over the training, in epochs (an epoch is one pass over data.count scenes)."""

    warmup_epochs: NonNegativeFloat = 0.0  # it rises linearly from 0 to 1
    cycle_epochs: NonNegativeFloat = 0.0  # length of each cosine cycle; 0 keeps it constant after the warm-up
    cycle_growth: PositiveFloat = 1.0  # length of a cycle, of the one before ("T_mult" of Loshchilov & Hutter, 2017)
    restart_factor: NonNegativeFloat = 1.0  # of the peak at each new cycle ("learning rate reset decay")
    lowest: NonNegativeFloat = 0.0  # share of the peak at which the cosine ends

    def factor(self, epoch: float) -> float:
        """The factor at an epoch, which may be a fraction; a pure function, so a checkpoint holds no state of it."""
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        if not self.cycle_epochs:
            return 1.0
        cycle, offset, length = self._cycle(epoch - self.warmup_epochs)
        cosine = 0.5 * (1 + math.cos(math.pi * offset / length))
        return float(self.restart_factor**cycle) * (self.lowest + (1 - self.lowest) * cosine)

    def _cycle(self, offset: float) -> tuple[float, float, float]:
        """The number of the cycle at an epoch after the warm-up, the epochs of it that have passed, and its length.

        Cycles that shrink come to an end: there the last one of a noticeable length is over.
        """
        if self.cycle_growth == 1:
            return *divmod(offset, self.cycle_epochs), self.cycle_epochs
        cycle, length = 0, self.cycle_epochs
        while offset >= length and length * self.cycle_growth > 1e-3 * self.cycle_epochs:
            cycle, offset, length = cycle + 1, offset - length, length * self.cycle_growth
        return cycle, min(offset, length), length


@settings_dataclass
class RestartSettings:
    """When a training that does not decompose starts again from new initial weights (`trainer.restart`).

    The health of each validation decides; it reads no label.
    """

    times: NonNegativeInt = 0  # largest number of restarts
    from_step: NonNegativeInt = 0  # first and last step of an attempt at which it may restart
    until_step: NonNegativeInt = 7000
    largest_slot: Annotated[float, Field(gt=0, le=1)] = 0.9  # collapsed above this share of the foreground
    foreground_won: Annotated[float, Field(ge=0, lt=1)] = 0.005  # or if the objects' slots win less of the pixels


@settings_dataclass
class TemporalSettings:
    """Losses between consecutive frames, for data of clips (`trainer.temporal`); after MOC (Delfosse et al., 2023).

    With a weight above 0, half of a batch are frames, the other half the frame after each.
    """

    motion_weight: NonNegativeFloat = 0.0  # a pixel that changes belongs to an object in one of the two frames
    motion_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.1  # least change in a colour channel
    continuity_weight: NonNegativeFloat = 0.0  # an object's latent stays as it is

    @property
    def is_used(self) -> bool:
        """Whether a loss has a weight."""
        return self.motion_weight > 0 or self.continuity_weight > 0


@settings_dataclass
class TrainerSettings:
    """How long, on what, and how often it writes."""

    batch_size: PositiveInt = 64  # images a step, over all devices together
    max_steps: PositiveInt = 500_000  # the training ends after so many steps
    max_minutes: NonNegativeFloat = 0.0  # or after so many minutes, counted from each start; 0 sets no limit
    precision: Literal["auto", "bf16", "float32"] = "auto"  # bfloat16 autocast where it is faster, else float32
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"  # the GPU where there is one
    # Processes on a machine, each with its share of every batch. `auto`: those that torchrun or srun started, else one
    # for each GPU, or one on a CPU.
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    num_nodes: PositiveInt = 1  # machines that train together
    strategy: Literal["auto", "ddp"] = "auto"  # `ddp` is one process a device: auto's choice for several devices
    workers: Annotated[int, Field(ge=-1, le=256)] = -1  # that load data, of each process; -1: up to 8 for a GPU
    prefetch: PositiveInt = 4  # batches that each worker keeps ready
    threads: Annotated[int, Field(ge=0, le=1024)] = 0  # of the CPU; 0 leaves PyTorch's choice
    validate_minutes: PositiveFloat = 5.0  # between two validations, each with a figure, a verdict and a checkpoint
    validate_images: PositiveInt = 1000  # the first scenes of the validation, at most so many
    # The score whose best weights are kept. Where it does not apply, and without labels, `val/label_free` is. `last`:
    # those of the last validation, whatever its scores, so that no label chooses.
    keep_best_by: Literal["ari_fg", "ami_fg", "map_50", "mask_iou", "iou_polarity", "located", "last"] = "ari_fg"
    patience: NonNegativeInt = 0  # validations that gain nothing, after which the training ends; 0: it never does
    checkpoint_minutes: PositiveFloat = 5.0  # between two checkpoints
    log_every: PositiveInt = 50  # steps between two rows of metrics.csv
    # Where the rows go besides metrics.csv; `csv`: nowhere else. wandb and trackio are extras.
    logger: Literal["tensorboard", "csv", "wandb", "trackio"] = "tensorboard"
    restart: RestartSettings = field(default_factory=RestartSettings)
    temporal: TemporalSettings = field(default_factory=TemporalSettings)


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
