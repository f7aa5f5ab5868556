"""How well are many objects in large images found, beside what people use?

    python -m benchmarks.instances --data nuclei/ --run nuclei=runs/nuclei --minutes 12

Each method is scored on labelled folders (`--data`, as in `unscene evaluate`) and on drawn images of touching discs,
ellipses on a gradient, and textured parts: AP as TP / (TP + FP + FN) at an IoU of .5 and .7, F1 and PQ at .5, the count
error, and the time of an image. Ours is a run that `--run NAME=RUN` names, or it is trained here for `--minutes`,
without labels: on the images of a `--data` folder themselves, and for drawn ones on other images of their kind. There
it is scored on its training's images as well.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from benchmarks.command import finish, option_parser, run, started
from benchmarks.instance_methods import WATERSHEDS, Segment, cellpose, ours, pretrained, stardist
from benchmarks.recipe_step import add_set_option, changed_settings
from benchmarks.timing import aligned
from unscene.api import train
from unscene.data.generate import generate
from unscene.data.image_file import ContrastSettings
from unscene.data.labelled_folder import LabelledFolder, LabelledFolderSettings
from unscene.data.many_objects import ManyObjectsSettings
from unscene.data.object_size import propose_object_size
from unscene.errors import RecipeError
from unscene.evaluation.masks import segmentation, true_scene
from unscene.metrics.instance_matching import InstanceMatching
from unscene.runs.loading import LoadedModel, load
from unscene.runs.run_folder import new_run_folder

RECIPE = "rmonet_unet/images"
CONTRAST = ContrastSettings(percentiles=(0.5, 99.8))  # for other methods; of 16 bits, 8 are left
KINDS = ("discs", "ellipses", "parts")
OURS: dict[str, dict[str, Any]] = {  # and the options of `decompose`
    "unscene": {},
    "unscene --join-alike": {"join_alike": True},
    "unscene --outline 0.7 --split-touching": {"outline": 0.7, "split_parts": "touching"},
}
SEEN = ", on its training's images"
SCORES = ("instance_ap_50", "instance_ap_70", "instance_f1_50", "pq", "count_error")
OTHERS: dict[str, Callable[[], Segment]] = {"StarDist": stardist, "Cellpose": cellpose}


@dataclass(frozen=True)
class DataSet:
    """Labelled images, and those that ours is trained on.

    Attributes:
        name: in the table, and in `--run NAME=RUN`.
        folder: with label images; scored.
        seen: the folder of drawn images that ours is trained on, or None where those are the images of `folder`.
        object_size: usual diameter in pixels.
    """

    name: str
    folder: Path
    seen: Path | None
    object_size: float


@dataclass(frozen=True)
class Result:
    """The scores of one method on one data set, and the time of an image: the least of the rounds, mean over images."""

    data: str
    method: str
    objects: int  # in the truth
    scores: dict[str, float | int | None]
    seconds: float
    cpu_seconds: float


def scored(
    data: DataSet, folder: Path, contrast: ContrastSettings, method: str, segment: Segment, rounds: int
) -> Result:
    """Segment and score all images of a folder."""
    source = LabelledFolder(LabelledFolderSettings(str(folder), contrast))
    matching, seconds, cpu_seconds, objects = InstanceMatching(), 0.0, 0.0, 0
    for index in range(len(source)):
        sample = source.batch([index])
        times = []
        for _ in range(rounds):
            began = perf_counter(), process_time()
            found = segment(sample["image"][0], data.object_size)
            times.append((perf_counter() - began[0], process_time() - began[1]))
        seconds += min(wall for wall, _ in times)
        cpu_seconds += min(cpu for _, cpu in times)
        matching.update(true_scene(sample["labels"][0]), segmentation([found], [None]))
        objects += int(sample["labels"].max())
    scores = {name: matching.compute()[name] for name in SCORES}
    return Result(data.name, method, objects, scores, seconds / len(source), cpu_seconds / len(source))


def data_sets(
    folders: Sequence[Path], object_size: float, kinds: Sequence[str], images: int, out: Path
) -> list[DataSet]:
    """The labelled folders, and the drawn sets, which are written below `out`."""
    names = [*(folder.resolve().name for folder in folders), *kinds]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise RecipeError(
            f"two data sets have the name '{repeated[0]}': rename the folder, or choose others by --drawn."
        )
    found = []
    for folder in folders:
        source = LabelledFolder(LabelledFolderSettings(str(folder), CONTRAST))
        size = object_size or propose_object_size(source.batch([i])["image"][0] for i in range(len(source))).diameter
        found.append(DataSet(folder.resolve().name, folder, None, size))
    for kind in kinds:
        for name, seed in (("seen", 0), ("new", 2)):
            settings = {"kind": kind, "count": images, "seed": seed}
            generate("many_objects", out / kind / name, settings, progress=False)
        found.append(DataSet(kind, out / kind / "new", out / kind / "seen", ManyObjectsSettings().object_size))
    return found


def trained(data: DataSet, minutes: float, changes: dict[str, Any], out: Path) -> LoadedModel:
    """Train ours on unlabelled images, and return the model."""
    images = data.seen / "images" if data.seen else out / data.name
    if not data.seen:  # the folder may hold label images as well
        source = LabelledFolder(LabelledFolderSettings(str(data.folder)))
        for name, (path, _) in zip(source.names, source.paths, strict=True):
            copied = images / f"{name}{path.suffix}"
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copied)
    settings = {"data.folder": str(images), "data.object_size": data.object_size, "trainer.max_minutes": minutes}
    return train(RECIPE, settings | changes, out=new_run_folder(f"instances-{data.name}"))


def results(data: DataSet, others: dict[str, Segment], model: LoadedModel | None, rounds: int) -> Iterator[Result]:
    """Every method on one data set, ours first."""
    if model:
        for folder, suffix in ((data.folder, ""), (data.seen, SEEN)):
            if folder is None:
                continue
            for name, limits in OURS.items():
                yield scored(data, folder, model.contrast, f"{name}{suffix}", ours(model, **limits), rounds)
    for name, segment in others.items():
        yield scored(data, data.folder, CONTRAST, name, segment, rounds)


def table(rows: Sequence[Result]) -> str:
    """The results as aligned text; a score that does not apply is a dash."""
    cells = [["data", "method", "AP.5", "AP.7", "F1", "PQ", "count error", "seconds", "CPU seconds"]]
    for row in rows:
        values = [row.scores[name] for name in SCORES]
        shown = ["-" if value is None else f"{value:.3f}" for value in values[:-1]]
        count = "-" if values[-1] is None else f"{values[-1]:.1f}"
        cells.append([row.data, row.method, *shown, count, f"{row.seconds:.2f}", f"{row.cpu_seconds:.2f}"])
    return "\n".join(aligned(cells))


def main(words: Sequence[str] | None = None) -> None:
    """Train where asked, score, print, write."""
    parser = option_parser("instances", __doc__, rounds=1)
    parser.add_argument("--data", action="append", type=Path, default=[], metavar="FOLDER", help="images with labels")
    parser.add_argument("--object-size", type=float, default=0, help="in these images, in pixels; 0: a first look")
    parser.add_argument("--drawn", action="append", choices=(*KINDS, "none"), help="default: all kinds")
    parser.add_argument("--images", type=int, default=4, help="drawn images of a kind, to train and to score")
    parser.add_argument("--run", action="append", default=[], metavar="NAME=RUN", help="ours for the data of this name")
    parser.add_argument("--minutes", type=float, default=0, help="train ours where no run is named; 0: leave it out")
    add_set_option(parser)
    options = started(parser, words)
    kinds = [kind for kind in options.drawn or KINDS if kind != "none"]
    methods, skipped = pretrained(OTHERS)
    rows: list[Result] = []
    with TemporaryDirectory() as folder:
        out = Path(folder)
        sets = data_sets(options.data, options.object_size, kinds, options.images, out)
        models = {name: load(path, options.device) for name, path in (_pair(text) for text in options.run)}
        if unknown := sorted(models.keys() - {data.name for data in sets}):
            names = ", ".join(data.name for data in sets)
            raise RecipeError(f"--run names the data '{unknown[0]}', but there are: {names}.")
        for data in sets:
            model = models.get(data.name)
            if model is None and options.minutes:
                model = trained(data, options.minutes, changed_settings(options.set), out)
            if model is None:
                skipped[f"unscene on {data.name}"] = "no run. Add --run NAME=RUN, or --minutes to train one"
            rows += results(data, WATERSHEDS | methods, model, options.rounds)
    print(table(rows))
    for name, reason in skipped.items():
        print(f"{name}: left out, {reason}.")
    sizes = {data.name: data.object_size for data in sets}
    finish(options, [], object_sizes=sizes, results=[asdict(row) for row in rows], left_out=skipped)


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals:
        raise RecipeError(f"--run needs NAME=RUN, for instance discs=runs/discs, not '{text}'.")
    return name, path


if __name__ == "__main__":
    run(main)
