"""What a comparison of trained models holds: for each its scores, its size, its training and its speed."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from unscene.report.results import Curves, ModelResult, Picture
from unscene.runs.training_record import TrainingRecord

SCHEMA = 1  # of compare.json; raised whenever a name in it changes its meaning


@dataclass(frozen=True)
class ComparedModel:
    """One model.

    Attributes:
        result: its evaluation, under the name that it has in this comparison.
        recipe: its recipe's name.
        parameters: their number.
        training: what its run's folder says; None for weights without one.
        seconds: that each round took it to decompose the batch; those of one place are of one round in all models.
        images: in that batch.
    """

    result: ModelResult
    recipe: str
    parameters: int
    training: TrainingRecord | None
    seconds: tuple[float, ...]
    images: int

    @property
    def name(self) -> str:
        """What it is called in this comparison."""
        return self.result.name

    @property
    def weights_step(self) -> int | None:
        """The step of training that the scored weights are of, if that is known."""
        step = self.result.provenance["weights"].get("step")
        return step if isinstance(step, int) else None

    def values(self) -> dict[str, float | int | None]:
        """Every number by its name, those of the evaluation last; None is not applicable, or not known."""
        training = self.training
        return {
            "parameters": self.parameters,
            "training_steps": training.steps if training else None,
            "training_minutes": training.minutes if training else None,
            "training_images_per_second": training.images_per_second if training else None,
            "images_per_second": self.images / median(self.seconds),
            **self.result.metrics,
        }


@dataclass(frozen=True)
class Comparison:
    """Models that were scored on the same scenes.

    Attributes:
        models: in the order in which they were named.
        data: what the scenes are, ready for JSON.
        scenes: the figure of some scenes, see `unscene.report.comparison_figure`.
        curves: of the validations, where there is a run with any.
        notes: what whoever reads the numbers should know, a sentence each.
    """

    models: tuple[ComparedModel, ...]
    data: dict[str, Any]
    scenes: Picture
    curves: Curves | None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What compare.json holds; pictures are left out."""
        return {
            "schema": SCHEMA,
            "data": self.data,
            "notes": list(self.notes),
            "models": [_as_json(each) for each in self.models],
        }


def _as_json(model: ComparedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "recipe": model.recipe,
        "weights_step": model.weights_step,
        **model.values(),
        "reported": model.result.reported,
        "training_machine": model.training.machine if model.training else None,
        "decomposing": {"images": model.images, "seconds": list(model.seconds)},
        "evaluation": model.result.as_json(),
    }
