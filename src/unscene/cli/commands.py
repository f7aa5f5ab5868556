"""One function for each command. It imports slow modules only when it runs."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING, Any

from unscene.errors import RecipeError

if TYPE_CHECKING:
    from unscene.runs.loading import LoadedModel

_SLOTS = "model.num_slots"
# settings of a trained model that may change
_MODEL_SETTINGS = (_SLOTS, "model.masks", "model.over_frames", "model.median_background")
# of the objects that are found
_LIMITS = ("min_area", "min_score", "min_contrast", "outline", "join_alike", "split_parts")
_OBJECTS = (*_LIMITS, "tile", "overlap", "scale", "object_size")


def run_recipes(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.recipes import load_recipe, recipe_names, recipe_text, recipe_values

    if (arguments.all and not arguments.recipe) or (changes and not arguments.all):
        raise RecipeError("--all shows every setting of one recipe: `unscene recipes NAME --all [--SETTING VALUE]`.")
    if arguments.recipe:
        print(load_recipe(arguments.recipe, changes).text() if arguments.all else recipe_text(arguments.recipe), end="")
        return
    width = max(map(len, recipe_names()))
    print(f"{'recipe':<{width}} {'by':<6} {'ARI reported':>12}  status here")
    for name in recipe_names():
        about = recipe_values(name).get("about", {})
        reported = about.get("reported", {}).get("ari_fg")
        shown = f"{reported:.3f}" if reported is not None else "-"
        origin, status = about.get("origin", "ours"), about.get("status", "not trained here yet")
        print(f"{name:<{width}} {origin:<6} {shown:>12}  {status}")


def run_train(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.distributed.processes import is_first_process
    from unscene.runs.recipe import as_words
    from unscene.runs.resuming import is_same_run, recipe_to_resume
    from unscene.runs.run_folder import new_run_folder
    from unscene.training.recipe_to_train import recipe_to_train
    from unscene.training.train import train

    if (arguments.recipe is None) == (arguments.resume is None):
        raise RecipeError(
            "name either a recipe to train or a run to resume: --resume RUN. `unscene recipes` lists the recipes."
        )
    if arguments.or_resume and (arguments.resume or not arguments.out):
        raise RecipeError("--or-resume resumes the run in --out DIR if there is one: name a recipe and --out DIR.")
    if arguments.seed is not None:
        changes["seed"] = arguments.seed
    if arguments.resume:
        if arguments.out:
            raise RecipeError("--out: a resumed run stays in its folder, --resume RUN. Leave out --out.")
        recipe = recipe_to_resume(arguments.resume, changes)
        run = train(recipe, arguments.resume, resume=True)
    else:
        recipe = recipe_to_train(arguments.recipe, changes)
        out = arguments.out or new_run_folder(arguments.recipe)
        run = train(recipe, out, resume=arguments.or_resume and is_same_run(recipe, out))
    if is_first_process():
        health = run.health.read_text().strip() if run.health.is_file() else "ended before the first validation"
        data = as_words({f"data.{name}": value for name, value in recipe.locations("test").items()})
        path = shlex.quote(str(run.path))
        print(f"{run.path}: {health}\nScore it:  unscene evaluate {path}{data} --out {path}/report")


def run_evaluate(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    """Score a model, with --shift on shifted scenes too, with --slots for several K, or predicted masks."""
    from unscene.evaluation.evaluate import evaluate
    from unscene.evaluation.predictions import PredictedMasks
    from unscene.evaluation.scenes import source_of, test_source
    from unscene.evaluation.shifts import chosen_shifts, evaluate_shifts, evaluate_slots

    model_settings = _model_settings(changes)
    changes = _data_settings(changes, "evaluate")
    if (arguments.model is None) == (arguments.predictions is None):
        raise RecipeError("name a model to score, or masks of any program: --predictions PATH --data PATH.")
    if arguments.shift is not None and arguments.data:
        raise RecipeError("--shift draws scenes, --data reads them from a file: leave out one of them.")
    if sum(given is not None for given in (arguments.shift, arguments.slots, model_settings.get(_SLOTS))) > 1:
        raise RecipeError(f"--shift, --slots and --{_SLOTS} are for an evaluation each: leave out all but one.")
    how: dict[str, Any] = {"batch_size": arguments.batch_size, "overwrite": arguments.overwrite}
    objects = {name: getattr(arguments, name) for name in _OBJECTS}
    objects = {name: value for name, value in objects.items() if value != arguments.parser.get_default(name)}
    if objects and arguments.shift is not None:
        raise RecipeError("--shift scores scenes of the model's size: leave out the options of tiles and objects.")
    if arguments.predictions:
        if arguments.shift is not None or not arguments.data:
            raise RecipeError("--predictions are scored on labelled data: name it with --data, and leave out --shift.")
        for name in ["slots"] * (arguments.slots is not None) + [*model_settings]:
            raise RecipeError(f"--{name} is for a model, not for --predictions: leave it out.")
        source, how["description_of_data"] = source_of(arguments.data, changes)
        scored: Any = PredictedMasks(arguments.predictions, source, arguments.background)
    else:
        if arguments.background is not None:
            raise RecipeError("--background is for --predictions alone: a model states its own.")
        scored = _load(arguments, model_settings)
        if arguments.shift is not None:
            shifts = chosen_shifts(scored, arguments.shift)
            table = evaluate_shifts(scored, shifts, arguments.out, changes=changes, **how)
        else:
            source, how["description_of_data"] = test_source(scored, arguments.data, changes)
        if arguments.slots is not None:
            table = evaluate_slots(scored, arguments.slots, source, arguments.out, objects=objects, **how)
        if arguments.shift is not None or arguments.slots is not None:
            print("\n".join([f"{scored.name}: {table.intro}", *table.lines()]))
            print(f"\nOpen {arguments.out / 'index.html'}")
            return
        how["metrics_csv"] = scored.run.metrics if scored.run and scored.run.metrics.is_file() else None
    how |= {"count": len(source), "objects": objects}
    for name, value in evaluate(scored, source, arguments.out, **how).metrics.items():
        shown = "not applicable" if value is None else f"{value:.4f}" if isinstance(value, float) else value
        print(f"{name:<28} {shown}")
    print(f"\nOpen {arguments.out / 'index.html'}")


def run_compare(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    import unscene
    from unscene.evaluation.compare import compare, unique_names
    from unscene.evaluation.scenes import test_source

    changes = _data_settings(changes, "compare")
    loaded = [unscene.load(word, verify=not arguments.no_verify) for word in arguments.models]
    models = dict(zip(unique_names(arguments.models, loaded), loaded, strict=True))
    source, described = test_source(loaded[0], arguments.data, changes)
    how = {"batch_size": arguments.batch_size, "shown": arguments.scenes, "overwrite": arguments.overwrite}
    table = compare(models, source, arguments.out, description_of_data=described, **how)
    print("\n".join([*table.lines(), f"\nOpen {arguments.out / 'index.html'}"]))


def run_probe(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.evaluation.probe import probe
    from unscene.evaluation.scenes import test_source

    model_settings = _model_settings(changes)
    changes = _data_settings(changes, "probe")
    loaded = _load(arguments, model_settings)
    source, described = test_source(loaded, arguments.data, changes)
    how = {name: getattr(arguments, name) for name in ("batch_size", "boxes", "overwrite")}
    table = probe(loaded, source, arguments.out, description_of_data=described, **how)
    print("\n".join([f"{loaded.name}: {table.intro}", *table.lines(), f"\n{arguments.out / 'probe.json'}"]))


def run_reproduce(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.evaluation.paper_tables import choose_rows, find_table
    from unscene.evaluation.reproduce import Queue, adopt, reproduce

    table = find_table(arguments.table, arguments.full)
    how = {name: getattr(arguments, name) for name in ("seeds", "minutes", "threads")}
    queue = Queue(table, choose_rows(table, arguments.rows), arguments.out, arguments.runs, **how)
    if arguments.adopt:
        print(adopt(queue, arguments.adopt))
    else:
        print("\n".join([*reproduce(queue).lines(), f"\n{arguments.out / 'summary.json'}"]))


def run_decompose(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.cli.streams import printable
    from unscene.inference.decompose import decompose_paths

    model_settings = _model_settings(changes)
    for name in changes:
        raise RecipeError(f"`unscene decompose` takes the settings {_model_settings_text()} only, not --{name}.")
    names = (*_OBJECTS, "fit", "frames", "skip_damaged", "overwrite")
    how = {name: getattr(arguments, name) for name in names}
    if arguments.track:
        from unscene.inference.tracking import Linker

        how |= {"link": Linker().link, "frames": "all"}
    result = decompose_paths(_load(arguments, model_settings), arguments.paths, arguments.out, **how)
    for path in result.skipped:
        print(printable(f"left out, cannot be read: {path}"), file=sys.stderr)
    counts = {"image": result.images, "object": result.objects}
    images, objects = (f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items())
    print(f"{images}, {objects}\nOpen {result.out / 'index.html'}")


def run_play(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    model_settings = _model_settings(changes)
    for name in changes:
        raise RecipeError(f"`unscene play` takes the settings {_model_settings_text()} only, not --{name}.")
    given = [name for name in ("game", "camera", "frames") if getattr(arguments, name) is not None]
    if len(given) != 1:
        named = " and ".join(f"--{name}" for name in given) or "none"
        raise RecipeError(
            f"one source of frames was expected, not {named}: name --game NAME, --camera N or --frames PATH."
        )
    if arguments.seed is not None and not arguments.game:
        raise RecipeError("--seed is for the agent of a --game: leave it out.")
    from unscene.inference.frame_sources import camera_frames, file_frames, game_frames
    from unscene.inference.live import play

    loaded = _load(arguments, model_settings)
    if arguments.game:
        frames = game_frames(arguments.game, loaded.size, arguments.seed or 0, loaded.contrast)
    elif arguments.frames:
        frames = file_frames(arguments.frames, loaded.contrast)
    else:
        frames = camera_frames(arguments.camera, loaded.contrast)
    how = {name: getattr(arguments, name) for name in (*_OBJECTS, "port", "fps", "count")}
    how |= {"browser": not (arguments.no_browser or arguments.count), "track": not arguments.no_track}
    print(play(loaded, frames, str(getattr(arguments, given[0])), **how).summary())


def run_explore(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    import unscene
    from unscene.inference.explorer import explore

    explore(unscene.load(arguments.model), arguments.data, arguments.port, browser=not arguments.no_browser)


def run_export(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    import unscene
    from unscene.inference.onnx_file import export_onnx

    difference = export_onnx(unscene.load(arguments.model), arguments.out, arguments.batch_size)
    print(f"{arguments.out}: differs from PyTorch by {difference:.1g} at most")


def run_push(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.runs.hub import push

    how = {"report": arguments.report, "private": arguments.private, "licence": arguments.license}
    address = push(arguments.model, arguments.repository, **how)
    print(f"{address}\nUse it:  unscene decompose hf://{arguments.repository.removeprefix('hf://')} IMAGES --out out")


def run_generate(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.data.generate import generate

    settings = _data_settings(changes, "generate")
    for name in ("count", "seed"):
        value = getattr(arguments, name)
        if value is not None and settings.setdefault(name, value) != value:
            raise RecipeError(f"--{name} {value} and --data.{name} {settings[name]} disagree: give --{name} alone.")
    count = generate(arguments.source, arguments.out, settings)
    print(f"{arguments.out}: {count:,} scenes")


def run_convert(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.data.published.conversion import convert

    settings = _data_settings(changes, "convert")
    how = {name: getattr(arguments, name) for name in ("skip_damaged", "count")}
    count = convert(arguments.source, arguments.files, arguments.out, settings, **how)
    print(f"{arguments.out}: {count:,} scenes")


def run_data(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.data.published import catalogue_text

    print(catalogue_text(arguments.source))


def run_demo(arguments: argparse.Namespace, changes: dict[str, Any]) -> None:
    from unscene.cli.demo import demo

    print(f"\nOpen {demo(arguments.out, arguments.minutes).resolve()}")


def _load(arguments: argparse.Namespace, model_settings: dict[str, Any]) -> LoadedModel:
    """The model of a command, with other settings of the model where they are given."""
    import unscene

    loaded = unscene.load(arguments.model, verify=not arguments.no_verify)
    return loaded.with_settings({name.removeprefix("model."): value for name, value in model_settings.items()})


def _model_settings(changes: dict[str, Any]) -> dict[str, Any]:
    """Remove and return the settings of the model that a trained one may change."""
    return {name: changes.pop(name) for name in _MODEL_SETTINGS if name in changes}


def _model_settings_text() -> str:
    return ", ".join(f"--{name}" for name in _MODEL_SETTINGS)


def _data_settings(changes: dict[str, Any], command: str) -> dict[str, Any]:
    """Settings of the data by their own names; there are no others for this command."""
    for name in changes:
        if not name.startswith("data."):
            known = f"--data.SETTING{f', {_model_settings_text()}' if command in ('evaluate', 'probe') else ''}"
            raise RecipeError(f"`unscene {command}` takes settings of the data only, {known}, not --{name}.")
    return {name.removeprefix("data."): value for name, value in changes.items()}


_RUN = (
    *(run_recipes, run_train, run_evaluate, run_compare, run_probe, run_reproduce),
    *(run_decompose, run_generate, run_convert, run_data, run_demo),
    *(run_explore, run_export, run_play, run_push),
)
COMMANDS = {run.__name__.removeprefix("run_"): run for run in _RUN}
