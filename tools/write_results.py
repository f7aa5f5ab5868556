"""Write the ledger's tables and numbers into README.md and docs/, between their markers.

    python tools/write_results.py           # rewrite what differs
    python tools/write_results.py --check   # only say which files differ, and exit with 1

A table:           <!-- results: elm_table1 -->
                   <!-- end of results -->
Some rows of it:   <!-- results: rmonet_table1 monet,monet_clevr -->
The models:        <!-- results: models -->             every model: paper, recipe, ARI on Multi-dSprites
Shipped weights:   <!-- results: weights -->            their model cards' scores
One number:        <!-- result: elm_table1/multi_dsprites/ari_fg -->0.780 ± 0.010<!-- end -->

docs/images/results.svg shows the foreground ARI of every row, by the papers' masks, beside the paper's.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unscene.evaluation.ledger import mean_metrics, results_table, scored_entries
from unscene.evaluation.paper_tables import PaperRow, find_table
from unscene.files import write_text
from unscene.report.table import MISSING, Table, description_of, shown
from unscene.runs.loading import shipped_weights

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "docs" / "images" / "results.svg"
TABLE = re.compile(r"(<!-- results: (\S+)(?: (\S+))? -->\n).*?(<!-- end of results -->)", re.DOTALL)
NUMBER = re.compile(r"(<!-- result: (\w+)/(\w+)/(\w+) -->).*?(<!-- end -->)", re.DOTALL)
CARD_SCORE = re.compile(r"^\| (\w+) \| ([\d.]+) \|$", re.MULTILINE)


def main() -> None:
    """Rewrite or check every file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    files = {path: written(path.read_text(encoding="utf-8")) for path in markdown_files()} | {FIGURE: figure()}
    differing = {path: text for path, text in files.items() if not path.is_file() or path.read_text("utf-8") != text}
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
        return f"{match[1]}\n{TABLES.get(match[2], paper_table)(results, match[2], match[3])}\n\n{match[4]}"

    def number(match: re.Match[str]) -> str:
        name = match[4]
        value = mean_metrics(scored_entries(results, find_table(match[2]).rows[match[3]]))[name]
        return f"{match[1]}{with_sd(name, value)}{match[5]}"

    return NUMBER.sub(number, TABLE.sub(table, text))


def with_sd(name: str, value: Mapping[str, float | None]) -> str:
    """`0.785 ± 0.010`, or the mean alone for one training."""
    return shown(name, value["mean"]) + ("" if value["sd"] is None else f" ± {shown(name, value['sd'])}")


def paper_table(results: Path, name: str, rows: str | None) -> str:
    """A table of a paper, or some rows of it; the paper's number has a column of its own behind ours."""
    table = find_table(name)
    if rows:
        table = replace(table, rows={row: table.rows[row] for row in rows.split(",")})
    return lines_of(results_table(results, table))


def lines_of(table: Table) -> str:
    """A table as Markdown, one number a cell."""
    lines = [[table.label], *([row.name] for row in table.rows)]
    for column, metric in enumerate(table.columns):
        cells = [row[column] for row in table.cells()]
        for line, text in zip(lines, [heading(metric), *(cell.text for cell in cells)], strict=True):
            line.append(text)
        if any(cell.paper for cell in cells):
            for line, text in zip(lines, ["paper", *(cell.paper or MISSING for cell in cells)], strict=True):
                line.append(text)
    return markdown(lines)


def heading(metric: str) -> str:
    """A column's name."""
    return " ".join(filter(None, description_of(metric).heading))


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the headings first, as a table in Markdown."""
    rows = [f"|{'|'.join(line)}|" for line in lines]
    numbers = [all(re.match(r"-|\d", cell) for cell in column) for column in zip(*lines[1:], strict=True)]
    return "\n".join([rows[0], f"|{'|'.join('--:' if right else '---' for right in numbers)}|", *rows[1:]])


def models_table(results: Path, name: str, rows: str | None) -> str:
    """Every model with its paper, its recipe of the paper's settings, its ARIs on Multi-dSprites, and its weights.

    "ARI, here" is by the papers' masks; the posterior ones, which are ours, have a column of their own.
    """
    lines = [["Model", "Paper", "Recipe", "ARI, paper", "ARI, here", "posterior masks", "Weights"]]
    shipped = {weights.partition("/")[0] for weights in shipped_weights()}
    for title, paper, place in MODELS:
        table, _, row_name = place.partition("/")
        row = find_table(table).rows[row_name]
        recipe = row.full or row.recipe
        stated = stated_ari(row)
        weights = "shipped" if recipe.partition("/")[0] in shipped else MISSING
        paper_ari = MISSING if stated is None else shown("ari_fg", stated)
        ours = [
            with_sd("ari_fg", value) if value and stated is not None else MISSING
            for value in (papers_ari(results, row), posterior_ari(results, row))
        ]
        lines.append([title, paper, f"`{recipe}`", paper_ari, *ours, weights])
    return markdown(lines)


def stated_ari(row: PaperRow) -> float | None:
    """The foreground ARI that a row's paper reports, if it does."""
    return row.paper.get("ari_fg_inferred", row.paper.get("ari_fg"))


def papers_ari(results: Path, row: PaperRow) -> dict[str, float | None] | None:
    """Mean and deviation of a row's foreground ARI by the masks that the papers score; None without a training."""
    means = mean_metrics(scored_entries(results, row))
    return means.get("ari_fg_inferred", means.get("ari_fg"))


def posterior_ari(results: Path, row: PaperRow) -> dict[str, float | None] | None:
    """The same by posterior masks; None if no training shows them."""
    entries = scored_entries(results, row)
    return mean_metrics(entry for entry in entries if entry["recipe"]["model"].get("masks") == "posterior").get(
        "ari_fg"
    )


def weights_table(results: Path, name: str, rows: str | None) -> str:
    """The shipped weights with the scores of their model cards."""
    metrics = ("ari_fg", "map_50", "mask_iou", "located")
    lines = [["Weights", *map(heading, metrics)]]
    for weights, path in shipped_weights().items():
        scores = dict(CARD_SCORE.findall(path.with_suffix(".md").read_text(encoding="utf-8")))
        cells = [shown(metric, float(scores[metric])) if metric in scores else MISSING for metric in metrics]
        lines.append([f"`{weights}`", *cells])
    return markdown(lines)


def figure(results: Path = ROOT / "results") -> str:
    """An SVG picture of the foreground ARI by the papers' masks: ours with its standard deviation, and the paper's."""
    left, right, top, line = 300, 700, 30, 24  # pixels: where 0 and 1 are, the first row, and between two rows
    rows = [
        (row.title, row.data, stated, papers_ari(results, row))
        for table in ("rmonet_table1", "elm_table1")
        for row in find_table(table).rows.values()
        if (stated := stated_ari(row)) is not None
    ]

    def x(score: float) -> float:
        return round(left + (right - left) * score, 1)

    bottom = top + line * len(rows)
    parts = []
    for score in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts.append(f'<path d="M{x(score)} {top - 6}V{bottom}" stroke="#808080" stroke-opacity=".4"/>')
        parts.append(f'<text x="{x(score)}" y="{bottom + 16}" text-anchor="middle">{score:g}</text>')
    for number, (title, data, paper, ours) in enumerate(rows):
        y = top + line * number + 8
        name = "explicit localization" if title == "the letter" else title
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{name}, {data}</text>')
        parts.append(f'<circle cx="{x(paper)}" cy="{y}" r="5.5" fill="none" stroke="#e07b00" stroke-width="2"/>')
        if ours and ours["mean"] is not None:
            sd = ours["sd"] or 0.0
            ends = f"M{x(ours['mean'] - sd)} {y}H{x(ours['mean'] + sd)}"
            parts.append(f'<path d="{ends}" stroke="#4c78d8" stroke-width="3"/>')
            parts.append(f'<circle cx="{x(ours["mean"])}" cy="{y}" r="5" fill="#4c78d8"/>')
    parts.append('<circle cx="306" cy="10" r="5" fill="#4c78d8"/><text x="316" y="14">here</text>')
    parts.append('<circle cx="376" cy="10" r="5.5" fill="none" stroke="#e07b00" stroke-width="2"/>')
    parts.append('<text x="386" y="14">paper</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {bottom + 24}" width="720" height="{bottom + 24}" '
        f'font-family="sans-serif" font-size="12" fill="#808080">{"".join(parts)}</svg>\n'
    )


TABLES = {"models": models_table, "weights": weights_table}
MODELS = (  # title, paper, the ledger's row on Multi-dSprites
    ("R-MONet (UNet)", "R-MONet", "rmonet_table1/rmonet_unet"),
    ("R-MONet (Lite)", "R-MONet", "rmonet_table1/rmonet_lite"),
    ("R-MONet (ROI Align)", "R-MONet", "rmonet_table1/rmonet_roi_align"),
    ("MONet", "[Burgess 2019](https://arxiv.org/abs/1901.11390)", "rmonet_table1/monet"),
    ("MONet, ResNet18+FPN", "R-MONet", "rmonet_table1/monet_resnet_fpn"),
    ("MONet, ResNet18+FPN+UNet", "R-MONet", "rmonet_table1/monet_resnet_fpn_unet"),
    ("IODINE", "[Greff 2019](https://arxiv.org/abs/1903.00450)", "rmonet_table1/iodine"),
    ("SPACE", "[Lin 2020](https://arxiv.org/abs/2001.02407)", "rmonet_table1/space"),
    ("Explicit localization", "Liu 2019", "elm_table1/multi_dsprites"),
    ("ReDO", "[Chen 2019](https://arxiv.org/abs/1905.13539)", "elm_table1/redo_flowers"),
)


if __name__ == "__main__":
    main()
