"""Sequences: the background is what does not move, and an object stays in its slot."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from unscene.errors import ShapeError
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings
from unscene.models.explicit_localization.location_mask import LocationSettings
from unscene.models.explicit_localization.model import (
    ExplicitLocalization,
    ExplicitLocalizationSettings,
    median_image,
)
from unscene.models.explicit_localization.sequence import SequenceState

LOCATION = LocationSettings(
    region=5,
    order=8,
    cutoff=5,
    window_shifts=2,
    initial_variance=0.02,
    variance_floor=1e-4,
    initial_means="centre",
    weigh_remaining=True,
    learn_shares=True,
    coordinates=1.5,
)
SETTINGS = ExplicitLocalizationSettings(
    size=32,
    num_slots=4,
    quality_variance=0.05,
    object_quality_variance=0.5,
    explained="location",
    stop_below=1.0,
    over_frames=True,
    network=AutoencoderSettings(channels=(6, 8), hidden=16, latent_dim=4),
    location=LOCATION,
)
RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
GROUND = torch.linspace(0.3, 0.6, 32).expand(1, 3, 32, 32)  # brighter to the right


def make_model(**changes) -> ExplicitLocalization:
    torch.manual_seed(0)
    return ExplicitLocalization(dataclasses.replace(SETTINGS, **changes)).eval()


def painted(*squares: tuple[int, int, tuple[float, float, float]]) -> Tensor:
    """A frame [1, 3, 32, 32] with squares of 4 pixels: the top left y and x, and the colour."""
    frame = GROUND.clone()
    for y, x, colour in squares:
        frame[:, :, y : y + 4, x : x + 4] = torch.tensor(colour).view(1, 3, 1, 1)
    return frame


def start(batch: int = 1) -> SequenceState:
    """The state after many frames of the ground alone."""
    return SequenceState.start(GROUND.repeat(batch, 1, 1, 1), 3)


def slot_at(decomposition, y: int, x: int) -> int:
    return int(decomposition.log_masks[0, :, 0, y, x].argmax())


def test_the_background_moves_by_the_rate_at_most():
    model = make_model(background_rate=0.1)
    frame = GROUND.clone()
    frame[:, 0, 0, 0] = GROUND[0, 0, 0, 0] + 0.25
    frame[:, 0, 5, 5] = GROUND[0, 0, 5, 5] - 0.04
    _, state = model.decompose_next(frame, start())
    change = state.background - GROUND
    assert change[0, 0, 0, 0].item() == pytest.approx(0.1)
    assert change[0, 0, 5, 5].item() == pytest.approx(-0.04)
    assert change.count_nonzero() == 2


def test_what_does_not_move_becomes_the_background_and_what_moves_does_not():
    model, state = make_model(), SequenceState.start(painted((16, 26, RED)), 3)  # this square is not there any more
    for t in range(60):
        _, state = model.decompose_next(painted((24, 2, RED), (4, (5 * t) % 28, BLUE)), state)
    assert_close(state.background[:, :, 24:28, 2:6], painted((24, 2, RED))[:, :, 24:28, 2:6], atol=0.02, rtol=0)
    assert (state.background - GROUND)[:, :, :22].abs().max() < 0.1
    decomposition, _ = model.decompose_next(painted((24, 2, RED), (4, 14, BLUE)), state)
    assert slot_at(decomposition, 25, 3) == 0
    assert slot_at(decomposition, 5, 15) > 0


def test_an_object_that_moved_and_stops_stays_an_object():
    model, state = make_model(), start()
    for t in range(60):
        decomposition, state = model.decompose_next(painted((8, 6 + min(t, 8), RED), (20, 20, BLUE)), state)
    assert slot_at(decomposition, 10, 16) > 0
    assert slot_at(decomposition, 21, 21) == 0  # blue never moved
    assert (state.background - GROUND)[:, :, 8:12].mean().abs() < 0.02


def test_objects_stay_in_their_slots_when_another_becomes_the_clearest():
    model, state = make_model(), start()
    slots = []
    for t in range(8):  # the red square comes nearer to the ground's colour
        red = (0.9 - 0.05 * t, 0.2, 0.2)
        decomposition, state = model.decompose_next(painted((8, 6 + 3 * t, red), (20, 26 - 3 * t, BLUE)), state)
        slots.append((slot_at(decomposition, 9, 7 + 3 * t), slot_at(decomposition, 21, 27 - 3 * t)))
    assert len(set(slots)) == 1
    assert sorted(slots[0]) == [1, 2]


def test_a_new_object_takes_the_slot_of_one_that_left():
    model = make_model()
    both, state = model.decompose_next(painted((4, 4, RED), (20, 20, BLUE)), start())
    red, blue = slot_at(both, 5, 5), slot_at(both, 21, 21)
    alone, state = model.decompose_next(painted((20, 21, BLUE)), state)
    assert slot_at(alone, 21, 22) == blue
    assert not alone.locations[0, red - 1].any()
    again, _ = model.decompose_next(painted((20, 22, BLUE), (10, 4, RED)), state)
    assert slot_at(again, 21, 23) == blue
    assert slot_at(again, 11, 5) == red


def test_an_object_that_jumps_is_found_in_the_same_frame():
    model = make_model(num_slots=2)
    _, state = model.decompose_next(painted((4, 4, RED)), SequenceState.start(GROUND, 1))
    far, _ = model.decompose_next(painted((24, 24, RED)), state)
    assert slot_at(far, 25, 25) == 1


def test_locations_are_those_of_the_objects():
    decomposition, state = make_model().decompose_next(painted((4, 10, RED)), start())
    slot = slot_at(decomposition, 5, 11)
    assert decomposition.locations[0, slot - 1].tolist() == pytest.approx([6 / 32, 12 / 32], abs=0.02)
    assert_close(state.locations, decomposition.locations)
    assert_close(decomposition.masks().sum(dim=1), torch.ones(1, 1, 32, 32))


def test_each_sequence_of_a_batch_is_decomposed_as_if_alone():
    model, frames = make_model(), [painted((4, 4, RED), (20, 20, BLUE)), painted((12, 6, BLUE))]
    states, together = [None, None], None
    for t in range(3):
        moved = [frame.roll(2 * t, dims=3) for frame in frames]
        batch, together = model.decompose_next(torch.cat(moved), together)
        for row, frame in enumerate(moved):
            alone, states[row] = model.decompose_next(frame, states[row])
            assert_close(batch.masks()[row], alone.masks()[0], atol=1e-3, rtol=0)
            assert_close(batch.locations[row], alone.locations[0], atol=1e-3, rtol=0)


def test_the_first_frame_of_a_lone_image_has_the_networks_background():
    model, image = make_model(num_slots=2), torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first, _ = model.decompose_next(image, None)
    single = model(image)
    assert_close(first.components[:, 0], single.components[:, 0])
    assert_close(first.masks(), single.masks())


def test_the_median_image_follows_the_batches_of_a_training_by_the_rate_at_most():
    model = make_model(median_background=True, background_rate=0.1).train()
    model.loss(torch.full((3, 3, 32, 32), 0.2), step=0)
    assert_close(model.median, torch.full((3, 32, 32), 0.2))
    batch = torch.cat([GROUND, torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)])  # whose median is the ground
    model.loss(batch, step=1)
    assert_close(model.median, GROUND[0].clamp(0.1, 0.3))
    model.eval().loss(torch.ones(3, 3, 32, 32), step=2)
    assert_close(model.median, GROUND[0].clamp(0.1, 0.3))


@pytest.mark.parametrize(("values", "median"), [([0.7], 0.7), ([0.1, 0.4], 0.25), ([0.9, 0.2, 0.3], 0.3)])
def test_the_median_of_an_even_batch_is_the_mean_of_the_two_in_the_middle(values, median):
    images = torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    assert_close(median_image(images), torch.full((3, 2, 2), median))


def test_the_median_image_is_that_of_numpy_for_equal_values_too():
    for count in (4, 7, 32):
        images = torch.randint(0, 4, (count, 3, 5, 5), generator=torch.Generator().manual_seed(count)).float()
        expected = torch.from_numpy(np.median(images.numpy(), axis=0))
        assert_close(median_image(images.to(memory_format=torch.channels_last)), expected)


def test_an_image_has_the_median_background_if_it_explains_more_than_the_network():
    model = make_model(median_background=True)
    model.median.copy_(GROUND[0])  # the untrained network gives about one grey
    images = torch.cat([painted((4, 4, RED)), torch.full((1, 3, 32, 32), 0.45)])
    ones = torch.ones_like(images[:, :1])
    components = model(images).components[:, 0]
    assert_close(components[0], GROUND[0])
    assert_close(components[1], model.reconstruct(images, ones, images, sample=False).reconstruction[1])


def test_the_first_frame_starts_from_the_median_image():
    model = make_model(median_background=True)
    model.median.copy_(GROUND[0])
    decomposition, state = model.decompose_next(painted((4, 4, RED), (20, 20, BLUE)), None)
    assert sorted([slot_at(decomposition, 5, 5), slot_at(decomposition, 21, 21)]) == [1, 2]
    assert slot_at(decomposition, 12, 12) == 0
    assert (state.background - GROUND).abs().max() < 0.021


def test_frames_of_another_size_are_refused():
    with pytest.raises(ShapeError, match="32"):
        make_model().decompose_next(torch.rand(1, 3, 16, 16), None)
