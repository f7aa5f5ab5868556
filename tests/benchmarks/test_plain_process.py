from __future__ import annotations

import pytest
import torch

from benchmarks.plain_process import PlainProcess
from benchmarks.plain_step import PlainStep, plain_model
from benchmarks.recipe_step import recipe_to_measure
from unscene.errors import TrainingError

RECIPE = "rmonet_unet/multi_dsprites_cpu"
SMALL = ["model.backbone.width=8", "model.head.channels=8", "model.vae.decoder_channels=8"]


@pytest.mark.slow
def test_other_process_takes_the_reference_s_steps_and_is_ended():
    recipe = recipe_to_measure(RECIPE, SMALL)
    plain = plain_model(recipe)
    assert plain is not None
    step = PlainStep(plain, recipe, 2, "cpu")
    with PlainProcess(RECIPE, SMALL, 2, torch.get_num_threads()) as process:
        assert process() == pytest.approx(float(step()), rel=1e-3)
        assert process() != 0
    assert process.process.returncode is not None


@pytest.mark.slow
def test_ended_process_is_an_error():
    with (
        PlainProcess("rmonet_lite/multi_dsprites", [], 2, 1) as process,
        pytest.raises(TrainingError, match="ended with status 1"),
    ):
        process()
