"""The gradient of the solver's own steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from poise.fixed_point.adjoints.base import Adjoint, Attachment, derivatives_wanted, detached_state, on_usable_rows
from poise.fixed_point.checks import repeats
from poise.fixed_point.loop import Iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers import Solver
from poise.fixed_point.tree import tree_map


@dataclass(frozen=True)
class Unrolled(Adjoint):
    """Record every evaluation of the solve and differentiate through them: exact for the budget, memory grows with it.

    `checkpoint`: keep only the states and the cell's outputs and evaluate again in the backward (Chen et al. 2016),
    which raises RuntimeError where the cell no longer gives what it gave: weights that were changed since, or that
    `functional_call` has put back. What was evaluated is differentiated, so a sample that turns NaN spoils the
    parameters' gradient here.
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
                cell = replace(cell, f=_checkpointed(cell))
        return super().find(cell, z, solver, **options)

    def attach(self, attachment: Attachment) -> Any:
        """Return the state; the solve was recorded."""
        if torch.is_grad_enabled():
            attachment.ledger.tally.solves += 1
            attachment.ledger.tally.evaluations += attachment.found.evaluations
            if not len(attachment.found.z):  # nothing was stored of no samples, but a backward from it must not fail
                return on_usable_rows(attachment, lambda cell, z, fz: cell(z))
        return detached_state(attachment)


def _checkpointed(cell: PackedCell) -> Callable[..., Any]:
    """Return the cell's function, evaluated again in the backward and compared with what it gave before."""

    def evaluate(*arguments: Any) -> Any:
        before: list[Any] = []

        def compared(*arguments: Any) -> Any:
            out = cell.f(*arguments)
            if not before:
                before.append(tree_map(Tensor.detach, out))
            elif not repeats(cell, *(cell.layout.pack(state).detach() for state in (out, before[0]))):
                raise RuntimeError(
                    "Unrolled(checkpoint=True) evaluated the cell again in the backward and it gave something else: "
                    "its weights were changed since, or put back by functional_call; use Unrolled() or Implicit()."
                )
            return out

        with set_checkpoint_early_stop(False):  # else what is evaluated again ends before there is an image
            return checkpoint(compared, *arguments, use_reentrant=False)

    return evaluate
