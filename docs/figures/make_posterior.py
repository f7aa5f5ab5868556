"""Draw docs/images/posterior.png: six new scenes by the shipped IODINE, with posterior and with inferred masks.

python docs/figures/make_posterior.py
"""

from pathlib import Path

import unscene
from unscene.data.multi_dsprites import MultiDSprites, MultiDSpritesSettings
from unscene.report.figures import comparison_rows, rows_png
from unscene.scene import Scene

RECIPE, SEED, SCENES = "iodine/multi_dsprites_cpu", 4711, 6

loaded = unscene.load(RECIPE)
source = MultiDSprites(MultiDSpritesSettings(count=SCENES, size=loaded.size, seed=SEED))
scene = Scene.from_batch(source.batch(range(SCENES)))
decompositions = {
    f"{masks} masks": loaded.with_settings({"masks": masks}).decompose(scene.images)
    for masks in ("inferred", "posterior")
}
picture = rows_png(comparison_rows(scene, decompositions))
(Path(__file__).parents[1] / "images" / "posterior.png").write_bytes(picture)
