"""The live rows of a solve that is tested: what each evaluation says of them, and who leaves the batch with what.

Rows whose samples are finished are held still, and leave when they are many; groups that diverge, stall or begin anew
are seen to one by one. A step in which nothing of this happens takes few small operations and one wait for the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from poise.fixed_point.best import Best
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.residual import Measure, measure, norms, summable, threshold
from poise.fixed_point.restarts import Restarts
from poise.fixed_point.solution import Status
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.tree import scatter_rows, select_rows

# Rows leave the batch when more than this share of it has finished: selecting rows costs a copy of the history.
IDLE_SHARE = 1 / 16
# A state whose residual outgrows the size of the start this much has diverged.
DIVERGENCE = 1e8
# A sample has stalled when its residual is within this many units of rounding and has not improved for so many steps.
FLOOR = 8.0
PATIENCE = 10

# What sees every evaluation: its number, the samples (None: all), iterate, image and residual of the live rows.
Observer = Callable[[int, Tensor | None, Tensor, Tensor, Tensor], None]


class LiveRows:
    """The samples of a solve that are not finished, and the results of those that are."""

    def __init__(
        self,
        cell: PackedCell,
        z: Tensor,
        solver: Solver,
        valid: Tensor | None,
        compact: bool,
        observer: Observer | None,
        keep_inverse: bool,
    ) -> None:
        self.cell, self.z, self.solver, self.valid, self.compact = cell, z, solver, valid, compact
        self.observer = observer
        self.memory = solver.init(z)
        self.out_inverse = solver.inverse(self.memory) if keep_inverse else None
        batch, groups, _ = z.shape
        device = z.device
        self.batch = batch
        self.index: Tensor | None = None  # which samples the rows are; None while all are here
        self.residuals: list[tuple[Tensor | None, Tensor] | None] = []
        self.retired = torch.zeros(batch, dtype=torch.bool, device=device)  # rows finished and still in the batch
        self.idle = 0
        # How each group stands: passed, failed (with what), and held still because of either.
        self.passed = torch.zeros(batch, groups, dtype=torch.bool, device=device)
        self.failure = torch.full((batch, groups), Status.BUDGET, dtype=torch.int8, device=device)
        self.held = self.passed
        self.limit = torch.empty(0)  # of |f(z) - z|, above which a group has diverged
        self.best = Best(z)
        self.restarts = Restarts(self.best.residual)
        # Steps since the residual last fell by a tenth, and what it was then.
        self.waited = torch.zeros(batch, groups, dtype=torch.int64, device=device)
        self.mark = self.best.residual
        # What the host knows, so that an uneventful step takes few small operations.
        self.holding = False
        self.norm_dtype: torch.dtype | None = torch.float64
        self.sizes = summable(z.dtype)
        self.quiet_above, self.quiet_below = float("inf"), 0.0  # of the excess, of |f(z) - z|
        self.spends = solver.spent(self.memory) is not None  # the rule makes evaluations of its own
        self.every = 1 if self.spends else solver.check_every
        # Results by sample, filled as samples finish.
        self.out_z, self.out_f = torch.empty_like(z), torch.empty_like(z)
        self.status = torch.full((batch,), Status.BUDGET, dtype=torch.int8, device=device)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=device)
        self.residual = torch.full((batch,), float("nan"), dtype=z.dtype, device=device)

    def advance(self, step: int) -> bool:
        """Evaluate the live rows once; return True when every sample is finished."""
        z = self.z
        fz = self.cell(z)
        last = step == self.solver.max_steps
        if step % self.every and not last and step > 1:
            self.residuals.append(None)
            if self.observer is not None:
                residual = measure(self.cell, self.solver, fz, fz - z, self.valid, torch.float64).residual
                self.observer(step, self.index, z, fz, residual[:, -1].to(z.dtype))
            self._move_on(z, fz, None)
            return False
        found, quiet, all_improved = self._measure(step, z, fz)
        finished, restart = self.idle, None
        if not quiet:
            with torch.no_grad():
                finished, restart = self._judge(step, found)
        if all_improved:
            self.best.improve(found.residual, z, fz)
        else:
            self.best.update(found.residual, z, fz)
        if self.observer is not None:
            self.observer(step, self.index, z, fz, found.residual[:, -1])
        if finished > self.idle or last:
            self._retire(step, z, fz, found, last)
            self.idle = finished
        if last or finished == z.shape[0]:
            return True
        self._move_on(z, fz, restart)
        if self.compact and finished > IDLE_SHARE * z.shape[0]:
            self._leave_out()
        return False

    def _move_on(self, z: Tensor, fz: Tensor, restart: Tensor | None) -> None:
        """Ask the rule for the next iterate, and see to those that do not follow it."""
        following, self.memory = self.solver.step(z, fz, self.memory, self.cell, self.valid)
        if self.valid is not None:
            following = torch.where(self.valid > 0, following, fz)
        if self.restarts.any:
            following = self.restarts.damped(z, fz, following)
        if restart is not None:
            following = self.restarts.begin(restart, fz, following, self.best)
            self.memory = self.solver.restart(self.memory, restart, fz)
        if self.holding:
            following = torch.where(self.held.unsqueeze(-1), z, following)
        self.z = following

    def _measure(self, step: int, z: Tensor, fz: Tensor) -> tuple[Measure, bool, bool]:
        """Return the residuals, whether nothing happened to any group, and whether all improved."""
        g = fz - z
        found = measure(self.cell, self.solver, fz, g, self.valid, self.norm_dtype)
        if step == 1:
            self._set_limits(z, found)
        with torch.no_grad():
            growth = (found.residual / self.best.residual).amax()
            # The one wait for the host in an uneventful step.
            excess, norm, largest = _numbers(found.excess.amin(), found.norm.amax(), growth)
        quiet = (
            not (self.holding or self.restarts.any or self.spends)
            and excess > self.quiet_above
            and norm <= self.quiet_below
            and largest <= self.solver.restart_growth
            and step < self.solver.max_steps
        )
        if not quiet or step == 1:
            low, high = torch.aminmax(found.size)
            wide = not self.sizes[0] <= low <= high <= self.sizes[1]
            if wide and self.norm_dtype is None:
                self.norm_dtype = torch.float64
                return self._measure(step, z, fz)
            self.norm_dtype = torch.float64 if wide else None
        if found.residual.dtype != z.dtype:
            found = replace(found, residual=found.residual.to(z.dtype))
        self.residuals.append((self.index, found.residual[:, -1]))
        return found, quiet, largest < 1.0

    def _set_limits(self, z: Tensor, found: Measure) -> None:
        """Set what the first evaluation decides: when a group has diverged, and when a step needs no closer look."""
        start = torch.maximum(norms(z.detach(), self.solver.scope, torch.float64), found.size)
        # At least that of a state of size one: a tiny start may grow to an ordinary answer.
        self.limit = DIVERGENCE * torch.where(start.isfinite(), start.clamp_min(1.0), 1.0)
        self.quiet_below = float(self.limit.amin()) if self.limit.numel() else 0.0
        self.goal = self.quiet_above = threshold(self.solver)
        # Samples may stall where the tolerance lies below the floor.
        self.floor = FLOOR * self.cell.epsilon
        self.watches_floor = (self.solver.rtol or 0.0) < self.floor
        if self.watches_floor:
            self.quiet_above = float("inf") if self.solver.atol else self.floor

    def _judge(self, step: int, found: Measure) -> tuple[int, Tensor | None]:
        """Update what is held; return how many rows are finished and which groups begin anew, if any."""
        passed = found.excess <= self.goal
        if passed.shape[1] > 1:  # a position passes when every prefix up to it does
            passed = passed.int().cummin(dim=1).values.bool()
        before = self.held
        bad = ~(found.norm <= self.limit) & ~before  # diverged or not finite
        self.passed = self.passed | (passed & found.norm.isfinite() & ~before)
        self.held = before | self.passed | bad
        if self.spends:  # also out of budget, which is what a group is said to be unless something else happened
            self.held = self.held | (self._evaluations(step) >= self.solver.max_steps).unsqueeze(1)
        stalled = self._stalled(found) if self.watches_floor else None
        if stalled is not None:
            self.held = self.held | stalled
        done = self.held.all(dim=1)
        restart = self.restarts.due(found.residual, self.best.residual, self.solver.restart_growth) & ~self.held
        finished, restarting, failing, holding = _numbers(done.sum(), restart.any(), bad.any(), self.held.any())
        self.holding = bool(holding)
        if failing:
            kind = torch.where(found.norm.isfinite(), int(Status.DIVERGED), int(Status.NONFINITE)).to(torch.int8)
            self.failure = torch.where(bad, kind, self.failure)
        if stalled is not None:
            self.failure = self.failure.masked_fill(stalled & ~before & ~self.passed & ~bad, Status.STALLED)
        return int(finished), restart if restarting else None

    def _stalled(self, found: Measure) -> Tensor:
        """Return the groups that have reached the floor of the cell's precision and no longer improve."""
        # Only groups at the floor count their steps: whether others are looked at depends on their neighbours.
        at_floor = torch.minimum(self.best.residual, found.residual) <= self.floor
        better = found.residual < 0.9 * self.mark
        self.mark = torch.where(better & at_floor, found.residual, self.mark)
        self.waited = torch.where(at_floor & ~better, self.waited + self.every, 0)
        return self.waited >= PATIENCE

    def _retire(self, step: int, z: Tensor, fz: Tensor, found: Measure, last: bool) -> None:
        """Store the rows that have just finished, or all that are left when the budget is spent."""
        done = self.held.all(dim=1)
        new = ~self.retired if last else done & ~self.retired
        rows = new.nonzero().squeeze(1)
        samples = rows if self.index is None else self.index[rows]
        failure = self.failure[rows].masked_fill(self.passed[rows], Status.CONVERGED)
        # The worst of a sample's positions; a budget spent counts above a floor reached, below the other failures.
        worst = failure.amax(dim=1)
        spent = (failure == Status.BUDGET).any(dim=1) & (worst <= Status.STALLED)
        status = worst.masked_fill(spent, Status.BUDGET)
        residual = found.residual[rows, -1]
        out_z, out_f = (z, fz) if rows.numel() == len(z) else (z[rows], fz[rows])
        if bool((failure != Status.CONVERGED).any()):
            best_z, best_f = (part[rows] for part in self.best.state())
            best = self.best.residual[rows]
            if z.shape[1] == 1:
                # A sample that failed returns its best iterate; grown residuals at the end of a budget are divergence.
                best = best[:, 0]
                failed = (status != Status.CONVERGED) & best.isfinite()
                assert self.residuals[0] is not None  # the first evaluation is always tested
                first = self.residuals[0][1]
                grown = (status == Status.BUDGET) & (residual > 1.0) & (residual > first[samples])
                status = status.masked_fill(grown, Status.DIVERGED)
                wide = failed.reshape(-1, 1, 1)
                residual = torch.where(failed, best, residual)
            else:
                wide = ((failure == Status.NONFINITE) & best.isfinite()).unsqueeze(-1)
            out_z, out_f = torch.where(wide, best_z, out_z), torch.where(wide, best_f, out_f)
        if rows.numel() == self.batch:
            self.out_z, self.out_f = out_z, out_f
        else:
            self.out_z = self.out_z.index_copy(0, samples, out_z)
            self.out_f = self.out_f.index_copy(0, samples, out_f)
        if self.out_inverse is not None:
            learnt = self.solver.inverse(select_rows(self.memory, rows))
            self.out_inverse = scatter_rows(self.out_inverse, samples, learnt)
        self.status[samples] = status
        self.steps[samples] = self._evaluations(step)[rows] if self.spends else step
        self.residual[samples] = residual
        self.retired = self.retired | new

    def _evaluations(self, step: int) -> Tensor:
        """Return the evaluations made for each row, the rule's own included."""
        spent = self.solver.spent(self.memory)
        return step + (torch.zeros_like(self.retired, dtype=torch.int64) if spent is None else spent)

    def _leave_out(self) -> None:
        """Select the live rows of everything that belongs to a row."""
        live = (~self.retired).nonzero().squeeze(1)
        self.index = live if self.index is None else self.index[live]
        self.cell = self.cell.select(live)
        self.best.select(live)
        self.restarts.select(live)
        kept = (
            self.z, self.memory, self.valid, self.passed, self.failure, self.held, self.limit, self.waited, self.mark,
            self.retired,
        )  # fmt: skip
        (
            self.z, self.memory, self.valid, self.passed, self.failure, self.held, self.limit, self.waited, self.mark,
            self.retired,
        ) = select_rows(kept, live)  # fmt: skip
        self.idle = 0
        self.holding = self.held.shape[1] > 1 and bool(self.held.any())


def _numbers(*scalars: Tensor) -> list[float]:
    """Return scalars as numbers, with one wait for the device."""
    if scalars[0].device.type == "cpu":
        return [scalar.item() for scalar in scalars]
    return torch.stack([scalar.double() for scalar in scalars]).tolist()
