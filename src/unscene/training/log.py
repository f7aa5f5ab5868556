"""What a training logs: metrics.csv, TensorBoard or another tracker, and the progress bar."""

from __future__ import annotations

import csv
import io
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import Tensor
from tqdm import tqdm

from unscene.distributed.processes import mean_over_processes
from unscene.errors import TrainingError, import_extra
from unscene.files import write_text, writing
from unscene.runs.run_folder import RunFolder
from unscene.runs.trainer_settings import TrainerSettings

_ON_THE_BAR = {"loss": "train/loss", "img/s": "train/images_per_second", "ARI": "val/ari_fg"}


class TrainingLog:
    """Sums the losses of every step, writes rows, and moves the bar.

    The sums stay on the device, and are read once a row, since reading waits for the device. They are part of the
    checkpoint, so a resumed training writes the rows of an uninterrupted one. Only the first process `writes`.
    """

    def __init__(self, run: RunFolder, settings: TrainerSettings, writes: bool) -> None:
        self.run, self.settings, self.writes = run, settings, writes
        self.table = MetricsTable(run.metrics)
        self.sums: dict[str, Tensor] = {}  # over `steps`
        self.steps = 0
        self.latest: dict[str, float] = {}  # the last value of each name
        self.tracker: EventFile | ExperimentTracker | None = None  # takes the rows besides metrics.csv

    def state_dict(self) -> dict[str, Any]:
        """The sums over all processes, for the checkpoint; every process must call it."""
        return {"sums": {name: value.cpu() for name, value in self._mean_sums().items()}, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sums, self.steps = dict(state["sums"]), int(state["steps"])

    def start(self, step: int, repeat_validation: bool) -> None:
        """Open the logs and start the time. Rows after `step`, and that of a repeated validation, are written again."""
        self.started = self.speed_since = time.monotonic()
        self.speed_steps = 0
        if self.writes:
            self.table.keep_until(step, repeat_validation)
            self.started -= self.table.last_seconds()
            if self.settings.logger == "tensorboard":
                self.tracker = EventFile(self.run.tensorboard, step)
            elif self.settings.logger != "csv":
                self.tracker = ExperimentTracker(self.run, self.settings.logger)
        limit = f"at most {self.settings.max_minutes:g} min" if self.settings.max_minutes else None
        how: dict[str, Any] = {"unit": "step", "dynamic_ncols": True, "mininterval": 1.0, "disable": not self.writes}
        self.bar = tqdm(total=self.settings.max_steps, initial=step, desc=limit, **how)

    def log_step(self, step: int, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Add the losses of a step, [B] each; write a row every `log_every` steps and after the last step.

        Every process must call it.
        """
        for name, values in losses.items():
            total = self.sums.get(name, torch.zeros((), device=values.device)).to(values.device)
            self.sums[name] = total + values.detach().mean()
        self.steps += 1
        self.speed_steps += 1
        if step % self.settings.log_every == 0 or step >= self.settings.max_steps:
            sums = torch.stack(list(self._mean_sums().values())).tolist()
            row = {f"train/{name}": value / self.steps for name, value in zip(self.sums, sums, strict=True)}
            now = time.monotonic()
            row["train/images_per_second"] = self.speed_steps * self.settings.batch_size / (now - self.speed_since)
            self.write(step, row | {"train/learning_rate": learning_rate})
            self.sums, self.steps = {}, 0
            self.speed_since, self.speed_steps = now, 0
        shown = {label: f"{self.latest[name]:.4g}" for label, name in _ON_THE_BAR.items() if name in self.latest}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update(step - self.bar.n)

    def _mean_sums(self) -> dict[str, Tensor]:
        if not self.sums:
            return {}
        return dict(zip(self.sums, mean_over_processes(torch.stack(list(self.sums.values()))), strict=True))

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write values of a step to metrics.csv and the tracker."""
        self.latest |= values
        if self.writes:
            seconds = round(time.monotonic() - self.started, 2)
            rounded = {name: float(f"{value:.7g}") for name, value in values.items()}
            self.table.append({"step": step, "seconds": seconds, **rounded})
            if self.tracker:
                self.tracker.add(step, values)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time within out of the training's speed."""
        paused = time.monotonic()
        yield
        self.speed_since += time.monotonic() - paused

    def close(self) -> None:
        self.bar.close()
        if self.tracker:
            self.tracker.close()


class ExperimentTracker:
    """Weights & Biases or trackio, which have one interface. A resumed run continues under its name.

    An ExtraError if the package is not installed; a TrainingError if it refuses the run.
    """

    def __init__(self, run: RunFolder, package: str) -> None:
        self.module = import_extra(package, package)
        started = "".join(filter(str.isdigit, str(next(iter(run.starts()), {}).get("date", ""))))[:14]
        name = "-".join(filter(None, (run.path.resolve().name, started)))
        own: dict[str, Any] = {"id": name, "dir": str(run.path)} if package == "wandb" else {}
        try:
            self.module.init(project="unscene", name=name, config=run.recipe_values(), resume="allow", **own)
        except Exception as error:  # of its own classes, or of the connection
            raise TrainingError(
                f"{package} cannot record this run ({str(error).strip()[:200]}). Log in, or choose another "
                "--trainer.logger."
            ) from error

    def add(self, step: int, values: dict[str, float]) -> None:
        self.module.log(values, step=step)

    def close(self) -> None:
        self.module.finish()


class EventFile:
    """A new file of TensorBoard's in a folder. Its events replace earlier files' events after `step`.

    TensorBoard's own writer has a thread, so that its errors come late and outside of any `try`.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(exist_ok=True)
            self.file = (folder / f"events.out.tfevents.{time.time():.6f}.{platform.node()}.{os.getpid()}").open("wb")
        self._write(file_version="brain.Event:2")
        if step:
            self._write(step=step + 1, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: dict[str, float]) -> None:
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=Summary(value=scalars))

    def _write(self, **fields: Any) -> None:
        with writing(self.folder):
            RecordWriter(self.file).write(Event(wall_time=time.time(), **fields).SerializeToString())
            self.file.flush()

    def close(self) -> None:
        self.file.close()


class MetricsTable:
    """metrics.csv as it is written: rows are appended; a new column rewrites the file once.

    A file without the header `step,seconds` (emptied, or zeros after a power loss) counts as no file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns = list(self._reader().fieldnames or ["step", "seconds"])

    def keep_until(self, step: int, repeat_validation: bool = False) -> None:
        """Drop rows after a step or without step or time; with `repeat_validation` that of the step's validation."""
        if self.path.is_file():
            dropped = step if repeat_validation else step + 1  # from it on, rows of validations are
            rows = [row for row in self._rows() if int(row["step"]) <= step]
            self._rewrite([row for row in rows if int(row["step"]) < dropped or not row.get("val/score")])

    def last_seconds(self) -> float:
        """Training time of the last row; 0 without one."""
        return max((float(row["seconds"]) for row in self._rows()), default=0.0)

    def append(self, row: dict[str, float | int]) -> None:
        """Write one row; cells that it lacks stay empty. A RunError leaves the table as it was."""
        new = [name for name in row if name not in self.columns]
        if new or not self.path.is_file():
            self.columns += new
            self._rewrite([*self._rows(), row])
            return
        with writing(self.path):
            before = self.path.stat().st_size
            try:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(row)
            except BaseException:  # Ctrl-C too
                os.truncate(self.path, before)
                raise

    def _reader(self) -> csv.DictReader[str]:
        """Reads all complete lines; a machine that lost its power may have left half of one."""
        text = self.path.read_text(encoding="utf-8", errors="replace") if self.path.is_file() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()
        return csv.DictReader(lines if lines and lines[0].split(",")[:2] == ["step", "seconds"] else [])

    def _rows(self) -> list[dict[str, Any]]:
        rows = (row for row in self._reader() if None not in row.values() and row["step"].isdecimal())
        return [row for row in rows if row["seconds"].replace(".", "", 1).isdecimal()]

    def _rewrite(self, rows: list[dict[str, Any]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
