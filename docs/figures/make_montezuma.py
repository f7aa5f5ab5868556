"""Draw docs/images/montezuma.png, a recorded frame with objects and location table.

    python docs/figures/make_montezuma.py [RUN]

The frame is one of the recorded games, which neither training nor search has seen. Needs unscene[atari].
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import unscene
from unscene.data.montezuma.dataset import OBJECTS, Montezuma, MontezumaSettings
from unscene.metrics.object_locations import label_centres, match_locations
from unscene.report.slots import overlay
from unscene.scene import Scene

RECIPE, FRAME, ZOOM = "explicit_localization/montezuma_cpu", 26, 8
INK = "#222222"

model = unscene.load(sys.argv[1] if len(sys.argv) > 1 else RECIPE)
batch = Montezuma(MontezumaSettings(count=149, policy="recorded")).batch([FRAME])
scene = Scene.from_batch(batch)
image, truth = batch["image"], scene.labels[0]
result = model.decompose(scene.images)
locations = result.locations[0].double().numpy()
centres = label_centres(truth)
matched, _ = match_locations(np.array([*centres.values()]), locations)

pixels = image[0].repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
labels = result.labels()[0].numpy().repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
figure = Figure(figsize=(13, 4.6), dpi=100, facecolor="white")
across = figure.subplots(1, 3, width_ratios=[1, 1, 0.85])
side = len(pixels)
across[0].imshow(pixels)
across[1].imshow(overlay(pixels, labels, tint=1.0, stroke=1))
across[0].set_title("a recorded frame, and where the model says that objects are", fontsize=9, color=INK)
across[1].set_title("its segmentation: one colour for each slot that wins a pixel", fontsize=9, color=INK)
for axes in across:
    axes.set_axis_off()
rows = []
for label, slot in zip(centres, matched, strict=True):
    name, (y, x) = OBJECTS[label - 1], centres[label]
    if slot < 0:
        rows.append([name, "none", "", f"{y:.3f}", f"{x:.3f}"])
        continue
    found_y, found_x = locations[slot]
    rows.append([name, f"{found_y:.3f}", f"{found_x:.3f}", f"{y:.3f}", f"{x:.3f}"])
    across[0].plot(found_x * side, found_y * side, "o", mfc="none", mec="white", ms=9, mew=1.6)
    left = found_x > 0.7
    across[0].annotate(
        name,
        (found_x * side, found_y * side),
        (-8 if left else 8, 0),
        textcoords="offset points",
        color="white",
        fontsize=7,
        ha="right" if left else "left",
        va="center",
    )
table = across[2].table(
    rows,
    colLabels=["object", "y", "x", "y labelled", "x labelled"],
    colWidths=[0.34, 0.12, 0.12, 0.2, 0.2],
    loc="center",
    cellLoc="right",
)
table.auto_set_font_size(False)
table.set_fontsize(8)
table.scale(1, 1.35)
for (row, column), cell in table.get_celld().items():
    cell.set_edgecolor("#dddddd")
    cell.set_text_props(color=INK, weight="bold" if row == 0 else "normal", ha="left" if column == 0 else "right")
figure.subplots_adjust(0.01, 0.02, 0.99, 0.92, 0.03)
figure.savefig(Path(__file__).parents[1] / "images" / "montezuma.png")
print("\n".join("| " + " | ".join(row) + " |" for row in rows))
