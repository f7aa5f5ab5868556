"""Objects stay within their boxes: what a box's border sees of the foreground is penalised (SPACE, Appendix)."""

from __future__ import annotations

from torch import Tensor

from unscene.errors import check_shape

STRENGTH = 1000 / 32**2  # of the border of a box whose object is there; these two are the authors' numbers
SPREAD = 0.7


def boundary_loss(borders: Tensor, alpha: Tensor) -> Tensor:
    """Return the sum over the pixels of -log N(o; 0, 0.7) without its constant, o = .977 alpha sum_n border_n.

    An object that reaches the border of its own box pays for it, and so the box grows. So does one that crosses
    another's border.

    Args:
        borders: [B, 1, H, W], sum_n border_n: of the boxes' borders on the image, each times the box's presence.
        alpha: [B, 1, H, W] of the foreground.

    Returns:
        [B].

    Raises:
        ShapeError: axes that do not fit together.
    """
    size = check_shape(borders, "B 1 H W", "borders")
    check_shape(alpha, f"{size['B']} 1 {size['H']} {size['W']}", "alpha")
    overlap = STRENGTH * borders * alpha
    return (overlap / SPREAD).square().sum(dim=(1, 2, 3)) / 2
