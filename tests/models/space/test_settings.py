"""Settings of SPACE: what cannot be is refused by its name, and the defaults are the paper's."""

from __future__ import annotations

import pytest
import torch

from unscene.errors import RecipeError
from unscene.models.common.annealing import Annealed
from unscene.models.common.component_vae import ComponentVAESettings
from unscene.models.space.model import SPACE
from unscene.models.space.settings import BackgroundSettings, ForegroundSettings, SPACESettings
from unscene.settings import typed_settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma": 0.0}, "sigma must be above 0, not 0.0"),
        ({"presence": Annealed(0, 1, 0.1, 0.0)}, "presence must stay above 0 and below 1"),
        ({"temperature": Annealed(0, 1, 1.0, -1.0)}, "temperature must stay above 0"),
        ({"what_weight": Annealed(0, 9, -1.0, 1.0)}, "what_weight must not fall below 0, but .* values are .* and -1"),
        ({"boundary_width": 17}, "boundary_width must be at most half of glimpse_size 32, not 17"),
        ({"boundary_end_step": -1}, "boundary_end_step must be 0 or more"),
        ({"initial_presence": 0.0}, "initial_presence must be from 0.001 to 0.999, not 0.0"),
        ({"channels": (), "strides": ()}, "channels must be a list of 1 or more"),
        ({"channels": (8, 0)}, "channels must be 1 or more, not 0"),
        ({"strides": (2, 2, 2, 2, 4)}, "strides must be from 1 to 2, not 4"),
        ({"strides": (2, 2)}, r"channels and strides must have one value for each layer, not .* and \[2, 2\]"),
        ({"glimpse_strides": (2,)}, "glimpse_channels and glimpse_strides must have one value for each layer"),
        ({"glimpse_size": 20}, r"glimpse_strides cannot divide 20 pixels .* multiple of 8"),
        ({"glimpse_size": 24}, "decoder_channels cannot reach 24 pixels in 5 levels: the size must be a power of 2"),
        ({"glimpse_size": 16}, "decoder_channels cannot reach 16 pixels in 5 levels: .* levels from 1 to 4"),
    ],
)
def test_impossible_foregrounds_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        ForegroundSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"components": 1}, "components must be"),
        ({"sigma": 0.0}, "sigma must be above 0"),
        ({"hidden": 0}, "hidden must be 1 or more"),
        ({"vae": ComponentVAESettings(decoder_region="roi")}, "must be image"),
    ],
)
def test_impossible_backgrounds_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        BackgroundSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_slots": 1}, "num_slots must be from 2"),
        ({"num_slots": 66}, "to 65, one more than the grid's cells, not 66"),
        ({"scale": 0}, "scale must be 1 or more"),
        ({"kl_weight": -1.0}, "kl_weight must be 0 or more"),
        ({"size": 32}, r"foreground.strides \[2, 2, 2, 1, 2\] divide images of 64 pixels to a grid of 4, .* is 8"),
        (
            {"background": BackgroundSettings(channels=(8,) * 8)},
            "background.channels cannot divide 128 pixels .* fewer layers of stride 2",
        ),
        (
            {"background": BackgroundSettings(mask_channels=(8,) * 8)},
            "background.mask_channels cannot reach 128",
        ),
    ],
)
def test_impossible_models_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        SPACESettings(**changes)


def test_errors_of_a_recipe_have_the_dotted_name():
    for values, message in (
        ({"foreground": {"glimpse_size": 20}}, "model.foreground.*glimpse_strides cannot divide 20 pixels"),
        ({"size": 32}, r"model.*foreground\.strides"),
    ):
        with pytest.raises(RecipeError, match=message):
            typed_settings(SPACESettings, values, "model", "recipe 'space/test'")


def test_defaults_are_the_papers_and_fit_together():
    with torch.device("meta"):
        model = SPACE(SPACESettings())
    assert model.foreground.size == 128
    assert SPACESettings().foreground.presence.at(7000) == pytest.approx(0.055)
