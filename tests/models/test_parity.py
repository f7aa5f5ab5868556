"""Each model's loss against a reference written anew from its paper (`references`), and the two's gradients.

The references know one image, loop over slots, cells and steps, and share with the model the names of the weights and
the order in which noise is drawn. Everything is float64, so that what differs is the computation and not the rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tests.models.references.iodine import iodine_terms
from tests.models.references.monet import monet_terms
from unscene.blocks.attention_unet import AttentionUNetSettings
from unscene.blocks.component_vae import ComponentVAESettings
from unscene.blocks.refinement_network import RefinementSettings
from unscene.models.iodine import IODINE, IODINESettings
from unscene.models.monet import MONet, MONetSettings

RELATIVE = 1e-6


def perturbed(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model in float64, with no weight left at a round number such as a bias of 0, where a slip would not show."""
    torch.manual_seed(seed)
    model.double()
    for each in model.parameters():
        each.data += 0.05 * torch.randn_like(each)
    return model


def check_parity(
    model: nn.Module, images: Tensor, reference: Callable[[dict[str, Tensor]], list[dict[str, Tensor]]], step: int = 0
) -> None:
    """Compare every term of every image, the total, and its gradient by every parameter.

    Args:
        model: in float64.
        images: [B, 3, H, W] float64.
        reference: weights -> the terms of each image; it draws its noise from the seeded generator.
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
    of_model = torch.autograd.grad(losses.total.sum(), parameters)
    of_reference = torch.autograd.grad(total, parameters)
    for name, ours, theirs in zip(names, of_model, of_reference, strict=True):
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


@pytest.mark.parametrize(
    ("over", "read", "colour", "padding"),
    [("pixel", "plain", "linear", "same"), ("channel", "log", "sigmoid", "valid")],
)
def test_iodine_is_its_papers_loss_through_all_steps(over, read, colour, padding, scenes):
    settings = IODINESettings(
        size=12,
        num_slots=3,
        iterations=3,
        latent_dim=4,
        sigma=0.3,
        mixture_over=over,
        likelihood_inputs=read,
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
        return [
            iodine_terms(image, noise[:, index], weights, 0.3, 0.7, over, read, colour == "linear", padding == "same")
            for index, image in enumerate(images)
        ]

    check_parity(model, images, reference)
