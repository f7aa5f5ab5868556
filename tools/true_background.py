"""How well do location masks separate a recipe's objects if the background is known and nothing is learnt?

    python tools/true_background.py explicit_localization/multi_dsprites_cpu                # the recipe's own settings
    python tools/true_background.py explicit_localization/multi_dsprites --draws 60 --space docs/notes/search/\
explicit_localization_multi_dsprites.yaml                                                   # draws of a search's space

s is .95 on true objects and .02 elsewhere, Q is 1, and each step explains all of L. Prints the foreground ARI of 256
validation scenes, the best settings first: within seconds, about what the settings of L can reach. It reads labels: use
it to understand, not for results.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from unscene.evaluation.scenes import read_scenes
from unscene.metrics.ari import ari_fg
from unscene.models.explicit_localization.location_mask import LocationSettings, location_mask
from unscene.models.explicit_localization.window import best_region
from unscene.recipes import load_recipe
from unscene.scene import Decomposition, Scene

SCENES, LOCATION = 256, "model.location."


def foreground_ari(scene: Scene, settings: LocationSettings, num_slots: int) -> float:
    """Foreground ARI of the location masks where the background is known."""
    assert scene.labels is not None
    torch.manual_seed(0)  # of the initial means
    remaining = torch.where(scene.labels > 0, 0.95, 0.02).unsqueeze(1)
    masks = []
    for _ in range(num_slots - 1):
        means = torch.rand(len(scene), settings.components - 1, 5)
        mask, _ = location_mask(scene.images, remaining, best_region(remaining, settings.region), means, settings)
        masks.append(remaining * mask)
        remaining = remaining * (1 - mask)
    shares = torch.stack([1 - sum(masks), *masks], dim=1).clamp_min(1e-6)
    metric = ari_fg()
    metric.update(scene, Decomposition(shares.log(), torch.zeros_like(shares).expand(-1, -1, 3, -1, -1), 0))
    return float(metric.compute()["ari_fg"] or 0.0)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--draws", type=int, default=0, help="samples of the space; 0: the recipe's own settings alone")
    parser.add_argument("--space", type=Path, help="YAML: dotted setting -> list of values")
    parser.add_argument("--seed", type=int, default=0, help="of the samples")
    options = parser.parse_args(words)
    recipe = load_recipe(options.recipe)
    scene = read_scenes(recipe.source("validation"), range(SCENES), recipe.data.size)
    space = yaml.safe_load(options.space.read_text(encoding="utf-8")) if options.space else {}
    choices = {name.removeprefix(LOCATION): values for name, values in space.items() if name.startswith(LOCATION)}
    generator = np.random.default_rng(options.seed)
    samples: list[dict[str, Any]] = [{}]
    samples += [
        {name: values[int(generator.integers(len(values)))] for name, values in sorted(choices.items())}
        for _ in range(options.draws)
    ]
    scores = [
        (foreground_ari(scene, dataclasses.replace(recipe.model.location, **changes), recipe.model.num_slots), changes)
        for changes in samples
    ]
    for ari, changes in sorted(scores, key=lambda score: -score[0]):
        print(f"{ari:.3f}", changes or "as the recipe stands")


if __name__ == "__main__":
    main()
