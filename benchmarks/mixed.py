"""What does a batch of mixed difficulty cost where the cell is the cost? Time, and the rows of the backward.

The cell is made to cost at least a millisecond a row by a product of two matrices for every row, whose result is not
used; the solvers are tuned on the cell itself, whose values are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks.cells import MIXED, Problem, parts
from benchmarks.contest import race
from benchmarks.solves import forward_case, forward_contestants
from benchmarks.steps import Trained
from benchmarks.timing import Call, alternate

TOLERANCE = 1e-4
ROW_SECONDS = 1e-3
BACKWARD = poise.GMRES(rtol=1e-6, max_steps=400)


@dataclass(frozen=True)
class Costly:
    """A cell of the same values that multiplies a matrix by itself for every row."""

    cell: Callable[..., Any]
    ballast: Tensor  # (side, side)

    def __call__(self, z: Any, context: Any) -> Any:
        rows = self.ballast.expand(z.shape[0], -1, -1)
        torch.bmm(rows, rows)
        return self.cell(z, context)

    @staticmethod
    def of(problem: Problem) -> Costly:
        """Take the smallest matrix, in steps of 32, with which a row costs at least ROW_SECONDS."""
        device = parts(problem.z0)[0].device
        costly = Costly(problem.f, torch.eye(128, device=device))
        while min(alternate({"cell": costly.once(problem)}, 3, device.type)["cell"]) < ROW_SECONDS * problem.batch:
            costly = Costly(problem.f, torch.eye(len(costly.ballast) + 32, device=device))
        return costly

    def once(self, problem: Problem) -> Call:
        """Return one evaluation of the whole batch."""
        return lambda: self(problem.z0, problem.context)


def measure(names: Collection[str], rounds: int, device: str = "cpu") -> dict[str, Any]:
    """Return the races on the costly cells, and the rows of the backward, of these batches."""
    races: list[dict[str, Any]] = []
    rows = []
    for build in MIXED:
        if build.__name__ not in names:
            continue
        problem = build().on(device)
        with torch.no_grad():
            costly = Costly.of(problem)
            case = replace(
                forward_case(problem, TOLERANCE, device),
                direction="costly",
                timed=costly,
                one_evaluation=costly.once(problem),
            )
            races.extend(race(case, forward_contestants(problem), rounds, finalists=2))
        rows.append(backward_rows(problem))
    return {"races": races, "backward": rows}


def backward_rows(problem: Problem) -> dict[str, Any]:
    """Return the rows of the products of an implicit backward, and of as many products of the whole batch."""
    trained = Trained.of(problem)
    asked = trained.problem
    solution = poise.fixed_point(
        asked.f, asked.z0, asked.context, solver=poise.Anderson(rtol=1e-6), adjoint=poise.Implicit(BACKWARD)
    )
    trained.gradients(solution.state)
    record = solution.backward
    assert record is not None
    whole = int(record.steps.max()) * problem.batch
    return {"cell": problem.name, "rows": record.rows, "whole_batch": whole, "ratio": record.rows / whole}
