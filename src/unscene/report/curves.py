"""How a training went: every column of metrics.csv against the step, with the wall-clock above."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from unscene.errors import DataError
from unscene.report.figures import png_bytes
from unscene.report.results import Curves
from unscene.runs.metrics_csv import Series, read_columns

_COLUMNS = 4
_DPI = 100
_PANEL = (3.2, 2.2)  # inches
_BLUE = "#2b8cc4"  # seen on white and on black
_ORANGE = "#d55e00"
_LIGHT, _DARK = "#333333", "#c8c8c8"  # ink on pages of that ground
_MANY = 60  # points; from here on their running mean is drawn as well
_START = 0.05  # of the run; losses begin far from where they then stay
_DAYS, _HOURS, _MINUTES = (86400, "days"), (3600, "hours"), (60, "minutes")


def read_curves(metrics_csv: Path) -> tuple[Series, NDArray[np.float64]]:
    """Read a run's metrics.csv.

    Args:
        metrics_csv: see `read_columns`.

    Returns:
        The series by name; and the clock [P, 2], step and seconds of every row. Left out are series without a finite
        value, those that never change, and those that repeat an earlier one.

    Raises:
        DataError: see `read_columns`.
    """
    columns, clock = read_columns(metrics_csv)
    return _worth_drawing({name: points[:, [0, 2]] for name, points in columns.items()}), clock


def curves_figure(metrics_csv: Path, ink: str = _LIGHT) -> Figure:
    """Draw every series of a run's metrics.csv in a panel of its own: `val/` first, then `train/`, then the others.

    Below each panel is the step, above it the wall-clock. Where a series begins far outside the range in which it then
    stays, the panel shows that range and says that the start is beyond it.

    Args:
        metrics_csv: see `read_curves`.
        ink: colour of text and axes; the ground is transparent.

    Raises:
        DataError: see `read_curves`, or nothing was measured yet.
    """
    series, clock = read_curves(metrics_csv)
    if not series:
        raise DataError(f"{metrics_csv} holds no measured value yet. Train longer, or leave the curves out.")
    names = sorted(series, key=lambda name: (_rank(name), list(series).index(name)))
    columns = min(_COLUMNS, len(names))
    rows = ceil(len(names) / columns)
    size = (columns * _PANEL[0], rows * _PANEL[1])
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    for number, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, number)
        _draw_series(axes, series[name], _BLUE if name.startswith("val/") else _ORANGE)
        axes.set_title(name, fontsize=11, color=ink, loc="left", fontweight="bold")
        _draw_axes(axes, clock, ink)
    return figure


def light_and_dark(draw: Callable[[str], Figure], alt: str) -> Curves:
    """A figure that is drawn in a given ink, as files for a light and for a dark page."""
    return Curves(png_bytes(draw(_LIGHT)), png_bytes(draw(_DARK)), alt)


def _worth_drawing(series: Series) -> Series:
    kept: Series = {}
    for name, points in series.items():
        constant = len(points) > 1 and np.ptp(points[:, 1]) == 0
        repeated = any(np.array_equal(points, other) for other in kept.values())
        if len(points) and not constant and not repeated:
            kept[name] = points
    return kept


def time_unit(longest: float) -> tuple[int, str]:
    """How many seconds the unit has in which times up to `longest` seconds are written, and its name."""
    return next((unit for unit in (_DAYS, _HOURS, _MINUTES) if longest >= 2 * unit[0]), (1, "seconds"))


def _rank(name: str) -> int:
    return {"val": 0, "train": 1}.get(name.partition("/")[0], 2)


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


def _draw_axes(axes: Axes, clock: NDArray[np.float64], ink: str) -> None:
    axes.set_xlim(0, max(1.02 * float(clock[:, 0].max()), 1))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda step, _: f"{step / 1000:g}k" if step >= 1000 else f"{step:g}")
    axes.set_xlabel("step", fontsize=8, color=ink)
    _add_clock(axes, clock, ink)
    plain_axes(axes, ink, 8)
    axes.spines["top"].set_visible(True)


def plain_axes(axes: Axes, ink: str, size: float | None = None) -> None:
    """A faint grid, and thin lines below and at the left alone."""
    axes.grid(visible=True, color="#7f7f7f", alpha=0.25, lw=0.6)
    axes.tick_params(colors=ink, labelsize=size)
    for side, spine in axes.spines.items():
        spine.set_color(ink)
        spine.set_linewidth(0.6)
        spine.set_visible(side in ("left", "bottom"))


def _add_clock(axes: Axes, clock: NDArray[np.float64], ink: str) -> None:
    """The wall-clock along the panel's upper edge, each time above the step that was reached then."""
    step, seconds = clock[np.argsort(clock[:, 0], kind="stable")].T
    divisor, unit = time_unit(seconds[-1])
    ticks = [
        tick
        for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, seconds[-1] / divisor)
        if tick * divisor <= seconds[-1]
    ]
    above = axes.twiny()
    limits = axes.get_xlim()
    above.set_xlim(limits)
    above.set_xticks(np.interp(np.array(ticks) * divisor, seconds, step).tolist(), [f"{tick:g}" for tick in ticks])
    above.set_xlabel(unit, fontsize=8, color=ink, loc="right", labelpad=2)
    above.tick_params(colors=ink, labelsize=8, length=2, pad=1)
    for spine in above.spines.values():
        spine.set_visible(False)
