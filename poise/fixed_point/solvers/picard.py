"""Picard iteration: the cell applied again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver


@dataclass(frozen=True, kw_only=True)
class Picard(Solver):
    """z' = (1 - damping) z + damping f(z), which converges where the cell contracts.

    `damping`: in (0, 2); 1 is the plain iteration, less helps where the Jacobian has negative eigenvalues.
    """

    damping: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping < 2:
            raise ValueError(f"Picard(damping={self.damping}) does not iterate; pass a number in (0, 2).")

    def init(self, z: Tensor) -> Any:
        """Return no memory."""
        return ()

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return the damped image."""
        return (fz if self.damping == 1.0 else torch.lerp(z, fz, self.damping)), memory
