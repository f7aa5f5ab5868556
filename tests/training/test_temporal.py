"""temporal: the losses between consecutive frames, by hand; their gradients in every model; a training with them."""

from __future__ import annotations

import csv
import dataclasses
import math
from itertools import islice

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.tiny import SIZE
from unscene.data.batches import consecutive_frames
from unscene.errors import RecipeError
from unscene.models import model_class
from unscene.recipes import load_recipe
from unscene.runs.trainer_settings import TemporalSettings
from unscene.scene import Decomposition, Sequence
from unscene.training.step import BatchLoss, temporal_losses
from unscene.training.train import train

BOTH = TemporalSettings(motion_weight=2.0, continuity_weight=3.0)


def decomposition(
    masks: torch.Tensor, latents: torch.Tensor | None = None, background: int | None = 0
) -> Decomposition:
    """Masks [B, K, H, W]."""
    latents = None if latents is None else latents.clone().requires_grad_()
    log_masks = masks.clamp_min(1e-9).log().unsqueeze(2).requires_grad_()
    return Decomposition(log_masks, torch.zeros(*masks.shape[:2], 3, *masks.shape[2:]), background, latents)


def pairs(images: torch.Tensor) -> Sequence:
    """Of images [B, 3, H, W], frames t first."""
    return Sequence(images.unflatten(0, (2, -1)))


def test_motion_is_the_surprise_that_a_changing_pixel_shows_background_twice():
    images = torch.zeros(2, 3, 1, 4)
    images[1, 2, 0, :2] = 0.5  # two pixels change in one channel
    images[1, :, 0, 2] = 0.05  # below the threshold
    background = torch.tensor([[[[0.5, 0.2, 1.0, 1.0]]], [[[0.5, 0.0, 1.0, 1.0]]]])
    masks = torch.cat([background, 1 - background], dim=1)
    terms, weights = temporal_losses(pairs(images), decomposition(masks), TemporalSettings(motion_weight=2.0))
    assert terms["motion"].tolist() == pytest.approx([-math.log(0.75)] * 2)
    assert weights == {"motion": 2.0}


def test_continuity_compares_the_latents_of_the_slots_that_overlap():
    masks = torch.zeros(2, 3, 1, 4)
    masks[:, 0] = 1
    masks[0, :, 0, 0] = torch.tensor([0.0, 1, 0])  # one object, whose slot changes
    masks[1, :, 0, 0] = torch.tensor([0.0, 0, 1])
    latents = torch.tensor([[[9.0], [1.0], [50.0]], [[-9.0], [-50.0], [4.0]]])
    settings = TemporalSettings(continuity_weight=3.0)
    terms, _ = temporal_losses(pairs(torch.zeros(2, 3, 1, 4)), decomposition(masks, latents), settings)
    expected = [4.5, 4.5]  # (4 - 1)^2 / 2; empty slots do not count
    assert terms["continuity"].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [({"motion_weight": 1.0}, {"background": None}), ({"continuity_weight": 1.0}, {"latents": None})],
)
def test_models_without_a_background_or_latents_are_refused(settings, lacking):
    given = {"masks": torch.full((2, 2, 4, 4), 0.5), "latents": torch.zeros(2, 2, 3), **lacking}
    with pytest.raises(RecipeError, match=f"{next(iter(settings))} must be 0: this model learns no"):
        temporal_losses(pairs(torch.zeros(2, 3, 4, 4)), decomposition(**given), TemporalSettings(**settings))


def test_batches_are_frames_and_the_frames_after_them_in_their_clips():
    batches = list(islice(consecutive_frames(30, 10, 6, seed=2), 9))
    first, second = np.split(np.stack(batches), 2, axis=1)
    assert sorted(first.ravel().tolist()) == [n for n in range(29) if n % 10 != 9]  # an epoch of 27 pairs
    assert (second == first + 1).all()
    resumed = next(islice(consecutive_frames(30, 10, 6, seed=2, first_step=4), 1))
    assert resumed.tolist() == batches[4].tolist()
    shares = [next(consecutive_frames(30, 10, 6, 2, 0, rank, 3)).tolist() for rank in range(3)]
    assert sorted(index for share in shares for index in share) == sorted(batches[0].tolist())


@pytest.mark.parametrize(("clip_length", "batch_size"), [(1, 4), (10, 3)])
def test_data_without_clips_and_odd_batches_are_refused(clip_length, batch_size):
    with pytest.raises(RecipeError, match=r"trainer\.temporal needs frames of clips and an even trainer\.batch_size"):
        next(consecutive_frames(30, clip_length, batch_size, 0))


CASES = [
    pytest.param(name, settings, id=f"{name}-{variant}")
    for name, variants in tiny.MODELS.items()
    for variant, settings in variants.items()
]


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_every_model_learns_from_the_losses_that_it_has_the_slots_for(name, settings):
    torch.manual_seed(0)
    model = model_class(name)(settings)
    images = torch.rand(2, 3, SIZE, SIZE).repeat(2, 1, 1, 1)
    images[2:, :, 8:24, 8:24] = 1 - images[2:, :, 8:24, 8:24]
    step = getattr(settings, "busiest_step", 0)
    output = model.loss(images, step)[1]
    learnt = output.log_masks.requires_grad and output.background is not None
    coded = output.latents is not None and output.latents.requires_grad
    chosen = TemporalSettings(motion_weight=float(learnt), continuity_weight=float(coded))
    if not learnt:
        with pytest.raises(RecipeError, match="motion_weight must be 0"):
            BatchLoss(model, False, TemporalSettings(motion_weight=1))(images, step)
    torch.manual_seed(1)
    losses, _ = BatchLoss(model, False, chosen)(images, step)
    assert ("motion" in losses, "continuity" in losses) == (learnt, coded)
    for term in set(losses) & {"motion", "continuity"}:
        assert losses[term].shape == (4,)
        assert losses[term][:2].tolist() == losses[term][2:].tolist()
        gradients = torch.autograd.grad(
            losses[term].sum(), list(model.parameters()), retain_graph=True, allow_unused=True
        )
        assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients), term


def test_motion_is_a_constant_as_long_as_the_background_alone_is_learnt():
    settings = dataclasses.replace(tiny.MODELS["explicit_localization"]["ours"], background_steps=2)
    loss = BatchLoss(model_class("explicit_localization")(settings), False, TemporalSettings(motion_weight=1))
    images = torch.rand(2, 3, SIZE, SIZE)
    before, during = (loss(images, step)[0]["motion"] for step in (1, 2))
    assert not before.requires_grad
    assert during.requires_grad
    assert before[0] > during[0] > 0


def test_masks_without_a_gradient_are_refused_before_the_first_step():
    settings = dataclasses.replace(
        tiny.MODELS["explicit_localization"]["ours"], background_steps=800, mask_gradient=False
    )
    with pytest.raises(RecipeError, match=r"must be 0 where model\.mask_gradient is false"):
        BatchLoss(model_class("explicit_localization")(settings), False, TemporalSettings(motion_weight=1))


def test_a_training_with_both_losses_logs_them_and_repeats_bit_for_bit(tmp_path):
    changes = tiny.RECIPE | {
        "data.clip_length": 10,
        "trainer.temporal.motion_weight": 1.0,
        "trainer.temporal.continuity_weight": 0.1,
    }
    texts = []
    for name in ("a", "b"):
        run = train(load_recipe("rmonet_unet/multi_dsprites_cpu", changes), tmp_path / name)
        rows = list(csv.DictReader(run.metrics.open()))
        texts.append([(row["train/motion"], row["train/continuity"]) for row in rows if row["train/motion"]])
    assert texts[0] == texts[1]
    assert texts[0]
    weights = [load_file(tmp_path / name / run.weights.name) for name in ("a", "b")]
    assert all(torch.equal(tensor, weights[1][key]) for key, tensor in weights[0].items())


def test_a_batch_is_overfitted():
    torch.manual_seed(0)
    logits = torch.nn.Parameter(torch.tensor([4.0, 0.0, 0.0]).view(1, 3, 1, 1).repeat(4, 1, 8, 8))  # mostly background
    latents = torch.nn.Parameter(torch.randn(4, 3, 2))
    images = torch.zeros(4, 3, 8, 8)
    images[2:, :, :, :4] = 1
    optimizer = torch.optim.Adam([logits, latents], 0.1)
    values = []
    for _ in range(100):
        output = Decomposition(logits.log_softmax(dim=1).unsqueeze(2), torch.zeros(4, 3, 3, 8, 8), 0, latents)
        terms, weights = temporal_losses(pairs(images), output, BOTH)
        loss = sum(weights[name] * term.mean() for name, term in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append({name: term.mean().item() for name, term in terms.items()})
    assert all(values[-1][name] < 0.1 * values[0][name] for name in values[0])
    background = logits.detach().softmax(dim=1)[:, 0]
    assert background[:, :, 4:].min() > 0.9  # nothing changed there
