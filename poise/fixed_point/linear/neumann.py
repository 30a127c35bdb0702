"""The truncated Neumann series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.fixed_point.linear.base import FixedPointLinear
from poise.fixed_point.loop import Iterate
from poise.fixed_point.options import check_options
from poise.fixed_point.solvers.picard import Picard


@dataclass(frozen=True)
class Neumann:
    """u = d * sum over i = 0..terms of (d J^T + (1 - d) I)^i b, d the damping: a fixed budget of products, no test.

    Geng et al. (2021), equation 8. A damping below 1 helps where J has eigenvalues near -1 or below.
    """

    terms: int = 5
    damping: float = 1.0

    def __post_init__(self) -> None:
        check_options(self)
        if self.terms < 1:
            raise ValueError(f"Neumann(terms={self.terms}) makes no product; pass at least 1, or use JacobianFree().")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Neumann(damping={self.damping}) sums nothing; pass a number in (0, 1].")

    def solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Iterate:
        """Return the partial sum; the residual is its last term's size."""
        series = FixedPointLinear(Picard(rtol=None, max_steps=self.terms))
        if self.damping == 1.0:
            return series.solve(product, b)
        return series.solve(lambda u: torch.lerp(u, product(u), self.damping), self.damping * b)
