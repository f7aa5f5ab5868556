"""Time several ways to do one thing side by side, and say how many times as fast each is as the first of them.

A shared machine is now fast, now slow. So the subjects take turns, round by round, in one process: what slows a round
slows all of it, and the ratio of two subjects, taken within each round, stays. Its median over the rounds is what
counts; the least and the greatest say how far to trust it.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from unscene.errors import RecipeError

Subject = Callable[[], object]


class Spread(NamedTuple):
    """The least, the middle and the greatest of a subject's rounds."""

    least: float
    median: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


def measure(
    subjects: Mapping[str, Subject], rounds: int = 5, seconds: float = 0.5, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Return the seconds that one call of each subject takes, a number a round.

    Every subject is first called until it runs warm (twice, which on a GPU waits for it). Then each round calls each
    subject in turn, a quick one again and again, as often as fits into `seconds`, and takes the mean.

    Args:
        subjects: name -> what to time; it is called without arguments and its answer is thrown away.
        rounds: how often all subjects take their turn.
        seconds: least time of a subject's turn; a subject that takes longer is called once.
        device: a GPU is waited for before and after a turn.

    Returns:
        name -> `rounds` numbers, in seconds a call; the n-th of all subjects are of the same round.

    Raises:
        RecipeError: no subject, or less than one round.
    """
    if not subjects or rounds < 1:
        raise RecipeError(f"a measurement needs subjects and at least 1 round, not {len(subjects)} and {rounds}.")
    measured: dict[str, list[float]] = {name: [] for name in subjects}
    with _without_garbage_collection():
        for subject in subjects.values():
            _turn(subject, 1, device)
        calls = {name: max(1, math.ceil(seconds / _turn(subject, 1, device))) for name, subject in subjects.items()}
        for _ in range(rounds):
            gc.collect(1)  # what the last round left; the old objects of libraries would take longer than a subject
            for name, subject in subjects.items():
                measured[name].append(_turn(subject, calls[name], device))
    return measured


def _turn(subject: Subject, calls: int, device: torch.device | str) -> float:
    """Seconds a call."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(calls):
        subject()
    synchronise(device)
    return max((time.perf_counter() - start) / calls, 1e-9)  # a clock may stand still


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Garbage collection would be charged to the subject that happens to run."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def synchronise(device: torch.device | str) -> None:
    """Wait until a GPU has done all that it was asked; a CPU always has."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Comparison:
    """What was measured of several ways to do one thing.

    Attributes:
        title: what they do.
        seconds: name -> seconds a call, a number a round, as `measure` returns them.
        reference: the subject that the ratios are against; None: no ratios.
        items: how many things one call handles; 0: speed is not shown.
        unit: what the things are, for instance `images`.
        notes: name -> any further numbers of a subject, which go into the JSON as they are.

    Raises:
        RecipeError: subjects of different numbers of rounds, or a reference that was not measured.
    """

    title: str
    seconds: dict[str, list[float]]
    reference: str | None = None
    items: int = 0
    unit: str = "images"
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len({len(rounds) for rounds in self.seconds.values()}) != 1 or not all(self.seconds.values()):
            raise RecipeError(f"{self.title}: all subjects must have been measured in the same rounds, at least one.")
        if self.reference is not None and self.reference not in self.seconds:
            known = ", ".join(self.seconds)
            raise RecipeError(f"{self.title}: the reference '{self.reference}' was not measured, only {known}.")

    def ratio(self, name: str) -> Spread | None:
        """How many times as fast a subject is as the reference, round by round; None without a reference."""
        if self.reference is None:
            return None
        pairs = zip(self.seconds[self.reference], self.seconds[name], strict=True)
        return Spread.of([reference / own for reference, own in pairs])

    def speed(self, name: str) -> Spread | None:
        """Things a second; None where `items` says nothing."""
        return Spread.of([self.items / own for own in self.seconds[name]]) if self.items else None

    def table(self) -> str:
        """The comparison as aligned text, a line a subject."""
        rows = [["", "ms a call: min", "median", "max"]]
        if self.items:
            rows[0] += [f"{self.unit}/s: min", "median", "max"]
        if self.reference is not None:
            rows[0] += ["times as fast: min", "median", "max"]
        for name, rounds in self.seconds.items():
            cells = [Spread.of([1000 * seconds for seconds in rounds]), self.speed(name), self.ratio(name)]
            rows.append([name, *(_short(value) for spread in cells if spread for value in spread)])
        count = len(next(iter(self.seconds.values())))
        return "\n".join([f"{self.title} ({count} round{'s' if count > 1 else ''})", *aligned(rows)])

    def as_json(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        subjects: dict[str, dict[str, Any]] = {}
        for name, rounds in self.seconds.items():
            subjects[name] = {"seconds": _spread_json(Spread.of(rounds)) | {"rounds": rounds}}
            for key, spread in ((f"{self.unit}_per_second", self.speed(name)), ("times_as_fast", self.ratio(name))):
                if spread:
                    subjects[name][key] = _spread_json(spread)
            subjects[name] |= self.notes.get(name, {})
        return {"title": self.title, "reference": self.reference, "items": self.items, "subjects": subjects}


def _spread_json(spread: Spread) -> dict[str, Any]:
    return {"min": spread.least, "median": spread.median, "max": spread.greatest}


def _short(value: float) -> str:
    """Three digits that count, but every digit of a large number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines; the first column is flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
