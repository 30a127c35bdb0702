"""A backtracking line search whose trials are ordinary evaluations of the loop."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SHORTEST_STEP = 1.0 / 64.0


@dataclass(frozen=True)
class LineSearch:
    """The point that a search starts from, its direction, and the length tried last.

    A length t is taken when |g(z + t p)| <= (1 - 1e-4 t) |g(z)| (Armijo's condition), and halved otherwise.
    """

    base: Tensor  # (batch, groups, features)
    direction: Tensor  # (batch, groups, features)
    norm: Tensor  # (batch, groups), |g| at the base; infinite where nothing is being searched
    length: Tensor  # (batch, groups)

    @staticmethod
    def begin(z: Tensor) -> LineSearch:
        """Return a search of nothing."""
        infinite = torch.full(z.shape[:2], float("inf"), dtype=z.dtype, device=z.device)
        return LineSearch(torch.zeros_like(z), torch.zeros_like(z), infinite, torch.ones_like(infinite))

    def refused(self, norm: Tensor) -> Tensor:
        """Return the groups (batch, groups) whose last trial is refused, |g| being `norm` there."""
        return (norm > (1 - 1e-4 * self.length) * self.norm) & (self.length > SHORTEST_STEP)

    def follow(self, refused: Tensor, z: Tensor, direction: Tensor, norm: Tensor) -> tuple[Tensor, LineSearch]:
        """Return the next trial: half as far along the old direction where refused, all of the new one elsewhere."""
        wide = refused.unsqueeze(-1)
        base, direction = torch.where(wide, self.base, z), torch.where(wide, self.direction, direction)
        length = torch.where(refused, self.length / 2, 1.0)
        search = LineSearch(base, direction, torch.where(refused, self.norm, norm), length)
        return base + length.unsqueeze(-1) * direction, search


def residual_norm(g: Tensor, valid: Tensor | None, scope: str) -> Tensor:
    """Return |g| of each group, (batch, groups); by prefix, of everything up to it."""
    squares = (g if valid is None else torch.where(valid > 0, g, 0.0)).square().sum(dim=-1)
    return (squares.cumsum(dim=1) if scope == "prefix" else squares).sqrt()
