"""A recipe that trains in a second, and a run that was trained by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from unscene.training.recipe import Recipe
    from unscene.training.run_folder import RunFolder

TINY: dict[str, Any] = {
    "data.size": 32,
    "data.count": 40,
    "validation.count": 6,
    "test.count": 4,
    "model.backbone.width": 8,
    "model.backbone.fpn_channels": 8,
    "model.head.channels": 8,
    "model.head.bottleneck": 16,
    "model.vae.encoder_channels": [8, 8],
    "model.vae.encoder_hidden": 16,
    "model.vae.decoder_channels": 8,
    "trainer.batch_size": 4,
    "trainer.max_steps": 6,
    "trainer.log_every": 2,
    "trainer.precision": "float32",
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Recipe]:
    """`tiny()` is the recipe, `tiny({"trainer.max_steps": 3})` changes it, `tiny(images=folder)` is it for a folder."""
    from unscene.recipes import load_recipe

    def make(changes: dict[str, Any] | None = None, images: str = "") -> Recipe:
        if not images:
            return load_recipe("rmonet_unet/multi_dsprites_cpu", TINY | (changes or {}))
        small = {name: value for name, value in TINY.items() if not name.endswith(".count")}
        return load_recipe("rmonet_unet/images", small | {"data.folder": images} | (changes or {}))

    return make


@pytest.fixture(scope="session")
def tiny_arguments() -> list[str]:
    """The same recipe for the command line."""
    settings = [f"--{name}={value}".replace(" ", "") for name, value in TINY.items()]
    return ["rmonet_unet/multi_dsprites_cpu", *settings]


@pytest.fixture(scope="session")
def trained(tiny: Callable[..., Recipe], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run of six steps; tests read it, none writes to it."""
    from unscene.training.train import train

    return train(tiny(), tmp_path_factory.mktemp("trained") / "run")
