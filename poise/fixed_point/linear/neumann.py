"""The truncated Neumann series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from poise.fixed_point.linear.base import FixedPointLinear
from poise.fixed_point.loop import Iterate
from poise.fixed_point.solvers.picard import Picard


@dataclass(frozen=True, kw_only=True)
class Neumann:
    """u = sum over i = 0..terms of (J^T)^i b: a fixed budget of products, no test (Geng et al. 2021, equation 8)."""

    terms: int = 5

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise ValueError(f"Neumann(terms={self.terms}) makes no product; pass at least 1, or use JacobianFree().")

    def solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Iterate:
        """Return the partial sum; the residual is its last term's size."""
        return FixedPointLinear(Picard(rtol=None, max_steps=self.terms)).solve(product, b)
