"""What a linear solver of the backward is given and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from poise.fixed_point.loop import Iterate, iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.state import Layout

Product = Callable[[Tensor], Tensor]


@runtime_checkable
class LinearSolver(Protocol):
    """Solves u - J^T u = b for every sample, given u -> J^T u on (batch, features)."""

    def solve(self, product: Product, b: Tensor) -> Iterate:
        """Return the solution as `fz`, with statuses; the residual is |b - u + J^T u| / |b|."""
        ...


@dataclass(frozen=True)
class FixedPointLinear:
    """Any fixed-point solver as a linear solver: u = J^T u + b, from u = b."""

    solver: Solver

    def solve(self, product: Product, b: Tensor) -> Iterate:
        """Run the solver's loop on the affine map; every sample stays in the batch."""
        start = b.unsqueeze(1)
        layout = Layout.of(start)
        cell = PackedCell(
            lambda u: product(u.squeeze(1)).unsqueeze(1) + start, layout, None, False, takes_context=False
        )
        return _flat(iterate(cell, layout.pack(start), self.solver))


def _flat(found: Iterate) -> Iterate:
    return Iterate(**{**vars(found), "z": found.z.flatten(1), "fz": found.fz.flatten(1)})


def as_linear(solver: Solver | LinearSolver) -> LinearSolver:
    """Return a linear solver; a fixed-point solver becomes one on the affine map."""
    if not isinstance(solver, Solver):
        return solver
    if solver.scope != "sample":
        raise ValueError(
            f"the backward mixes whole samples, but {solver} has scope={solver.scope!r}; pass one with scope='sample'."
        )
    return FixedPointLinear(solver)
