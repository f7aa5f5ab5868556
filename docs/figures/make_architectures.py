"""Draw docs/images/architecture_NAME.svg, one figure for each model, from the boxes and arrows below.

    python docs/figures/make_architectures.py

A box is (column, row, text, kind); an arrow is (from, to, text), by the boxes' names. The colours are readable on light
and on dark pages.
"""

from html import escape
from pathlib import Path

IMAGES = Path(__file__).parents[1] / "images"
WIDTH, HEIGHT, GAP_X, GAP_Y, LINE = 128, 56, 46, 40, 15
FILL = {"data": "#cfd8dc", "network": "#b3c7f7", "step": "#c8e6c9", "loss": "#ffd9b3"}
ARROW = "#808080"

FIGURES = {
    "rmonet": {
        "boxes": {
            "x": (0, 1, "image x", "data"),
            "fpn": (1, 1, "ResNet18\n+ FPN", "network"),
            "rpn": (2, 0, "RPN, NMS\ntop K-1", "network"),
            "head": (2, 2, "ROI mask,\nsegmentation head", "network"),
            "t": (3, 0, "boxes t_k", "data"),
            "stick": (3, 2, "stick-breaking", "step"),
            "m": (4, 2, "masks m_k", "data"),
            "otsu": (4, 0, "Multi-Otsu,\npseudo boxes", "step"),
            "vae": (5, 2, "VAE for each slot", "network"),
            "out": (6, 2, "components X_k,\ndecoded masks", "data"),
            "box": (5, 0, "box loss\n(two terms)", "loss"),
            "elbo": (6, 0, "likelihood,\ntwo KL terms", "loss"),
        },
        "arrows": [
            ("x", "fpn", ""), ("fpn", "rpn", ""), ("fpn", "head", ""), ("rpn", "t", ""), ("rpn", "head", "t_k"),
            ("head", "stick", "α_k"), ("stick", "m", ""), ("m", "otsu", ""), ("otsu", "box", ""), ("m", "vae", ""),
            ("vae", "out", "z_k"), ("out", "elbo", ""),
        ],
    },
    "monet": {
        "boxes": {
            "x": (0, 0, "image x", "data"),
            "s": (1, 1, "scope s_k-1", "data"),
            "unet": (1, 0, "attention UNet", "network"),
            "split": (2, 0, "split the scope\nby α_k", "step"),
            "rest": (2, 1, "scope s_k", "data"),
            "m": (3, 0, "masks m_k", "data"),
            "vae": (4, 0, "VAE for each slot", "network"),
            "out": (5, 0, "components,\ndecoded masks", "data"),
            "loss": (5, 1, "likelihood,\ntwo KL terms", "loss"),
        },
        "arrows": [
            ("x", "unet", ""), ("s", "unet", ""), ("unet", "split", "α_k"), ("split", "m", ""),
            ("split", "rest", ""), ("rest", "s", "repeat"), ("m", "vae", ""), ("vae", "out", "z_k"),
            ("out", "loss", ""),
        ],
    },
    "iodine": {
        "boxes": {
            "lambda": (0, 0, "posteriors\nλ_k", "data"),
            "z": (1, 0, "sample z_k", "step"),
            "dec": (2, 0, "spatial broadcast\ndecoder", "network"),
            "out": (3, 0, "components,\nmasks (softmax)", "data"),
            "loss": (4, 0, "L_t: likelihood\n+ KL", "loss"),
            "grad": (4, 1, "gradients,\nlikelihoods", "step"),
            "ref": (0, 1, "refinement network\n(conv, LSTM)", "network"),
            "x": (2, 2, "image x,\ncoordinates", "data"),
        },
        "arrows": [
            ("lambda", "z", ""), ("z", "dec", ""), ("dec", "out", ""), ("out", "loss", ""), ("loss", "grad", ""),
            ("grad", "ref", ""), ("x", "ref", ""), ("ref", "lambda", "T times"),
        ],
    },
    "space": {
        "boxes": {
            "x": (0, 1, "image x", "data"),
            "enc": (1, 0, "encoder: a grid\nof G x G cells", "network"),
            "where": (2, 0, "presence, where,\ndepth", "data"),
            "what": (3, 0, "glimpse VAE:\nz_what", "network"),
            "fg": (4, 0, "objects pasted:\nforeground, α", "data"),
            "lstm": (1, 2, "encoder, LSTM:\nmasks π_k", "network"),
            "comp": (3, 2, "component VAE", "network"),
            "bg": (4, 2, "background", "data"),
            "mix": (5, 1, "mixture likelihood,\nKL, boundary", "loss"),
        },
        "arrows": [
            ("x", "enc", ""), ("enc", "where", ""), ("where", "what", ""), ("what", "fg", ""),
            ("x", "lstm", ""), ("lstm", "comp", "K parts"), ("comp", "bg", ""), ("fg", "mix", ""), ("bg", "mix", ""),
        ],
    },
    "redo": {
        "boxes": {
            "x": (0, 0, "image x", "data"),
            "masks": (1, 0, "mask network", "network"),
            "m": (2, 0, "masks m_k", "data"),
            "z": (2, 1, "noise z_k", "data"),
            "gen": (3, 0, "a generator\nfor each region", "network"),
            "new": (4, 0, "image with region k\nredrawn", "data"),
            "disc": (5, 0, "discriminator", "network"),
            "code": (4, 1, "code network", "network"),
            "adv": (6, 0, "adversarial loss", "loss"),
            "rec": (6, 1, "code loss", "loss"),
        },
        "arrows": [
            ("x", "masks", ""), ("masks", "m", ""), ("m", "gen", ""), ("z", "gen", ""), ("gen", "new", ""),
            ("new", "disc", ""), ("disc", "adv", ""), ("gen", "code", ""), ("code", "rec", "reads z_k"),
        ],
    },
    "explicit_localization": {
        "boxes": {
            "x": (0, 0, "image x", "data"),
            "s": (1, 1, "remaining mask\ns_k-1", "data"),
            "g": (1, 0, "auto-encoder g", "network"),
            "q": (2, 0, "quality Q", "step"),
            "centre": (3, 0, "best region,\nwindow G", "step"),
            "gmm": (4, 0, "Gaussian mixture\nof colour, position", "step"),
            "l": (5, 0, "location mask L,\nlocation y, x", "data"),
            "m": (5, 1, "m_k = s_k-1 Q L", "step"),
            "rest": (3, 1, "s_k =\ns_k-1 (1 - Q L)", "step"),
            "loss": (5, 2, "masked error,\nprior, KL", "loss"),
        },
        "arrows": [
            ("x", "g", ""), ("s", "g", ""), ("g", "q", ""), ("q", "centre", ""), ("centre", "gmm", ""),
            ("gmm", "l", ""), ("l", "m", ""), ("m", "rest", ""), ("rest", "s", "K-1 times"), ("m", "loss", ""),
        ],
    },
}  # fmt: skip


def corner(column: int, row: int) -> tuple[int, int]:
    return 4 + column * (WIDTH + GAP_X), 4 + row * (HEIGHT + GAP_Y)


def box(column: int, row: int, text: str, kind: str) -> str:
    x, y = corner(column, row)
    lines = text.split("\n")
    first = y + HEIGHT / 2 - LINE * (len(lines) - 1) / 2 + 5
    words = "".join(
        f'<text x="{x + WIDTH / 2}" y="{first + LINE * n}" fill="#1a1a1a">{escape(line)}</text>'
        for n, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{FILL[kind]}" stroke="{ARROW}"/>{words}'
    )


def arrow(start: tuple, end: tuple, text: str) -> str:
    """From the middle of the side that faces the end, with one bend where the boxes share no row or column."""
    (x1, y1), (x2, y2) = corner(*start[:2]), corner(*end[:2])
    same_row, same_column = y1 == y2, x1 == x2
    middle_1, middle_2 = y1 + HEIGHT / 2, y2 + HEIGHT / 2
    if same_column:
        x, down = x1 + WIDTH / 2, y2 > y1
        points = [(x, y1 + HEIGHT * down), (x, y2 + HEIGHT * (not down))]
    elif same_row:
        right = x2 > x1
        points = [(x1 + WIDTH * right, middle_1), (x2 + WIDTH * (not right), middle_2)]
    else:
        right = x2 > x1
        bend = x2 - GAP_X / 2 if right else x2 + WIDTH + GAP_X / 2
        points = [
            (x1 + WIDTH * right, middle_1),
            (bend, middle_1),
            (bend, middle_2),
            (x2 + WIDTH * (not right), middle_2),
        ]
    line = " ".join(f"{x:g},{y:g}" for x, y in points)
    label = ""
    if text:
        (ax, ay), (bx, by) = points[0], points[1]
        aside = 30 if ax == bx else 0
        x, y = (ax + bx) / 2 + aside, (ay + by) / 2 - 6 + aside / 3
        label = f'<text x="{x:g}" y="{y:g}" fill="{ARROW}">{escape(text)}</text>'
    return f'<polyline points="{line}" fill="none" stroke="{ARROW}" stroke-width="1.6" marker-end="url(#tip)"/>{label}'


for name, figure in FIGURES.items():
    boxes = figure["boxes"]
    across = corner(max(position[0] for position in boxes.values()) + 1, 0)[0] - GAP_X + 4
    down = corner(0, max(position[1] for position in boxes.values()) + 1)[1] - GAP_Y + 4
    parts = [arrow(boxes[start], boxes[end], text) for start, end, text in figure["arrows"]]
    parts += [box(*described) for described in boxes.values()]
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    tip += f'<path d="M0 0 L8 4 L0 8 z" fill="{ARROW}"/></marker>'
    (IMAGES / f"architecture_{name}.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across}" height="{down}" '
        f'font-family="sans-serif" font-size="14" text-anchor="middle"><defs>{tip}</defs>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )
