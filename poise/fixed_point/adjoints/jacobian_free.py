"""The Jacobian-free (one-step) gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from poise.fixed_point.adjoints.base import Adjoint, Attachment, derivatives_wanted, detached_state, on_usable_rows
from poise.fixed_point.packed import PackedCell


@dataclass(frozen=True)
class JacobianFree(Adjoint):
    """Differentiate the last evaluation only: (I - J^T)^-1 is replaced by I (Fung et al. 2022).

    A descent direction where the cell contracts; not the gradient.
    """

    @property
    def records(self) -> bool:
        """Whether gradients go through recorded operations alone."""
        return True

    def attach(self, attachment: Attachment) -> Any:
        """Return the cell's output at the detached state, evaluated once with a graph."""
        if not derivatives_wanted():
            return detached_state(attachment)

        def attach(cell: PackedCell, z: Tensor, fz: Tensor) -> Tensor:
            return cell(z.detach())

        attachment.ledger.tally.solves += 1
        attachment.ledger.tally.evaluations += 1
        return on_usable_rows(attachment, attach)
