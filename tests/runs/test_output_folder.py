"""The folder of results, and those above it, when the results do not come to be."""

import pytest

from unscene.errors import RunError
from unscene.runs.output_folder import check_nothing_replaced, check_same_kind, publish, unfinished_folder


def test_folders_made_for_results_that_failed_go_again(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), unfinished_folder(tmp_path / "mine" / "deep" / "out") as folder:
        (folder / "half.json").write_text("{")
        raise KeyboardInterrupt
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_what_was_there_or_came_meanwhile_stays(tmp_path):
    out = tmp_path / "deep" / "out"
    with pytest.raises(KeyboardInterrupt), unfinished_folder(out):
        (out.parent / "another.txt").write_text("of somebody else")
        raise KeyboardInterrupt
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["another.txt"]


def test_published_results_stay(tmp_path):
    with unfinished_folder(tmp_path / "deep" / "out") as folder:
        (folder / "index.html").write_text("page")
        publish(folder, tmp_path / "deep" / "out", last="index.html")
    assert [each.name for each in (tmp_path / "deep" / "out").iterdir()] == ["index.html"]


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"), unfinished_folder(tmp_path / "file" / "out"):
        pass


KINDS = ("metrics.json", "shifts.json", "compare.json", "objects.json")


@pytest.mark.parametrize("there", KINDS)
@pytest.mark.parametrize("own", KINDS)
def test_results_of_another_kind_stay_by_themselves_whether_or_not_they_may_be_replaced(tmp_path, there, own):
    (tmp_path / there).touch()
    if there == own:
        check_same_kind(tmp_path, own)
        check_nothing_replaced(tmp_path, [own, "index.html"], overwrite=True)
        return
    for overwrite in (False, True):
        with pytest.raises(RunError, match=rf"{there} is of .* Name another folder with --out\."):
            check_nothing_replaced(tmp_path, [own, "index.html"], overwrite)
