"""What a case is, and whether the command did the right thing: the sound input's answer, or a clear refusal."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from safetensors.torch import load_file

from tests.campaign.process import SECONDS, Fault, Ran, run_shell, run_words

Change = Callable[[Path], object]  # changes the inputs in a folder
Check = Callable[[Path, Ran], str]  # why an answer is wrong, or nothing
Verdict = tuple[str, str]  # and why
Answer = dict[str, str]  # what results say, by file

GOOD, BAD = ("right", "clear"), ("traceback", "wrong", "hang", "litter")
_CLEAR = re.compile(
    r"(Shape|Recipe|Data|Checkpoint|Run|Training|Memory)Error: |unscene( \w+)?: |standard out|Stopped|Interr|Check this"
)
_LITTER = re.compile(r"(^|/)(\..*\.part|\.unscene-[^/]*|\..*\.parts|unscene-report-.*)(/|$)")
_OUTPUTS = ("out", "out.h5", "run")
_VARYING = re.compile(
    r"info|provenance|commits|.*(date|command|ms_per_image|per_second|seconds|minutes|curve)"
)  # keys of JSON


@dataclass(frozen=True)
class Case:
    """One command on inputs of which something was changed.

    Attributes:
        kind, name: its line of the summary, and its own name.
        words: the command line, run in a folder that holds the inputs.
        inputs: what is copied there; `a:b` has the name b there.
        change: changes the inputs, in that folder.
        expect: "same" answer as of the sound command; "either" that or a refusal; "decoded": "either", or the answer
            for the pixels as Pillow decodes them; "any" answer or a refusal; or a function that judges the answer.
        sound: the words of the sound command, if others.
        mentions: a refusal must hold one of these words.
        fault: what happens to a first, equal command.
        shell: run as a new process by bash, where UNSCENE stands for the program.
        environment: variables of that process.
    """

    kind: str
    name: str
    words: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    change: Change = lambda folder: None
    expect: str | Check = "either"
    sound: tuple[str, ...] | None = None
    mentions: tuple[str, ...] = ()
    fault: Fault | None = None
    shell: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def sound_key(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The sound command that this one is compared with."""
        return self.sound or self.words, self.inputs


class Judge:
    """Runs cases on copies of the inputs, and judges them by the answers of their sound commands."""

    def __init__(self, inputs: Path, scratch: Path) -> None:
        self.inputs, self.scratch = inputs, scratch
        self.answers: dict[Any, Answer] = {}  # of the sound commands

    def run_sound(self, case: Case) -> tuple[Answer, tuple[str, ...]]:
        """The answer of a case's sound command, and its file operations."""
        words, folder = case.sound_key[0], self._room(case)
        ran = run_words(words, folder, ("count", 0))
        if ran.status != 0:
            raise RuntimeError(f"the sound command `unscene {' '.join(words)}` fails: {ran.status} {ran.err[-2000:]}")
        found = answer(case, folder, ran)
        shutil.rmtree(folder)
        return found, ran.operations

    def run(self, case: Case) -> Verdict:
        """Run and judge a case."""
        folder = self._room(case)
        try:
            case.change(folder)
            before = tree(folder)
            if case.fault:
                first = run_words(case.words, folder, case.fault)
                verdict = _judge_fault(case, first, tree(folder).keys() - before.keys())
                if verdict:
                    return verdict
            ran = run_shell(case.shell, folder, case.environment) if case.shell else run_words(case.words, folder)
            return (
                _broken(ran) or _judge_files(case, ran, before, tree(folder)) or self._judge_result(case, ran, folder)
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _room(self, case: Case) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.scratch))
        (folder / ".tmp").mkdir()
        for words in case.inputs:
            name, _, target = words.partition(":")
            (folder / (target or name)).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (self.inputs / name).is_dir() else shutil.copy
            copy(self.inputs / name, folder / (target or name))
        return folder

    def _judge_result(self, case: Case, ran: Ran, folder: Path) -> Verdict:
        sound = self.answers[case.sound_key]
        if ran.status != 0:
            return _judge_refusal(case, ran, case.fault is not None and answer(case, folder, ran) == sound)
        try:
            given = answer(case, folder, ran)
            why = case.expect(folder, ran) if callable(case.expect) else ""
        except Exception as error:
            return "wrong", f"status 0, and results that cannot be read: {error!r}"
        if not given:
            return "wrong", "status 0 without any result"
        if why:
            return "wrong", why
        if callable(case.expect) or case.expect == "any" or given == sound:
            return "right", ""
        if case.expect == "decoded" and given == self._decoded_answer(case, folder):
            return "right", ""
        differing = sorted(name for name in {**given, **sound} if given.get(name) != sound.get(name))
        return "wrong", f"status 0, and another answer: {differing[:5]}"

    def _decoded_answer(self, case: Case, folder: Path) -> Answer | None:
        """The answer for the pixels of the changed photo as Pillow decodes them; None if it does not."""
        room, (photo,) = self._room(case), [word for word in case.words if word.startswith("photo")]
        try:
            with Image.open(folder / photo) as image:
                white = Image.new("RGBA", image.size, "white")
                white.alpha_composite(image.convert("RGBA"))
            white.convert("RGB").save(room / photo, "PNG")
            ran = run_words(case.words, room)
            return answer(case, room, ran) if ran.status == 0 else None
        except (OSError, SyntaxError, ValueError):
            return None
        finally:
            shutil.rmtree(room)


def _broken(ran: Ran) -> Verdict | None:
    """What no command may do, whatever it was given."""
    if ran.status is None:
        return "hang", f"no end after {SECONDS} s of a processor, or waits for ever"
    if ran.status < 0 or ran.status == 70 or "Traceback (most recent" in ran.err or "unexpected error" in ran.err:
        return "traceback", f"status {ran.status}: {last_lines(ran.err)}"
    return None


def _judge_fault(case: Case, ran: Ran, new: set[str]) -> Verdict | None:
    """The command that the fault happened to; None: the next one decides."""
    assert case.fault
    if case.fault[0] == "kill" and ran.status == -signal.SIGKILL:
        return None
    litter = [name for name in new if _LITTER.search(name) and ".parts" not in name]
    broken = _broken(ran)
    if not broken and litter and case.fault[0] != "denied":
        return "litter", f"{litter[:4]}"
    if not broken and ran.status and not _CLEAR.search(ran.err):
        return "wrong", f"no clear message: {last_lines(ran.err)}"
    return broken


def _judge_files(case: Case, ran: Ran, before: dict[str, str], after: dict[str, str]) -> Verdict | None:
    trains = case.words[0] == "train"
    own = ("run", "out") if trains else ("out",)
    changed = [name for name in before if after.get(name) != before[name] and not name.startswith(own)]
    if changed:
        return "wrong", f"changed its inputs: {changed[:4]}"
    new = after.keys() - before.keys()
    named = case.sound is not None and ran.status == 0  # a changed command line names outputs of its own
    litter = [name for name in new if _LITTER.search(name) or not (named or name.split("/")[0] in _OUTPUTS)]
    if ran.status and not case.fault and not (trains and {"out/metrics.csv", "run/metrics.csv"} & after.keys()):
        litter += new
    return ("litter", f"status {ran.status}, {sorted(litter)[:4]}; {last_lines(ran.err)}") if litter else None


def _judge_refusal(case: Case, ran: Ran, complete: bool) -> Verdict:
    line = last_lines(ran.err)
    if not _CLEAR.search(ran.err) or len(line) > 1500:
        return "wrong", f"no clear message: {line}"
    if complete:  # the results are there: they are not replaced
        return "right", ""
    if case.expect == "same":
        return "wrong", f"refused: {line}"
    if case.mentions and not any(word in ran.err for word in case.mentions):
        return "wrong", f"the message does not name {' or '.join(case.mentions)}: {line}"
    return "clear", line


def last_lines(text: str) -> str:
    """The last two lines, without progress bars."""
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    return " | ".join([line for line in lines if line and "it/s" not in line and "/s]" not in line][-2:])[-1600:]


def tree(folder: Path) -> dict[str, str]:
    """Every path below a folder, with a digest of what is there; links are not followed."""
    found = {}
    for path in folder.rglob("*"):
        mode, content = path.lstat().st_mode, b""
        if stat.S_ISREG(mode) and path.lstat().st_size < 2**26:
            content = path.read_bytes()
        elif stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        found[str(path.relative_to(folder))] = f"{stat.S_IFMT(mode)} {hashlib.sha256(content).hexdigest()}"
    return found


def answer(case: Case, folder: Path, ran: Ran) -> Answer:
    """What a command's results say, by file, without dates and times; what it printed, if it wrote no results."""
    found: Answer = {}
    outputs = _OUTPUTS if case.words[0] == "train" else _OUTPUTS[:2]  # a run that is read is no output
    paths = sorted(path for name in outputs for path in (folder / name, *(folder / name).rglob("*")))
    for path in filter(Path.is_file, paths):
        name = str(path.relative_to(folder))
        if path.suffix == ".json" and path.name != "environment.json":
            found[name] = json.dumps(_steady(json.loads(path.read_text())))
        elif path.name.endswith((".overlay.png", ".masks.png")):
            found[name] = _digest(np.array(Image.open(path)))
        elif path.name == "weights.safetensors":
            found[name] = " ".join(_digest(tensor.numpy()) for _, tensor in sorted(load_file(path).items()))
        elif path.suffix == ".h5":
            with h5py.File(path) as file:
                found[name] = " ".join(f"{key} {_digest(data[()])}" for key, data in sorted(file.items()))
    return found or ({"printed": ran.out} if ran.out else {})


def _steady(values: Any) -> Any:
    """Values without what varies from run to run: their last digits follow from the number of threads."""
    if isinstance(values, float):
        return float(f"{values:.5g}")
    if isinstance(values, dict):
        return {key: _steady(value) for key, value in values.items() if not _VARYING.fullmatch(key)}
    return [_steady(value) for value in values] if isinstance(values, list) else values


def _digest(array: Any) -> str:
    return f"{array.shape} {array.dtype} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"
