"""Pictures out of focus."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.drawing import check_pair, check_range, chosen, pictures, uniform
from poise.data.views.separable import gaussian_weights, separable


def gaussian_blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Return the pictures (B, C, H, W) blurred, each with its standard deviation of `sigma` (B,), in pixels.

    The kernel is cut at four standard deviations; beyond the border the outermost pixel goes on.
    """
    return separable(x, gaussian_weights(sigma, x.shape[2]), gaussian_weights(sigma, x.shape[3]))


@dataclass(frozen=True)
class GaussianBlur:
    """A Gaussian blur of uniform standard deviation, in pixels, of samples chosen with this probability.

    The published views blur by pillow, which replaces the Gaussian by three boxes; this is the Gaussian itself.
    """

    sigma: tuple[float, float] = (0.1, 2.0)
    probability: float = 0.5

    def __post_init__(self) -> None:
        check_pair("GaussianBlur", "sigma", self.sigma, 1e-3)
        check_range("GaussianBlur", "probability", self.probability, 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each picture (B, C, H, W), or its blurred form."""
        x = pictures("GaussianBlur", x)
        sigma = uniform(*self.sigma, len(x), generator, x)
        rows = chosen(self.probability, len(x), generator, x).nonzero().squeeze(1)
        if not len(rows):
            return x
        return x.index_copy(0, rows, gaussian_blur(x[rows], sigma[rows]))
