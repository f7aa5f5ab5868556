from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from unscene.errors import RecipeError, ShapeError
from unscene.models.common.component_vae import (
    ColourLimits,
    ComponentVAE,
    ComponentVAESettings,
    coarse,
    nearest_colours,
)
from unscene.models.common.stick_breaking import LOG_ZERO

SMALL = ComponentVAESettings(
    latent_dim=5, encoder_channels=(6, 8), encoder_hidden=16, decoder_channels=6, decoder_layers=2
)


def small_vae(size: int = 16, **changes) -> ComponentVAE:
    torch.manual_seed(0)
    return ComponentVAE(dataclasses.replace(SMALL, **changes), size)


def two_images(slots: int = 3, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [2, 3, ...] and log masks [2, K, 1, ...]."""
    torch.manual_seed(1)
    return torch.rand(2, 3, size, size), (3 * torch.randn(2, slots, 1, size, size)).log_softmax(dim=1)


def block_means(image: np.ndarray, side: int) -> np.ndarray:
    """[C, H, W] -> [C, H / side, W / side], one square after another."""
    channels, height, width = image.shape
    means = np.zeros((channels, height // side, width // side))
    for c, y, x in np.ndindex(means.shape):
        means[c, y, x] = image[c, y * side : (y + 1) * side, x * side : (x + 1) * side].mean()
    return means


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("reads", ["image_and_log_mask", "masked_image_and_mask"])
def test_the_encoder_reads_each_slot_with_the_image(reads, stride):
    vae = small_vae(encoder_input=reads, encoder_stride=stride)
    images, log_masks = two_images()
    mean, log_variance = vae.encode(images, log_masks)
    assert mean.shape == log_variance.shape == (2, 3, 5)
    for b in range(2):
        for k in range(3):
            image, log_mask = images[b].numpy(), log_masks[b, k].numpy()
            if reads == "image_and_log_mask":
                seen = np.concatenate([image, np.maximum(log_mask, -16)])
            else:
                seen = np.concatenate([image * np.exp(log_mask), np.exp(log_mask)])
            code = vae.encoder(torch.from_numpy(block_means(seen, stride)).float()[None])[0]
            assert_close(mean[b, k], code[:5], rtol=1e-4, atol=1e-6)
            assert_close(log_variance[b, k], code[5:], rtol=1e-4, atol=1e-6)


def test_a_masked_encoder_does_not_see_what_is_outside_of_the_mask():
    vae = small_vae(encoder_input="masked_image_and_mask")
    images, _ = two_images()
    log_masks = torch.zeros(2, 2, 1, 16, 16)
    log_masks[:, 0, :, :, :8], log_masks[:, 1, :, :, 8:] = -200.0, -200.0
    before = vae.encode(images, log_masks)[0]
    images[:, :, :, 8:] = 0.3
    after = vae.encode(images, log_masks)[0]
    assert_close(before[:, 1], after[:, 1])
    assert (before[:, 0] - after[:, 0]).abs().max() > 1e-3


def test_encoder_clamps_log_masks_of_empty_slots():
    """-40 and -1000 are both nothing, and neither may drown the image."""
    vae = small_vae()
    images, log_masks = two_images()
    assert torch.equal(
        vae.encode(images, torch.full_like(log_masks, -40))[0], vae.encode(images, torch.full_like(log_masks, -1e3))[0]
    )


def test_decoded_colours_are_the_sigmoid_of_the_free_ones():
    bounded, free = small_vae(colour="sigmoid"), small_vae(colour="linear")
    latents = torch.randn(2, 3, 5)
    (colour, logits), (raw, same_logits) = bounded.decode(latents), free.decode(latents)
    assert colour.shape == (2, 3, 3, 16, 16)
    assert logits.shape == (2, 3, 1, 16, 16)
    assert_close(colour, raw.sigmoid())
    assert_close(logits, same_logits)
    assert raw.min() < 0


def test_slots_are_decoded_independently():
    vae = small_vae()
    latents = torch.randn(2, 3, 5)
    together = torch.cat(vae.decode(latents), dim=2)
    for b in range(2):
        for k in range(3):
            alone = torch.cat(vae.decode(latents[b : b + 1, k : k + 1]), dim=2)
            assert_close(together[b, k], alone[0, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [8, 20, 33])
def test_sizes_that_halve_unevenly_can_be_encoded(size):
    vae = small_vae(size)
    images, log_masks = two_images(size=size)
    mean, _ = vae.encode(images, log_masks)
    assert vae.decode(mean)[0].shape[-1] == size


def test_too_many_layers_for_the_image_are_refused():
    with pytest.raises(RecipeError, match="images of 2 pixels are too small for 2 encoder layers"):
        small_vae(2)


def test_an_average_that_does_not_divide_the_image_is_refused():
    with pytest.raises(RecipeError, match="encoder_stride 3 must divide"):
        small_vae(16, encoder_stride=3)


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"latent_dim": -1}, "latent_dim"),
        ({"decoder_stride": 0}, "decoder_stride"),
        ({"encoder_channels": (8, 0)}, "encoder_channels"),
    ],
)
def test_numbers_below_one_are_refused(wrong, name):
    with pytest.raises(RecipeError, match=f"{name}.* must be 1 or more"):
        ComponentVAESettings(**wrong)


def test_images_and_masks_of_different_sizes_are_refused():
    vae = small_vae()
    with pytest.raises(ShapeError, match="images"):
        vae.encode(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 1, 16, 16))
    with pytest.raises(ShapeError, match="log_masks"):
        vae.encode(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16))


def quarters(size: int = 16) -> torch.Tensor:
    """[2, 2, 4] regions of 2 images' 2 slots: the upper left quarter, the whole, the lower right quarter, the whole."""
    half, whole = size // 2, [0.0, 0, size, size]
    return torch.tensor([[[0.0, 0, half, half], whole], [[half, half, size, size], whole]])


def test_roi_encoder_reads_the_region_at_its_input_size():
    vae = small_vae(encoder_input="masked_image_and_mask", encoder_stride=2, encoder_region="roi")
    images, log_masks = two_images(slots=2)
    mean, _ = vae.encode(images, log_masks, regions=quarters())
    mask = log_masks.exp()
    read = torch.cat([images[:, None] * mask, mask], dim=2)
    encoded_quarter = vae.encoder(read[0, 0, None, :, :8, :8])[0, :5]
    assert_close(mean[0, 0], encoded_quarter, rtol=1e-4, atol=1e-5)
    encoded_quarter = vae.encoder(read[1, 0, None, :, 8:, 8:])[0, :5]
    assert_close(mean[1, 0], encoded_quarter, rtol=1e-4, atol=1e-5)


def test_roi_decoder_is_zero_outside_its_region():
    vae = small_vae(decoder_region="roi", roi_size=8, decoder_padding="same")
    latents = torch.randn(2, 2, 5)
    colour, logits = vae.decode(latents, regions=quarters())
    decoded = vae.decoder(latents.flatten(0, 1)).unflatten(0, (2, 2))
    assert colour.shape == (2, 2, 3, 16, 16)
    assert_close(colour[0, 0, :, :8, :8], decoded[0, 0, :3].sigmoid())
    assert_close(logits[1, 0, :, 8:, 8:], decoded[1, 0, 3:])
    assert not colour[0, 0, :, 8:].any()
    assert (logits[0, 0, :, :, 8:] == LOG_ZERO).all()
    assert colour[0, 1].min() > 0  # the whole image


def test_unused_slots_have_zero_latents_and_components():
    vae = small_vae()
    images, log_masks = two_images(slots=24)
    used = torch.arange(48).view(2, 24) % 3 == 0
    every_mean, every_variance = vae.encode(images, log_masks)
    mean, log_variance = vae.encode(images, log_masks, used)
    assert_close(mean[used], every_mean[used], rtol=1e-4, atol=1e-6)
    assert_close(log_variance[used], every_variance[used], rtol=1e-4, atol=1e-6)
    assert not mean[~used].any()
    assert not log_variance[~used].any()
    colour, logits = vae.decode(every_mean, used)
    assert_close(colour[used], vae.decode(every_mean)[0][used], rtol=1e-4, atol=1e-6)
    assert not colour[~used].any()
    assert (logits[~used] == LOG_ZERO).all()


def test_the_first_log_variance_is_moved_and_nothing_else():
    (images, log_masks), results = two_images(), []
    for shift in (0.0, -3.0):
        torch.manual_seed(0)
        results.append(small_vae(initial_log_variance=shift).encode(images, log_masks))
    (mean, log_variance), (same_mean, moved) = results
    assert torch.equal(same_mean, mean)
    assert_close(moved, log_variance - 3)


def test_colours_are_limited_in_their_slots_only():
    torch.manual_seed(0)
    vae, latents = small_vae(), torch.randn(2, 3, small_vae().settings.latent_dim)
    images = torch.rand(2, 3, 16, 16)
    used = torch.tensor([[True, True, True], [False, True, True]])
    free, logits = vae.decode(latents, used)
    for background, objects in ((0, [1, 2]), (-1, [0, 1])):
        limits = ColourLimits(background, background_cells=2, foreground_colours=1)
        components, same_logits = vae.decode(latents, used, limits=limits)
        assert torch.equal(same_logits, logits)
        assert_close(components[:, background], coarse(free[:, background], 2))
        assert_close(
            components[:, objects], free[:, objects].mean(dim=(3, 4), keepdim=True).expand_as(free[:, objects])
        )
        several, _ = vae.decode(latents, used, limits=limits._replace(foreground_colours=3), images=images)
        assert_close(several[:, background], coarse(free[:, background], 2))
        expected = nearest_colours(free[0, objects], images[:1].expand(2, -1, -1, -1), 3)
        assert_close(several[0, objects], expected)
    assert torch.equal(vae.decode(latents, used, limits=ColourLimits(0, 0, 0))[0], free)


def test_each_pixel_takes_the_nearest_of_two_colours_and_they_learn_from_it_alone():
    """By hand: strips of .2 and .8; a checkered image of 0 and 1."""
    colour = torch.tensor([0.1, 0.3, 0.7, 0.9]).expand(1, 3, 2, 4).clone().requires_grad_()
    image = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 3, 2, 2)
    result = nearest_colours(colour, image, 2)
    assert_close(result[0, 0], torch.tensor([[0.2, 0.8], [0.8, 0.2]]))
    result[..., 0, 0].sum().backward()
    assert_close(colour.grad[0, 0], torch.tensor([0.25, 0.25, 0.0, 0.0]).expand(2, 4))


def test_two_cells_keep_a_step_from_left_to_right_and_lose_a_spot():
    colour = torch.zeros(1, 1, 8, 8)
    colour[..., 4:] = 1
    result = coarse(colour, 2)[0, 0]
    assert_close(result[:, 0], torch.zeros(8))
    assert_close(result[:, -1], torch.ones(8))
    colour[0, 0, 2, 1] = 1  # one of 16 pixels of a cell
    assert coarse(colour, 2)[0, 0, 0, 0] == pytest.approx(1 / 16)
