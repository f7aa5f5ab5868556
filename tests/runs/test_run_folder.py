"""run_folder: never overwritten, held by one training, written whole or not at all."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest

from unscene.errors import CheckpointError, RunError
from unscene.runs.run_folder import RunFolder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_new_run_holds_its_recipe_and_folders(tmp_path):
    run = RunFolder.create(tmp_path / "runs" / "a", "seed: 3\n")
    assert names(run.path) == ["checkpoints", "recipe.yaml", "samples"]
    assert RunFolder.open(run.path).recipe_values() == {"seed": 3}


def test_an_empty_folder_may_become_a_run(tmp_path):
    assert RunFolder.create(tmp_path, "seed: 3\n").recipe.is_file()


def test_a_run_is_never_overwritten(tmp_path):
    run = RunFolder.create(tmp_path / "a", "seed: 3\n")
    with pytest.raises(RunError, match=r"is not empty.*resume it with `unscene train --resume .*a`, or name another"):
        RunFolder.create(tmp_path / "a", "seed: 4\n")
    assert run.recipe_values() == {"seed": 3}


def test_what_is_no_run_is_not_offered_for_resuming(tmp_path):
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
def test_a_damaged_recipe_is_named(tmp_path, content):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"recipe\.yaml is damaged"):
        RunFolder.open(tmp_path).recipe_values()


def test_every_start_is_remembered(tmp_path):
    run = RunFolder(tmp_path)
    assert run.starts() == []
    run.add_environment({"commit": "a"})
    run.add_environment({"commit": "b"})
    assert run.starts() == json.loads(run.environment.read_text()) == [{"commit": "a"}, {"commit": "b"}]
    run.environment.write_text("[{")
    with pytest.raises(CheckpointError, match=r"environment\.json is damaged"):
        run.add_environment({"commit": "c"})


def test_a_held_folder_is_refused_to_another_training(tmp_path):
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


def test_what_never_trained_leaves_nothing(tmp_path):
    run = RunFolder(tmp_path / "runs" / "a")
    with suppress(KeyboardInterrupt), run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        run.add_environment({})
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_only_what_a_run_wrote_is_removed(tmp_path):
    run = RunFolder(tmp_path)
    with suppress(KeyboardInterrupt), run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        (tmp_path / "letter.txt").write_text("precious")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["letter.txt"]


@pytest.mark.parametrize("kept", ["metrics", "last"])
def test_what_trained_stays(tmp_path, kept):
    run = RunFolder(tmp_path / "a")
    with suppress(KeyboardInterrupt), run.lock():
        RunFolder.create(run.path, "seed: 3\n")
        getattr(run, kept).touch()
        raise KeyboardInterrupt
    assert run.recipe.is_file()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", "")
    with pytest.raises(RunError, match="cannot be written"), RunFolder(tmp_path / "file" / "run").lock():
        raise AssertionError("locked")


def test_what_a_killed_training_left_half_written_is_removed(tmp_path):
    run = RunFolder(tmp_path / "a")
    (run.path / "checkpoints").mkdir(parents=True)
    for part in (run.path / ".recipe.yaml.part", run.checkpoints / ".best.ckpt.part"):
        part.write_text("half")
    with run.lock():
        assert names(run.path) == ["checkpoints"]


def test_a_run_that_was_killed_before_its_recipe_can_begin_again(tmp_path):
    run = RunFolder(tmp_path / "a")
    run.path.mkdir()
    (run.path / ".recipe.yaml.part").write_text("se")
    with run.lock():
        assert RunFolder.create(run.path, "seed: 3\n").recipe_values() == {"seed": 3}
        run.metrics.touch()
    assert run.recipe.is_file()
