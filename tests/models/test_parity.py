"""The loss and gradients of each model against a reference written from its paper alone (`references`).

The references compute one image, loop over slots, cells and steps, and share with the model the names of the weights
and the order in which noise is sampled. Everything is float64, so that rounding hides no difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.models.references.explicit_localization import Numbers, explicit_localization_terms
from tests.models.references.iodine import IodineNumbers, iodine_terms
from tests.models.references.monet import monet_terms
from tests.models.references.rmonet import RMonetNumbers, rmonet_terms
from tests.models.references.space import SpaceNumbers, space_terms
from unscene.models.common.annealing import Annealed
from unscene.models.common.component_vae import ComponentVAESettings
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings
from unscene.models.explicit_localization.location_mask import LocationSettings
from unscene.models.explicit_localization.model import ExplicitLocalization, ExplicitLocalizationSettings
from unscene.models.iodine.model import IODINE, IODINESettings
from unscene.models.iodine.refinement_network import RefinementSettings
from unscene.models.monet.attention_unet import AttentionUNetSettings
from unscene.models.monet.model import MONet, MONetSettings
from unscene.models.rmonet.model import RMONet
from unscene.models.rmonet.settings import BackboneSettings, HeadSettings, ProposalSettings, RMONetSettings
from unscene.models.space.model import SPACE
from unscene.models.space.settings import BackgroundSettings, ForegroundSettings, SPACESettings

RELATIVE = 1e-6


def perturbed(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model in float64, without round numbers such as a bias of 0, which would hide an error."""
    torch.manual_seed(seed)
    model.double()
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return model


def check_parity(
    model: nn.Module, images: Tensor, reference: Callable[[dict[str, Tensor]], list[dict[str, Tensor]]], step: int = 0
) -> None:
    """Compare every term of every image, the total, and its gradient by every parameter.

    Args:
        model: in float64.
        images: [B, 3, H, W] float64.
        reference: weights -> the terms of each image; it samples its noise from the seeded generator.
        step: of training.
    """
    torch.manual_seed(11)
    losses, _ = model.loss(images, step)
    weights = model.state_dict(keep_vars=True)
    torch.manual_seed(11)
    expected = reference(weights)
    assert len(expected) == len(images)
    total = torch.zeros((), dtype=torch.float64)
    for index, terms in enumerate(expected):
        assert terms.keys() == losses.terms.keys()
        for name, term in terms.items():
            assert losses.terms[name].dtype == torch.float64
            assert losses.terms[name][index].item() == pytest.approx(term.item(), rel=RELATIVE), name
            total = total + losses.weights[name] * term
    assert losses.total.sum().item() == pytest.approx(total.item(), rel=RELATIVE)
    names, parameters = zip(*model.named_parameters(), strict=True)
    grad_model = torch.autograd.grad(losses.total.sum(), parameters)
    grad_reference = torch.autograd.grad(total, parameters)
    for name, ours, theirs in zip(names, grad_model, grad_reference, strict=True):
        assert theirs.norm() > 0, name
        assert (ours - theirs).norm() <= RELATIVE * theirs.norm(), name


@pytest.mark.parametrize("over", ["pixel", "channel"])
def test_monet_is_its_papers_equation_3(over, scenes):
    settings = MONetSettings(
        size=16,
        num_slots=4,
        sigma_background=0.09,
        sigma_foreground=0.11,
        mixture_over=over,
        unet=AttentionUNetSettings((4, 6, 8), hidden=10),
        vae=ComponentVAESettings(latent_dim=3, encoder_channels=(5, 6), encoder_hidden=12, decoder_channels=6),
    )
    torch.manual_seed(0)
    model = perturbed(MONet(settings))
    images = scenes(2, 32)[:, :, 8:24, 8:24].double()

    def reference(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        noise = torch.randn(2, 4, 3, dtype=torch.float64)
        return [
            monet_terms(image, noise[index], weights, [0.09, 0.11, 0.11, 0.11], over)
            for index, image in enumerate(images)
        ]

    check_parity(model, images, reference)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_rmonet_is_its_papers_equation_3(threshold, scenes):
    """Every anchor is sampled. sigma .3, so that no pixel costs 40 nats and masks of 0 outside the boxes are 0."""
    sizes = (6, 10, 16, 24, 32)
    settings = RMONetSettings(
        size=32,
        num_slots=4,
        sigma_background=0.35,
        sigma_foreground=0.3,
        backbone=BackboneSettings(width=8, fpn_channels=12),
        head=HeadSettings(channels=8, bottleneck=10),
        proposals=ProposalSettings(sizes, score_threshold=threshold, batch_size=100_000),
        vae=ComponentVAESettings(latent_dim=3, encoder_channels=(5, 6), encoder_hidden=12, decoder_channels=6),
    )
    torch.manual_seed(0)
    model = perturbed(RMONet(settings))
    images = scenes(2, 32).double()
    numbers = RMonetNumbers(4, 0.3, 0.35, sizes, threshold)

    def reference(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        noise = torch.randn(2, 4, 3, dtype=torch.float64)
        features = model.backbone(images)
        return [
            rmonet_terms(
                image,
                [maps[index] for maps in features.conv],
                [maps[index] for maps in features.pyramid.values()],
                noise[index],
                weights,
                numbers,
            )
            for index, image in enumerate(images)
        ]

    check_parity(model, images, reference)


@pytest.mark.parametrize(("over", "colour", "padding"), [("pixel", "linear", "same"), ("channel", "sigmoid", "valid")])
def test_iodine_is_its_papers_loss_through_all_steps(over, colour, padding, scenes):
    settings = IODINESettings(
        size=12,
        num_slots=3,
        iterations=3,
        latent_dim=4,
        sigma=0.3,
        mixture_over=over,
        latent_weight=0.7,
        decoder_channels=5,
        decoder_layers=3,
        decoder_padding=padding,
        colour=colour,
        refinement=RefinementSettings(channels=(6, 7), hidden=8, lstm=9),
    )
    torch.manual_seed(0)
    model = perturbed(IODINE(settings))
    images = scenes(2, 32)[:, :, 8:20, 8:20].double()

    def reference(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        noise = torch.stack([torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(4)])  # of T + 1 samples
        numbers = IodineNumbers(0.3, 0.7, over, linear=colour == "linear", padded=padding == "same")
        return [iodine_terms(image, noise[:, index], weights, numbers) for index, image in enumerate(images)]

    check_parity(model, images, reference)


SPACE_FOREGROUND = ForegroundSettings(
    grid=4,
    sigma=0.2,
    channels=(4, 8, 8),
    strides=(2, 1, 2),
    features=8,
    glimpse_size=8,
    glimpse_channels=(4, 8),
    glimpse_strides=(1, 2),
    glimpse_hidden=8,
    decoder_channels=(8, 4),
    what_dim=3,
    presence=Annealed(10, 20, 0.2, 0.1),
    scale_mean=Annealed(0, 20, -1.0, -2.0),
    scale_std=0.3,
    temperature=Annealed(0, 20, 2.5, 0.5),
    boundary_width=1,
    boundary_end_step=16,
    fixed_alpha_steps=10,
)
SPACE_BACKGROUND = BackgroundSettings(
    components=3,
    sigma=0.15,
    channels=(4, 8),
    features=8,
    hidden=6,
    mask_dim=3,
    mask_hidden=8,
    mask_channels=(8, 4),
    vae=ComponentVAESettings(latent_dim=2, encoder_channels=(4, 5), encoder_hidden=7, decoder_channels=6),
)
SPACE_AT = {  # step -> annealed values, by hand
    0: {"presence": 0.2, "scale": (-1.0, 0.3), "temperature": 2.5, "alpha": 0.1},
    15: {"presence": 0.15, "scale": (-1.75, 0.3), "temperature": 1.0},
}


@pytest.mark.parametrize(
    ("step", "over", "enlarged", "darkened"),
    [(0, "channel", 2, True), (15, "pixel", 1, True), (0, "channel", 1, False), (15, "pixel", 2, False)],
)
def test_space_is_its_papers_bound_and_the_boundary_loss(step, over, enlarged, darkened, scenes):
    settings = SPACESettings(
        size=16 // enlarged,
        scale=enlarged,
        num_slots=4,
        mixture_over=over,
        foreground=dataclasses.replace(SPACE_FOREGROUND, darkened=darkened),
        background=SPACE_BACKGROUND,
    )
    torch.manual_seed(0)
    model = perturbed(SPACE(settings))
    images = scenes(2, 32)[:, :, 8:24, 8:24][:, :, ::enlarged, ::enlarged].double()

    def reference(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        shapes = {"depth": (16, 1), "scale": (16, 2), "shift": (16, 2), "what": (16, 3)}
        noise = {"presence": torch.rand(2, 16, dtype=torch.float64)}
        noise |= {name: torch.randn(2, *shape, dtype=torch.float64) for name, shape in shapes.items()}
        noise["masks"] = torch.stack([torch.randn(2, 3, dtype=torch.float64) for _ in range(3)], dim=1)
        noise["components"] = torch.randn(2, 3, 2, dtype=torch.float64)
        annealed = SPACE_AT[step]
        numbers = SpaceNumbers(4, 8, 1, sigmas=(0.2, 0.15), darkened=darkened, over=over, **annealed)
        inputs = F.interpolate(images, scale_factor=enlarged, mode="bilinear") if enlarged > 1 else images
        return [
            space_terms(image, {name: values[index] for name, values in noise.items()}, weights, numbers)
            for index, image in enumerate(inputs)
        ]

    check_parity(model, images, reference, step)


LOCALIZATION_NETWORK = AutoencoderSettings(channels=(5, 6), hidden=9, latent_dim=4)


@pytest.mark.parametrize(
    ("changes", "location", "numbers"),
    [
        ({}, {}, {}),
        (
            {
                "masked_reconstruction": False,
                "latent_weight": 0.0,
                "network": dataclasses.replace(LOCALIZATION_NETWORK, skips=True),
            },
            {"learn_shares": True, "remaining_colours": False},
            {"masked": False, "shares": True, "remaining_colours": False},
        ),
        ({"mask_gradient": False}, {}, {"constant_masks": True}),
        ({"background_input": "masked"}, {}, {"masked_background": True}),
        ({"masked_reconstruction": False}, {"method": "none"}, {"masked": False, "located": False}),
    ],
    ids=["VAE", "auto-encoder with skips", "constant masks", "masked background", "L removed"],
)
def test_explicit_localization_is_algorithms_1_and_2_and_equation_1(changes, location, numbers, scenes):
    mask = LocationSettings(region=3, order=3.0, cutoff=4.0, iterations=4, initial_variance=0.2, coordinates=0.6)
    settings = ExplicitLocalizationSettings(
        size=16,
        num_slots=3,
        quality_variance=0.3,
        prior_weight=0.2,
        latent_weight=0.1,
        masked_colour=0.4,
        network=LOCALIZATION_NETWORK,
        location=dataclasses.replace(mask, **location),
    )
    settings = dataclasses.replace(settings, **changes)
    torch.manual_seed(0)
    model = perturbed(ExplicitLocalization(settings))
    images = scenes(2, 32)[:, :, 8:24, 8:24].double()
    reading = Numbers(3, 0.3, 3, 3.0, 4.0, 4, 0.2, 1e-3, 0.6, 0.4, **numbers)

    def reference(weights: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        codes, starts = [], []
        for step in range(4 if reading.masked_background else 3):
            if settings.latent_weight:
                codes.append(torch.randn(2, 4, dtype=torch.float64))
            if step in (1, 2):
                starts.append(torch.rand(2, 1, 5, dtype=torch.float64)[:, 0])
        return [
            explicit_localization_terms(
                image,
                torch.stack(codes)[:, index] if codes else None,
                torch.stack(starts)[:, index],
                weights,
                reading,
            )
            for index, image in enumerate(images)
        ]

    check_parity(model, images, reference)
