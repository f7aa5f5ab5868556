"""How soon each of several trainings was how good: the validation's ARI against the wall-clock, all in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unscene.report.curves import time_unit
from unscene.report.metric_descriptions import description_of
from unscene.runs.training_record import TrainingRecord

# Seen on white and on black; after the last one they begin again with other strokes.
_COLOURS = ("#2b8cc4", "#d55e00", "#009e73", "#cc79a7", "#999933", "#8a76d1", "#7f7f7f")
_STROKES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_SIZE, _DPI = (10.5, 4.0), 100  # inches, and their pixels


def validation_figure(trainings: Mapping[str, TrainingRecord], ink: str) -> Figure:
    """Draw the foreground ARI of every validation against the time that the training had taken by then.

    Args:
        trainings: by the name that stands in the legend, each with a validation at least.
        ink: colour of text and axes; the ground is transparent.
    """
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    longest = max(float(each.validation[:, 0].max()) for each in trainings.values())
    divisor, unit = time_unit(longest)
    for number, (name, training) in enumerate(trainings.items()):
        seconds, values = training.validation.T
        stroke, colour = divmod(number, len(_COLOURS))
        (line,) = axes.plot(seconds / divisor, values, label=name, lw=1.8, marker=".")
        line.set_color(_COLOURS[colour])
        line.set_linestyle(_STROKES[stroke % len(_STROKES)])
    axes.set_xlim(0, 1.02 * longest / divisor)
    axes.set_xlabel(f"{unit} of training", color=ink)
    axes.set_ylabel(f"validation: {description_of('ari_fg').label}", color=ink)
    axes.grid(visible=True, color="#7f7f7f", alpha=0.25, lw=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axes.tick_params(colors=ink)
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_linewidth(0.6)
        spine.set_visible(side in ("left", "bottom"))
    figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=ink)
    return figure
