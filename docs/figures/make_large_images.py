"""Draw the objects that models find in large images: each image with outlines, side by side.

python docs/figures/make_large_images.py runs/coins=coins.png runs/nuclei=nuclei.tif=0.7 docs/images/large_images.png

With a number after the image, the objects have this `--outline`, and those that touch are divided.
"""

import sys

from PIL import Image
from scipy.ndimage import binary_dilation
from skimage.segmentation import find_boundaries

import unscene
from unscene.data.image_file import read_image
from unscene.inference.decompose import decompose_image

HEIGHT, GAP, ZOOM, COLOUR = 480, 8, 3, (255, 170, 0)

*pairs, out = sys.argv[1:]


def outlined(run: str, path: str, outline: str = "") -> Image.Image:
    """The image of a path, enlarged, with an outline around each object that a run's model finds."""
    model = unscene.load(run)
    pixels = read_image(path, contrast=model.contrast)
    limits = {"outline": float(outline), "split_parts": "touching"} if outline else {}
    found = decompose_image(model, pixels, **limits)
    print(f"{path}: {len(found.areas)} objects")
    picture, labels = (array.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1) for array in (pixels, found.labels))
    edge = binary_dilation(find_boundaries(labels, mode="inner"), iterations=max(1, labels.shape[0] // (2 * HEIGHT)))
    picture[edge] = COLOUR
    image = Image.fromarray(picture)
    return image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS)


images = [outlined(*pair.split("=")) for pair in pairs]
sheet = Image.new("RGB", (sum(image.width + GAP for image in images) - GAP, HEIGHT), "white")
left = 0
for image in images:
    sheet.paste(image, (left, 0))
    left += image.width + GAP
sheet.save(out, optimize=True)
