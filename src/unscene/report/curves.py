"""Curves of trainings: all numbers of one training, or one score of several trainings."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from unscene.report.results import Curves
from unscene.runs.metrics_csv import Series, read_columns

_COLUMNS = 4
_DPI = 100
_PANEL = (3.2, 2.2)  # inches
_BLUE = "#2b8cc4"  # visible on white and on black
_ORANGE = "#d55e00"
_LIGHT, _DARK = "#333333", "#c8c8c8"  # ink on light and on dark pages
_MANY = 60  # points; longer series also show a running mean
_START = 0.05  # share of the run, at its start, in which losses are far from their later range
_DAYS, _HOURS, _MINUTES = (86400, "days"), (3600, "hours"), (60, "minutes")

# Visible on white and on black; after the last colour they repeat with other strokes.
_COLOURS = (_BLUE, _ORANGE, "#009e73", "#cc79a7", "#999933", "#8a76d1", "#7f7f7f")
_STROKES = ("-", "--", ":", "-.")

ScoreCurves = Mapping[str, Sequence[NDArray]]  # name in the legend -> a curve [P, 2] for each training of that name


def training_curves(metrics_csv: Path) -> Curves | None:
    """The curves of a run's metrics.csv, for light and dark pages; None where nothing was measured yet.

    DataError: the file is damaged.
    """
    series, clock = read_curves(metrics_csv)
    alt = "Losses and validation metrics of the training, each against step and wall-clock."
    return light_and_dark(partial(curves_figure, series, clock), alt) if series else None


def read_curves(metrics_csv: Path) -> tuple[Series, NDArray[np.float64]]:
    """The series of a run's metrics.csv, [P, 2] step and value by name, and [P, 2] step and seconds of every row.

    Series without a finite value, those that never change, and those that repeat an earlier one are left out.
    """
    columns, clock = read_columns(metrics_csv)
    kept: Series = {}
    for name, column in columns.items():
        points = column[:, [0, 2]]
        constant = len(points) > 1 and np.ptp(points[:, 1]) == 0
        repeated = any(np.array_equal(points, other) for other in kept.values())
        if len(points) and not constant and not repeated:
            kept[name] = points
    return kept, clock


def curves_figure(series: Series, clock: NDArray[np.float64], ink: str = _LIGHT) -> Figure:
    """Draw the series of `read_curves`, a panel for each: `val/` first, then `train/`, then the others.

    Below each panel is the step, above it the wall-clock. Where a series begins far outside its later range, the panel
    shows that range and a note. `ink` is the colour of text and axes; the ground is transparent.
    """
    ranks = {"val": 0, "train": 1}
    names = sorted(series, key=lambda name: ranks.get(name.partition("/")[0], 2))
    columns = min(_COLUMNS, len(names))
    rows = ceil(len(names) / columns)
    figure = Figure(figsize=(columns * _PANEL[0], rows * _PANEL[1]), dpi=_DPI, layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_series(axes, series[name], _BLUE if name.startswith("val/") else _ORANGE)
        axes.set_title(name, fontsize=11, color=ink, loc="left", fontweight="bold")
        axes.set_xlim(0, max(1.02 * float(clock[:, 0].max()), 1))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axes.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
        axes.set_xlabel("step", fontsize=8, color=ink)
        _add_clock(axes, clock, ink)
        _plain_axes(axes, ink, 8)
        axes.spines["top"].set_visible(True)
    return figure


def score_figure(panels: Mapping[str, ScoreCurves], score: str, ink: str) -> Figure:
    """Draw a score of several trainings; `panels` has the curves by the label of the horizontal axis."""
    figure = Figure(figsize=(10.5, 4.0), dpi=_DPI, layout="constrained")
    row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (label, series) in zip(row, panels.items(), strict=True):
        for number, (name, curves) in enumerate(series.items()):
            stroke, colour = divmod(number, len(_COLOURS))
            for index, curve in enumerate(curves):
                look = {"color": _COLOURS[colour], "linestyle": _STROKES[stroke % len(_STROKES)], "marker": "."}
                axes.plot(*curve.T, label="_" if index else name, lw=1.8, **look)
        longest = max(float(curve[:, 0].max()) for curves in series.values() for curve in curves)
        axes.set_xlim(0, 1.02 * longest or 1.0)
        axes.set_xlabel(label, color=ink)
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
        _plain_axes(axes, ink)
    row[0].set_ylabel(score, color=ink)
    handles, names = row[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, labelcolor=ink)
    return figure


def png_bytes(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=_DPI, transparent=True, metadata={"Software": "unscene"})
    return file.getvalue()


def light_and_dark(draw: Callable[[str], Figure], alt: str) -> Curves:
    """A figure as files for light and for dark pages; `draw` draws it in a given ink."""
    return Curves(png_bytes(draw(_LIGHT)), png_bytes(draw(_DARK)), alt)


def time_unit(longest: float) -> tuple[int, str]:
    """The seconds of the unit for times up to `longest` seconds, and its name."""
    return next((unit for unit in (_DAYS, _HOURS, _MINUTES) if longest >= 2 * unit[0]), (1, "seconds"))


def _draw_series(axes: Axes, points: NDArray[np.float64], colour: str) -> None:
    step, value = points.T
    many = len(points) >= _MANY
    axes.plot(step, value, color=colour, lw=0.8 if many else 1.6, alpha=0.35 if many else 1, marker="" if many else ".")
    if many:
        width = max(5, len(points) // 40)
        weights = np.ones(width)
        mean = np.convolve(value, weights, "same") / np.convolve(np.ones_like(value), weights, "same")
        axes.plot(step, mean, color=colour, lw=1.8)
    later = value[step >= step[0] + _START * (step[-1] - step[0])]
    span = np.ptp(later)
    if len(later) >= 5 and 0 < 4 * span < np.ptp(value):
        axes.set_ylim(later.min() - 0.1 * span, later.max() + 0.1 * span)
        axes.text(0.98, 0.95, "start beyond the axis", transform=axes.transAxes, ha="right", va="top", fontsize=7.5,
                  color="#7a7a7a")  # fmt: skip


def _plain_axes(axes: Axes, ink: str, size: float | None = None) -> None:
    """A faint grid, and thin lines only below and at the left."""
    axes.grid(visible=True, color="#7f7f7f", alpha=0.25, lw=0.6)
    axes.tick_params(colors=ink, labelsize=size)
    axes.spines[:].set(color=ink, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _add_clock(axes: Axes, clock: NDArray[np.float64], ink: str) -> None:
    """Show the wall-clock along the upper edge, each time above the step reached at that time."""
    step, seconds = clock[np.argsort(clock[:, 0], kind="stable")].T
    divisor, unit = time_unit(seconds[-1])
    ticks = np.array(MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, seconds[-1] / divisor))
    ticks = ticks[ticks * divisor <= seconds[-1]]
    above = axes.twiny()
    above.set_xlim(axes.get_xlim())
    above.set_xticks(np.interp(ticks * divisor, seconds, step).tolist(), [f"{tick:g}" for tick in ticks])
    above.set_xlabel(unit, fontsize=8, color=ink, loc="right", labelpad=2)
    above.tick_params(colors=ink, labelsize=8, length=2, pad=1)
    above.spines[:].set_visible(False)
