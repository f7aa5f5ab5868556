"""The command line: one function a command, nothing but arguments. What is heavy is imported inside the commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unscene.errors import RecipeError, UnsceneError

DESCRIPTION = "Unsupervised scene decomposition: from unlabelled images to a mask, a box and a latent for every object."
TRAIN_HELP = """\
Any setting of the recipe is replaced by its dotted name; `unscene recipes RECIPE` shows them all:
  unscene train rmonet_unet/multi_dsprites --trainer.max_steps 20000 --model.vae.latent_dim 32
  unscene train rmonet_unet/images --data.folder my_photos/
  unscene train --resume runs/NAME --trainer.max_steps 40000
Ctrl-C stops after the step that runs and keeps a checkpoint to resume from."""
EVALUATE_HELP = """\
Draws fresh scenes as the recipe's `test` section says, changed by --data.SETTING, or reads --data FILE.h5:
  unscene evaluate runs/NAME --data.seed 7 --data.count 1600 --out report/
Writes DIR/metrics.json, with every number and where it comes from, and DIR/index.html."""
DECOMPOSE_HELP = """\
For every image, at its own resolution: an overlay, a label map, boxes with scores, latents;
and one objects.json in COCO format for all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit status is 0 when it did what was asked, 1 after an error, 130 after Ctrl-C."""
    rest, settings = split_settings(sys.argv[1:] if arguments is None else arguments)
    known = build_parser().parse_args(rest)
    try:
        known.run(known, read_changes(settings, known))
        return 0
    except UnsceneError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `unscene recipes | head`
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("Interrupted; nothing half-written is left behind.", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser("unscene", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, summary: str, more: str = "", settings: bool = False) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=more,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run, takes_settings=settings, command=name)
        return added

    recipes = command("recipes", run_recipes, "list what can be trained, or show every setting of one recipe")
    recipes.add_argument("recipe", nargs="?", help="its name, for instance rmonet_unet/multi_dsprites")

    train = command("train", run_train, "train a recipe, or go on with a run", TRAIN_HELP, settings=True)
    train.add_argument("recipe", nargs="?", help="a recipe's name, or the path of a .yaml file")
    train.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/RECIPE, then -2, -3 ...)")
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with this run's last checkpoint")
    train.add_argument("--seed", type=int, help="of the weights, the order of the data and every draw")

    evaluate = command("evaluate", run_evaluate, "score a model on labelled scenes", EVALUATE_HELP, settings=True)
    evaluate.add_argument("model", metavar="RUN_OR_WEIGHTS", help="a run's folder, a weights file, or shipped weights by name")
    evaluate.add_argument("--data", type=Path, metavar="FILE.h5", help="an HDF5 file instead of the recipe's test data")
    evaluate.add_argument("--out", type=Path, metavar="DIR", required=True, help="where the report goes")
    evaluate.add_argument("--batch-size", type=int, default=32, help="images at once (default 32)")
    evaluate.add_argument("--overwrite", action="store_true", help="replace a report that is there")

    decompose = command("decompose", run_decompose, "masks, boxes and latents of your own images", DECOMPOSE_HELP)
    decompose.add_argument("model", metavar="RUN_OR_WEIGHTS", help="a run's folder, a weights file, or shipped weights by name")
    decompose.add_argument("paths", metavar="PATH", nargs="+", type=Path, help="images, or folders of images")
    decompose.add_argument("--out", type=Path, metavar="DIR", required=True, help="where the results go")
    decompose.add_argument("--fit", choices=("stretch", "pad"), default="stretch", help="how an image becomes the model's square")
    decompose.add_argument("--skip-damaged", action="store_true", help="leave out images that cannot be read")
    decompose.add_argument("--overwrite", action="store_true", help="replace results that are there")

    generate = command("generate", run_generate, "draw a data set into an HDF5 file", settings=True)
    generate.add_argument("source", choices=("multi_dsprites",), help="what to draw")
    generate.add_argument("--count", type=int, required=True, help="number of scenes")
    generate.add_argument("--seed", type=int, default=0, help="another seed draws another data set (default 0)")
    generate.add_argument("--out", type=Path, metavar="FILE.h5", required=True)

    convert = command("convert", run_convert, "turn published TFRecord files into an HDF5 file")
    convert.add_argument("source", choices=("multi_dsprites",), help="which data set the file is of")
    convert.add_argument("file", type=Path, metavar="FILE.tfrecords")
    convert.add_argument("--out", type=Path, metavar="FILE.h5", required=True)
    convert.add_argument("--count", type=int, help="convert the first so many records only")
    convert.add_argument("--skip-damaged", action="store_true", help="leave out records whose checksum is wrong")

    demo = command("demo", run_demo, "train for three minutes, evaluate, decompose, and write a page about it")
    demo.add_argument("--out", type=Path, metavar="DIR", default=Path("demo"), help="where to (default demo/)")
    demo.add_argument("--minutes", type=float, default=3.0, help="of training (default 3)")
    return parser


def split_settings(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Part the settings from the rest: `--model.num_slots 7`, `--model.num_slots=7`, `--data.skip-damaged` alone for true."""
    rest: list[str] = []
    settings: list[tuple[str, str]] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in name:
            rest.append(word)
            continue
        if not equals:
            text = words.pop(0) if words and not words[0].startswith("--") else "true"
        settings.append((name.replace("-", "_"), text))
    return rest, settings


def read_changes(settings: list[tuple[str, str]], known: argparse.Namespace) -> dict[str, Any]:
    """The settings as values by dotted name.

    Raises:
        RecipeError: the command takes none.
    """
    if not settings:
        return {}
    if not known.takes_settings:
        raise RecipeError(
            f"`unscene {known.command}` takes no settings, so '--{settings[0][0]}' means nothing to it. "
            f"`unscene {known.command} --help` shows what it takes."
        )
    from unscene.training.recipe import read_value

    return {name: read_value(text) for name, text in settings}


def run_recipes(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """List the recipes, or print one."""
    from unscene.recipes import recipe_names, recipe_text, recipe_values

    if arguments.recipe:
        print(recipe_text(arguments.recipe), end="")
        return
    print(f"{'recipe':<34} {'by':<6} {'ARI reported':>12}  status here")
    for name in recipe_names():
        about = recipe_values(name).get("about", {})
        reported = about.get("reported", {}).get("ari_fg")
        shown = f"{reported:.3f}" if reported is not None else "-"
        print(f"{name:<34} {about.get('origin', 'ours'):<6} {shown:>12}  {about.get('status', 'not trained here yet')}")


def run_train(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Train a recipe, or resume a run."""
    from unscene.recipes import load_recipe
    from unscene.training.recipe import read_recipe
    from unscene.training.run_folder import RunFolder
    from unscene.training.train import train

    if (arguments.recipe is None) == (arguments.resume is None):
        raise RecipeError("name either a recipe to train or a run to go on with: --resume RUN. `unscene recipes` lists the recipes.")
    if arguments.seed is not None:
        changes["seed"] = arguments.seed
    if arguments.resume:
        if arguments.out or not all(name.startswith("trainer.") for name in changes):
            raise RecipeError(
                "a resumed run stays in its folder and keeps its model, data and seed; only --trainer.SETTING can be changed."
            )
        values = RunFolder.open(arguments.resume).recipe_values()
        recipe, out = read_recipe(values, str(values.get("name", "")), changes), arguments.resume
    else:
        recipe = load_recipe(arguments.recipe, changes)
        out = arguments.out or _free_folder(Path("runs") / recipe.name.replace("/", "-").removesuffix(".yaml"))
    run = train(recipe, out, resume=arguments.resume is not None)
    print(f"{run.path}: {run.health.read_text().strip() if run.health.is_file() else 'ended before the first validation'}")
    print(f"Score it:  unscene evaluate {run.path} --out {run.path}/report")


def run_evaluate(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Score a model."""
    import unscene
    from unscene.data.scene_file import SceneFile, SceneFileSettings
    from unscene.report.evaluate import evaluate

    changes = _data_settings(changes, "evaluate")
    loaded = unscene.load(arguments.model)
    if arguments.data:
        described = {"source": "hdf5", "path": str(arguments.data), "size": loaded.size} | changes
        source = SceneFile(SceneFileSettings(path=str(arguments.data), size=loaded.size, **changes))
    else:
        described = loaded.recipe["data"] | loaded.recipe["test"] | changes
        described["source"] = described.pop("name")
        source = loaded.settings.source("test", **changes)
    result = evaluate(
        loaded,
        source,
        arguments.out,
        count=len(source),
        batch_size=arguments.batch_size,
        description_of_data=described | {"count": len(source)},
        metrics_csv=loaded.run.metrics if loaded.run and loaded.run.metrics.is_file() else None,
        overwrite=arguments.overwrite,
    )
    for name, value in result.metrics.items():
        print(f"{name:<28} {'not applicable' if value is None else f'{value:.4f}' if isinstance(value, float) else value}")
    print(f"\nOpen {arguments.out / 'index.html'}")


def run_decompose(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Decompose a person's images."""
    import unscene
    from unscene.report.decompose_images import decompose_paths

    done = decompose_paths(
        unscene.load(arguments.model),
        arguments.paths,
        arguments.out,
        skip_damaged=arguments.skip_damaged,
        overwrite=arguments.overwrite,
        fit=arguments.fit,
    )
    for path in done.skipped:
        print(f"left out, damaged: {path}", file=sys.stderr)
    print(f"{done.images} images, {done.objects} objects\nOpen {done.out / 'index.html'}")


def run_generate(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Draw a data set."""
    from unscene.data.generate import generate

    settings = _data_settings(changes, "generate") | {"count": arguments.count, "seed": arguments.seed}
    count = generate(arguments.source, arguments.out, settings)
    print(f"{arguments.out}: {count:,} scenes")


def run_convert(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Convert a published file."""
    from unscene.data.multi_object import convert_multi_dsprites

    count = convert_multi_dsprites(arguments.file, arguments.out, arguments.skip_damaged, count=arguments.count)
    print(f"{arguments.out}: {count:,} scenes")


def run_demo(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """The main job, small."""
    from unscene.demo import demo

    print(f"\nOpen {demo(arguments.out, arguments.minutes).resolve()}")


def _data_settings(changes: dict[str, Any], command: str) -> dict[str, Any]:
    """Settings of the data by their own names; there are no others for this command."""
    for name in changes:
        if not name.startswith("data."):
            raise RecipeError(f"`unscene {command}` takes settings of the data only, --data.SETTING, not --{name}.")
    return {name.removeprefix("data."): value for name, value in changes.items()}


def _free_folder(path: Path) -> Path:
    """The path, or the first of path-2, path-3 ... that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def _version() -> str:
    from unscene import __version__

    return f"unscene {__version__}"


if __name__ == "__main__":
    raise SystemExit(main())
