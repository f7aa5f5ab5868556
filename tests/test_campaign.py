"""campaign: each kind of bad behaviour of a command is recognised, and its cases are the same for the same seed."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.campaign import process
from tests.campaign.cases import WRITERS, faults, mutations
from tests.campaign.judge import Case, Judge
from unscene.cli import main as cli
from unscene.errors import DataError
from unscene.files import write_text

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the campaign needs Linux")


def work(arguments, changes):
    """Write out/metrics.json; misbehave as the input says."""
    how = Path("how").read_text()
    if how == "traceback":
        raise IndexError("a fault")
    if how == "hang":
        time.sleep(60)
    if how == "litter":
        Path(".x.part").touch()
    if how == "refuse":
        raise DataError("how: a reason")
    if how == "no message":
        raise SystemExit(1)
    if how == "nothing":
        return
    Path("out").mkdir(exist_ok=True)
    write_text(Path("out/metrics.json"), f'{{"metrics": {{"ari": {int(how == "wrong")}}}}}')


@pytest.fixture
def judge(tmp_path, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "recipes", work)
    monkeypatch.setattr(process, "IDLE_SECONDS", 0.5)
    monkeypatch.delenv("UNSCENE_TRACEBACK", raising=False)
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs/how").write_text("right")
    judge = Judge(tmp_path / "inputs", tmp_path)
    judge.answers[("recipes",), ("how",)], judge.operations = judge.run_sound(case("right"))
    return judge


def case(how: str, **options) -> Case:
    return Case("kind", how, ("recipes",), ("how",), lambda folder: (folder / "how").write_text(how), **options)


@pytest.mark.parametrize("how", ["right", "traceback", "hang", "litter", "wrong"])
def test_what_a_command_does_is_recognised(how, judge):
    assert judge.run(case(how))[0] == how


def test_a_refusal_is_clear_where_one_is_expected_and_names_its_cause(judge):
    assert judge.run(case("refuse"))[0] == "clear"
    assert judge.run(case("refuse", mentions=("how",)))[0] == "clear"
    assert judge.run(case("refuse", mentions=("photo.png",)))[0] == "wrong"
    assert judge.run(case("refuse", expect="same"))[0] == "wrong"
    assert judge.run(case("no message"))[0] == "wrong"


def test_exit_status_0_without_a_result_is_wrong(judge):
    assert judge.run(case("nothing", expect="any")) == ("wrong", "status 0 without any result")


def test_every_file_operation_can_be_the_last(judge):
    names = [name.partition(" ")[0] for name in judge.operations]
    assert names[:3] == ["os.mkdir", "open", "open"]
    assert "os.rename" in names
    for number in range(1, len(names) + 1):
        assert judge.run(case("right", expect="same", fault=("kill", number)))[0] == "right"
        verdict = judge.run(case("right", expect="same", fault=("full", number)))
        assert verdict[0] in ("right", "traceback"), verdict


def test_there_are_enough_cases_and_a_seed_gives_the_same_ones():
    names = [(case.kind, case.name, case.words) for case in mutations(3)]
    assert names == [(case.kind, case.name, case.words) for case in mutations(3)]
    assert len(names) >= 1500
    assert min(Counter(kind for kind, _, _ in names).values()) >= 30
    killed = faults(0, [["open out"] * 12] * len(WRITERS))
    assert Counter(case.kind for case in killed)["kills"] == 12 * len(WRITERS)
