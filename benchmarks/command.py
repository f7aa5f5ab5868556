"""What every benchmark's command line has in common: its options, what it prints and the JSON that it writes."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Comparison
from unscene.errors import RecipeError, UnsceneError
from unscene.files import write_text, writing
from unscene.ops.cpu_tuning import tune_cpu
from unscene.runs.run_folder import describe_machine

RESULTS = Path(__file__).resolve().parent / "results"


def option_parser(name: str, description: str | None, rounds: int = 5, seconds: float = 0.5) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks take; a benchmark adds its own.

    Args:
        name: of the module: `training_step` is called by `python -m benchmarks.training_step`.
        description: the module's docstring; its first line is shown by --help.
        rounds: the default of --rounds.
        seconds: the default of --seconds.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=(description or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(benchmark=name)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often all subjects take their turn")
    parser.add_argument("--seconds", type=float, default=seconds, help="least time of a turn")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; 0: PyTorch's choice")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", metavar="FILE", help="where to write")
    return parser


def started(parser: argparse.ArgumentParser, words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line and set the machine up as a training does: threads, and no denormal numbers.

    Raises:
        RecipeError: a device that is not there.
    """
    options = parser.parse_args(words)
    options.words = list(sys.argv[1:] if words is None else words)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        raise RecipeError("--device is cuda, but PyTorch finds no GPU here. Leave it out, or set it to cpu.")
    if options.threads:
        torch.set_num_threads(options.threads)
    tune_cpu()
    return options


def finish(options: argparse.Namespace, comparisons: Sequence[Comparison], **more: Any) -> None:
    """Write the JSON of everything that was measured, whole or not at all.

    Args:
        options: of `started`.
        comparisons: everything that was measured.
        more: whatever else is to be in the JSON.

    Raises:
        RunError: the file cannot be written.
    """
    content = {
        "benchmark": options.benchmark,
        "machine": describe_machine() | {"command": command_line(options), "device": options.device},
        "options": {"rounds": options.rounds, "seconds": options.seconds},
        **more,
        "comparisons": [comparison.as_json() for comparison in comparisons],
    }
    with writing(options.json):
        options.json.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.json, json.dumps(content, indent=2) + "\n")
    print(f"written: {options.json}")


def run(main: Callable[[], None]) -> None:
    """Call a benchmark's `main`; a mistake of the user's is one line, not a traceback."""
    try:
        main()
    except UnsceneError as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")


def command_line(options: argparse.Namespace) -> str:
    """The command as it was typed, to be typed again."""
    return shlex.join(["python", "-m", f"benchmarks.{options.benchmark}", *options.words])
