"""The implicit gradient: exact at the fixed point, at the memory of one evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.adjoints.base import (
    Adjoint,
    Attachment,
    derivatives_wanted,
    detached_state,
    on_usable_rows,
)
from poise.fixed_point.adjoints.implicit_function import attach_dual, attach_implicit
from poise.fixed_point.dual import in_dual_level
from poise.fixed_point.linear import GMRES, LinearSolver, as_linear
from poise.fixed_point.loop import Iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solution import Status
from poise.fixed_point.solvers import Solver
from poise.fixed_point.solvers.secant import SecantInverse
from poise.fixed_point.transforms import in_transform
from poise.fixed_point.tree import tree_leaves, tree_replace


@dataclass(frozen=True)
class Implicit(Adjoint):
    """Solve (I - J^T) u = g in the backward and pass u through one evaluation (implicit function theorem).

    `solver`: `GMRES()`, `BiCGSTAB()`, `Dense()`, `Neumann()` or any fixed-point solver. With a context, samples
    that are finished leave the backward, for which the cell is evaluated anew on those that remain. Memory does not
    grow with the number of evaluations. Second order is exact for the context and the parameters named; what the cell
    closes over otherwise is refused there (and differentiated like anything else in first order). `reuse`: start GMRES
    from the inverse Jacobian that Broyden (or Anderson) has learnt in the forward, transposed, and precondition with
    it, where that is the better start (SHINE, Ramzi et al. 2022); its pairs stay in memory until the backward. In
    forward mode (`torch.autograd.forward_ad`, `torch.func.jvp`) the same solver finds the tangent v = J v + df, and its
    gradient is exact as well. `second_order=False`: the backward is never recorded, as in ordinary training, and what
    only second derivatives need of the context is not held for it. Bai, Kolter and Koltun (2019), theorem 1.
    """

    solver: Solver | LinearSolver = GMRES()
    reuse: bool = False
    second_order: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.solver, type) or not isinstance(self.solver, Solver | LinearSolver):
            raise TypeError(
                f"Implicit(solver={self.solver!r}) cannot solve the backward; pass GMRES(), Neumann() or a solver."
            )
        as_linear(self.solver)
        if self.reuse and not isinstance(self.solver, GMRES):
            raise TypeError(
                f"Implicit(reuse=True) starts and preconditions a Krylov method, not {self.solver}; pass GMRES()."
            )

    def find(self, cell: PackedCell, z: Tensor, solver: Solver, **options: Any) -> Iterate:
        """Solve without a graph; keep the solver's inverse where it shall be used again."""
        if not self.reuse:
            return super().find(cell, z, solver, **options)
        if type(solver).inverse is Solver.inverse:
            raise ValueError(f"{self} reuses what the forward has learnt, but {solver} learns nothing; pass Broyden().")
        return super().find(cell, z, solver, keep_inverse=derivatives_wanted(), **options)

    def attach(self, attachment: Attachment) -> Any:
        """Return the solve's own output with the implicit gradient."""
        if not derivatives_wanted():
            return detached_state(attachment)

        def attach(cell: PackedCell, at: tuple[Tensor, SecantInverse | None], fz: Tensor) -> Tensor:
            z, inverse = at
            leaves = [leaf for _, leaf in tree_leaves(cell.context)]
            named = [leaf for leaf in leaves if leaf.requires_grad]
            # Each tensor once, however often it is named: its gradient would be returned as often.
            known = list({id(leaf): leaf for leaf in (*named, *attachment.parameters)}.values())
            place = {id(leaf): number for number, leaf in enumerate(known)}

            def evaluate(z: Tensor, given: Sequence[Tensor]) -> Tensor:
                # The context's tensors are put in by place; the parameters are used by the cell itself.
                context = [given[place[id(leaf)]] if leaf.requires_grad else leaf for leaf in leaves]
                return replace(cell, context=tree_replace(cell.context, iter(context)))(z)

            if in_dual_level() or in_transform():
                return attach_dual(self.solver, attachment.ledger, evaluate, z, fz, known, cell)
            return attach_implicit(
                self.solver, attachment.ledger, evaluate, z, fz, known, cell, inverse=inverse, twice=self.second_order
            )

        return on_usable_rows(attachment, attach, (_linearised_at(attachment.found), attachment.found.inverse))


def _linearised_at(found: Iterate) -> Tensor:
    """Return where the cell is differentiated: at f(z), one evaluation nearer to the fixed point than z.

    That is the state which is returned, so that one is held and not two. A sample that failed stays at its best
    iterate: f may leave the range of numbers beyond it.
    """
    nearer = (found.status == Status.CONVERGED) | (found.status == Status.STALLED)
    if found.rtol is None or bool(nearer.all()):
        return found.fz.detach()
    return torch.where(nearer.view(-1, 1, 1), found.fz, found.z).detach()
