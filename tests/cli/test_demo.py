"""demo: which folder it takes, and what a killed one leaves there."""

from __future__ import annotations

import pytest

from unscene.cli import demo as module
from unscene.cli.demo import demo
from unscene.errors import RunError
from unscene.files import lock


class Trained(Exception):  # noqa: N818
    """Stands for all that comes after the folder is ready."""


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    def train(*arguments):
        raise Trained

    monkeypatch.setattr(module, "train", train)


def test_earlier_demo_is_removed_except_for_its_mark(tmp_path):
    for _ in range(2):
        with pytest.raises(Trained):
            demo(tmp_path / "demo")
        assert [path.name for path in (tmp_path / "demo").iterdir()] == [".unscene-demo"]
        (tmp_path / "demo" / "run").mkdir()
        (tmp_path / "demo" / "run" / "recipe.yaml").touch()
        (tmp_path / "demo" / "index.html").touch()


def test_demo_killed_while_it_removes_an_earlier_one_is_known_as_a_demo(tmp_path, monkeypatch):
    with pytest.raises(Trained):
        demo(tmp_path)
    (tmp_path / "run").mkdir()

    def killed(path):
        raise SystemExit(9)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(module.shutil, "rmtree", killed)
        demo(tmp_path)
    with pytest.raises(Trained):
        demo(tmp_path)


def test_folder_of_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(RunError, match="holds files that no demo wrote"):
        demo(tmp_path)
    with pytest.raises(RunError, match="is a file"):
        demo(tmp_path / "mine.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_two_demos_do_not_share_a_folder(tmp_path):
    with lock(tmp_path), pytest.raises(RunError, match="in use"):
        demo(tmp_path)
