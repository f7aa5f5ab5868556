"""How near the mixed components come to the image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import log10

from torch import Tensor

from unscene.errors import TrainingError, check_shape
from unscene.metrics import mean_of_counted
from unscene.scene import Decomposition, Scene

LEAST_ERROR = 1e-10  # a perfect reconstruction counts 100 dB, not infinitely many


def squared_error(images: Tensor, decomposition: Decomposition) -> Tensor:
    """The squared error of the reconstruction, mean over pixels and channels.

    Args:
        images: [B, 3, H, W] in [0, 1].
        decomposition: of the same images; it is mixed in float32 whatever its precision, and is not clipped to [0, 1].

    Returns:
        [B] float32.

    Raises:
        ShapeError: the decomposition is of other images.
        TrainingError: a reconstruction is not finite.
    """
    exact = replace(
        decomposition, log_masks=decomposition.log_masks.float(), components=decomposition.components.float()
    )
    mixed = exact.reconstruction()
    check_shape(images, " ".join(str(size) for size in mixed.shape), "images")
    error = (mixed - images.to(mixed.device)).square().mean(dim=(1, 2, 3))
    broken = int((~error.isfinite()).sum())
    if broken:
        raise TrainingError(
            f"The reconstructions of {broken} of {len(images)} images are not finite, and have no metric. "
            "The model's weights are broken: go back to an earlier checkpoint, or lower the learning rate."
        )
    return error


@dataclass
class ReconstructionError:
    """Error of the reconstruction, for each image and then the mean over images.

    reconstruction_mse: mean squared error of a pixel and channel.
    reconstruction_psnr: -10 log10 of it, in dB, for a peak of 1; at most 100 for an image. `per_image` gives this one.
    """

    errors: list[float] = field(default_factory=list, init=False)

    def update(self, scene: Scene, decomposition: Decomposition) -> None:
        self.errors += squared_error(scene.images, decomposition).tolist()

    def compute(self) -> dict[str, float | int | None]:
        return {
            "reconstruction_mse": mean_of_counted(self.errors),
            "reconstruction_psnr": mean_of_counted(self.per_image()),
        }

    def per_image(self) -> list[float | None]:
        return [-10 * log10(max(error, LEAST_ERROR)) for error in self.errors]

    def merge(self, other: ReconstructionError) -> None:
        self.errors += other.errors
