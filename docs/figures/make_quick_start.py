"""Draw the quick start's images, docs/images/scenes/*.png, and what the shipped weights find in them.

    python docs/figures/make_quick_start.py

docs/images/quick_start.png is `unscene.decompose(...).plot(images)`; docs/images/overlay.png is a file that the command
`unscene decompose` writes.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import unscene
from unscene.data.clevr.dataset import ClevrScenes, ClevrScenesSettings
from unscene.inference.decompose import decompose_paths
from unscene.scene import Scene

IMAGES = Path(__file__).parents[1] / "images"
SEED, SCENES = 99, (1, 5, 6)

pixels = ClevrScenes(ClevrScenesSettings(seed=SEED, count=8, size=256, min_objects=3, max_objects=6)).batch(SCENES)
(IMAGES / "scenes").mkdir(exist_ok=True)
for number, image in enumerate(pixels["image"], start=1):
    Image.fromarray(image).save(IMAGES / "scenes" / f"{number}.png", optimize=True)

model = unscene.load("rmonet_unet/clevr_scenes_cpu")
small = [Image.fromarray(image).resize((model.size, model.size), Image.Resampling.BICUBIC) for image in pixels["image"]]
images = Scene.from_batch({"image": np.stack(small)}).images
unscene.decompose(model, IMAGES / "scenes").plot(images).save(IMAGES / "quick_start.png")
with TemporaryDirectory() as folder:
    decompose_paths(model, [IMAGES / "scenes"], Path(folder, "out"), progress=False)
    Image.open(Path(folder, "out", "1.overlay.png")).save(IMAGES / "overlay.png", optimize=True)
