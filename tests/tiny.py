"""Settings under which recipes and models train a step in milliseconds."""

from __future__ import annotations

from typing import Any

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
    "trainer.batch_size": 4,
    "trainer.max_steps": 6,
    "trainer.log_every": 2,
    "trainer.precision": "float32",
    "trainer.accelerator": "cpu",
    "trainer.threads": 1,
}
