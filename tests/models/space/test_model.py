"""SPACE: terms and masks by hand, an object pasted at a known location, presences, boundary, slots, and learning."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.testing import assert_close

from unscene.models.common.annealing import Annealed
from unscene.models.common.component_vae import ComponentVAESettings
from unscene.models.common.mixture import posterior_log_masks
from unscene.models.space.background import Background, SpaceBackground
from unscene.models.space.foreground import Cells, SpaceForeground
from unscene.models.space.model import MIN_SHARE, SPACE
from unscene.models.space.settings import BackgroundSettings, ForegroundSettings, SPACESettings

FOREGROUND = ForegroundSettings(
    grid=4,
    channels=(8, 8),
    strides=(2, 2),
    features=8,
    glimpse_size=8,
    glimpse_channels=(8, 8),
    glimpse_strides=(2, 2),
    glimpse_hidden=16,
    decoder_channels=(8, 8),
    what_dim=3,
    presence=Annealed(10, 20, 0.2, 0.1),
    scale_mean=Annealed(0, 10, -1.0, -2.0),
    boundary_width=1,
)
BACKGROUND = BackgroundSettings(
    components=3,
    channels=(8, 8),
    features=8,
    hidden=6,
    mask_dim=4,
    mask_hidden=8,
    mask_channels=(8, 8),
    vae=ComponentVAESettings(latent_dim=3, encoder_channels=(8, 8), encoder_hidden=16, decoder_channels=8),
)
SETTINGS = SPACESettings(size=16, scale=1, num_slots=4, foreground=FOREGROUND, background=BACKGROUND)


def model_of(foreground: dict | None = None, **changes) -> SPACE:
    torch.manual_seed(0)
    settings = dataclasses.replace(SETTINGS, **changes)
    return SPACE(dataclasses.replace(settings, foreground=dataclasses.replace(FOREGROUND, **foreground or {}))).double()


def images_of(batch: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(1)).double()


def cells_of(presence: torch.Tensor, boxes: torch.Tensor, nearness: float | torch.Tensor = 0.5) -> Cells:
    """[B, N] presences and [B, N, 4] boxes; all else does not matter."""
    pair = (torch.zeros(*presence.shape, 3).double(),) * 2
    near = torch.as_tensor(nearness, dtype=torch.float64).expand_as(presence)
    return Cells(torch.where(presence > 0.5, 4.0, -4.0).double(), *([pair] * 4), presence, boxes, near, pair[0])


def every_cell(images: int = 1) -> torch.Tensor:
    """[B, N] the cells themselves."""
    return torch.arange(16).expand(images, -1)


@pytest.fixture
def opaque(monkeypatch):
    """`opaque(model, logits)`: its glimpses decode to these, [4] or [S, 4]: colours and alpha before the sigmoid."""

    def decode(model: SPACE, logits: torch.Tensor) -> None:
        def forward(codes: torch.Tensor) -> torch.Tensor:
            return logits.double().expand(len(codes), 4)[:, :, None, None].expand(-1, -1, 8, 8)

        monkeypatch.setattr(model.foreground.glimpse_decoder, "forward", forward)

    return decode


def test_boxes_by_hand():
    """Scale 0 is half of the image; shift 0 is the middle of the cell, and a large one the cell's side beyond it."""
    foreground = model_of().foreground
    scale, shift = torch.zeros(1, 16, 2).double(), torch.zeros(1, 16, 2).double()
    scale[0, 6, 0] = math.log(1 / 3)  # a quarter of the width
    shift[0, 6] = torch.tensor([100.0, -math.atanh(0.5)])
    boxes = foreground.boxes(scale, shift)
    assert boxes[0, 0].tolist() == pytest.approx([2 - 4, 2 - 4, 2 + 4, 2 + 4])
    row_1_column_2 = [10 + 4 - 2, 6 - 2 - 4, 10 + 4 + 2, 6 - 2 + 4]
    assert boxes[0, 6].tolist() == pytest.approx(row_1_column_2, abs=1e-6)


def test_one_object_at_a_known_location(opaque):
    """One cell is there, its box 4..8 by 2..12: the mask is the box, and the box and the colour are the slot's."""
    model = model_of(num_slots=3)
    opaque(model, torch.tensor([60.0, -60.0, 0.0, 60.0]))
    presence = torch.zeros(1, 16).double()
    presence[0, 9] = 1.0
    boxes = torch.tensor([0.0, 0, 4, 4]).expand(1, 16, 4).double().clone()
    boxes[0, 9] = torch.tensor([4.0, 2, 8, 12])
    cells = cells_of(presence, boxes)
    with torch.no_grad():
        chosen = model.likeliest(cells)
        objects = model.foreground.decode(cells, chosen)
        decomposition = model._decomposition(cells, chosen, objects, model.background(images_of(1), sample=False))
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[2:12, 4:8] = True
    slot = int(decomposition.box_valid[0].nonzero())
    assert decomposition.box_valid.sum() == 1
    assert decomposition.boxes[0, slot].tolist() == [4, 2, 8, 12]
    assert float(decomposition.box_scores[0, slot]) == pytest.approx(1 / (1 + math.exp(-4)))
    mask = decomposition.masks()[0, slot, 0]
    assert (mask[3:11, 5:7] - 1).abs().max() < 1e-6  # but for the fading at the edge
    assert mask[~inside].max() < 0.3
    assert torch.equal(decomposition.labels()[0] == slot + 1, inside)
    assert_close(decomposition.components[0, slot, :, 7, 6], torch.tensor([1.0, 0.0, 0.5]).double())


def test_the_nearest_object_wins(opaque):
    """Two opaque objects share pixels: the weights are a softmax of 100 alpha sigmoid(-depth) over all 16 cells."""
    model = model_of()
    opaque(model, torch.tensor([0.0, 0, 0, 60]))
    presence = torch.zeros(1, 16).double()
    presence[0, [3, 5]] = torch.tensor([1.0, 0.9]).double()
    boxes = torch.tensor([0.0, 0, 16, 16]).expand(1, 16, 4).double()
    near = torch.full((1, 16), 0.5).double()
    near[0, [3, 5]] = torch.tensor([0.02, 0.04]).double()
    objects = model.foreground.decode(cells_of(presence, boxes, near), every_cell())
    importance = torch.zeros(16).double()
    importance[3], importance[5] = 100 * 0.02, 100 * 0.9 * 0.04
    weights = importance.softmax(dim=0)
    expected = torch.zeros(16).double()
    expected[3], expected[5] = weights[3], weights[5] * 0.9
    assert_close(objects.masks[0, :, 0, 8, 8], expected)
    assert float(objects.alpha[0, 0, 8, 8]) == pytest.approx(float(expected.sum()))
    assert float(objects.image[0, 0, 8, 8]) == pytest.approx(float(0.5 * expected.sum()))


@pytest.mark.parametrize(("darkened", "factor"), [(True, 0.75), (False, 1.0)])
def test_colours_are_times_alpha_only_if_darkened(opaque, darkened, factor):
    """A lone object of alpha 3/4 and colour (1, 0, 1/2): what it paints, and the share of a pixel that it has."""
    model = model_of({"darkened": darkened}, num_slots=3)
    opaque(model, torch.tensor([60.0, -60.0, 0.0, math.log(3)]))
    presence = torch.zeros(1, 16).double()
    presence[0, 9] = 1.0
    boxes = torch.tensor([4.0, 4, 12, 12]).expand(1, 16, 4).double()
    near = torch.zeros(1, 16).double()
    near[0, 9] = 1.0  # a softmax of 75 and fifteen zeros
    objects = model.foreground.decode(cells_of(presence, boxes, near), every_cell())
    colour = factor * torch.tensor([1.0, 0.0, 0.5]).double()
    assert_close(objects.image[0, :, 8, 8], colour)
    assert_close(objects.components[0, 9, :, 8, 8], colour)
    assert float(objects.alpha[0, 0, 8, 8]) == pytest.approx(0.75)
    assert not objects.image[0, :, 0, 0].any()  # outside of the box nothing is divided by nothing
    assert not objects.components[0, 3].any()


@pytest.mark.parametrize("presence", [0.01, 0.001, 0.0001])
def test_colour_gradients_do_not_depend_on_the_presence(presence):
    """What a lone object paints does not depend on its presence, so nor do the gradients of its colours."""
    model = model_of({"darkened": False})
    boxes = torch.tensor([4.0, 4, 12, 12]).expand(1, 16, 4).double()

    def gradient(presence: float) -> torch.Tensor:
        only = torch.zeros(1, 16).double()
        only[0, 9] = presence
        image = model.foreground.decode(cells_of(only, boxes), every_cell()).image
        painted = image[..., 6:10, 6:10]  # the box fades at its border
        gradients = torch.autograd.grad(painted.sum(), model.foreground.glimpse_decoder.parameters())
        return torch.cat([gradient.flatten() for gradient in gradients])

    full = gradient(1.0)
    assert full.abs().max() > 0.1
    assert_close(gradient(presence), full, rtol=1e-6, atol=1e-9)


def test_with_fixed_alpha_the_likelihood_ignores_the_presence():
    model, images = model_of({"darkened": False}), images_of(1)
    boxes = torch.tensor([4.0, 4, 12, 12]).expand(1, 16, 4).double()
    presence = torch.zeros(1, 16).double()
    presence[0, 9] = 0.4
    presence.requires_grad_()
    background = model.background(images, sample=False)
    objects = model.foreground.decode(cells_of(presence, boxes), every_cell())
    fixed = model.log_likelihood(images, objects.image, torch.full_like(objects.alpha, 0.1), background)
    own = model.log_likelihood(images, objects.image, objects.alpha, background)
    slopes = [torch.autograd.grad(value.sum(), presence, retain_graph=True)[0][0, 9].abs() for value in (fixed, own)]
    assert slopes[0] < 1e-6 < 1e-2 < slopes[1]


def test_masks_times_components_sum_to_the_foreground():
    """Masks times objects are the foreground's share times its image, where alpha does not darken both of them."""
    model, images = model_of({"darkened": False}), images_of()
    with torch.no_grad():
        objects = model.foreground.decode(model.foreground.infer(images, 1.0), every_cell(2))
    assert_close((objects.masks * objects.components).sum(dim=1), objects.alpha * objects.image)


def test_glimpse_norm_false_removes_group_norm():
    plain, normed = model_of({"glimpse_norm": False}), model_of()
    parts = (plain.foreground.glimpse_encoder, plain.foreground.glimpse_decoder)
    assert not any(isinstance(layer, nn.GroupNorm) for part in parts for layer in part.modules())
    assert any(isinstance(layer, nn.GroupNorm) for layer in plain.foreground.encoder.modules())  # the image's keeps it
    normed_parts = (normed.foreground.glimpse_encoder, normed.foreground.glimpse_decoder)
    for part, normed_part in zip(parts, normed_parts, strict=True):
        assert set(part.state_dict()) < set(normed_part.state_dict())  # the layers keep their names


def test_without_presences_the_background_has_every_pixel():
    model, images = model_of(), images_of()
    with torch.no_grad():
        model.foreground.to_cells.bias[0] = -100.0
        decomposition = model(images)
        cells = model.foreground.infer(images)
    assert not cells.presence.any()
    assert not decomposition.box_valid.any()
    assert not decomposition.boxes.any()
    assert not decomposition.latents.any()
    assert_close(decomposition.masks()[:, -1], torch.ones(2, 1, 16, 16).double())
    assert not decomposition.labels().any()
    assert_close(decomposition.reconstruction(), model.background(images, sample=False).image())


def test_likelihood_is_a_mixture_of_foreground_and_background_mixture():
    """log (a N(fg) + (1 - a) sum_k pi_k N(bg_k)), with the shares kept from 0 and 1, in both ways of mixing."""
    generator = torch.Generator().manual_seed(3)
    images, foreground = torch.rand(2, 2, 3, 4, 4, generator=generator).double()
    background = Background(
        torch.randn(2, 3, 1, 4, 4, generator=generator).double().log_softmax(dim=1),
        torch.rand(2, 3, 3, 4, 4, generator=generator).double(),
        *torch.zeros(2, 2),
    )
    alpha = torch.rand(2, 1, 4, 4, generator=generator).double()
    alpha[0, 0, 0] = torch.tensor([0.0, 1.0, 0.5, 0.5])
    share = MIN_SHARE + (1 - 2 * MIN_SHARE) * alpha
    for over in ("pixel", "channel"):
        found = model_of(mixture_over=over).log_likelihood(images, foreground, alpha, background)
        in_front = Normal(foreground, 0.11).log_prob(images)
        behind = Normal(background.components, 0.09).log_prob(images.unsqueeze(1))
        if over == "pixel":
            in_front, behind = in_front.sum(dim=1, keepdim=True), behind.sum(dim=2, keepdim=True)
        behind = (background.log_masks + behind).logsumexp(dim=1)
        both = torch.logaddexp(share.log() + in_front, (1 - share).log() + behind)
        assert_close(found, both.sum(dim=(1, 2, 3)))


@pytest.mark.parametrize(
    ("step", "presence", "scale"), [(0, 0.2, -1.0), (5, 0.2, -1.5), (15, 0.15, -2.0), (99, 0.1, -2.0)]
)
def test_kl_terms_use_the_priors_of_the_step(step, presence, scale):
    model, images = model_of(), images_of()
    losses, _ = model.loss(images, step)
    cells = model.foreground.infer(images)

    def normal(pair: tuple[torch.Tensor, torch.Tensor]) -> Normal:
        return Normal(pair[0], (0.5 * pair[1]).exp())

    unit = Normal(torch.zeros(()).double(), torch.ones(()).double())
    expected = {
        "presence_kl": kl_divergence(Bernoulli(logits=cells.logits), Bernoulli(torch.tensor(presence).double())),
        "scale_kl": kl_divergence(normal(cells.scale), Normal(torch.tensor(scale).double(), 0.1)),
        "shift_kl": kl_divergence(normal(cells.shift), unit),
        "depth_kl": kl_divergence(normal(cells.depth), unit),
    }
    for name, divergence in expected.items():
        assert_close(losses.terms[name], divergence.flatten(1).sum(dim=1), rtol=1e-5, atol=1e-6)


def test_weigh_by_presence_multiplies_the_object_kl_terms():
    unweighed, weighed = model_of(), model_of({"weigh_by_presence": True})
    torch.manual_seed(2)
    cells = unweighed.foreground.infer(images_of(), temperature=1.0)
    plain, by_presence = (model.foreground.kl_terms(cells, 15) for model in (unweighed, weighed))
    assert_close(by_presence["presence_kl"], plain["presence_kl"])
    mean, log_variance = cells.depth
    depth = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), 1.0)).squeeze(2)
    assert_close(by_presence["depth_kl"], (cells.presence * depth).sum(dim=1))
    assert all((by_presence[name] < plain[name]).all() for name in ("scale_kl", "shift_kl", "depth_kl", "what_kl"))


def test_initial_presence_is_the_probability_of_a_cell_without_features():
    model = model_of({"initial_presence": 0.1})
    nn.init.zeros_(model.foreground.to_cells.weight)
    assert_close(model.foreground.infer(images_of()).logits.sigmoid(), torch.full((2, 16), 0.1).double())


def test_kaiming_init_spreads_the_latents_of_colours():
    own, ours = (spread_of_latents(init) for init in ("default", "kaiming"))
    assert ours > 1.5 * own


def spread_of_latents(init: str) -> float:
    """Standard deviation of an untrained model's z_what over glimpses of one colour each."""
    torch.manual_seed(0)
    encoder = SpaceForeground(ForegroundSettings(init=init), 128).glimpse_encoder
    colours = torch.rand(32, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, 32, 32)
    with torch.no_grad():
        means, _ = encoder(colours).chunk(2, dim=1)
    return means.std(dim=0).mean().item()


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)])
def test_what_weight_multiplies_the_kl_of_z_what(step, weight):
    plain, weighed = model_of(), model_of({"what_weight": Annealed(0, 10, 0.0, 1.0)})
    torch.manual_seed(0)
    expected, _ = plain.loss(images_of(), step)
    torch.manual_seed(0)
    losses, _ = weighed.loss(images_of(), step)
    assert_close(losses.terms, expected.terms)
    assert_close(expected.total - losses.total, (1 - weight) * expected.terms["what_kl"])


def test_kl_weight_multiplies_every_kl_term():
    """Those of the background too; reconstruction and boundary keep the factor 1."""
    unweighed, weighed = model_of(), model_of(kl_weight=0.25)
    torch.manual_seed(0)
    plain, _ = unweighed.loss(images_of(), 3)
    torch.manual_seed(0)
    losses, _ = weighed.loss(images_of(), 3)
    assert_close(losses.terms, plain.terms)
    kl = sum(value for name, value in plain.terms.items() if name.endswith("_kl"))
    assert_close(plain.total - losses.total, 0.75 * kl)


def test_glimpses_are_of_the_sampled_boxes():
    """z_what's divergence by hand from the glimpses of the sampled boxes."""
    model, images = model_of(), images_of()
    torch.manual_seed(4)
    losses, _ = model.loss(images, 3)
    torch.manual_seed(4)
    cells = model.foreground.infer(images, FOREGROUND.temperature.at(3))
    moved = model.foreground.infer(images)
    assert not torch.allclose(cells.boxes, moved.boxes)
    mean, deviation = cells.what[0], (0.5 * cells.what[1]).exp()
    divergence = kl_divergence(Normal(mean, deviation), Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    assert_close(losses.terms["what_kl"], divergence.sum(dim=(1, 2)))


def test_background_kl_terms_are_conditional():
    """Every mask latent from a prior that has seen those before it, every component's from one that knows its mask."""
    torch.manual_seed(0)
    background = SpaceBackground(BACKGROUND, 16).double()
    images = images_of()
    torch.manual_seed(2)
    result = background(images, sample=True)
    torch.manual_seed(2)
    latents, posteriors = background.infer_masks(images, sample=True)
    mean, log_variance = background.vae.encode(images, result.log_masks)
    h, c = (background.prior_state[n].expand(2, -1) for n in range(2))
    mask_kl = component_kl = 0.0
    for k in range(3):
        loc, raw = background.to_prior(h).chunk(2, dim=1)
        prior = Normal(loc, F.softplus(raw) + 1e-4)
        posterior = Normal(posteriors[k][0], (0.5 * posteriors[k][1]).exp())
        mask_kl = mask_kl + kl_divergence(posterior, prior).sum(dim=1)
        loc, raw = background.component_prior(latents[:, k]).chunk(2, dim=1)
        posterior = Normal(mean[:, k], (0.5 * log_variance[:, k]).exp())
        component_kl = component_kl + kl_divergence(posterior, Normal(loc, F.softplus(raw) + 1e-4)).sum(dim=1)
        h, c = background.prior(latents[:, k], (h, c))
    assert_close(result.mask_kl, mask_kl)
    assert_close(result.component_kl, component_kl)
    assert_close(result.log_masks.exp().sum(dim=1), torch.ones(2, 1, 16, 16).double())


def test_mask_priors_depend_on_earlier_masks_only():
    torch.manual_seed(0)
    background = SpaceBackground(BACKGROUND, 16).double()
    latents = torch.randn(1, 3, 4).double().requires_grad_()
    for k, (mean, _) in enumerate(background.mask_priors(latents)):
        reached = torch.autograd.grad(mean.sum(), latents, allow_unused=True, retain_graph=True)[0]
        seen = [] if reached is None else reached.abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
        assert seen == list(range(k))


def test_fixed_alpha_steps_use_a_constant_alpha():
    model, images = model_of({"fixed_alpha_steps": 5}), images_of()
    losses = {}
    for step in (4, 5):
        torch.manual_seed(3)
        losses[step] = model.loss(images, step)[0].terms["reconstruction"]
    torch.manual_seed(3)
    cells = model.foreground.infer(images, FOREGROUND.temperature.at(4))
    objects, background = model.foreground.decode(cells, every_cell(2)), model.background(images, sample=True)
    alpha = torch.full_like(objects.alpha, 0.1)
    assert_close(losses[4], -model.log_likelihood(images, objects.image, alpha, background))
    assert not torch.allclose(losses[4], losses[5])


def test_boundary_loss_stops_at_its_end_step(opaque):
    images = images_of()
    values = {}
    for end in (None, 7):
        model = model_of({"boundary_end_step": end})
        opaque(model, torch.tensor([0.0, 0, 0, 4]))
        values[end] = [model.loss(images, step)[0].terms["boundary"].sum().item() for step in (6, 7, 10**6)]
    assert min(values[None]) > 0
    assert values[7][0] > 0
    assert values[7][1:] == [0.0, 0.0]
    assert float(model_of({"boundary_width": 0}).loss(images)[0].terms["boundary"].sum()) == 0


def test_boundary_loss_of_an_object_that_fills_its_box(monkeypatch):
    foreground = SpaceForeground(FOREGROUND, 16).double()
    presence = torch.zeros(1, 16).double()
    presence[0, 5] = 1.0
    boxes = torch.tensor([4.0, 4, 12, 12]).expand(1, 16, 4).double()  # a cell of the glimpse is a pixel
    cells = cells_of(presence, boxes)
    alpha = torch.zeros(1, 1, 16, 16).double()
    alpha[0, 0, 5:11, 5:11] = 1.0
    assert float(foreground.boundary_loss(cells, alpha, 0)) == pytest.approx(0, abs=1e-9)
    alpha[0, 0, 4:12, 4:12] = 1.0
    assert float(foreground.boundary_loss(cells, alpha, 0)) == pytest.approx(28 * (1000 / 1024 / 0.7) ** 2 / 2)


def test_slots_are_the_likeliest_cells():
    model, images = model_of(), images_of(4)
    with torch.no_grad():
        model.foreground.to_cells.weight[0].mul_(8)
        decomposition, cells = model(images), model.foreground.infer(images)
    probability = cells.logits.sigmoid()
    for image in range(4):
        best = sorted(probability[image].argsort(descending=True)[:3].tolist())
        assert_close(decomposition.box_scores[image], probability[image, best])
        valid = probability[image, best] > 0.5
        assert torch.equal(decomposition.box_valid[image], valid)
        for slot, cell in enumerate(best):
            expected = cells.boxes[image, cell].clamp(0, 16) if valid[slot] else torch.zeros(4).double()
            assert_close(decomposition.boxes[image, slot], expected)
            assert_close(decomposition.latents[image, slot], cells.what[0][image, cell] * valid[slot])
            if not valid[slot]:
                assert decomposition.masks()[image, slot].max() < 1e-16
    assert decomposition.box_valid.any()
    assert not decomposition.latents[:, -1].any()
    assert_close(decomposition.masks().sum(dim=1), torch.ones(4, 1, 16, 16).double())


def test_scale_returns_masks_and_boxes_of_the_original_size():
    small, large = model_of(size=8, scale=2), model_of(size=16, scale=1)
    images = images_of(2, size=8)
    larger = F.interpolate(images, scale_factor=2, mode="bilinear", align_corners=False)
    with torch.no_grad():
        decomposition, expected = small(images), large(larger)
    assert_close(decomposition.boxes, expected.boxes / 2)
    assert_close(
        decomposition.masks(), F.avg_pool2d(expected.masks().flatten(0, 1), 2).unflatten(0, (2, 4)), atol=1e-6, rtol=0
    )
    assert_close(decomposition.components, F.avg_pool2d(expected.components.flatten(0, 1), 2).unflatten(0, (2, 4)))
    torch.manual_seed(0)
    losses = small.loss(images)[0].total
    torch.manual_seed(0)
    assert_close(losses, large.loss(larger)[0].total)


@pytest.mark.parametrize("scale", [1, 2])
def test_posterior_masks_are_shown_at_the_images_own_size(scale):
    """By the foreground's sigma for the objects and the background's for the last slot; absent cells stay empty."""
    size = 16 // scale
    inferred, posterior = model_of(size=size, scale=scale), model_of(size=size, scale=scale, masks="posterior")
    images = images_of(2, size=size)
    with torch.no_grad():
        seen, shown = inferred(images), posterior(images)
    scales = torch.tensor([FOREGROUND.sigma] * 3 + [BACKGROUND.sigma], dtype=torch.float64)
    assert_close(shown.log_masks, posterior_log_masks(images, seen.components, seen.log_masks, scales))
    assert (shown.masks()[:, :-1][~seen.box_valid] < 1e-15).all()
    torch.manual_seed(0)
    loss, _ = inferred.loss(images)
    torch.manual_seed(0)
    assert_close(posterior.loss(images)[0].total, loss.total, rtol=0, atol=0)


@pytest.mark.parametrize("darkened", [True, False])
def test_gradients_by_finite_differences(darkened):
    """In float64, through the glimpses, the boxes and both mixtures."""
    model, images = model_of({"darkened": darkened}), images_of(1)

    def total() -> torch.Tensor:
        torch.manual_seed(7)
        return model.loss(images, 3)[0].total.sum()

    gradients = dict(zip(model.parameters(), torch.autograd.grad(total(), list(model.parameters())), strict=True))
    generator = torch.Generator().manual_seed(3)
    for part in [*model.foreground.children(), *model.background.children()]:
        parameters = list(part.parameters())
        directions = [torch.randn(weight.shape, generator=generator).double() for weight in parameters]
        slopes = [(gradients[w] * direction).sum() for w, direction in zip(parameters, directions, strict=True)]
        values = []
        with torch.no_grad():
            for shift in (1e-7, -2e-7, 1e-7):
                for weight, direction in zip(parameters, directions, strict=True):
                    weight.add_(direction, alpha=shift)
                values.append(float(total()))
        assert float(sum(slopes)) == pytest.approx((values[0] - values[1]) / 2e-7, rel=2e-3, abs=2e-2)


@pytest.mark.parametrize("darkened", [True, False])
def test_extreme_weights_give_finite_losses(darkened):
    model, images = model_of({"darkened": darkened}).float(), images_of().float()
    with torch.no_grad():
        model.foreground.to_cells.weight.mul_(1e3)
        model.background.to_posterior.weight.mul_(1e3)
    losses, decomposition = model.loss(images, 10**6)
    losses.total.mean().backward()
    assert all(torch.isfinite(term).all() for term in losses.terms.values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert torch.isfinite(decomposition.log_masks).all()


@pytest.mark.parametrize("darkened", [True, False])
def test_fast_bodies_equal_plain_ones(darkened, monkeypatch):
    def losses_and_gradients(plain: str) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        monkeypatch.setenv("UNSCENE_PLAIN", plain)
        model = model_of({"darkened": darkened}).float()
        torch.manual_seed(3)
        losses, _ = model.loss(images_of(3).float(), 3)
        return losses.terms, list(torch.autograd.grad(losses.total.mean(), list(model.parameters())))

    (fast, fast_gradients), (plain, plain_gradients) = losses_and_gradients("0"), losses_and_gradients("1")
    assert_close(fast, plain, rtol=1e-5, atol=1e-4)
    for found, expected in zip(fast_gradients, plain_gradients, strict=True):
        assert float((found - expected).norm()) <= 1e-3 * float(expected.norm()) + 1e-4


def error_after_learning(seed: int) -> float:
    """The reconstruction's error after a training on four images of one object each; without the objects it is .013."""
    foreground = {
        "channels": (16, 32),
        "features": 32,
        "glimpse_channels": (16, 32),
        "glimpse_hidden": 64,
        "decoder_channels": (32, 16),
        "what_dim": 8,
        "boundary_width": 0,
        "darkened": False,
        "glimpse_norm": False,
        "init": "kaiming",
        "fixed_alpha_steps": 60,
        "scale_mean": Annealed(0, 0, -0.7, -0.7),
        "scale_std": 0.1,
        "temperature": Annealed(0, 0, 0.5, 0.5),
    }
    model = model_of(foreground).float()
    images = torch.full((4, 3, 16, 16), 0.2)
    colours = torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9], [0.9, 0.9, 0.1]])
    for image, (row, column) in enumerate([(2, 3), (8, 2), (4, 9), (10, 10)]):
        images[image, :, row : row + 4, column : column + 4] = colours[image].view(3, 1, 1)
    optimizer = torch.optim.RMSprop(model.parameters(), 1e-3)
    torch.manual_seed(seed)
    for step in range(250):
        total = model.loss(images, step)[0].total.mean()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        decomposition = model.eval()(images)
    assert decomposition.box_valid.any(dim=1).all()
    return F.mse_loss(decomposition.reconstruction(), images).item()


@pytest.mark.slow
def test_a_batch_is_learnt_by_heart():
    assert error_after_learning(seed=0) < 0.004
