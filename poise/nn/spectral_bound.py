"""A weight whose largest singular value is kept from exceeding a bound."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

START_ITERATIONS = 30  # of the vectors that begin at random


class SpectralBound(nn.Module):
    """W / max(1, s / bound), s the largest singular value of W as a matrix of its first dimension.

    A weight within the bound is left as it is. s is found by a power iteration, which ends below it by a little while W
    moves fast; it goes on from where the last training step ended, in evaluation mode without keeping what it finds, so
    that weights that have moved since are bounded too. The gradient of s is exact for the vectors found. Gouk, Frank,
    Pfahringer and Cree (2021), "Regularisation of neural networks by enforcing Lipschitz continuity".
    """

    right: Tensor

    def __init__(self, weight: Tensor, bound: float, n_power_iterations: int = 10) -> None:
        super().__init__()
        if not bound > 0:
            raise ValueError(f"bound={bound} leaves nothing of the weight; pass a number above 0, such as 0.9.")
        if n_power_iterations < 1:
            raise ValueError(f"n_power_iterations={n_power_iterations} never follows the weight; pass at least 1.")
        self.bound = bound
        self.n_power_iterations = n_power_iterations
        matrix = weight.detach().flatten(1)
        start = F.normalize(torch.randn_like(matrix[0]), dim=0)
        self.register_buffer("right", _iterated(matrix, start, START_ITERATIONS)[1])

    def forward(self, weight: Tensor) -> Tensor:
        """Return the bounded weight."""
        matrix = weight.flatten(1)
        with torch.autocast(weight.device.type, enabled=False):
            left, right = _iterated(matrix.detach(), self.right, self.n_power_iterations)
            if self.training:
                self.right.copy_(right)
            largest = torch.dot(left, matrix @ right)
        return weight / (largest / self.bound).clamp_min(1.0)

    def extra_repr(self) -> str:
        """Return the bound."""
        return f"bound={self.bound}"


@torch.no_grad()
def _iterated(matrix: Tensor, right: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """Return the left and the right singular vector that the power iteration reaches."""
    for _ in range(times):
        left = F.normalize(matrix @ right, dim=0)
        image = F.normalize(matrix.t() @ left, dim=0)
        right = torch.where(image.any(), image, right)  # a zero matrix says nothing, and may not stay one
    return left, right
