"""search and true_background: trials depend on their number, run once, and are recorded with their errors."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"
RECIPE = "explicit_localization/multi_dsprites_cpu"
SMALL = [
    *("--set", "data.size=32", "--set", "data.count=8", "--set", "trainer.batch_size=2"),
    *("--set", "model.network.channels=[4, 4]", "--set", "model.num_slots=3", "--set", "model.background_steps=0"),
]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_settings_of_a_trial_depend_on_its_number_alone():
    search = tool("search")
    space = {"b": [1, 2, 3], "a": [0.5, 0.25]}
    assert search.sample_settings(space, 0, 0) == {}
    assert search.sample_settings(space, 0, 7) == search.sample_settings(dict(reversed(space.items())), 0, 7)
    assert len({json.dumps(search.sample_settings(space, 0, trial)) for trial in range(1, 30)}) == 6


@pytest.mark.slow
def test_trials_are_recorded_once_with_their_errors(tmp_path, capsys):
    search = tool("search")
    space, out = tmp_path / "space.yaml", tmp_path / "found" / "out.jsonl"
    space.write_text("model.location.region: [3, 4]\n")  # an even region is refused
    words = [RECIPE, str(space), "--steps", "2", "--images", "4", "--out", str(out), *SMALL]
    search.main([*words, "--trials", "4"])
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["trial"] for line in lines] == [0, 1, 2, 3]
    assert "model.location.region" not in lines[0]["settings"]  # the recipe itself, but for what --set changes
    assert all(line["settings"]["model.num_slots"] == 3 for line in lines)
    for line in lines[1:]:
        if line["settings"]["model.location.region"] == 4:
            assert "odd" in line["error"]
        else:
            assert 0 <= line["scores"]["located"] <= 1
    assert len({"error" in line for line in lines}) == 2  # both kinds were drawn
    before = out.read_bytes()
    search.main([*words, "--trials", "4"])
    assert out.read_bytes() == before
    search.main([*words, "--trials", "1", "--set", "model.prior_weight=0.0"])  # another trial
    assert len(out.read_text().splitlines()) == 5
    assert "model.location.region" in capsys.readouterr().out


def test_the_bound_of_a_known_background(tmp_path, capsys):
    bound = tool("true_background")
    space = tmp_path / "space.yaml"
    space.write_text("model.location.components: [2]\nmodel.location.initial_means: [random]\nmodel.num_slots: [9]\n")
    bound.main([RECIPE, "--draws", "1", "--space", str(space)])
    best, other = capsys.readouterr().out.splitlines()
    assert "as the recipe stands" in best
    assert "'components': 2" in other
    assert float(best.split()[0]) > 0.95 > float(other.split()[0])


@pytest.mark.parametrize("name", ["explicit_localization_montezuma", "explicit_localization_multi_dsprites"])
def test_shipped_search_spaces_hold_settings_of_the_recipe(name):
    import yaml

    from unscene.recipes import load_recipe

    space = yaml.safe_load((TOOLS.parent / "docs" / "notes" / "search" / f"{name}.yaml").read_text())
    recipe = f"explicit_localization/{name.removeprefix('explicit_localization_')}"
    for setting, values in space.items():
        for value in values:
            load_recipe(recipe, {setting: value})
