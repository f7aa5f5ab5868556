"""The words of the command line: which commands there are, what each takes, and the settings of a recipe among them."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from unscene import __version__
from unscene.errors import did_you_mean

DESCRIPTION = "Unsupervised scene decomposition: from unlabelled images to a mask, a box and a latent for every object."
CONVERT_HELP = """\
`unscene data` lists the data sets by NAME, and `unscene data NAME` says which files to name here. Settings:
  --data.size 128          side of the images
  --data.min_objects 3     leave out scenes of fewer, --data.max_objects 6 of more (the defaults for clevr)
  --data.background 1      number of first entries that are background (objects_room: 4, sky, floor and two walls)
  --data.split train       one part only, where the files name parts
After an interruption the same command resumes. FILE.h5 appears only when it is complete, and is never overwritten."""
TRAIN_HELP = """\
Any setting of the recipe is replaced by its dotted name; `unscene recipes RECIPE --all` shows them:
  unscene train rmonet_unet/multi_dsprites --trainer.max_steps 20000 --model.vae.latent_dim 32
  unscene train rmonet_unet/images --data.folder my_photos/
  unscene train --resume runs/NAME --trainer.max_steps 40000
  torchrun --nproc-per-node 2 -m unscene train RECIPE --out runs/NAME --or-resume
Ctrl-C (or SIGTERM, SIGUSR1) stops after the step that runs and keeps a checkpoint to resume from."""
EVALUATE_HELP = """\
Draws fresh scenes as the recipe's `test` section says, changed by --data.SETTING, or reads --data:
  unscene evaluate runs/NAME --data.seed 7 --data.count 1600 --out report/
  unscene evaluate runs/NAME --shift all --data.count 320 --out shifted/
  unscene evaluate runs/NAME --slots 4,6,8 --out slots/     (--model.num_slots 8 for one number)
  unscene evaluate runs/NAME --data labelled/ --tile 96 --out report/
  unscene evaluate --predictions masks.npz --data scenes.h5 --out report/
A folder holds x.tif beside x_label.tif, or images/x.tif and labels/x.tif; images keep their own sizes, as in decompose.
Writes DIR/index.html and DIR/metrics.json (shifts.json, slots.json) with every number and its origin."""
COMPARE_HELP = """\
Scores all on the same scenes: those of the first one's recipe, changed by --data.SETTING, or of --data FILE.h5:
  unscene compare runs/A runs/B rmonet_unet/multi_dsprites_cpu --data.seed 7 --data.count 1600 --out comparison/
Writes one table (compare.json, compare.csv, index.html), the trainings' curves, and the first scenes decomposed."""
PROBE_HELP = """\
Linear and MLP probes learn shape, colour, size and position from the latents of three quarters of the scenes:
  unscene probe runs/NAME --data.count 4000 --out probe/
Prints accuracy or R2 on the other scenes and writes DIR/probe.json, with every score and its origin."""
REPRODUCE_HELP = """\
Tables: rmonet_table1, rmonet_table2, rmonet_fig17 to rmonet_fig20, elm_table1, elm_table2; or a YAML file of that form.
  unscene reproduce rmonet_table1 --rows monet,space --seeds 0,1,2 --minutes 90 --threads 1 --out results/
The same command continues after an interruption. RESULTS/summary.json holds the means beside the paper's numbers."""
DECOMPOSE_HELP = """\
For every image, at its own resolution: an overlay, a label map (PNG and TIFF), boxes with scores, latents; for all
together objects.json in COCO format, objects.csv and index.html. --fit crop takes an image's middle square (all outside
is background), pad the whole image with margins, stretch the whole image out of proportion. --tile is for large images
with many objects. --model.num_slots 8 decomposes with another number of slots, if the weights allow it."""
EXPLORE_HELP = """\
Drop an image: its masks, boxes and slots, and a scene whose latents you move, whose objects you swap or remove.
  unscene explore runs/NAME --data photos/
The page is served to this machine alone, until Ctrl-C."""
EXPORT_HELP = """\
For MONet, R-MONet, SPACE and ReDO, whose number of slots is then fixed:
  unscene export runs/NAME model.onnx
The file is compared with PyTorch by onnxruntime before it is written, and never overwritten."""
PUSH_HELP = """\
Uploads weights.safetensors, recipe.yaml and a card with the scores of RUN/report; `hf auth login` logs in.
  unscene evaluate runs/NAME --out runs/NAME/report
  unscene push runs/NAME USER/NAME
Whoever has the extra `hub` uses it as hf://USER/NAME wherever a run can be named."""
PLAY_HELP = """\
Shows the outline, box and track number of every object on a page that only this machine can open, until Ctrl-C:
  unscene play runs/NAME --game pong
  unscene play runs/NAME --camera 0 --min-area 50
  unscene play runs/NAME --frames video.mp4
A game and a video wait for the model; frames of a camera that come while it works are dropped. Fewer slots are faster
(--model.num_slots 8, if the weights allow it). --count N measures frames a second and latency without a viewer."""
MODEL_HELP = "a run's folder, a weights file, shipped weights by name, or hf://USER/NAME"


class Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        stop = "" if message.endswith((".", "?")) else "."
        self.exit(2, f"{self.prog}: {message}{stop} `{self.prog} --help` shows what it takes.\n")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """What the words of the command line say, settings apart."""
    known, unknown = build_parser().parse_known_args(words)
    parser: Parser = known.parser
    empty = [word for word in words if not word or (word.startswith("--") and word.endswith("="))]
    if empty:  # Path("") would be the current folder
        parser.error(f"an argument is empty ({empty[0]!r}). Give it a value; a shell variable may be unset.")
    addresses = [word for word in words if re.match(r"(?!hf:)[a-z0-9]{2,}://", word)]
    if addresses:
        parser.error(f"{addresses[0]!r} is an address. Download the file, and name it here")
    several = next((action for action in parser._actions if action.nargs == "+" and not action.option_strings), None)
    if several:  # further files after an option
        files = [word for word in unknown if not word.startswith("-")]
        getattr(known, several.dest).extend(map(several.type or str, files))  # type: ignore[arg-type]
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        options = [option for action in parser._actions for option in action.option_strings]
        hint = did_you_mean(unknown[0].partition("=")[0], options)
        if known.takes_settings and unknown[0].startswith("--") and not hint:
            hint = " A setting has a dotted name, for instance --data.size."
        parser.error(f"it does not know '{unknown[0]}'.{hint}")
    return known


def build_parser() -> Parser:
    parser = Parser("unscene", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"unscene {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_training, _add_scoring, _add_reproduce, _add_decompose, _add_play, _add_use, _add_data):
        add(commands)
    return parser


def _command(commands: Any, name: str, summary: str, more: str = "", settings: bool = False) -> Any:
    """The function that adds an argument to a new command."""
    form = argparse.RawDescriptionHelpFormatter
    added: Parser = commands.add_parser(
        name, help=summary, description=summary, epilog=more, allow_abbrev=False, formatter_class=form
    )
    added.set_defaults(takes_settings=settings, command=name, parser=added)
    return added.add_argument


def _results(add: Any) -> None:
    add("--no-verify", action="store_true", help="do not compare the weights with their checksum")
    add("--out", type=Path, metavar="DIR", required=True, help="where the results go")
    add("--overwrite", action="store_true", help="replace results that are there")


def _scenes(add: Any) -> None:
    files = "an HDF5 file, a folder of images with label images, or COCO's instances.json, instead of the recipe's data"
    add("--data", type=Path, metavar="PATH", help=files)
    add("--batch-size", type=int, default=32, help="images at once (default 32)")


def _add_training(commands: Any) -> None:
    add = _command(commands, "recipes", "list what can be trained, or show every setting of one recipe", settings=True)
    add("recipe", nargs="?", help="its name, for instance rmonet_unet/multi_dsprites")
    add("--all", action="store_true", help="with the settings that it leaves to their defaults")

    add = _command(commands, "train", "train a recipe, or resume a run", TRAIN_HELP, settings=True)
    add("recipe", nargs="?", help="a recipe's name, or the path of a .yaml file")
    add("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/RECIPE, then -2, -3 ...)")
    add("--resume", type=Path, metavar="RUN", help="resume from this run's last checkpoint")
    add("--or-resume", action="store_true", help="resume the run in --out DIR if it has this recipe, else start it")
    add("--seed", type=int, help="of the weights, the order of the data and every draw")

    add = _command(commands, "demo", "train for three minutes, evaluate, decompose, and write a page about it")
    add("--out", type=Path, metavar="DIR", default=Path("demo"), help="where to (default demo/)")
    add("--minutes", type=_minutes, default=3.0, help="of training (default 3)")


def _add_scoring(commands: Any) -> None:
    add = _command(commands, "evaluate", "score a model on labelled scenes", EVALUATE_HELP, settings=True)
    add("model", metavar="RUN_OR_WEIGHTS", nargs="?", help=MODEL_HELP)
    masks = "score the masks of any program instead: a folder of label images, .npz, .npy, or COCO's .json"
    add("--predictions", type=Path, metavar="PATH", help=masks)
    add("--background", type=int, metavar="SLOT", help="which slot of soft masks is the background (default: none)")
    add("--shift", metavar="all|NAME[,NAME]", help="score shifted scenes too: another table and page")
    add("--slots", type=_numbers, metavar="K,K", help="score these numbers of slots on the same scenes: another table")
    _scenes(add)
    _objects(add)
    _results(add)

    add = _command(commands, "compare", "score several models on the same scenes", COMPARE_HELP, settings=True)
    add("models", metavar="RUN_OR_WEIGHTS", nargs="+", help=f"{MODEL_HELP}; of one image size")
    add("--scenes", type=int, default=6, help="how many scenes are drawn (default 6)")
    _scenes(add)
    _results(add)

    add = _command(commands, "probe", "predict the properties of objects from latents", PROBE_HELP, settings=True)
    add("model", metavar="RUN_OR_WEIGHTS", help=MODEL_HELP)
    add("--boxes", action="store_true", help="add the box or location that the model states to each latent")
    _scenes(add)
    _results(add)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> list[int]:
    if not _words(text) or not all(word.isdecimal() for word in _words(text)):
        raise argparse.ArgumentTypeError(f"numbers from 0, separated by commas, were expected, not {text!r}")
    return [int(word) for word in _words(text)]


def _minutes(text: str) -> float:
    if not 0 <= float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"minutes must be 0 or more, not {text}")
    return float(text)


def _add_reproduce(commands: Any) -> None:
    add = _command(commands, "reproduce", "train and score the rows of a paper's table", REPRODUCE_HELP)
    add("table", metavar="TABLE", help="a table's name, or a YAML file")
    add("--out", type=Path, metavar="RESULTS", default=Path("results"), help="default results/")
    add("--runs", type=Path, metavar="DIR", default=Path("runs"), help="checkpoints (default runs/)")
    add("--rows", type=_words, default=[], metavar="ROW,ROW", help="these rows only")
    add("--seeds", type=_numbers, metavar="0,1,2", help="these seeds instead of each row's own number")
    add("--minutes", type=_minutes, help="of each training, instead of each row's own")
    add("--threads", type=int, default=0, help="of the CPU (default: PyTorch's choice)")
    add("--full", action="store_true", help="the papers' recipes, which need a GPU")
    add("--adopt", type=Path, metavar="RUN", help="enter this run of a row's settings, and train nothing")


def _tile(text: str) -> int | str:
    return text if text == "auto" else int(text)


def _objects(add: Any) -> None:
    add("--min-area", type=int, default=1, metavar="PIXELS", help="least size of an object in its image (default 1)")
    add("--min-score", type=float, default=0.0, metavar="0..1", help="least score of an object (default 0)")
    least = "least contrast of an object to the background (default 0.2; 0 keeps what is found in noise as well)"
    add("--min-contrast", type=float, default=0.2, metavar="0..1", help=least)
    ends = "an object ends at this share of the way from the background's colour to its own (default: at its mask)"
    add("--outline", type=float, default=0.0, metavar="0..1", help=ends)
    alike = "neighbours whose colours are alike become one object: it may have been found in pieces"
    add("--join-alike", action="store_true", help=alike)
    add("--split-parts", action="store_true", help="each connected part of a mask is an object of its own")
    touching = "the same, and parts larger than usual are divided at their waists: objects that touch"
    add("--split-touching", action="store_const", const="touching", dest="split_parts", help=touching)
    sides = "side of overlapping tiles of large images; auto: that of the training's images or crops (default: auto "
    add("--tile", type=_tile, metavar="auto|PIXELS", help=f"{sides}after a training on crops, else no tiles)")
    add("--overlap", type=int, metavar="PIXELS", help="that tiles share (default: half a tile)")
    add("--scale", type=float, metavar="FACTOR", help="objects are so many times as large as in the training")
    add("--object-size", type=float, metavar="PIXELS", help="the same, as an object's diameter in these images")


def _add_decompose(commands: Any) -> None:
    add = _command(commands, "decompose", "masks, boxes and latents of your own images", DECOMPOSE_HELP, settings=True)
    add("model", metavar="RUN_OR_WEIGHTS", help=MODEL_HELP)
    add("paths", metavar="PATH", nargs="+", type=Path, help="images, or folders of images")
    add("--fit", choices=("crop", "pad", "stretch"), help="how an image becomes a square (default: as in the training)")
    add("--frames", choices=("first", "all"), default="first", help="of stacks and animations (default: first)")
    add("--track", action="store_true", help="the images are frames of one sequence: follow their objects (tracks.csv)")
    add("--skip-damaged", action="store_true", help="leave out images that cannot be read")
    _objects(add)
    _results(add)


def _positive_number(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(f"a number above 0 was expected, not {text}")


def _count(text: str) -> int:
    with suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"a whole number of 1 or more was expected, not {text}")


def _add_play(commands: Any) -> None:
    add = _command(commands, "play", "masks and tracks live: of a game, a camera, a video", PLAY_HELP, settings=True)
    add("model", metavar="RUN_OR_WEIGHTS", help=MODEL_HELP)
    add("--game", metavar="NAME", help="an Atari game as ale-py names it, for instance pong; its agent plays at random")
    add("--camera", type=int, metavar="N", help="the camera of this number, from 0")
    add("--frames", type=Path, metavar="VIDEO|DIR", help="a video, an animation or a folder of images, in a loop")
    add("--seed", type=int, help="of the game's agent (default 0)")
    add(
        "--fps",
        type=_positive_number,
        default=30.0,
        metavar="N",
        help="frames a second at most (default 30, a game's speed)",
    )
    add("--count", type=_count, metavar="N", help="play N frames and end; opens no browser")
    add("--no-track", action="store_true", help="decompose every frame alone, do not follow its objects")
    add("--port", type=int, default=0, help="of the page (default: a free one)")
    add("--no-browser", action="store_true", help="print the address alone")
    add("--no-verify", action="store_true", help="do not compare the weights with their checksum")
    _objects(add)


def _add_use(commands: Any) -> None:
    add = _command(commands, "export", "write a model as an ONNX file", EXPORT_HELP)
    add("model", metavar="RUN_OR_WEIGHTS", help=MODEL_HELP)
    add("out", type=Path, metavar="FILE.onnx")
    add("--batch-size", type=int, default=1, help="images that the graph takes at once (default 1)")

    add = _command(commands, "push", "publish weights on the Hugging Face hub", PUSH_HELP)
    add("model", metavar="RUN_OR_WEIGHTS", help=MODEL_HELP)
    add("repository", metavar="USER/NAME", help="created if it is missing, else it gets a new commit")
    add("--report", type=Path, metavar="DIR", help="an evaluation of these weights (default: RUN/report)")
    add("--license", default="", metavar="NAME", help="of the weights, for instance apache-2.0 (default: none stated)")
    add("--private", action="store_true", help="create a private repository")

    add = _command(commands, "explore", "look at a model in the browser", EXPLORE_HELP)
    add("model", metavar="RUN_OR_WEIGHTS", help=MODEL_HELP)
    add("--data", type=Path, metavar="FILE|DIR", help="example images: an HDF5 file, an image or a folder")
    add("--port", type=int, help="of the page (default: the first free one from 7860)")
    add("--no-browser", action="store_true", help="print the address alone")


def _add_data(commands: Any) -> None:
    add = _command(commands, "generate", "draw a data set into an HDF5 file, or a folder of images", settings=True)
    drawn = ("multi_dsprites", "clevr_scenes", "tetrominoes", "many_objects", "objects_room")
    played = ("atari", "montezuma", "vizdoom")
    add("source", choices=(*drawn, *played), help="what to draw")
    add("--count", type=int, required=True, help="number of scenes")
    add("--seed", type=int, help="another seed draws another data set (default 0)")
    folders = "without a suffix: folders of images and labels"
    add("--out", type=Path, metavar="FILE.h5", required=True, help=folders)

    add = _command(commands, "convert", "turn a published data set into an HDF5 file", CONVERT_HELP, settings=True)
    add("source", metavar="NAME", help="which data set, for instance clevr")
    add("files", type=Path, metavar="FILE", nargs="+", help="its files, or the folder that it is unpacked in")
    add("--out", type=Path, metavar="FILE.h5", required=True)
    add("--count", type=int, help="convert the first so many records only")
    add("--skip-damaged", action="store_true", help="leave out damaged records")

    add = _command(commands, "data", "say where published data sets are, how large, which licence and split they have")
    add("source", metavar="NAME", nargs="?", help="one of them; without it, all are listed")


def split_settings(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Separate the settings from the rest: `--model.num_slots 7`, `--model.num_slots=7`, `--data.skip-damaged` (true).

    Returns:
        The other words; the settings as (dotted name, text), None where no text follows.
    """
    rest: list[str] = []
    settings: list[tuple[str, str | None]] = []
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word == "--":  # after it nothing is an option: a file may be called --a.png
            rest += [word, *words]
            break
        name, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or "." not in name:
            rest.append(word)
            continue
        follows = bool(words) and not words[0].startswith("--")
        settings.append((name.replace("-", "_"), text if equals else words.pop(0) if follows else None))
    return rest, settings
