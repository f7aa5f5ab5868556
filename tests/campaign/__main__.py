"""Damages every kind of input and interrupts every command, and counts what they do: `make campaign`.

right       the answer of the sound input          clear   a refusal in a line that says why
traceback   an unforeseen error                    wrong   another answer with status 0, or a refusal without a reason
hang        no end within the time                 litter  files that no command removes

The exit status is 1 if one of the last four is above 0. Every case has a number, which depends on --seed alone;
`--case N` runs one and prints what it did.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.campaign.cases import WRITERS, faults, mutations
from tests.campaign.inputs import write_inputs
from tests.campaign.judge import BAD, GOOD, Case, Judge, Verdict

os.environ.pop("UNSCENE_TRACEBACK", None)
_work: list[Callable[[], Any]] = []


def main() -> int:
    """Run the campaign; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--fraction", type=float, default=1.0, help="a random share of the cases")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="cases from this number on only")
    parser.add_argument("--kind", default="", help="cases of this kind only")
    parser.add_argument("--case", type=int, action="append", help="these cases only")
    options = parser.parse_args()
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="campaign-"))
    try:
        _import_everything()
        cases, verdicts = _run_all(options, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _summarise(cases, verdicts, time.monotonic() - began)
    return int(any(verdict in BAD for verdict, _ in verdicts.values()))


def _import_everything() -> None:
    """All that the commands import, once, before processes are forked."""
    for module in ("evaluation.compare", "evaluation.shifts", "inference.decompose", "training.train", "data.generate"):
        importlib.import_module(f"unscene.{module}")


def _run_all(options: argparse.Namespace, scratch: Path) -> tuple[dict[int, Case], dict[int, Verdict]]:
    inputs = scratch / "inputs"
    inputs.mkdir()
    judge = Judge(inputs, scratch)
    if os.fork() == 0:  # training starts threads, which a process that forks must not have
        os.chdir(inputs)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        write_inputs()
        os._exit(0)
    if os.wait()[1]:
        raise SystemExit("the sound inputs cannot be written")
    mutated = mutations(options.seed)
    needed = {case.sound_key: case for case in [*WRITERS, *_chosen(mutated, options).values()]}
    sound = dict(zip(needed, _in_processes(options.jobs, judge.run_sound, [*needed.values()]), strict=True))
    judge.answers = {key: found for key, (found, _) in sound.items()}
    operations = [sound[case.sound_key][1] for case in WRITERS]
    chosen = _chosen([*mutated, *faults(options.seed, operations)], options)
    verdicts = {}
    judged = zip(chosen, _in_processes(options.jobs, judge.run, [*chosen.values()]), strict=True)
    for number, verdict in tqdm(judged, total=len(chosen), unit=" cases", mininterval=10):
        verdicts[number] = verdict
        if verdict[0] in BAD or options.case:
            case, why = chosen[number], verdict[1].encode(errors="backslashreplace").decode()
            print(f"{verdict[0]:<9} {number:>4} {case.kind}: {case.name!r}: {why}")
            print(f"               unscene {' '.join(map(repr, case.words))[:400]}", flush=True)
    return chosen, verdicts


def _chosen(cases: list[Case], options: argparse.Namespace) -> dict[int, Case]:
    """The cases that the options ask for, by number; a case is in a fraction or not, whatever the others are."""
    if options.case:
        return {number: cases[number] for number in options.case if number < len(cases)}
    return {
        number: case
        for number, case in enumerate(cases)
        if number >= options.first and options.kind in case.kind
        if random.Random(f"{options.seed} {number}").random() < options.fraction
    }


def _in_processes(jobs: int, work: Callable[[Case], Any], cases: list[Case]) -> Iterator[Any]:
    """The results for cases, in their order; forked processes have the cases, which cannot be pickled."""
    global _work
    _work = [partial(work, case) for case in cases]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(_run, range(len(cases)), 1)


def _run(number: int) -> Any:
    return _work[number]()


def _summarise(cases: dict[int, Case], verdicts: dict[int, Verdict], seconds: float) -> None:
    columns = (*GOOD, *BAD)
    kinds = dict.fromkeys(case.kind for case in cases.values())
    print(f"\n{'kind':<14} {'cases':>6} " + " ".join(f"{name:>9}" for name in columns))
    for kind in (*kinds, "all"):
        counts = Counter(verdicts[number][0] for number, case in cases.items() if kind in (case.kind, "all"))
        print(f"{kind:<14} {counts.total():>6} " + " ".join(f"{counts[name]:>9}" for name in columns))
    print(f"{seconds / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(main())
