"""Anderson acceleration in differences, of both types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver
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


@dataclass(frozen=True, kw_only=True)
class Anderson(Solver):
    """z' = z + damping g - (dX + damping dG) gamma, with g = f(z) - z and weights gamma from the last differences.

    `history`: differences kept. `form`: `type1` solves dX^T dG gamma = dX^T g (multisecant good Broyden), which needs
    the fewest evaluations where the cell hardly contracts or does not; `type2` minimises |g - dG gamma|, which costs
    less a step. `damping`: in (0, 1]. `period`: mix at every so many evaluations and take z' = z + damping g between
    them, while every difference is kept: about as many evaluations where the cell contracts, for a third of the small
    systems; 1 where it does not. Walker and Ni (2011); Fang and Saad (2009), "Two classes of multisecant methods";
    Pratapa, Suryanarayana and Pask (2016), "Anderson acceleration of the Jacobi iterative method".
    """

    history: int = 10
    form: Literal["type1", "type2"] = "type1"
    damping: float = 1.0
    period: int = 3

    # Growth by tens passes on non-normal and expansive cells, where each restart costs the history that finds the way.
    restart_growth: ClassVar[float] = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.history < 1:
            raise ValueError(f"Anderson(history={self.history}) remembers nothing; pass at least 1, or use Picard.")
        if self.form not in ("type1", "type2"):
            raise ValueError(f"Anderson(form={self.form!r}) is unknown; pass 'type1' or 'type2'.")
        if self.period < 1:
            raise ValueError(f"Anderson(period={self.period}) never mixes; pass at least 1.")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Anderson(damping={self.damping}) does not iterate; pass a number in (0, 1].")

    def init(self, z: Tensor) -> SecantMemory:
        """Return an empty history, no longer than the budget can fill."""
        return empty_memory(z, max(1, min(self.history, self.max_steps - 1)), self.form)

    def restart(self, memory: Any, mask: Tensor, z: Tensor) -> SecantMemory:
        """Return the memory with the groups of the mask empty."""
        return replace(super().restart(memory, mask, z), restarted=True)

    def inverse(self, memory: Any) -> SecantInverse:
        """Return the multisecant inverse of the differences remembered."""
        return inverse(multiplied(memory, self.scope, self.form), self.form, self.scope)

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the mixed iterate; the first step is Picard's."""
        memory = remember(memory, fz, fz - z, valid)
        # A history that is shorter than the period would lose differences unused.
        if memory.step < 2 or (memory.step - 1) % min(self.period, memory.dg.shape[2]):
            return (fz if self.damping == 1.0 else torch.lerp(z, fz, self.damping)), memory
        memory = multiplied(memory, self.scope, self.form)
        return move(z, fz, memory, mixing_weights(memory, self.form), self.damping), memory
