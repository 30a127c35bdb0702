"""Counts of how solves ended, and what happens when one fails."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from poise.fixed_point.solution import ConvergenceError, ConvergenceWarning, OnFailure, Solution, Status


def outside_level() -> int:
    """Return the stacklevel with which the caller's warning points to the first line outside this library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("poise", "torch"):
        frame, level = frame.f_back, level + 1
    return level


@dataclass
class Tally:
    """Statuses, evaluations and rows of all solves of one kind; the first failure is warned of, the rest counted."""

    what: str  # how a message names these solves
    lasting: bool = True  # whether more solves will be counted here
    solves: int = 0
    samples: int = 0
    evaluations: int = 0
    rows: int = 0
    warned: bool = False
    _counts: Tensor | None = field(default=None, repr=False)

    @property
    def statuses(self) -> dict[str, int]:
        """Samples of each status, by name, those that occurred."""
        counts = [0] * len(Status) if self._counts is None else self._counts.tolist()
        return {status.name: counts[status] for status in Status if counts[status]}

    @property
    def mean_evaluations(self) -> float:
        """Evaluations a solve."""
        return self.evaluations / self.solves if self.solves else 0.0

    def add(self, solution: Solution, on_failure: OnFailure, what: str | None = None) -> None:
        """Count a solution; warn or raise if it failed, as `on_failure` says, in a sentence on `what`."""
        self.solves += 1
        self.samples += len(solution.status)
        self.evaluations += solution.evaluations
        self.rows += solution.rows
        # Kept on the device: counting must not make the host wait.
        values = torch.arange(len(Status), device=solution.status.device)
        counts = (solution.status.unsqueeze(1) == values).sum(dim=0)
        self._counts = counts if self._counts is None else self._counts.to(counts.device) + counts
        if on_failure == "ignore" or (self.warned and on_failure == "warn"):
            return
        missed = solution.failed | (solution.status == Status.STALLED)
        if (solution.status.is_cuda and torch.cuda.is_current_stream_capturing()) or not bool(missed.any()):
            return
        if on_failure == "raise" and not solution.ok:
            raise ConvergenceError(solution.describe(what or self.what))
        self.warned = True
        warnings.warn(
            solution.describe(what or self.what) + (" Later ones are counted, not repeated." if self.lasting else ""),
            ConvergenceWarning,
            stacklevel=outside_level(),
        )

    def reset(self) -> None:
        """Start counting anew; a failure that was warned of stays warned of."""
        self.solves = self.samples = self.evaluations = self.rows = 0
        self._counts = None


@dataclass
class Counters:
    """The tallies of a layer: its forward and its backward solves."""

    forward: Tally = field(default_factory=lambda: Tally("the forward solve"))
    backward: Tally = field(default_factory=lambda: Tally("the backward solve"))
    checked: bool = False  # whether the cell has been looked at once (`checks.py`)

    @staticmethod
    def single() -> Counters:
        """Return counters for one solve that nobody else counts."""
        return Counters(Tally("the forward solve", lasting=False), Tally("the backward solve", lasting=False))

    def reset(self) -> None:
        """Start counting anew."""
        self.forward.reset()
        self.backward.reset()
