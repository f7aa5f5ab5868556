"""What a training shows of each validation: a figure of the same scenes, the health verdict, the scores."""

from __future__ import annotations

import io

from torch import Tensor
from tqdm import tqdm

from unscene.files import write_bytes, write_text
from unscene.report.slots import sample_figure
from unscene.runs.run_folder import RunFolder
from unscene.scene import Decomposition, Scene
from unscene.training.validation import ValidationResult

SAMPLES = 8  # images in a figure


class Samples:
    """The sample figure and the health verdict after each validation, always of the same scenes.

    Args:
        run: where the files go.
        batch: of the validation; its first images are shown.
    """

    def __init__(self, run: RunFolder, batch: dict[str, Tensor]) -> None:
        self.run = run
        self.images = Scene.from_batch(batch).images[:SAMPLES]

    def write(
        self, step: int, decomposition: Decomposition, result: ValidationResult, observed: dict[str, Tensor]
    ) -> None:
        """Write the figure and health.txt, and print the scores.

        Args:
            step: of the validation.
            decomposition: of `images`.
            result: of the validation.
            observed: what the last training batch had besides its loss, by name: [B] each.
        """
        verdict = result.health.verdict() + "".join(
            f", {name.replace('_', ' ')} {float(values.float().mean()):.1f} an image"
            for name, values in observed.items()
        )
        figure = sample_figure(self.images, decomposition, f"step {step:,}   {verdict}")
        content = io.BytesIO()
        figure.savefig(content, format="png")
        write_bytes(self.run.samples / f"step_{step:07d}.png", content.getbuffer())
        write_text(self.run.health, f"step {step}: {verdict}\n")
        scores = ", ".join(f"{name.removeprefix('val/')} {value:.3f}" for name, value in result.scores.items())
        tqdm.write(f"step {step:,}: {scores}\n  health: {verdict}")
