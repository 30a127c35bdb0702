"""The one loop that runs every rule: evaluate, measure, retire what is finished, ask for the next iterate.

It owns tolerances, budgets, best iterates, restarts, compaction, statuses and traces; no rule repeats any of it.
Within it the state is (batch, groups, features). Under the sample scope there is one group. Under the prefix scope a
group is a position: it passes when the residual over every prefix up to it passes, and is then held still, so that
nothing after it moves it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.residual import Measure, measure, norms
from poise.fixed_point.solution import Solution, Status, Trace
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.tree import select_rows, where_rows

# Rows leave the batch when more than this share of it has finished: selecting rows costs a copy of the history.
IDLE_SHARE = 1 / 16
# A state whose residual outgrows the size of the start this much has diverged.
DIVERGENCE = 1e8
# A sample has stalled when its residual is within this many units of rounding and has not improved for so many steps.
FLOOR = 8.0
PATIENCE = 10


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


@dataclass(frozen=True)
class Judgement:
    """What one evaluation means for the batch: masks, and the counts that the host has read."""

    done: Tensor  # (rows,) every group is held
    improved: Tensor  # (rows, groups) the residual is the best so far
    restart: Tensor  # (rows, groups) the memory begins anew
    finished: int
    unimproved: bool
    restarting: bool


def iterate(
    cell: PackedCell, z: Tensor, solver: Solver, *, valid: Tensor | None = None, compact: bool | None = None
) -> Iterate:
    """Run a solver from `z` (batch, groups, features) until every sample is finished or the budget is spent."""
    if solver.rtol is None:
        return _fixed_budget(cell, z, solver, valid)
    # Shapes decide which kernels run, and so the last bit: where no later position may move an earlier one at all,
    # finished samples are frozen but stay in the batch.
    if compact is None:
        compact = cell.selectable and solver.scope == "sample"
    run = _Run(cell, z, solver, valid, compact)
    for step in range(1, solver.max_steps + 1):
        if run.advance(step):
            break
    return run.finish()


def _fixed_budget(cell: PackedCell, z: Tensor, solver: Solver, valid: Tensor | None) -> Iterate:
    """Spend the budget without a test: nothing is held, nothing is read by the host."""
    memory = solver.init(z)
    fz = cell(z)
    for _ in range(solver.max_steps - 1):
        z, memory = solver.step(z, fz, memory, cell, valid)
        fz = cell(z)
    found = measure(cell, solver, fz, fz - z, valid)
    residual = found.residual[:, -1]
    status = torch.full(residual.shape, Status.BUDGET, dtype=torch.int8, device=z.device)
    status = status.masked_fill(found.norm[:, -1] == 0, Status.CONVERGED)
    status = status.masked_fill(~found.norm[:, -1].isfinite(), Status.NONFINITE)
    steps = torch.full(residual.shape, solver.max_steps, dtype=torch.int64, device=z.device)
    count = cell.count
    trace = Trace(z.shape[0], ((None, residual),))
    return Iterate(z, fz, status, steps, residual, count.evaluations, count.rows, None, trace)


class _Run:
    """The live rows of one solve."""

    def __init__(self, cell: PackedCell, z: Tensor, solver: Solver, valid: Tensor | None, compact: bool) -> None:
        self.cell, self.z, self.solver, self.valid, self.compact = cell, z, solver, valid, compact
        self.memory = solver.init(z)
        batch, groups, _ = z.shape
        device = z.device
        self.batch = batch
        self.index: Tensor | None = None  # which samples the rows are; None while all are here
        self.residuals: list[tuple[Tensor | None, Tensor]] = []
        self.retired = torch.zeros(batch, dtype=torch.bool, device=device)  # rows finished and still in the batch
        self.idle = 0
        # How each group stands: passed, failed (with what), and held still because of either.
        self.passed = torch.zeros(batch, groups, dtype=torch.bool, device=device)
        self.failure = torch.full((batch, groups), Status.BUDGET, dtype=torch.int8, device=device)
        self.held = self.passed
        self.limit = torch.empty(0)  # of |f(z) - z|, above which a group has diverged
        infinite = torch.full((batch, groups), float("inf"), dtype=z.dtype, device=device)
        self.best, self.best_z, self.best_f = infinite, z, z
        self.reference, self.restarted = infinite, infinite  # the best since the last restart; the best at that time
        # Steps since the residual last fell by a tenth, and what it was then.
        self.waited, self.mark = torch.zeros(batch, groups, dtype=torch.int64, device=device), infinite
        # Results by sample, filled as samples finish.
        self.out_z, self.out_f = torch.empty_like(z), torch.empty_like(z)
        self.status = torch.full((batch,), Status.BUDGET, dtype=torch.int8, device=device)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=device)
        self.residual = torch.full((batch,), float("nan"), dtype=z.dtype, device=device)

    def advance(self, step: int) -> bool:
        """Evaluate the live rows once; return True when every sample is finished."""
        z, solver = self.z, self.solver
        fz = self.cell(z)
        found = measure(self.cell, solver, fz, fz - z, self.valid)
        self.residuals.append((self.index, found.residual[:, -1]))
        last = step == solver.max_steps
        with torch.no_grad():
            judged = self._judge(step, found)
        if judged.unimproved:
            wide = judged.improved.unsqueeze(-1)
            self.best_z, self.best_f = torch.where(wide, z, self.best_z), torch.where(wide, fz, self.best_f)
        else:  # where every live row improved, the iterate itself is the best; finished rows have been stored already
            self.best_z, self.best_f = z, fz
        finished = judged.finished
        if finished > self.idle or last:
            self._retire(step, judged.done, z, fz, found, last)
            self.idle = finished
        if last or finished == z.shape[0]:
            return True
        following, self.memory = solver.step(z, fz, self.memory, self.cell, self.valid)
        if self.valid is not None:
            following = torch.where(self.valid > 0, following, fz)
        if judged.restarting:
            following = self._restart(judged.restart, following, fz)
        if self.held.shape[1] > 1:
            following = torch.where(self.held.unsqueeze(-1), z, following)
        elif finished:
            following = torch.where(self.retired.reshape(-1, 1, 1), z, following)
        self.z = following
        if self.compact and finished > IDLE_SHARE * z.shape[0]:
            self._leave_out()
        return False

    def _judge(self, step: int, found: Measure) -> Judgement:
        """Update what is held and what is best, and read off what the host must know."""
        if step == 1:
            start = torch.maximum(norms(self.z, self.solver.scope), found.size)
            # At least that of a state of size one: a tiny start may grow to an ordinary answer.
            self.limit = DIVERGENCE * torch.where(start.isfinite(), start.clamp_min(1.0), 1.0)
        passed = found.passed
        if passed.shape[1] > 1:  # a position passes when every prefix up to it does
            passed = passed.int().cummin(dim=1).values.bool()
        before = self.held
        bad = ~(found.norm <= self.limit) & ~before  # diverged or not finite
        stalled = self._stalled(found) if self.watches_floor else None
        self.passed = self.passed | (passed & ~before)
        self.held = before | passed | bad
        if stalled is not None:
            self.held = self.held | stalled
        improved = found.residual < self.best
        self.best = torch.where(improved, found.residual, self.best)
        done = self.held.all(dim=1)
        restart = torch.zeros_like(bad)
        if self.solver.restart_growth < float("inf"):
            restart = (found.residual > self.solver.restart_growth * self.reference) & ~self.held
            self.reference = torch.minimum(self.reference, found.residual)
        flags = torch.stack([done.sum(), (~(improved | before)).sum(), restart.sum(), bad.sum()])
        # The one wait for the host in a step: what it must know to choose the next shapes.
        finished, unimproved, restarting, failing = flags.tolist()
        if failing:
            kind = torch.where(found.norm.isfinite(), int(Status.DIVERGED), int(Status.NONFINITE)).to(torch.int8)
            self.failure = torch.where(bad, kind, self.failure)
        if stalled is not None:
            fresh = stalled & ~before & ~self.passed & ~bad
            self.failure = self.failure.masked_fill(fresh, Status.STALLED)
        return Judgement(done, improved, restart, finished, bool(unimproved), bool(restarting))

    def _stalled(self, found: Measure) -> Tensor:
        """Return the groups that have reached the floor of the cell's precision and no longer improve."""
        better = found.residual < 0.9 * self.mark
        self.mark = torch.where(better, found.residual, self.mark)
        self.waited = torch.where(better, 0, self.waited + 1)
        return (self.waited >= PATIENCE) & (self.best <= FLOOR * self.cell.epsilon)

    @property
    def watches_floor(self) -> bool:
        """Whether the tolerance lies below the floor, so that samples may stall there."""
        return (self.solver.rtol or 0.0) < FLOOR * self.cell.epsilon

    def _retire(self, step: int, done: Tensor, z: Tensor, fz: Tensor, found: Measure, last: bool) -> None:
        """Store the rows that have just finished, or all that are left when the budget is spent."""
        new = ~self.retired if last else done & ~self.retired
        rows = new.nonzero().squeeze(1)
        samples = rows if self.index is None else self.index[rows]
        failure = self.failure[rows].masked_fill(self.passed[rows], Status.CONVERGED)
        # The worst of a sample's positions; a budget spent counts above a floor reached, below the other failures.
        worst = failure.amax(dim=1)
        spent = (failure == Status.BUDGET).any(dim=1) & (worst <= Status.STALLED)
        status = worst.masked_fill(spent, Status.BUDGET)
        residual = found.residual[rows, -1]
        if z.shape[1] == 1:
            # A sample that failed returns its best iterate; grown residuals at the end of a budget are divergence.
            best = self.best[rows, 0]
            failed = (status != Status.CONVERGED) & best.isfinite()
            first = self.residuals[0][1]
            grown = (status == Status.BUDGET) & (residual > 1.0) & (residual > first[samples])
            status = status.masked_fill(grown, Status.DIVERGED)
            wide = failed.reshape(-1, 1, 1)
            out_z, out_f = (
                torch.where(wide, self.best_z[rows], z[rows]),
                torch.where(wide, self.best_f[rows], fz[rows]),
            )
            residual = torch.where(failed, best, residual)
        else:
            wide = (failure == Status.NONFINITE).unsqueeze(-1) & self.best[rows].isfinite().unsqueeze(-1)
            out_z = torch.where(wide, self.best_z[rows], z[rows])
            out_f = torch.where(wide, self.best_f[rows], fz[rows])
        if rows.numel() == self.batch:
            self.out_z, self.out_f = out_z, out_f
        else:
            self.out_z = self.out_z.index_copy(0, samples, out_z)
            self.out_f = self.out_f.index_copy(0, samples, out_f)
        self.status[samples] = status
        self.steps[samples] = step
        self.residual[samples] = residual
        self.retired = self.retired | new

    def _restart(self, restart: Tensor, following: Tensor, fz: Tensor) -> Tensor:
        """Begin again with an empty memory: from the best image if it is new since the last restart, else from here."""
        news = restart & (self.best < self.restarted)
        following = torch.where(restart.unsqueeze(-1), fz, following)
        following = torch.where(news.unsqueeze(-1), self.best_f, following)
        self.memory = where_rows(~restart, self.memory, self.solver.init(fz))
        self.restarted = torch.where(restart, self.best, self.restarted)
        self.reference = torch.where(restart, float("inf"), self.reference)
        return following

    def _leave_out(self) -> None:
        """Select the live rows of everything that belongs to a row."""
        live = (~self.retired).nonzero().squeeze(1)
        self.index = live if self.index is None else self.index[live]
        self.cell = self.cell.select(live)
        kept = (
            self.z, self.memory, self.valid, self.passed, self.failure, self.held, self.limit,
            self.best, self.best_z, self.best_f, self.reference, self.restarted, self.waited, self.mark, self.retired,
        )  # fmt: skip
        (
            self.z, self.memory, self.valid, self.passed, self.failure, self.held, self.limit,
            self.best, self.best_z, self.best_f, self.reference, self.restarted, self.waited, self.mark, self.retired,
        ) = select_rows(kept, live)  # fmt: skip
        self.idle = 0

    def finish(self) -> Iterate:
        """Return the results of all samples."""
        count = self.cell.count
        return Iterate(
            self.out_z,
            self.out_f,
            self.status,
            self.steps,
            self.residual,
            count.evaluations,
            count.rows,
            self.solver.rtol,
            Trace(self.batch, tuple(self.residuals)),
        )
