"""write_results: a number that is printed in the documents is the ledger's."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("write_results", ROOT / "tools" / "write_results.py")
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


@pytest.mark.parametrize("path", tool.markdown_files(), ids=lambda path: path.name)
def test_marked_numbers_equal_the_ledger(path):
    text = path.read_text(encoding="utf-8")
    assert tool.written(text) == text, f"{path.name} differs from results/: run python tools/write_results.py"


def test_figure_equals_the_ledger():
    assert tool.FIGURE.read_text(encoding="utf-8") == tool.figure(), "run python tools/write_results.py"


def test_figure_has_a_paper_for_each_row_and_ours_where_there_is_a_training(results):
    drawn = tool.figure(results)
    assert drawn.count('r="5.5"') == 14  # 13 rows and the legend
    assert drawn.count('r="5" ') == 2  # the ledger's one row and the legend
    assert 'cx="600.0"' in drawn  # (0.7 + 0.8) / 2, three quarters of the way from 300 to 700


def test_summary_equals_the_entries():
    from unscene.evaluation.ledger import summary
    from unscene.evaluation.paper_tables import paper_tables

    known = json.loads((ROOT / "results" / "summary.json").read_text(encoding="utf-8"))
    assert summary(ROOT / "results", paper_tables().values()) == known


@pytest.fixture
def results(tmp_path):
    """Two seeds of one row."""
    write_entries(tmp_path / "elm_table1" / "multi_dsprites", {}, {"ari_fg": 0.7}, {"ari_fg": 0.8})
    return tmp_path


def write_entries(folder, model, *scores, steps=100):
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"name": "tiny", "model": model, "trainer": {"max_steps": 100}}
    whole = {"schema": 1, "recipe": recipe, "commits": [], "steps": steps, "images": 3200, "curve": {}}
    whole |= {"collapsed": False, "minutes": 10.0, "planned_minutes": 10.0}
    for seed, metrics in enumerate(scores):
        (folder / f"seed-{seed}.json").write_text(json.dumps(whole | {"seed": seed, "metrics": metrics}))


def test_numbers_and_tables_are_filled_in(results):
    number = "ARI <!-- result: elm_table1/multi_dsprites/ari_fg -->old<!-- end -->, and"
    filled = tool.written(number, results)
    assert filled == "ARI <!-- result: elm_table1/multi_dsprites/ari_fg -->0.750 ± 0.071<!-- end -->, and"
    table = tool.written("<!-- results: elm_table1 -->\n<!-- end of results -->", results)
    assert "|the letter, multi_dsprites|2|1.00|10.0|0.750 ± 0.071|0.621|" in table
    assert tool.written(table, results) == table


def test_a_training_that_was_cut_short_says_so(results):
    write_entries(results / "elm_table1" / "multi_dsprites", {}, {"ari_fg": 0.7}, steps=50)
    table = tool.written("<!-- results: elm_table1 -->\n<!-- end of results -->", results)
    assert "|the letter, multi_dsprites (75% of its steps)|2|" in table


def test_some_rows_of_a_table(results):
    rows = tool.written("<!-- results: elm_table1 untrained,multi_dsprites -->\n<!-- end of results -->", results)
    assert [line.split("|")[1] for line in rows.splitlines() if line.startswith("|")] == [
        "row",
        "---",
        "L without training (one step)",
        "the letter",
    ]


def test_models_have_the_means_of_the_ledger(results):
    lines = tool.written("<!-- results: models -->\n<!-- end of results -->", results).splitlines()
    (line,) = [line for line in lines if line.startswith("|Explicit localization|")]
    assert line.endswith("|`explicit_localization/multi_dsprites`|0.621|0.750 ± 0.071|-|shipped|")
    assert "|`rmonet_roi_align/multi_dsprites`|0.633|-|-|-|" in "".join(lines)  # no training in this ledger


def test_the_papers_number_stands_beside_that_of_the_papers_masks(results):
    """Also in the figure; a training from before the setting shows inferred masks."""
    table = results / "rmonet_table1"
    write_entries(table / "iodine", {"masks": "posterior"}, {"ari_fg": 0.9, "ari_fg_inferred": 0.5})
    write_entries(table / "space", {"masks": "inferred"}, {"ari_fg": 0.6, "ari_fg_inferred": 0.6})
    write_entries(table / "rmonet_unet", {}, {"ari_fg": 0.75})
    models = tool.written("<!-- results: models -->\n<!-- end of results -->", results)
    assert "|`iodine/multi_dsprites`|0.724|0.500|0.900|shipped|" in models
    assert "|`space/multi_dsprites`|0.844|0.600|-|-|" in models
    assert "|`rmonet_unet/multi_dsprites`|0.951|0.750|-|shipped|" in models
    drawn = tool.figure(results)
    assert 'cx="500.0"' in drawn  # .5 of the way from 300 to 700
    assert 'cx="660.0"' not in drawn


def test_shipped_weights_have_the_scores_of_their_cards(results):
    lines = tool.written("<!-- results: weights -->\n<!-- end of results -->", results).splitlines()
    assert "|`rmonet_unet/multi_dsprites_cpu`|0.966|0.818|0.930|-|" in lines


def test_unknown_marker_is_an_error(results):
    with pytest.raises(KeyError):
        tool.written("<!-- result: elm_table1/flowers/ari_fg -->1<!-- end -->", results)
