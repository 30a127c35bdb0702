"""The one loop that runs every rule: evaluate, measure, retire what is finished, ask for the next iterate.

It owns tolerances, budgets, best iterates, restarts, compaction, statuses and traces; no rule repeats any of it.
Within it the state is (batch, groups, features). Under the sample scope there is one group. Under the prefix scope a
group is a position: it passes when the residual over every prefix up to it passes, and is then held still, so that
nothing after it moves it. What becomes of single rows between evaluations is in `live_rows.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.live_rows import LiveRows, Observer
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.residual import measure
from poise.fixed_point.solution import Solution, Status, Trace
from poise.fixed_point.solvers.base import Solver


@dataclass(frozen=True)
class Iterate:
    """What the loop returns: the last (or best) iterate of every sample, the cell's output there, and the record."""

    z: Tensor
    fz: Tensor
    status: Tensor
    steps: Tensor
    residual: Tensor
    evaluations: int
    rows: int
    rtol: float | None
    trace: Trace = field(repr=False)
    inverse: Any = field(default=None, repr=False)  # what the rule has learnt of (I - J)^-1, where it was asked for

    def solution(self, state: Any, backward: list[Solution] | None = None) -> Solution:
        """Return the record as a Solution with this state."""
        return Solution(
            state=state,
            status=self.status,
            steps=self.steps,
            residual=self.residual,
            evaluations=self.evaluations,
            rows=self.rows,
            fixed_budget=self.rtol is None,
            rtol=self.rtol,
            _trace=self.trace,
            _backward=[] if backward is None else backward,
        )


def iterate(
    cell: PackedCell,
    z: Tensor,
    solver: Solver,
    *,
    valid: Tensor | None = None,
    compact: bool | None = None,
    observer: Observer | None = None,
    keep_inverse: bool = False,
) -> Iterate:
    """Run a solver from `z` (batch, groups, features) until every sample is finished or the budget is spent."""
    if cell.casts.dtypes:  # the cell evaluates under the caller's autocast; the rule's own products stay wide
        with torch.autocast(z.device.type, enabled=False):
            return _iterate(cell, z, solver, valid, compact, observer, keep_inverse)
    return _iterate(cell, z, solver, valid, compact, observer, keep_inverse)


def _iterate(
    cell: PackedCell,
    z: Tensor,
    solver: Solver,
    valid: Tensor | None,
    compact: bool | None,
    observer: Observer | None,
    keep_inverse: bool,
) -> Iterate:
    if solver.rtol is None:
        return _fixed_budget(cell, z, solver, valid, observer, keep_inverse)
    # Shapes decide which kernels run, and so the last bit: where no later position may move an earlier one at all,
    # finished samples are frozen but stay in the batch.
    if compact is None:
        compact = cell.selectable and solver.scope == "sample"
    rows = LiveRows(cell, z, solver, valid, compact, observer, keep_inverse)
    for step in range(1, solver.max_steps + 1 if len(z) else 1):
        if rows.advance(step):
            break
    count, trace = rows.cell.count, Trace(len(z), tuple(rows.residuals))
    return Iterate(
        rows.out_z,
        rows.out_f,
        rows.status,
        rows.steps,
        rows.residual,
        count.evaluations,
        count.rows,
        solver.rtol,
        trace,
        rows.out_inverse,
    )


def _fixed_budget(
    cell: PackedCell,
    z: Tensor,
    solver: Solver,
    valid: Tensor | None,
    observer: Observer | None,
    keep_inverse: bool,
) -> Iterate:
    """Spend the budget without a test: nothing is held, nothing is read by the host."""
    memory = solver.init(z)
    count, step = cell.count, 0
    while True:
        step += 1
        fz = cell(z)
        if observer is not None:
            observer(step, None, z, fz, measure(cell, solver, fz, fz - z, valid, torch.float64).residual[:, -1])
        if count.evaluations >= solver.max_steps:
            break
        z, memory = solver.step(z, fz, memory, cell, valid)
    found = measure(cell, solver, fz, fz - z, valid, torch.float64)
    residual = found.residual[:, -1].to(z.dtype)
    status = torch.full(residual.shape, Status.BUDGET, dtype=torch.int8, device=z.device)
    status = status.masked_fill(found.norm[:, -1] == 0, Status.CONVERGED)
    status = status.masked_fill(~found.norm[:, -1].isfinite(), Status.NONFINITE)
    steps = torch.full(residual.shape, count.evaluations, dtype=torch.int64, device=z.device)
    trace = Trace(z.shape[0], ((None, residual),))
    kept = solver.inverse(memory) if keep_inverse else None
    return Iterate(z, fz, status, steps, residual, count.evaluations, count.rows, None, trace, kept)
