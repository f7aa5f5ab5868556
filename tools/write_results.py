"""Write the ledger's tables and numbers into README.md and docs/, between their markers.

    python tools/write_results.py           # rewrite what differs
    python tools/write_results.py --check   # only say which files differ, and exit with 1

A table:     <!-- results: elm_table1 -->
             <!-- end of results -->
One number:  <!-- result: elm_table1/multi_dsprites/ari_fg -->0.780 ± 0.010<!-- end -->
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from unscene.evaluation.ledger import mean_metrics, results_table, scored_entries
from unscene.evaluation.paper_tables import find_table
from unscene.files import write_text
from unscene.report.table import shown

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- result: (\w+)/(\w+)/(\w+) -->).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite or check every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    texts = {path: path.read_text(encoding="utf-8") for path in markdown_files()}
    differing = {path: written(text) for path, text in texts.items() if written(text) != text}
    for path, text in differing.items():
        print(f"{path.relative_to(ROOT)} {'differs from the ledger' if check else 'rewritten'}")
        if not check:
            write_text(path, text)
    raise SystemExit(int(check and bool(differing)))


def markdown_files() -> Iterator[Path]:
    """README.md and every page of docs/."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").rglob("*.md"))


def written(text: str, results: Path = ROOT / "results") -> str:
    """A Markdown text with every marked table and number as the ledger has it.

    Raises:
        RecipeError: a marker names no table of the papers.
        KeyError: a marker names a row or a metric that the ledger does not have.
    """

    def table(match: re.Match[str]) -> str:
        results_of_table = results_table(results, find_table(match[2]))
        return f"{match[1]}\n{results_of_table.markdown()}\n\n{match[3]}"

    def number(match: re.Match[str]) -> str:
        name = match[4]
        value = mean_metrics(scored_entries(results, find_table(match[2]).rows[match[3]]))[name]
        mean, sd = shown(name, value["mean"]), value["sd"]
        return f"{match[1]}{mean}{'' if sd is None else f' ± {shown(name, sd)}'}{match[5]}"

    return NUMBER.sub(number, TABLE.sub(table, text))


if __name__ == "__main__":
    main()
