"""The gradient of the solver's own steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from poise.fixed_point.adjoints.base import Adjoint, Attachment, derivatives_wanted, detached_state, on_usable_rows
from poise.fixed_point.loop import Iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers import Solver


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Record every evaluation of the solve and differentiate through them: exact for the budget, memory grows with it.

    `checkpoint`: keep only the states and evaluate again in the backward (Chen et al. 2016). What was evaluated is
    differentiated, so a sample that turns NaN spoils the parameters' gradient here.
    """

    checkpoint: bool = False

    records_solve: ClassVar[bool] = True

    def find(self, cell: PackedCell, z: Tensor, solver: Solver, **options: Any) -> Iterate:
        """Solve with every evaluation recorded."""
        if derivatives_wanted():
            if not solver.recordable:
                name = type(solver).__name__
                raise ValueError(f"{self} cannot record the steps of {name}; use Implicit() or Phantom().")
            if self.checkpoint:
                cell = replace(cell, f=partial(checkpoint, cell.f, use_reentrant=False))
        return super().find(cell, z, solver, **options)

    def attach(self, attachment: Attachment) -> Any:
        """Return the state; the solve was recorded."""
        if torch.is_grad_enabled():
            attachment.ledger.tally.solves += 1
            attachment.ledger.tally.evaluations += attachment.found.evaluations
            if not len(attachment.found.z):  # nothing was stored of no samples, but a backward from it must not fail
                return on_usable_rows(attachment, lambda cell, z, fz: cell(z))
        return detached_state(attachment)
