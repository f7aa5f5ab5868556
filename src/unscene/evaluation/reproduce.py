"""Reproduce a table of the papers: a queue of trainings that can be killed at any time and started again.

For each seed and row: train, or resume an interrupted training; score it on its recipe's test scenes; write one entry
of the ledger (`unscene.evaluation.ledger`). The entry is written without scores when the training ends, and again with
scores. Whatever stops the queue, the same command continues it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from unscene.data.generate import generate, has_scenes_of
from unscene.errors import CheckpointError, DataError, RecipeError, RunError, TrainingError, UnsceneError
from unscene.evaluation import ledger
from unscene.evaluation.evaluate import measure
from unscene.evaluation.paper_tables import PaperRow, PaperTable, find_table, paper_tables
from unscene.evaluation.scenes import test_source
from unscene.files import write_bytes
from unscene.metrics.health import is_decomposing
from unscene.report.table import Table
from unscene.runs.loading import load
from unscene.runs.metrics_csv import read_columns, read_training
from unscene.runs.recipe import Recipe, read_recipe
from unscene.runs.resuming import is_same_run, settings_of
from unscene.runs.run_folder import RunFolder
from unscene.runs.weights import read_checkpoint
from unscene.training.train import train

CURVE = ("ari_fg", "ari_fg_objects", "ami_fg", "map_50", "located", "iou_polarity", "reconstruction_mse")
HARDWARE = ("cpu", "cores", "threads", "gpu", "torch")


@dataclass(frozen=True)
class Queue:
    """The trainings of some rows of a table, and their folders."""

    table: PaperTable  # of a paper
    rows: dict[str, PaperRow]  # of the table that are trained and shown
    results: Path  # folder of the ledger
    runs: Path  # folder of the trainings, which are large: checkpoints, curves, samples
    seeds: Sequence[int] | None = None  # of every row; None for each row's own number of seeds
    minutes: float | None = None  # of training for every row; None for each row's own minutes
    threads: int = 0  # of the CPU; 0 for PyTorch's choice
    progress: bool = True  # show bars and lines on stderr

    def jobs(self) -> Iterator[tuple[PaperRow, int]]:
        """The rows and seeds, first every row with its first seed."""
        jobs = [[(row, seed) for seed in self.seeds or range(row.seeds)] for row in self.rows.values()]
        return (job for turn in zip_longest(*jobs) for job in turn if job)


def reproduce(queue: Queue) -> Table:
    """Train and score what is missing, and return the table.

    RunError: a disk is full, a run is in use, or at the end: some trainings failed. All others are in the ledger.
    """
    failures = []
    for row, seed in queue.jobs():
        try:
            try:
                _finish(queue, row, seed)
            finally:
                _write_summary(queue)
        except RunError:
            raise
        except UnsceneError as error:
            failures.append(f"{'/'.join(row.home)}, seed {seed}: {error}")
            if queue.progress:
                tqdm.write(f"Failed: {failures[-1]}")
    if failures:
        raise RunError(f"{len(failures)} of the trainings failed; the same command tries them again. {failures[0]}")
    figure = ledger.draw_figure(queue.results, queue.runs, queue.table)
    if figure:
        write_bytes(queue.results / f"{queue.table.name}.png", figure)
    return ledger.results_table(queue.results, replace(queue.table, rows=queue.rows))


def adopt(queue: Queue, folder: Path) -> Path:
    """Add the training in a run's folder to the ledger, if its recipe is a row's; return its entry's file.

    Of rows that differ in their length only, it is the one of the run's `trainer.max_steps`. RunError: no row has its
    recipe, and the message names a setting that differs; or the ledger has a longer training there. CheckpointError: it
    is no run's folder, or has no weights.
    """
    run = RunFolder.open(folder)
    values = run.recipe_values()
    recipe = read_recipe(values, str(values.get("name", "")))
    differing = f"no row has the model {recipe.model_name}."
    length = recipe.trainer.max_steps
    rows = sorted(queue.rows.values(), key=lambda row: row.resolved(recipe.seed).trainer.max_steps != length)
    for row in rows:
        expected = row.resolved(recipe.seed)
        if expected.model_name != recipe.model_name:
            continue
        try:
            is_same_run(expected, folder)
        except RunError as error:
            differing = str(error)
            continue
        path = ledger.entry_path(queue.results, row, recipe.seed)
        entry = _entry(row, recipe, run, recipe.trainer.max_minutes) | {"adopted": True}
        known = ledger.read_entry(path)
        if known and known["metrics"] and known["steps"] > entry["steps"]:
            raise RunError(
                f"{folder} has {entry['steps']} steps, and {path} is of a training of {known['steps']}. Move that file "
                "away to take the shorter one."
            )
        _score(queue, path, row, run, _with_masks(entry, _masks(expected)))
        _write_summary(queue)
        return path
    raise RunError(f"{folder} was trained by other settings than the rows of {queue.table.name}: {differing}")


def _write_summary(queue: Queue) -> None:
    known = paper_tables()
    tables = known | {f"{name}_full": find_table(name, full=True) for name in known} | {queue.table.name: queue.table}
    ledger.write_json(queue.results / "summary.json", ledger.summary(queue.results, tables.values()))


def _finish(queue: Queue, row: PaperRow, seed: int) -> None:
    """Train, score and record one row and seed, starting from the current state of its run and its entry."""
    minutes = row.minutes if queue.minutes is None else queue.minutes
    path = ledger.entry_path(queue.results, row, seed)
    files = {setting: queue.runs / "data" / values["file"] for setting, values in row.files.items()}
    recipe = replace(row, changes={**row.changes, **{name: str(file) for name, file in files.items()}}).resolved(seed)
    if queue.threads:
        recipe = _with_trainer(recipe, threads=queue.threads)
    if minutes:  # a short training needs checkpoints to resume from
        recipe = _with_trainer(recipe, checkpoint_minutes=min(recipe.trainer.checkpoint_minutes, minutes / 5))
    run, resume = _run_folder(queue.runs.joinpath(*row.home, f"seed-{seed}"), recipe)
    entry = ledger.read_entry(path)
    what = "resumes" if resume else "trains"
    same = entry is not None and _is_of(entry, row, recipe)
    if entry is not None and same and _is_enough(entry, recipe, minutes):
        masks = _masks(read_recipe(entry["recipe"], recipe.name))
        if entry["metrics"] and masks == _masks(recipe):
            return
        if resume:
            _draw(row, files)
            return _score(queue, path, row, run, _with_masks(entry, _masks(recipe)))
        what = f"its scores are of {masks} masks and its run is gone, so it trains anew" if entry["metrics"] else what
    if queue.progress:
        tqdm.write(f"{'/'.join(row.home)}, seed {seed}: {what} in {run.path}")
    _draw(row, files)
    earlier = path.with_name(f"earlier-{path.name}")  # scores that something else takes the place of
    scored = path.read_bytes() if entry is not None and entry["metrics"] else b""
    try:
        _train(row, recipe, run, resume, minutes)
    except TrainingError as error:
        if scored:
            write_bytes(earlier, scored)
        ledger.write_entry(path, _entry(row, recipe, run, minutes) | {"failed": str(error), "collapsed": True})
        raise
    if scored and not same:
        write_bytes(earlier, scored)
    entry = _entry(row, recipe, run, minutes)
    ledger.write_entry(path, entry)
    _score(queue, path, row, run, entry)


def _draw(row: PaperRow, files: dict[str, Path]) -> None:
    """Draw the scenes that a row is trained and tested on into their files, unless they are there."""
    for setting, file in files.items():
        values = {name: value for name, value in row.files[setting].items() if name not in ("file", "source")}
        source = row.files[setting]["source"]
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            generate(source, file, values)
        elif not has_scenes_of(file, source, values):
            raise DataError(
                f"{file} does not hold the scenes that {source} draws with {values}. Move the file away; the same "
                "command draws it anew."
            )


def _run_folder(base: Path, recipe: Recipe) -> tuple[RunFolder, bool]:
    """The folder of this training and True, to resume it, or the first free folder and False."""
    for number in count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        run = RunFolder(path)
        if run.is_unused():
            return run, False
        try:
            if is_same_run(recipe, path) and _rates(read_recipe(run.recipe_values(), recipe.name)) == _rates(recipe):
                return run, True
        except (RunError, RecipeError, CheckpointError):  # other settings, or those of another version
            continue
    raise AssertionError


def _is_of(entry: dict[str, Any], row: PaperRow, recipe: Recipe) -> bool:
    """Whether an entry is of a training of this recipe, of any length, on these files."""
    try:
        trained = read_recipe(entry["recipe"], recipe.name)
    except RecipeError:  # it has settings of another version
        return False
    same_files = entry.get("files", row.files) == row.files
    return same_files and settings_of(trained) == settings_of(recipe) and _rates(trained) == _rates(recipe)


def _is_enough(entry: dict[str, Any], recipe: Recipe, minutes: float) -> bool:
    """Whether an entry is of a finished training, at least as long as the queue asks for."""
    long_enough = entry["steps"] >= recipe.trainer.max_steps or 0 < minutes <= entry["planned_minutes"]
    return not entry.get("failed") and (bool(entry.get("adopted")) or long_enough)


def _train(row: PaperRow, recipe: Recipe, run: RunFolder, resume: bool, minutes: float) -> None:
    """Train stage after stage, and keep the checkpoint at the end of each."""
    for number, share in enumerate(row.stages, start=1):
        kept = ledger.stage_checkpoint(run, number)
        steps = max(1, round(share * recipe.trainer.max_steps))
        if kept.is_file() and _is_reached(run, kept, steps, share * minutes):
            continue
        trainer: dict[str, Any] = {"max_steps": steps}
        if minutes:
            trainer["max_minutes"] = share * minutes - (_minutes_so_far(run, run.last) if resume else 0.0)
        if trainer.get("max_minutes", 1.0) > 0:
            train(_with_trainer(recipe, **trainer), run.path, resume)
        resume = True
        if len(row.stages) > 1:
            write_bytes(kept, run.last.read_bytes())


def _with_trainer(recipe: Recipe, **settings: Any) -> Recipe:
    return read_recipe(recipe.values, recipe.name, {f"trainer.{name}": value for name, value in settings.items()})


def _rates(recipe: Recipe) -> tuple[Any, ...]:
    """What a resumed run may change and a row's training may not: rates, batch size, which weights are kept."""
    return recipe.schedule, recipe.optimizer, recipe.trainer.batch_size, recipe.trainer.keep_best_by


def _is_reached(run: RunFolder, checkpoint: Path, steps: int, minutes: float) -> bool:
    """Whether a stage's checkpoint is of so many steps, or of a training that was limited to no fewer minutes."""
    if int(read_checkpoint(checkpoint)["step"]) >= steps:
        return True
    return 0 < 0.9 * minutes <= _minutes_so_far(run, checkpoint)  # the last row of a stage is a little before its end


def _minutes_so_far(run: RunFolder, checkpoint: Path) -> float:
    """Up to a checkpoint; 0 without one."""
    if not (checkpoint.is_file() and run.metrics.is_file()):
        return 0.0
    step, (_, clock) = int(read_checkpoint(checkpoint)["step"]), read_columns(run.metrics)
    return max((seconds for at, seconds in clock.tolist() if at <= step), default=0.0) / 60


def _entry(row: PaperRow, recipe: Recipe, run: RunFolder, minutes: float) -> dict[str, Any]:
    training, starts = read_training(run), run.starts()
    steps = training.steps if training else 0
    machines = [{name: start.get(name) for name in HARDWARE} for start in starts]
    values = {key: value for key, value in recipe.values.items() if key != "about"}
    if row.files:  # by the files' names: where they are is this machine's matter
        values |= {part: row.resolved(recipe.seed).values[part] for part in ("data", "validation", "test")}
    return {
        "table": row.home[0],
        "row": row.home[1],
        "seed": recipe.seed,
        "run": run.path.name,
        **({"files": row.files} if row.files else {}),
        "recipe": {"name": recipe.name, **values},
        "commits": list(dict.fromkeys(str(start.get("commit")) for start in starts)),
        "hardware": [machine for index, machine in enumerate(machines) if machine not in machines[:index]],
        "steps": steps,
        "images": steps * recipe.trainer.batch_size,
        "minutes": round(training.minutes, 2) if training else 0.0,
        "planned_minutes": minutes,
        "images_per_second": _rounded(training.images_per_second) if training else None,
        "restarts": len(run.restarts.read_text(encoding="utf-8").splitlines()) if run.restarts.is_file() else 0,
        "curve": _curve(run) if run.metrics.is_file() else {},
        "collapsed": False,
        "metrics": {},
    }


def _masks(recipe: Recipe) -> str | None:
    """Which masks the model shows; None for a model that has one kind."""
    return recipe.values["model"].get("masks")


def _with_masks(entry: dict[str, Any], masks: str | None) -> dict[str, Any]:
    """An entry whose model shows these masks; its other settings stay those of the training."""
    recipe = entry["recipe"]
    return entry | {"recipe": recipe | {"model": recipe["model"] | {"masks": masks}}} if masks else entry


def _curve(run: RunFolder) -> dict[str, list[float | None]]:
    """Step, minutes and scores of every validation, as columns."""
    columns, clock = read_columns(run.metrics)
    minutes = {step: seconds / 60 for step, seconds in clock.tolist()}
    found = {name: columns[f"val/{name}"].tolist() for name in CURVE if f"val/{name}" in columns}
    curves = {name: {step: value for step, _, value in rows} for name, rows in found.items()}
    steps = sorted({step for curve in curves.values() for step in curve})
    scores = {name: [_rounded(curve.get(step)) for step in steps] for name, curve in curves.items()}
    return {"step": [*map(int, steps)], "minutes": [round(minutes[step], 2) for step in steps], **scores}


def _score(queue: Queue, path: Path, row: PaperRow, run: RunFolder, entry: dict[str, Any]) -> None:
    """Score a training and its stages on its test scenes, and write the complete entry."""
    if queue.threads:
        torch.set_num_threads(queue.threads)
    stages, masks = [], _masks(read_recipe(entry["recipe"], entry["recipe"]["name"]))
    for number in range(1, len(row.stages)):
        scores = _scores(ledger.stage_checkpoint(run, number), masks, queue.progress)
        minutes = _minutes_so_far(run, ledger.stage_checkpoint(run, number))
        stages.append({"step": scores["scored"]["weights_step"], "minutes": round(minutes, 2), **scores})
    ledger.write_entry(path, entry | _scores(run.path, masks, queue.progress) | ({"stages": stages} if stages else {}))


def _scores(weights: Path, masks: str | None, progress: bool) -> dict[str, Any]:
    """Health and scores of a run's best weights, or of a checkpoint, on its recipe's test scenes.

    Of a model that can show its posterior masks the ARI of the inferred ones as well, which the papers report.
    """
    loaded = load(weights)
    source, described = test_source(loaded, None, {}, trusted=True)
    how: dict[str, Any] = {"description_of_data": described, "progress": progress, "examples": False}
    result = measure(loaded.with_settings({"masks": masks} if masks else {}), source, count=len(source), **how)
    if masks:
        plain = loaded.with_settings({"masks": "inferred"})
        inferred = result.metrics if masks == "inferred" else measure(plain, source, count=len(source), **how).metrics
        result.metrics.update({f"{name}_inferred": inferred[name] for name in ("ari_fg", "ari_fg_objects")})
    ran = result.provenance["evaluation"]
    return {
        "collapsed": not is_decomposing(result.verdict),
        "verdict": result.verdict,
        "health": {name: _rounded(value) for name, value in result.health.items()},
        "metrics": {name: _rounded(value) for name, value in result.metrics.items() if name != "ms_per_image"},
        "located_objects": {name: asdict(found) for name, found in result.located.items()},
        "scored": {
            "scenes": len(source),
            "data": {name: value for name, value in described.items() if name in ("source", "seed", "count", "size")},
            "weights_step": result.provenance["weights"].get("step"),
            **{name: ran[name] for name in ("commit", "date", "precision", "cpu", "threads")},
        },
    }


def _rounded(value: float | int | None) -> float | int | None:
    """Six significant digits: as many as a second measurement repeats."""
    return float(f"{value:.6g}") if isinstance(value, float) else value
