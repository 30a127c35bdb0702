"""Broyden's good method with a bounded history, a step length and a line search."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.solvers.line_search import LineSearch, residual_norm
from poise.fixed_point.solvers.secant import (
    SecantInverse,
    SecantMemory,
    empty_memory,
    inverse,
    mixing_weights,
    move,
    multiplied,
    remember,
)


@dataclass(frozen=True)
class BroydenMemory:
    """The pairs, and the line search where there is one."""

    pairs: SecantMemory
    search: LineSearch | None


@dataclass(frozen=True, kw_only=True)
class Broyden(Solver):
    """z' = z + step_length p with B p = g, B updated by rank one from each pair (Broyden 1965, good update).

    `history`: pairs kept; dropping the oldest leaves the exact update of the others. `step_length`: in (0, 1].
    `line_search`: halve the step until Armijo's condition |g(z + t p)| <= (1 - 1e-4 t) |g(z)| holds, a trial being one
    evaluation of the live samples like any other.
    """

    history: int = 30
    step_length: float = 1.0
    line_search: bool = False

    # Growth passes on non-normal cells, where each restart costs Broyden its history.
    restart_growth: ClassVar[float] = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.history < 1:
            raise ValueError(f"Broyden(history={self.history}) remembers nothing; pass at least 1, or use Picard.")
        if not 0 < self.step_length <= 1:
            raise ValueError(f"Broyden(step_length={self.step_length}) does not move; pass a number in (0, 1].")

    def init(self, z: Tensor) -> BroydenMemory:
        """Return an empty history, no longer than the budget can fill."""
        pairs = empty_memory(z, max(1, min(self.history, self.max_steps - 1)), "broyden")
        return BroydenMemory(pairs, LineSearch.begin(z) if self.line_search else None)

    def restart(self, memory: Any, mask: Tensor, z: Tensor) -> BroydenMemory:
        """Return the memory with the groups of the mask empty."""
        memory = super().restart(memory, mask, z)
        return replace(memory, pairs=replace(memory.pairs, restarted=True))

    def inverse(self, memory: Any) -> SecantInverse:
        """Return Broyden's inverse."""
        return inverse(memory.pairs, "broyden", self.scope)

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the quasi-Newton iterate, or a shorter step from the same base where the search goes on."""
        g = fz - z
        pairs = remember(memory.pairs, fz, g, valid)
        moved = fz
        if pairs.step > 1:
            pairs = multiplied(pairs, self.scope, "broyden")
            moved = move(z, fz, pairs, mixing_weights(pairs, "broyden"))
        if self.step_length != 1.0:
            moved = torch.lerp(z, moved, self.step_length)
        if memory.search is None:
            return moved, BroydenMemory(pairs, None)
        norm = residual_norm(g, valid, self.scope)
        moved, search = memory.search.follow(memory.search.refused(norm), z, moved - z, norm)
        return moved, BroydenMemory(pairs, search)
