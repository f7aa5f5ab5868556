"""Small settings: a recipe and every registered model, to train a step in milliseconds."""

from __future__ import annotations

import dataclasses
from typing import Any

from unscene.models.common.annealing import WarmupSettings
from unscene.models.common.component_vae import ComponentVAESettings
from unscene.models.explicit_localization.autoencoder import AutoencoderSettings
from unscene.models.explicit_localization.location_mask import LocationSettings
from unscene.models.explicit_localization.model import ExplicitLocalizationSettings
from unscene.models.iodine.model import IODINESettings
from unscene.models.iodine.refinement_network import RefinementSettings
from unscene.models.monet.attention_unet import AttentionUNetSettings
from unscene.models.monet.model import MONetSettings
from unscene.models.redo.model import ReDOSettings
from unscene.models.rmonet.model import RMONetSettings
from unscene.models.rmonet.settings import BackboneSettings, HeadSettings, ProposalSettings
from unscene.models.space.settings import BackgroundSettings, ForegroundSettings, SPACESettings

RECIPE: dict[str, Any] = {
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
    "schedule.cycle_growth": 1,
    "schedule.restart_factor": 1,
    "trainer.keep_best_by": "ari_fg",
    "trainer.batch_size": 4,
    "trainer.max_steps": 6,
    "trainer.log_every": 2,
    "trainer.precision": "float32",
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}

SIZE = 64


def tiny_rmonet(kind: str) -> RMONetSettings:
    return RMONetSettings(
        size=SIZE,
        num_slots=4,
        backbone=BackboneSettings(width=8, fpn_channels=16),
        head=HeadSettings(kind=kind, channels=8, bottleneck=16, align_size=7),
        proposals=ProposalSettings(score_threshold=0.0),  # an untrained network is sure of nothing
        vae=ComponentVAESettings(
            latent_dim=4,
            encoder_channels=(8, 8, 16),
            encoder_hidden=32,
            encoder_input="masked_image_and_mask",
            decoder_channels=8,
            decoder_layers=2,
            decoder_padding="same",
            decoder_stride=2,
        ),
    )


def tiny_of_regions() -> RMONetSettings:
    whole = tiny_rmonet("unet")
    vae = dataclasses.replace(whole.vae, encoder_region="roi", decoder_region="roi", roi_size=16)
    return dataclasses.replace(whole, vae=vae, skip_empty_slots=True, masks="posterior")


def tiny_explicit_localization(skips: bool = False, **changes: Any) -> ExplicitLocalizationSettings:
    network = AutoencoderSettings(channels=(8, 8, 16), hidden=32, latent_dim=6, skips=skips)
    return ExplicitLocalizationSettings(size=SIZE, num_slots=4, network=network, **changes)


def tiny_monet(kind: str | None = None) -> MONetSettings:
    whole = tiny_rmonet(kind or "unet")
    return MONetSettings(
        size=SIZE,
        num_slots=4,
        attention="resnet_fpn" if kind else "unet",
        unet=AttentionUNetSettings(channels=(8, 8, 16), hidden=16),
        backbone=whole.backbone,
        head=whole.head,
        vae=whole.vae,
    )


def tiny_redo() -> ReDOSettings:
    return ReDOSettings(
        size=SIZE,
        latent_dim=6,
        mask_channels=8,
        mask_blocks=1,
        generator_channels=4,
        discriminator_channels=4,
        code_channels=4,
        attention=False,  # whose weights get no gradient before its gamma, which begins at 0, has moved
    )


def tiny_iodine(pooling: str = "average", **changes: Any) -> IODINESettings:
    refinement = RefinementSettings(channels=(8, 8, 8), pooling=pooling, hidden=16, lstm=16)
    small = {"num_slots": 4, "iterations": 2, "latent_dim": 6, "decoder_channels": 8, "decoder_layers": 2}
    return IODINESettings(size=SIZE, refinement=refinement, **small | changes)


def tiny_space(**changes: Any) -> SPACESettings:
    foreground = ForegroundSettings(
        grid=4,
        channels=(8, 8, 16, 16),
        strides=(2, 2, 2, 2),
        features=16,
        glimpse_size=8,
        glimpse_channels=(8, 8),
        glimpse_strides=(2, 2),
        glimpse_hidden=16,
        decoder_channels=(8, 8),
        what_dim=4,
    )
    background = BackgroundSettings(
        components=3,
        channels=(8, 8, 8, 8),
        features=8,
        hidden=8,
        mask_dim=4,
        mask_hidden=16,
        mask_channels=(8, 8, 8),
        vae=ComponentVAESettings(latent_dim=4, encoder_channels=(8, 8, 8), encoder_hidden=16, decoder_channels=8),
    )
    return SPACESettings(
        **{"size": SIZE, "scale": 1, "num_slots": 4, **changes}, foreground=foreground, background=background
    )


def tiny_enlarged_space() -> SPACESettings:
    whole = tiny_space(mixture_over="channel")
    foreground = dataclasses.replace(whole.foreground, grid=8, boundary_width=0)
    return dataclasses.replace(whole, scale=2, foreground=foreground, masks="posterior")


def our_tiny_space() -> SPACESettings:
    """With all that our recipes set and the paper's do not."""
    whole = tiny_space()
    ours = {"darkened": False, "glimpse_norm": False, "init": "kaiming", "initial_presence": 0.1}
    return dataclasses.replace(whole, foreground=dataclasses.replace(whole.foreground, weigh_by_presence=True, **ours))


# model -> variant -> settings small enough for a test, with a field `num_slots`
MODELS: dict[str, dict[str, Any]] = {
    "explicit_localization": {
        "paper": tiny_explicit_localization(quality_variance=0.3),
        "skips": tiny_explicit_localization(skips=True, latent_weight=0.0, quality_variance=0.3),
        "constant masks": tiny_explicit_localization(
            quality_variance=0.3, mask_gradient=False, background_input="masked"
        ),
        "ours": tiny_explicit_localization(
            explained="location",
            residual="norm",
            object_quality_variance=0.5,
            stop_below=8.0,
            location=LocationSettings(
                components=3, initial_means="centre", learn_shares=True, window_shifts=1, weigh_remaining=True
            ),
        ),
    },
    "iodine": {
        "paper": tiny_iodine(decoder_padding="valid", colour="linear", iterations=3, sigma=0.3),
        "checkpointing": tiny_iodine(checkpointing=True),
        "by channel": tiny_iodine(mixture_over="channel", latent_weight=0.5, coordinates="cosine", decoder_kernel=5),
        "compact": tiny_iodine(pooling="flatten", decoder_stride=4, masks="posterior"),
    },
    "monet": {
        "unet": tiny_monet(),
        "resnet and pyramid": tiny_monet("lite"),
        "resnet, pyramid and unet": tiny_monet("unet"),
        "ours": dataclasses.replace(
            tiny_monet(),
            masks="posterior",
            background_cells=2,
            warmup=WarmupSettings(steps=15),
            unet=AttentionUNetSettings(channels=(8, 8, 16), hidden=16, patch=2),
        ),
    },
    "redo": {
        "two regions": tiny_redo(),
        "three regions": dataclasses.replace(tiny_redo(), num_slots=3),
    },
    "rmonet": {kind: tiny_rmonet(kind) for kind in ("unet", "lite", "roi_align")} | {"regions": tiny_of_regions()},
    "space": {"as it is": tiny_space(), "enlarged": tiny_enlarged_space(), "ours": our_tiny_space()},
}
