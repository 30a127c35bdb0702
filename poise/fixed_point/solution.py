"""What a solve returns: a state, and for every sample how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Literal

import torch
from torch import Tensor

OnFailure = Literal["raise", "warn", "ignore"]


class Status(IntEnum):
    """How the solve of one sample ended."""

    CONVERGED = 0
    """The residual is within the tolerance."""
    BUDGET = 1
    """`max_steps` evaluations were spent; no failure where the budget is fixed (`rtol=None`)."""
    STALLED = 2
    """The residual reached the floor of the cell's precision, above the tolerance."""
    DIVERGED = 3
    """The residual grew: the cell is no contraction here."""
    NONFINITE = 4
    """The cell returned NaN or infinity; the state is the last finite one (NaN where the budget is fixed)."""


REMEDY = {
    Status.BUDGET: "raise max_steps, loosen rtol, or make the cell contract",
    Status.STALLED: "loosen rtol, or run the cell in a wider dtype",
    Status.DIVERGED: "make the cell contract: normalise it, shrink its initial weights, or regularise its Jacobian",
    Status.NONFINITE: "look for NaN or infinity in the inputs and the weights",
}


SEVERITY = (Status.NONFINITE, Status.DIVERGED, Status.BUDGET, Status.STALLED)


class ConvergenceWarning(UserWarning):
    """A solve, forward or backward, ended without reaching its tolerance."""


class ConvergenceError(RuntimeError):
    """Raised for such a solve where the caller asked for it (`on_failure="raise"`, `raise_if_failed`)."""


class CellWarning(UserWarning):
    """A cell breaks what a solve relies on: it couples samples, is not deterministic, or ignores its context."""


@dataclass(frozen=True)
class Trace:
    """Residuals of every evaluation, kept as they came: (rows of the batch, their residuals); None if not tested."""

    batch: int
    entries: Sequence[tuple[Tensor | None, Tensor] | None] = ()

    def dense(self) -> Tensor:
        """Return residuals of shape (evaluations, batch), NaN where a sample was not tested or had left already."""
        first = next((entry[1] for entry in self.entries if entry is not None), torch.empty(0))
        table = first.new_full((len(self.entries), self.batch), float("nan"))
        for row, entry in zip(table, self.entries, strict=True):
            if entry is None:
                continue
            index, residual = entry
            if index is None:
                row.copy_(residual)
            else:
                row[index] = residual
        return table


@dataclass(frozen=True, repr=False)
class Solution:
    """The state that a solve found, and for every sample how it was found.

    `state`: as the cell returned it, attached to the graph by the adjoint. `status`: (batch,) int8 of `Status`.
    `steps`: (batch,) int64, evaluations of the cell on this sample. `residual`: (batch,), |f(z) - z| / |f(z)| at the
    state's iterate. `evaluations`: calls of the cell. `rows`: sample evaluations made in all of them. `trajectory`: the
    states of the evaluations that were to be recorded, in their order. `start`, `context`: what the solve was given,
    attached to the graph as it was. `starts`: where each sample was solved from several, what all of them found.
    """

    state: Any
    status: Tensor
    steps: Tensor
    residual: Tensor
    evaluations: int
    rows: int
    fixed_budget: bool = False
    rtol: float | None = None
    atol: float = 0.0
    trajectory: tuple[Any, ...] = ()
    start: Any = None
    context: Any = None
    starts: Any = None
    _trace: Trace = Trace(0)
    _backward: list[Solution] = field(default_factory=list)

    @property
    def trace(self) -> Tensor:
        """Residuals of every evaluation, (evaluations, batch); NaN where it was not tested, or had left already."""
        return self._trace.dense()

    @property
    def backward(self) -> Solution | None:
        """The last backward solve through this solution (without its state), or None before it has run."""
        return self._backward[-1] if self._backward else None

    @property
    def failed(self) -> Tensor:
        """(batch,) bool: samples that did not get what was asked for; a floor that was reached is no failure."""
        failed = (self.status == Status.DIVERGED) | (self.status == Status.NONFINITE)
        return failed if self.fixed_budget else failed | (self.status == Status.BUDGET)

    @property
    def ok(self) -> bool:
        """Whether no sample failed."""
        return not bool(self.failed.any())

    @property
    def goal(self) -> str:
        """What was asked for, in words."""
        if self.rtol is None:
            return "a fixed budget"
        return f"rtol {self.rtol:g}" + (f" or atol {self.atol:g}" if self.atol else "")

    def counts(self) -> dict[str, int]:
        """Samples of each status, by name, those that occur."""
        tally = torch.bincount(self.status.long(), minlength=len(Status)).tolist()
        return {status.name: tally[status] for status in Status if tally[status]}

    def raise_if_failed(self) -> Solution:
        """Return self, or raise a ConvergenceError that names the numbers and the remedy."""
        if not self.ok:
            raise ConvergenceError(self.describe("the solve"))
        return self

    def describe(self, what: str) -> str:
        """Return one sentence on the samples that missed the tolerance: how many, how far, and what to do."""
        found = {Status[name] for name in self.counts()}
        worst = next((status for status in SEVERITY if status in found), Status.CONVERGED)
        missed = self.status == worst
        residual = self.residual[missed].max().item() if bool(missed.any()) else 0.0
        steps = int(self.steps[missed].max()) if bool(missed.any()) else 0
        return (
            f"{what} ended {worst.name} for {int(missed.sum())} of {len(self.status)} samples "
            f"(largest residual {residual:.1e} after {steps} evaluations, asked: {self.goal}); "
            f"{REMEDY.get(worst, 'all is well')}."
        )

    def __repr__(self) -> str:
        if not len(self.status):
            return "Solution of an empty batch"
        parts = ", ".join(f"{number} {name}" for name, number in self.counts().items())
        return (
            f"Solution: {parts} of {len(self.status)} samples in {self.evaluations} evaluations ({self.rows} rows), "
            f"largest residual {self.residual.max().item():.1e}" + (f", asked: {self.goal}" if self.atol else "")
        )
