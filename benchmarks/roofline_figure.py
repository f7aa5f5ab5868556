"""The roofline, drawn: what each part of a training step reaches, below what the machine allows."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.machine_rates import MachineRates, dtype_name
from benchmarks.part_work import PartWork
from unscene.files import write_bytes

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#a6761d", "#66419c")
_INK, _FAINT = "#333333", "#b0b0b0"
_DECADES = 2.0  # shown below the roof, at least
_LEAST_INTENSITY = 0.1  # FLOP a byte


def write_roofline(
    path: Path, title: str, work: dict[str, PartWork], total: PartWork, rates: MachineRates, dtype: torch.dtype
) -> None:
    """Draw the roofline into a PNG, whole or not at all.

    Args:
        path: of the file.
        title: above the figure.
        work: of each part.
        total: of the step, with its time as measured undisturbed.
        rates: the machine's.
        dtype: of the step's convolutions, whose roof is drawn.

    Raises:
        RunError: the file cannot be written.
    """
    png = io.BytesIO()
    roofline_figure(title, work, total, rates, dtype).savefig(png, format="png", dpi=130)
    write_bytes(path, png.getvalue())


def roofline_figure(
    title: str, work: dict[str, PartWork], total: PartWork, rates: MachineRates, dtype: torch.dtype
) -> Figure:
    """Left the roofline, FLOP/s against FLOP a byte; right each part's time and the least that it could be."""
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    roof, times = figure.subplots(1, 2, width_ratios=(1.35, 1))
    figure.suptitle(title, color=_INK, fontsize=12)
    colours = {name: _COLOURS[location % len(_COLOURS)] for location, name in enumerate(work)}
    _draw_roof(roof, work, total, rates, dtype)
    _draw_dots(roof, work, total, colours)
    _draw_times(times, work, total, colours)
    for axes in (roof, times):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=_INK)
    return figure


def _draw_roof(axes: Axes, work: dict[str, PartWork], total: PartWork, rates: MachineRates, dtype: torch.dtype) -> None:
    """The flat roofs of the matrix rates, the slopes of the copy rates, and limits that hold all dots."""
    top = rates.flops(dtype)
    near, far = rates.bandwidth(0), rates.copy[max(rates.copy)]
    dots = [(part.flops / part.bytes, part.flops / part.seconds) for part in _matrix_parts(work, total).values()]
    left = min([x for x, _ in dots] + [top / near / 10]) / 1.8
    right = max([x for x, _ in dots] + [top / far]) * 4
    bottom = min([y for _, y in dots] + [top / 10**_DECADES]) / 1.8
    intensity = np.geomspace(left, right, 200)
    axes.loglog(intensity, np.minimum(top, near * intensity), color=_INK, linewidth=2)
    axes.loglog(intensity, np.minimum(top, far * intensity), color=_INK, linewidth=1.2, linestyle="--")
    worse, better = sorted(_matrix_rates(rates, dtype), key=lambda each: each[1])
    axes.hlines(worse[1], worse[1] / near, right, color=_FAINT, linewidth=1.2)
    axes.set(xlim=(left, right), ylim=(bottom, top * 2.2), xlabel="FLOP a byte", ylabel="FLOP/s")
    axes.set_title("operations a byte against operations a second", fontsize=10, color=_INK)
    axes.grid(which="major", color="#ececec", linewidth=0.6)
    axes.text(right, top * 1.08, f"{better[0]}: {_flops(top)}", ha="right", va="bottom", fontsize=8, color=_INK)
    axes.plot([], [], color=_FAINT, linewidth=1.2, label=f"{worse[0]}: {_flops(worse[1])}")
    axes.plot([], [], color=_INK, linewidth=2, label=f"copy within the cache: {near / 1e9:,.0f} GB/s")
    axes.plot([], [], color=_INK, linewidth=1.2, linestyle="--", label=f"copy of much memory: {far / 1e9:,.0f} GB/s")


def _draw_dots(axes: Axes, work: dict[str, PartWork], total: PartWork, colours: dict[str, str]) -> None:
    """A dot a part, its area as its time; a ring for the whole step."""
    for name, part in _matrix_parts(work, total).items():
        location = (part.flops / part.bytes, part.flops / part.seconds)
        whole = name == "step"
        area = 40 + 900 * (0.5 if whole else part.seconds / total.seconds)
        face, edge = ("none", _INK) if whole else (colours[name], "white")
        axes.scatter(*location, s=area, facecolor=face, edgecolor=edge, linewidth=1.6 if whole else 0.8, zorder=3)
        axes.scatter([], [], s=45, facecolor=face, edgecolor=edge, label=f"{name}: {_flops(location[1])}")
    axes.legend(fontsize=8, frameon=False, loc="lower right", labelcolor=_INK)


def _draw_times(axes: Axes, work: dict[str, PartWork], total: PartWork, colours: dict[str, str]) -> None:
    """A bar a part: measured, and within it what its operations take at least."""
    rows = {**work, "step": total}
    for row, (name, part) in enumerate(rows.items()):
        colour = _FAINT if name == "step" else colours[name]
        axes.barh(row, 1000 * part.seconds, height=0.66, color=colour, alpha=0.45)
        axes.barh(row, 1000 * part.bound, height=0.3, color=_INK if name == "step" else colour)
        end = 1000 * max(part.seconds, part.bound)
        axes.annotate(
            f"{1000 * part.seconds:,.3g} ms, {part.share:.0%}",
            (end, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=_INK,
        )
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlim(0, 1250 * max(part.seconds for part in (*work.values(), total)))
    axes.set_xlabel("ms")
    axes.set_title("time (pale) and the least it could be, op by op (dark); share reached", fontsize=10, color=_INK)


def _matrix_parts(work: dict[str, PartWork], total: PartWork) -> dict[str, PartWork]:
    """The parts that a roofline can show: those that multiply; where hardly anything does, only the bytes matter."""
    parts = {**work, "step": total}
    return {name: part for name, part in parts.items() if part.seconds and part.flops > _LEAST_INTENSITY * part.bytes}


def _matrix_rates(rates: MachineRates, dtype: torch.dtype) -> list[tuple[str, float]]:
    name = dtype_name(dtype)
    return [(f"matrix product, {name}", rates.matmul[dtype]), (f"3x3 convolution, {name}", rates.convolution[dtype])]


def _flops(rate: float) -> str:
    return f"{rate / 1e12:.3g} TFLOP/s" if rate >= 1e12 else f"{rate / 1e9:.3g} GFLOP/s"
