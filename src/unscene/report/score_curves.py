"""How soon each of several trainings was how good: a score against time, or against images, all in one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from unscene.report.curves import plain_axes

# Seen on white and on black; after the last one they begin again with other strokes.
_COLOURS = ("#2b8cc4", "#d55e00", "#009e73", "#cc79a7", "#999933", "#8a76d1", "#7f7f7f")
_STROKES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
_SIZE, _DPI = (10.5, 4.0), 100  # inches, and their pixels

Series = Mapping[str, Sequence[NDArray]]  # name in the legend -> a curve [P, 2] for each training of that name


def score_figure(panels: Mapping[str, Series], score: str, ink: str) -> Figure:
    """Draw a panel for each horizontal axis.

    Args:
        panels: the curves by the label of the horizontal axis; the same names in all.
        score: label of the vertical axis.
        ink: colour of text and axes; the ground is transparent.
    """
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, series) in zip(every, panels.items(), strict=True):
        for number, (name, curves) in enumerate(series.items()):
            stroke, colour = divmod(number, len(_COLOURS))
            for index, curve in enumerate(curves):
                (line,) = axes.plot(*curve.T, label="_" if index else name, lw=1.8, marker=".")
                line.set_color(_COLOURS[colour])
                line.set_linestyle(_STROKES[stroke % len(_STROKES)])
        longest = max(float(curve[:, 0].max()) for curves in series.values() for curve in curves)
        _draw_axes(axes, label, longest, ink)
    every[0].set_ylabel(score, color=ink)
    handles, names = every[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, labelcolor=ink)
    return figure


def _draw_axes(axes: Axes, label: str, longest: float, ink: str) -> None:
    axes.set_xlim(0, 1.02 * longest or 1.0)
    axes.set_xlabel(label, color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    plain_axes(axes, ink)
