"""Ctrl-C, SIGTERM and several processes, as a user meets them: in a process of their own."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unscene.runs.run_folder import RunFolder
from unscene.training.train import train

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals are another matter on Windows")]

LIMIT = 1200  # seconds; only a hang takes so long


class Training:
    """`unscene train` in a process of its own."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "unscene", "train", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may have it ignored
        )

    def when(self, holds: Callable[[], bool]) -> None:
        """Wait."""
        end = time.monotonic() + LIMIT
        while not holds():
            assert time.monotonic() < end, "the process did not get so far"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.005)

    def end(self) -> tuple[int, str]:
        """Exit status and stderr."""
        out, err = self.process.communicate(timeout=LIMIT)
        assert "Traceback" not in err + out
        return self.process.returncode, err


def lines(path: Path) -> int:
    return path.read_text().count("\n") if path.exists() else 0


def unfinished(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.part")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_ended_by_a_signal_can_be_resumed(tmp_path, tiny, tiny_arguments, number):
    run = RunFolder(tmp_path / "run")
    training = Training(
        [*tiny_arguments, "--trainer.max_steps=100000", "--trainer.log_every=1", "--out", str(run.path)]
    )
    training.when(lambda: lines(run.metrics) > 3)
    training.process.send_signal(number)
    status, messages = training.end()
    assert status == 130
    assert f"Stopped with a checkpoint. Resume it with:  unscene train --resume {run.path}" in messages
    assert unfinished(run.path) == []
    step = torch.load(run.last, weights_only=True)["step"]
    with run.metrics.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [str(row) for row in range(1, step + 1)]
    train(tiny({"trainer.max_steps": step + 2, "trainer.log_every": 1}), run.path, resume=True)
    assert torch.load(run.last, weights_only=True)["step"] == step + 2


def test_two_signals_before_the_first_step_leave_no_temporary_file(tmp_path, tiny_arguments):
    run = RunFolder(tmp_path / "run")
    training = Training([*tiny_arguments, "--trainer.max_steps=100000", "--out", str(run.path)])
    training.when(lambda: run.environment.exists() or run.tensorboard.exists())
    training.process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    training.process.send_signal(signal.SIGINT)
    status, messages = training.end()
    assert status in (130, -signal.SIGINT)
    assert "Interrupted" in messages or "Stopped" in messages
    assert unfinished(tmp_path) == []
    assert not run.path.exists() or run.metrics.exists() or run.last.exists()


def test_two_processes_share_every_batch(tmp_path, tiny_arguments):
    """`--trainer.devices 2` starts the second process itself; test_distributed compares what two processes compute."""
    run = RunFolder(tmp_path / "run")
    several = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.log_every=1", "--trainer.max_steps=2"]
    training = Training([*tiny_arguments, *several, "--validation.count=2", "--out", str(run.path)])
    status, messages = training.end()
    assert status == 0, messages
    with run.metrics.open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["step"] for row in table if row["train/loss"]] == ["1", "2"]
    assert [row["step"] for row in table if row["val/score"]] == ["2"]
    assert len(run.starts()) == 1  # the second process writes nothing
    assert torch.load(run.last, weights_only=True)["step"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
