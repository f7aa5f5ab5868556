"""run_folder: never overwritten, locked by one training, started again after any kill; the machine's description."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from unscene.errors import CheckpointError, RunError
from unscene.runs import run_folder
from unscene.runs.run_folder import RunFolder, describe_machine, git_commit, new_run_folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_new_run_holds_its_recipe_and_folders(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / "a", "seed: 3\n")
    assert names(run.path) == ["checkpoints", "recipe.yaml", "samples"]
    assert RunFolder.open(run.path).recipe_values() == {"seed": 3}


def test_a_run_without_a_folder_gets_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = []
    for recipe in ("rmonet_unet/images", "rmonet_unet/images", "there/mine.yaml", "rmonet_unet/images"):
        folder = new_run_folder(recipe)
        folder.mkdir(parents=True)
        found.append(folder.as_posix())
    assert found == ["runs/rmonet_unet-images", "runs/rmonet_unet-images-2", "runs/mine", "runs/rmonet_unet-images-3"]


def test_empty_folder_may_become_a_run(tmp_path):
    assert RunFolder.create(tmp_path, "seed: 3\n").recipe.is_file()


def test_run_is_never_overwritten(tmp_path):
    run = RunFolder.create(tmp_path / "a", "seed: 3\n")
    with pytest.raises(RunError, match=r"is not empty.*resume it with `unscene train --resume .*a`, or name another"):
        RunFolder.create(tmp_path / "a", "seed: 4\n")
    assert run.recipe_values() == {"seed": 3}


def test_folder_of_other_files_is_refused_without_a_resume_hint(tmp_path):
    (tmp_path / "letter.txt").write_text("precious")
    with pytest.raises(RunError, match=r"is not empty") as caught:
        RunFolder.create(tmp_path, "")
    assert "--resume" not in str(caught.value)
    with pytest.raises(RunError, match=r"letter\.txt is a file; a run needs a folder"):
        RunFolder.create(tmp_path / "letter.txt", "")
    assert names(tmp_path) == ["letter.txt"]


def test_open_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no recipe\.yaml"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"- 1", b"a: [", b"\xff\xfe\x00"])
def test_damaged_recipe_is_named(tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"recipe\.yaml is damaged"):
        RunFolder.open(tmp_path).recipe_values()


def test_every_start_is_recorded(tmp_path):
    run = RunFolder(tmp_path)
    assert run.starts() == []
    run.add_environment({"commit": "a"})
    run.add_environment({"commit": "b"})
    assert run.starts() == json.loads(run.environment.read_text()) == [{"commit": "a"}, {"commit": "b"}]
    run.environment.write_text("[{")
    with pytest.raises(CheckpointError, match=r"environment\.json is damaged"):
        run.add_environment({"commit": "c"})


def test_locked_folder_is_refused(tmp_path):
    run = RunFolder(tmp_path / "a")
    with run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        with pytest.raises(RunError, match="is in use by process"), RunFolder(run.path).lock():
            raise AssertionError("locked twice")
        run.metrics.touch()
        assert run.recipe.is_file()
    with run.lock():  # free again
        pass
    assert run.recipe.is_file()


def test_failed_start_leaves_no_run_folder(tmp_path):
    run = RunFolder(tmp_path / "runs" / "a")
    with suppress(KeyboardInterrupt), run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        run.add_environment({})
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_failed_start_removes_only_its_own_files(tmp_path):
    run = RunFolder(tmp_path)
    with suppress(KeyboardInterrupt), run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        (tmp_path / "letter.txt").write_text("precious")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize("kept", ["metrics", "last"])
def test_run_with_a_row_or_checkpoint_stays(tmp_path, kept):
    run = RunFolder(tmp_path / "a")
    with suppress(KeyboardInterrupt), run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        getattr(run, kept).touch()
        raise KeyboardInterrupt
    assert run.recipe.is_file()


def test_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", "")
    with pytest.raises(RunError, match="cannot be written"), RunFolder(tmp_path / "file" / "run").lock():
        raise AssertionError("locked")


def test_temporary_files_of_a_killed_training_are_removed(tmp_path):
    run = RunFolder(tmp_path / "a")
    (run.path / "checkpoints").mkdir(parents=True)
    for part in (run.path / ".recipe.yaml.part", run.checkpoints / ".best.ckpt.part"):
        part.write_text("half")
    with run.lock():
        assert names(run.path) == ["checkpoints"]


@pytest.mark.parametrize(
    "leftovers",
    [[], [".recipe.yaml.part"], ["checkpoints/", "samples/"], ["checkpoints/.last.ckpt.part", "tensorboard/"]],
)
def test_run_that_was_killed_before_its_recipe_starts_again(tmp_path, leftovers):
    run = RunFolder(tmp_path / "a")
    run.path.mkdir()
    for name in leftovers:
        path = run.path / name
        (path if name.endswith("/") else path.parent).mkdir(exist_ok=True)
        if not name.endswith("/"):
            path.write_text("se")
    with pytest.raises(
        CheckpointError, match=r"nothing to resume\. Start the training with `unscene train RECIPE --out"
    ):
        RunFolder.open(run.path)
    for _ in range(2):
        with suppress(KeyboardInterrupt), run.lock():
            assert RunFolder.create(run.path, "seed: 3\n").recipe_values() == {"seed": 3}
            raise KeyboardInterrupt
        assert not run.recipe.exists()
    with run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        run.metrics.touch()
    assert run.recipe.is_file()


def test_description_of_the_machine_is_ready_for_json(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/unscene", "train", "r", "--data.folder", "my photos"])
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert machine["torch"] == torch.__version__.partition("+")[0]
    assert machine["cores"] >= 1
    assert shlex.split(machine["command"]) == ["unscene", "train", "r", "--data.folder", "my photos"]
    assert machine["date"].endswith("+00:00")


def test_commit_is_none_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_commit_is_dirty_by_a_changed_file_but_not_by_the_ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "__file__", str(tmp_path / "src" / "unscene" / "runs" / "run_folder.py"))
    for name in ("src/a.py", "results/summary.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("before")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@localhost")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "both"]):
        subprocess.run([*git, *words], check=True)
    (tmp_path / "results" / "summary.json").write_text("after")
    clean = git_commit()
    assert len(clean) == 12
    (tmp_path / "src" / "a.py").write_text("after")
    assert git_commit() == f"{clean}-dirty"


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard", "metrics.csv"])
def test_a_link_out_of_the_folder_is_refused(tmp_path, name):
    run = RunFolder.create(tmp_path / "run", "seed: 0\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    for file in (run.checkpoints, run.samples):
        file.rmdir()
    (run.path / name).symlink_to(outside)
    with pytest.raises(RunError, match=rf"{name} is a link to .*outside"), run.lock():
        pass
    assert list(outside.iterdir()) == []
