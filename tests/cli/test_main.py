"""cli: meaning of the arguments, and one line for every error."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unscene import __version__
from unscene.cli import main as cli
from unscene.cli.arguments import parse, split_settings
from unscene.cli.main import main, set_process_up
from unscene.data.published import DATA_SETS
from unscene.errors import RecipeError, RunError
from unscene.recipes import recipe_names, recipe_text
from unscene.runs.run_folder import RunFolder
from unscene.settings import Word


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert "Traceback" not in line
    return line


# What the words mean


@pytest.mark.parametrize(
    ("words", "rest", "settings"),
    [
        ("train r --a.b 7", ["train", "r"], [("a.b", "7")]),
        ("train --a.b=7 r", ["train", "r"], [("a.b", "7")]),
        ("train --a.b -7 r", ["train", "r"], [("a.b", "-7")]),
        ("train --a.b=-1e-4", ["train"], [("a.b", "-1e-4")]),
        ("train --a.b [1,2]", ["train"], [("a.b", "[1,2]")]),
        ("train --data.skip-damaged --out x.y", ["train", "--out", "x.y"], [("data.skip_damaged", None)]),
        ("train --data.skip-damaged", ["train"], [("data.skip_damaged", None)]),
        ("train --a.b= r", ["train", "r"], [("a.b", "")]),
        ("train --a.b x=y", ["train"], [("a.b", "x=y")]),
        ("train --out=a.b/c --seed 3", ["train", "--out=a.b/c", "--seed", "3"], []),
        ("train --a.b 1 --a.b 2", ["train"], [("a.b", "1"), ("a.b", "2")]),
        ("decompose m -- --a.png -b.png", ["decompose", "m", "--", "--a.png", "-b.png"], []),
        ("recipes", ["recipes"], []),
    ],
)
def test_settings_are_parted_from_the_rest(words, rest, settings):
    assert split_settings(words.split()) == (rest, settings)


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["--optimizer.learning_rate", "1e-4"], {"optimizer.learning_rate": "1e-4"}),
        (["--trainer.max_steps=1e5"], {"trainer.max_steps": "1e5"}),
        (["--model.vae.encoder-channels", "[8, 16]"], {"model.vae.encoder_channels": "[8, 16]"}),
        (["--data.skip-damaged"], {"data.skip_damaged": True}),
        (["--optimizer.learning_rate", "-0.5"], {"optimizer.learning_rate": "-0.5"}),
        (["--a.b", "1", "--a.b", "2"], {"a.b": "2"}),
        (["--data.folder", "photos of 2024/"], {"data.folder": "photos of 2024/"}),
    ],
)
def test_settings_reach_the_command_as_values(monkeypatch, words, values):
    seen = {}
    monkeypatch.setitem(cli.COMMANDS, "train", lambda arguments, changes: seen.update(changes))
    assert main(["train", "r", *words]) == 0
    assert seen == values
    assert all(isinstance(value, Word) or value is True for value in seen.values())


# Help, and wrong words


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_a_help_page(capsys, command):
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: unscene {command}" in capsys.readouterr().out


def test_the_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    page = capsys.readouterr().out
    assert {line.split()[0] for line in page.splitlines() if line.startswith("    ") and line[4] != " "} == set(
        cli.COMMANDS
    )


def test_the_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"unscene {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "unscene: the following arguments are required: COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "r", "--resum", "x"], "does not know '--resum'. Did you mean '--resume'?"),
        (["train", "r", "--batch_size", "3"], "does not know '--batch_size'. A setting has a dotted name"),
        (["train", "r", "--seed", "x"], "argument --seed: invalid int value: 'x'"),
        (["train", "a", "b"], "does not know 'b'"),
        (["evaluate", "runs/a"], "the following arguments are required: --out"),
        (["compare", "--out", "x"], "the following arguments are required: RUN_OR_WEIGHTS"),
        (["compare", "runs/a"], "the following arguments are required: --out"),
        (["decompose", "runs/a", "--out", "x"], "the following arguments are required: PATH"),
        (["generate", "mds", "--count", "3", "--out", "x"], "invalid choice: 'mds'"),
        (["evaluate", "", "--out", "x"], "unscene evaluate: an argument is empty (''). Give it a value"),
        (
            ["reproduce", "t", "--seeds", "0,-1"],
            "argument --seeds: numbers from 0, separated by commas, were expected",
        ),
        (["reproduce", "t", "--minutes", "nan"], "argument --minutes: minutes must be 0 or more, not nan"),
        (["demo", "--minutes=-1"], "argument --minutes: minutes must be 0 or more, not -1"),
        (
            ["evaluate", "http://x.org/w.safetensors", "--out", "x"],
            "'http://x.org/w.safetensors' is an address. Download",
        ),
        (["decompose", "r", "a.png", "--out", "x", "b.png", "--whole"], "does not know '--whole'"),
        (["train", "r", "--out="], "unscene train: an argument is empty ('--out=')"),
        (["decompose", "r", "a.png", "--out", ""], "unscene decompose: an argument is empty ('')"),
    ],
)
def test_a_wrong_word_ends_with_2_and_one_line(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    line = last_line(capsys)
    assert message in line
    assert "--help` shows what it takes" in line


def test_further_files_may_follow_an_option():
    arguments = parse(["decompose", "r", "a.png", "--out", "x", "b.png", "c.png"])
    assert arguments.paths == [Path("a.png"), Path("b.png"), Path("c.png")]
    assert parse(["compare", "a", "--out", "x", "b"]).models == ["a", "b"]


# Errors: one line, exit status 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train", "RecipeError: name either a recipe to train or a run to resume"),
        ("train r --resume x", "RecipeError: name either a recipe"),
        ("train r --or-resume", "RecipeError: --or-resume resumes the run in --out DIR"),
        ("train --resume x --or-resume --out y", "RecipeError: --or-resume resumes the run in --out DIR"),
        ("train rmonet_unet/multi_dsprite", "Did you mean 'rmonet_unet/multi_dsprites'?"),
        ("train mine.yaml", "RecipeError: there is no recipe file mine.yaml"),
        ("train rmonet_unet/multi_dsprites --model.n_slots 7", "Did you mean 'model.num_slots'?"),
        ("train rmonet_unet/multi_dsprites --model.num_slots=x", "model.num_slots must be a whole number, not x"),
        ("train rmonet_unet/multi_dsprites --seed -1", "seed must be from 0 to 4294967295, not -1"),
        ("train rmonet_unet/images", "data.folder is empty. Give it a value: --data.folder VALUE"),
        ("train rmonet_unet/images --data.folder nowhere", "DataError: There is no folder nowhere"),
        ("train rmonet_unet/multi_dsprites --data.name hdf5", "data.path must be given"),
        ("train rmonet_unet/multi_dsprites --data.name hdf5 --data.path a.h5", "a.h5 does not exist"),
        ("train --resume nowhere", "CheckpointError: nowhere does not exist"),
        ("recipes nothing", "RecipeError: there is no recipe 'nothing'"),
        ("recipes --all", "RecipeError: --all shows every setting of one recipe"),
        ("recipes --model.num_slots 3", "RecipeError: --all shows every setting"),
        ("evaluate nowhere --out x", "CheckpointError: nowhere does not exist"),
        (
            "evaluate nowhere --out x --model.size 3",
            "takes settings of the data only, --data.SETTING, --model.num_slots, --model.masks, --model.over_frames, "
            "--model.median_background, not",
        ),
        (
            "evaluate nowhere --out x --model.num_slots 3 --slots 4",
            "--slots and --model.num_slots are for an evaluation",
        ),
        ("evaluate nowhere --out x --shift all --slots 4", "leave out all but one"),
        ("evaluate --predictions a.npz --data b.h5 --slots 4 --out x", "--slots is for a model, not for --predictions"),
        ("evaluate rmonet_unet/multi_dsprites_cpu --out x --slots 1", "model.num_slots must be"),
        ("evaluate explicit_localization/montezuma_cpu --out x --model.num_slots 1", "model.num_slots must be"),
        (
            "evaluate explicit_localization/montezuma_cpu --out x --model.median_background true",
            "for a model of median_background False, not of median_background True: train it so",
        ),
        ("compare nowhere --out x", "CheckpointError: nowhere does not exist"),
        (
            "compare nowhere --out x --model.num_slots 3",
            "RecipeError: `unscene compare` takes settings of the data only",
        ),
        ("compare rmonet_unet/multi_dsprites_cpu --out x --data.sice 3", "Did you mean 'data.size'?"),
        ("compare rmonet_unet/multi_dsprites_cpu --out x --scenes 0", "DataError: the number of scenes in the figure"),
        ("compare rmonet_unet/multi_dsprites_cpu --out x --data a.h5", "a.h5 does not exist"),
        ("decompose nowhere a.png --out x", "CheckpointError: nowhere does not exist"),
        (
            "decompose nowhere a.png --out x --data.size 3",
            "`unscene decompose` takes the settings --model.num_slots, --model.masks, --model.over_frames, "
            "--model.median_background only, not --data.size",
        ),
        ("generate multi_dsprites --count 0 --out a.h5", "multi_dsprites: data.count must be 1 or more, not 0"),
        ("generate multi_dsprites --count 3 --out a.h5 --data.sizes 3", "Did you mean 'data.size'?"),
        ("generate multi_dsprites --count 3 --out a.h5 --data.size x", "data.size must be a whole number, not x"),
        ("generate multi_dsprites --count 3 --out a.h5 --data.shapes [1]", "data.shapes must be text, not 1"),
        ("generate clevr_scenes --count 3 --out a.h5 --data.colours [grey]", "Did you mean 'gray'?"),
        ("generate multi_dsprites --count 3 --out a.h5 --model.size 3", "takes settings of the data only"),
        ("generate multi_dsprites --count 3 --seed 1 --data.seed 2 --out a.h5", "--seed 1 and --data.seed 2 disagree"),
        ("generate multi_dsprites --count 3 --data.count 4 --out a.h5", "--count 3 and --data.count 4 disagree"),
        ("convert clevr a.tfrecords --out a.h5 --model.size 2", "takes settings of the data only"),
        (
            "convert clevr a.tfrecords --out a.h5 --data.min_objects 7",
            "min_objects must be at most max_objects, 6, not 7",
        ),
        ("convert clever a.tfrecords --out a.h5", "no published data set 'clever'. Did you mean 'clevr'?"),
        ("data clever", "no published data set 'clever'. Did you mean 'clevr'?"),
    ],
)
def test_an_error_ends_with_1_and_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 1
    assert message in last_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", ["multi_dsprites", "clevr"])
def test_a_missing_file_to_convert_is_named(tmp_path, capsys, source):
    for out in (tmp_path / "a.h5", tmp_path / "new" / "newer" / "a.h5"):
        assert main(["convert", source, str(tmp_path / "a.tfrecords"), "--out", str(out)]) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith("DataError: ")  # below the progress bar
        assert list(tmp_path.iterdir()) == []


def test_data_lists_the_data_sets_and_describes_one(capsys):
    assert main(["data"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} >= set(DATA_SETS)
    for name in DATA_SETS:
        assert main(["data", name]) == 0
        text = capsys.readouterr().out
        for word in ("where", "size", "licence", "split", "files", f"unscene convert {name} "):
            assert word in " ".join(text.split())


def test_ctrl_c_ends_with_130(monkeypatch, capsys):
    def interrupted(*arguments):
        raise interruption

    monkeypatch.setitem(cli.COMMANDS, "recipes", interrupted)
    for interruption in (KeyboardInterrupt(), KeyboardInterrupt("Stopped.")):
        assert main(["recipes"]) == 130
        assert last_line(capsys) == (str(interruption) or "Interrupted; nothing half-written is left behind.")


def test_sigterm_ends_as_ctrl_c(monkeypatch, capsys):
    def terminated(*arguments):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setitem(cli.COMMANDS, "recipes", terminated)
    assert main(["recipes"]) == 130
    assert last_line(capsys) == "Interrupted; nothing half-written is left behind."
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_any_error_of_ours_is_one_line(monkeypatch, capsys):
    def fails(*arguments):
        raise RunError("a.csv: the disk is full.")

    monkeypatch.setitem(cli.COMMANDS, "recipes", fails)
    assert main(["recipes"]) == 1
    assert last_line(capsys) == "RunError: a.csv: the disk is full."


def test_an_unforeseen_error_is_two_lines_and_a_report(monkeypatch, capsys, tmp_path):
    def fails(*arguments):
        raise TypeError("a bug\nof two lines")

    monkeypatch.setitem(cli.COMMANDS, "recipes", fails)
    with pytest.raises(TypeError):
        main(["recipes"])
    monkeypatch.delenv("UNSCENE_TRACEBACK")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["recipes"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "unscene stopped at an unexpected error: TypeError: a bug"
    (report,) = tmp_path.iterdir()
    assert second == f"The full report is in {report}; UNSCENE_TRACEBACK=1 shows it here."
    assert "unscene recipes" in report.read_text()
    assert report.read_text().endswith("TypeError: a bug\nof two lines\n")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert main(["recipes"]) == 1
    assert capsys.readouterr().err.endswith("No report could be written; UNSCENE_TRACEBACK=1 shows it here.\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 53.3 PiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 53 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_full_memory_is_said_with_what_to_lower(monkeypatch, capsys, error):
    def fails(*arguments):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "recipes", fails)
    monkeypatch.delenv("UNSCENE_TRACEBACK")
    assert main(["recipes"]) == 1
    line = last_line(capsys)
    assert line.startswith("MemoryError: the memory is full (")
    assert "allocate" in line
    assert "--batch-size" in line


def test_escapes_in_a_message_do_not_reach_the_terminal(monkeypatch, capsys):
    def fails(*arguments):
        raise RunError("\x1b[2Jmine.png\udcff is damaged.")

    monkeypatch.setitem(cli.COMMANDS, "recipes", fails)
    assert main(["recipes"]) == 1
    assert last_line(capsys) == "RunError: \\x1b[2Jmine.png\\udcff is damaged."


# Commands


def test_recipes_lists_all(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == recipe_names()
    assert [line.split()[1:3] for line in lines if line.startswith("rmonet_unet/multi_dsprites ")] == [
        ["paper", "0.951"]
    ]


def test_recipes_shows_one(capsys):
    assert main(["recipes", "rmonet_unet/images"]) == 0
    assert capsys.readouterr().out == recipe_text("rmonet_unet/images")


def test_recipes_all_shows_every_setting(capsys):
    assert main(["recipes", "rmonet_unet/images", "--all", "--data.folder", "photos", "--model.num_slots", "3"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    assert values["data"]["folder"] == "photos"
    assert values["model"]["num_slots"] == 3
    assert values["trainer"]["prefetch"] == 4  # which the recipe leaves to its default


def test_runs_get_names_of_their_own(tmp_path, monkeypatch, capsys, tiny_arguments):
    monkeypatch.chdir(tmp_path)
    (recipe, *settings) = tiny_arguments
    (tmp_path / "mine.yaml").write_text(recipe_text(recipe))
    for _ in range(2):
        assert main(["train", "mine.yaml", *settings, "--trainer.max_steps=1", "--seed", "3"]) == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["mine", "mine-2"]
    values = yaml.safe_load((tmp_path / "runs" / "mine-2" / "recipe.yaml").read_text())
    assert (values["name"], values["seed"], values["trainer"]["max_steps"]) == ("mine.yaml", 3, 1)
    out = capsys.readouterr().out
    assert f"{Path('runs/mine-2')}: step 1: " in out
    assert f"unscene evaluate {Path('runs/mine-2')} --out {Path('runs/mine-2/report')}" in out


def test_a_resumed_run_refuses_another_model_data_or_seed(trained, capsys):
    for word in ("--model.num_slots=3", "--data.size=64", "--seed=3", "--out=x", "--optimizer.name=adamw"):
        assert main(["train", "--resume", str(trained.path), word]) == 1
        assert f"RecipeError: {word.partition('=')[0]}: a resumed run stays in its folder" in last_line(capsys)


def test_a_run_is_not_trained_into_twice(trained, tiny_arguments, capsys):
    assert main(["train", *tiny_arguments, "--out", str(trained.path)]) == 1
    assert "RunError" in (line := last_line(capsys))
    assert f"unscene train --resume {trained.path}" in line


def test_the_same_command_starts_a_run_and_resumes_it(tmp_path, tiny_arguments, capsys):
    run = tmp_path / "run"
    words = ["train", *tiny_arguments, "--out", str(run), "--or-resume"]
    for steps in (1, 2, 2):
        assert main([*words, f"--trainer.max_steps={steps}"]) == 0
    out = capsys.readouterr().out
    assert "has had its 2 steps" in out
    assert [start["first_step"] for start in json.loads((run / "environment.json").read_text())] == [0, 1, 2]
    before = sorted(path.read_bytes() for path in run.rglob("*") if path.is_file())
    assert main([*words, "--model.num_slots=5"]) == 1
    assert f"{run} holds another run, which is never overwritten: its model.num_slots is 6, here it is 5." in last_line(
        capsys
    )
    assert sorted(path.read_bytes() for path in run.rglob("*") if path.is_file()) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    assert main(["train", *tiny_arguments, "--out", str(tmp_path / "other"), "--or-resume"]) == 1
    assert "is not empty, and a run is never overwritten" in last_line(capsys)


def test_one_generated_file_serves_training_validation_and_test(tmp_path, tiny_arguments, capsys):
    path, run = tmp_path / "scenes.h5", tmp_path / "run"
    assert main(f"generate multi_dsprites --count 30 --seed 4 --data.size 32 --out {path}".split()) == 0
    assert capsys.readouterr().out == f"{path}: 30 scenes\n"
    with h5py.File(path) as file:
        assert file["image"].shape == (30, 32, 32, 3)
        assert (file.attrs["seed"], json.loads(file.attrs["settings"])["size"]) == (4, 32)
        images = file["image"][()]
    assert main(f"generate multi_dsprites --count 30 --out {path}".split()) == 1
    assert "is already there and is not overwritten" in last_line(capsys)

    words = [word for word in tiny_arguments if not word.startswith("--data.count")]
    file_words = ["--data.name=hdf5", f"--data.path={path}", "--trainer.max_steps=2", f"--out={run}"]
    assert main(["train", *words, *file_words]) == 0
    capsys.readouterr()

    from unscene.runs.recipe import read_recipe

    recipe = read_recipe(yaml.safe_load((run / "recipe.yaml").read_text()), "file")
    parts = [recipe.source(part) for part in ("data", "validation", "test")]
    assert [len(part) for part in parts] == [20, 6, 4]
    shown = np.concatenate([part.batch(range(len(part)))["image"] for part in parts])
    assert np.array_equal(shown, images)

    assert main(["train", *words, *file_words[:2], "--test.count=40", "--out", str(tmp_path / "other")]) == 1
    assert "has 30 scenes, too few for first 0 and count -46: lower data.count" in last_line(capsys)


def test_evaluate_writes_numbers_and_a_page(trained, tmp_path, capsys, monkeypatch):
    curve_files: list[Path] = []
    monkeypatch.setattr("unscene.evaluation.evaluate.training_curves", curve_files.append)  # which takes seconds
    words = ["evaluate", str(trained.path), "--out", str(tmp_path / "report"), "--data.count", "4", "--data.seed", "9"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "ari_fg" in out
    assert (tmp_path / "report" / "metrics.json").is_file()
    assert (tmp_path / "report" / "index.html").is_file()
    assert curve_files == [trained.metrics]
    other = [*words[:-1], "10"]
    assert main(other) == 1
    assert "RunError" in (line := capsys.readouterr().err.splitlines()[-1])
    assert "--overwrite" in line


def test_evaluate_under_shifts_prints_one_table_and_writes_a_page(trained, tmp_path, capsys):
    words = ["evaluate", str(trained.path), "--out", str(tmp_path / "shifted"), "--data.count=3", "--shift"]
    assert main([*words, "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rmonet_unet/multi_dsprites_cpu: 3 scenes of multi_dsprites, seed 2; and as many of each shift."
    rows = ["none", "more_objects", "unseen_shape", "unseen_colour", "occlusion", "crop"]
    assert [line.split()[0] for line in lines[3:9]] == rows
    assert [line.split()[1] for line in lines[3:9]] == ["6", "11", "6", "6", "6", "6"]
    assert lines[-1] == f"Open {tmp_path / 'shifted' / 'index.html'}"
    written = json.loads((tmp_path / "shifted" / "shifts.json").read_text())
    assert [row["shift"] for row in written["shifts"]] == rows
    assert all(row["evaluation"]["provenance"]["data"]["scenes"] == 3 for row in written["shifts"])

    alone = ["evaluate", str(trained.weights), "--out", str(tmp_path / "alone"), "--data.count=3", "--data.crop=0.5"]
    assert main(alone) == 0
    assert main([*words[:-1], "--data.crop=0.5", "--overwrite", "--shift", "unseen_shape"]) == 0
    none, _ = json.loads((tmp_path / "shifted" / "shifts.json").read_text())["shifts"]
    assert none["ari_fg"] == json.loads((tmp_path / "alone" / "metrics.json").read_text())["ari_fg"]

    capsys.readouterr()
    assert main([*words, "crop"]) == 1
    assert "would be overwritten" in last_line(capsys)
    assert main([*words, "crops"]) == 1
    assert "multi_dsprites has no shift 'crops'" in last_line(capsys)
    assert main([*words, "crop,"]) == 1
    assert "multi_dsprites has no shift ''" in last_line(capsys)
    assert main([*words, "crop", "--data", "scenes.h5"]) == 1
    assert "--shift draws scenes, --data reads them from a file: leave out one of them." in last_line(capsys)


def test_the_number_of_slots_changes_in_evaluate_and_decompose(trained, tmp_path, capsys):
    words = ["evaluate", str(trained.weights), "--data.count=2"]
    assert main([*words, "--slots", "6,4", "--out", str(tmp_path / "slots")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "rmonet_unet/multi_dsprites_cpu: 2 scenes of multi_dsprites, seed 2."
    assert [line.split()[:2] for line in lines[3:5]] == [["6", "slots"], ["4", "slots"]]
    assert main([*words, "--model.num_slots=4", "--out", str(tmp_path / "four")]) == 0
    four = json.loads((tmp_path / "four" / "metrics.json").read_text())
    table = json.loads((tmp_path / "slots" / "slots.json").read_text())["models"]
    assert four["ari_fg"] == table[1]["ari_fg"]
    assert four["provenance"]["weights"]["num_slots"] == 4
    assert "num_slots" not in table[0]["evaluation"]["provenance"]["weights"]
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path / "four")]) == 1  # six slots are another evaluation
    assert "--overwrite" in capsys.readouterr().err.splitlines()[-1]

    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "photo.png")
    words = ["decompose", str(trained.weights), str(tmp_path / "photo.png"), "--out", str(tmp_path / "photo")]
    assert main([*words, "--model.num_slots", "3"]) == 0
    info = json.loads((tmp_path / "photo" / "objects.json").read_text())["info"]
    assert info["weights"]["num_slots"] == 3


def test_probe_prints_a_table_and_writes_its_numbers(trained, tmp_path, capsys):
    words = ["probe", str(trained.weights), "--out", str(tmp_path / "probe"), "--batch-size=64"]
    assert main([*words, "--data.count=48", "--model.num_slots=5", "--boxes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("rmonet_unet/multi_dsprites_cpu: 48 scenes of multi_dsprites, seed 2. ")
    rows = ["shape, accuracy", "scale, R2", "x, R2", "y, R2", "color, R2"]
    assert [line[:15].strip() for line in lines[3:8]] == rows
    assert lines[-1] == str(tmp_path / "probe" / "probe.json")
    written = json.loads((tmp_path / "probe" / "probe.json").read_text())
    assert list(written["properties"]) == [row.split(",")[0] for row in rows]
    assert written["provenance"]["weights"]["num_slots"] == 5
    assert written["provenance"]["data"]["scenes"] == 48
    assert written["provenance"]["evaluation"]["boxes"] is True
    assert main([*words, "--data.count=2", "--overwrite"]) == 1
    assert "too few: probes need 20 of each" in capsys.readouterr().err.splitlines()[-1]
    Image.new("RGB", (32, 32), (200, 10, 10)).save(tmp_path / "photo.png")
    Image.new("L", (32, 32), 1).save(tmp_path / "photo_label.png")
    assert main([*words, "--data", str(tmp_path), "--overwrite"]) == 1
    assert "states no properties of its objects" in capsys.readouterr().err.splitlines()[-1]


def test_evaluate_reads_a_file(trained, tmp_path, capsys):
    path = tmp_path / "scenes.h5"
    assert main(f"generate multi_dsprites --count 5 --data.size 32 --out {path}".split()) == 0
    words = ["evaluate", str(trained.weights), "--data", str(path), "--out", str(tmp_path / "report")]
    assert main([*words, "--data.first", "2"]) == 0
    assert "ari_fg_images                3" in capsys.readouterr().out
    for wrong, message in (
        ("--data.frist=2", "Did you mean 'data.first'?"),
        ("--data.size=64", "images of 32 x 32 pixels"),
    ):
        assert main([*words, wrong]) == 1
        assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("--join-alike", "join_alike", True),
        ("--split-parts", "split_parts", True),
        ("--split-touching", "split_parts", "touching"),
        ("--outline 0.5", "outline", 0.5),
        ("--min-area 3", "min_area", 3),
        ("--min-contrast 0.1", "min_contrast", 0.1),
    ],
)
def test_options_of_objects_reach_decompose(trained, tmp_path, monkeypatch, words, name, value):
    given = {}

    def decomposed(loaded, paths, out, **how):
        given.update(how)
        raise RecipeError("that is enough")

    monkeypatch.setattr("unscene.inference.decompose.decompose_paths", decomposed)
    assert main(["decompose", str(trained.path), str(tmp_path), "--out", str(tmp_path / "out"), *words.split()]) == 1
    assert given[name] == value


def test_compare_has_the_numbers_of_evaluate_on_the_same_scenes(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unscene.evaluation.evaluate.training_curves", lambda path: None)  # which takes seconds
    path, weights = tmp_path / "scenes.h5", tmp_path / "own.safetensors"
    assert main(f"generate multi_dsprites --count 5 --data.size 32 --data.seed 9 --out {path}".split()) == 0
    weights.write_bytes(trained.weights.read_bytes())
    words = ["compare", str(trained.path), str(weights), "--out", str(tmp_path / "both"), "--data.seed=9"]
    assert main([*words, "--data.count=4"]) == 0
    printed = capsys.readouterr().out
    first_words = [line.split()[0] for line in printed.splitlines() if line.strip()]
    assert first_words.index("model") < first_words.index("run") < first_words.index(str(weights))
    assert f"Open {tmp_path / 'both' / 'index.html'}" in printed
    run, own = json.loads((tmp_path / "both" / "compare.json").read_text())["models"]
    assert (run["training_steps"], own["training_steps"]) == (6, None)

    alone = ["evaluate", str(trained.path), "--out", str(tmp_path / "alone"), "--data.seed=9", "--data.count=4"]
    assert main(alone) == 0
    scores = json.loads((tmp_path / "alone" / "metrics.json").read_text())
    for name in run["evaluation"].keys() - {"ms_per_image", "name", "scenes", "provenance"}:
        assert run["evaluation"][name] == own["evaluation"][name] == scores[name], name

    assert main([*words, "--data.count=4"]) == 1
    assert "would be overwritten" in capsys.readouterr().err
    assert main([*words[:-1], "--data", str(path), "--data.count=3", "--overwrite"]) == 0
    read = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert (read["data"]["source"], read["data"]["scenes"]) == ("hdf5", 3)


def test_compare_refuses_models_of_two_sizes(trained, tmp_path, capsys):
    words = ["compare", str(trained.path), "rmonet_unet/multi_dsprites_cpu", "--out", str(tmp_path / "out")]
    assert main(words) == 1
    assert "takes images of 64 x 64 pixels, but run of 32 x 32" in last_line(capsys)
    assert not (tmp_path / "out").exists()


def test_decompose_handles_a_damaged_image(trained, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (50, 40), (200, 10, 10)).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:60])
    words = ["decompose", str(trained.path), str(folder), "--out"]
    assert main([*words, str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("DataError: ")
    assert "b.png" in line
    assert main([*words, str(tmp_path / "skipped"), "--skip-damaged"]) == 0
    assert (
        json.loads((tmp_path / "skipped" / "objects.json").read_text())["info"]["fit"] == "stretch"
    )  # sprites: squares
    assert main([*words, str(tmp_path / "crop"), "--skip-damaged", "--fit", "crop"]) == 0
    assert json.loads((tmp_path / "crop" / "objects.json").read_text())["info"]["fit"] == "crop"


@pytest.mark.parametrize("recipe", ["monet/small_sprites", "space/small_sprites"])
def test_batches_of_one_image_train_score_and_decompose(tmp_path, capsys, monkeypatch, tiny_arguments, recipe):
    monkeypatch.setattr("unscene.evaluation.evaluate.training_curves", lambda file: None)  # which takes seconds
    run, few = (
        tmp_path / "run",
        [argument for argument in tiny_arguments if argument.startswith(("--trainer", "--validation"))],
    )
    words = ["train", recipe, *few, "--out", str(run), "--trainer.batch_size=1", "--trainer.max_steps=2"]
    words += ["--model.foreground.fixed_alpha_steps=1"] if recipe.startswith("space") else []
    assert main([*words, "--model.num_slots=1"]) == 1
    assert "model.num_slots must be " in last_line(capsys)
    assert main([*words, "--model.num_slots=2", "--data.count=4"]) == 0
    report = tmp_path / "report"
    assert main(["evaluate", str(run), "--out", str(report), "--data.count=1", "--batch-size=1"]) == 0
    assert json.loads((report / "metrics.json").read_text())["ari_fg"] is not None
    Image.new("RGB", (50, 40), (200, 10, 10)).save(tmp_path / "photo.png")
    assert main(["decompose", str(run), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]) == 0
    assert list((tmp_path / "out").rglob("objects.json"))


@pytest.mark.parametrize("command", ["evaluate", "compare", "decompose"])
def test_broken_weights_end_with_one_line(trained, tmp_path, capsys, command):
    run = RunFolder(shutil.copytree(trained.path, tmp_path / "broken"))
    with safe_open(run.weights, "pt") as file:
        described = file.metadata()
    weights = load_file(run.weights)
    broken = {name: tensor * float("nan") if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    save_file(broken, run.weights, described)
    Image.new("RGB", (50, 40), (200, 10, 10)).save(tmp_path / "photo.png")
    first = [str(trained.path)] if command == "compare" else []
    words = [*first, str(run.path), *([str(tmp_path / "photo.png")] if command == "decompose" else ["--data.count=2"])]
    assert main([command, *words, "--no-verify", "--out", str(tmp_path / "out")]) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"CheckpointError: rmonet_unet/multi_dsprites_cpu ({run.path}) answers with")
    assert "its weights are broken" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("users", "then"), [(None, "1"), ("0", "0")])
def test_huge_pages_are_the_users_choice(users, then, monkeypatch):
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", str(users))
    if users is None:
        del os.environ["THP_MEM_ALLOC_ENABLE"]
    set_process_up()
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == then


@pytest.mark.parametrize(
    ("users", "then"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_how_long_threads_spin_is_the_users_choice(users, then, monkeypatch):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, users.get(name, ""))
        if name not in users:
            del os.environ[name]
    set_process_up()
    assert os.environ.get("GOMP_SPINCOUNT") == then


def test_a_notebooks_matplotlib_backend_is_replaced(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://missing_module.backend_inline")
    code = "from unscene.cli.main import set_process_up as up; up(); import matplotlib; print(matplotlib.get_backend())"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip().lower() == "agg"


@pytest.mark.parametrize("command", ["evaluate {} --out x", "decompose {} a.png --out x", "train --resume {}"])
def test_a_name_that_the_system_refuses_is_one_line(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(command.format("n" * 300).split()) == 1
    line = last_line(capsys)
    assert line.startswith("n" * 300)
    assert line.endswith(": File name too long. Check this path, or name another one.")
    assert list(tmp_path.iterdir()) == []
