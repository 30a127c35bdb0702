"""Tangents of a fixed point: what forward mode makes of the implicit function theorem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from poise.fixed_point.adjoints.base import Ledger
from poise.fixed_point.dual import tangent_of, with_tangent
from poise.fixed_point.linear import LinearSolver, as_linear
from poise.fixed_point.solvers import Solver
from poise.fixed_point.transforms import BATCHED_TANGENTS, refuse_batched


def solve_tangent(
    solver: Solver | LinearSolver, ledger: Ledger, cell: Callable[[Tensor], Tensor], z: Tensor, moved: Tensor
) -> Tensor:
    """Solve v = J v + moved, where `moved` is the tangent of the cell's output at a state held still.

    The products are tangents of the cell. They hold `moved` as well, since what moves the cell cannot be taken out of
    it: v is solved in units of it, so that the difference loses no digits.
    """
    refuse_batched(moved, BATCHED_TANGENTS)
    moved = moved.detach()
    unit = moved.abs().flatten(1).amax(dim=1) if moved.numel() else moved.new_zeros(len(moved))
    unit = torch.where((unit > 0) & unit.isfinite(), unit, 1.0).reshape(-1, *(1,) * (moved.dim() - 1))

    def product(v: Tensor) -> Tensor:
        image = tangent_of(cell(with_tangent(z.detach(), unit * v.reshape(z.shape))))
        return ((0.0 if image is None else image) - moved).div(unit).flatten(1)

    with torch.no_grad(), torch.autocast(z.device.type, enabled=False):  # the solver's own products stay wide
        found = as_linear(solver).solve(product, (moved / unit).flatten(1))
        record = found.solution(None)
        ledger.enter(record, "the tangent's solve")
        return unit * found.fz.reshape(z.shape)
