"""How many evaluations of the cell does each solver need, forward and backward, in poise and in torchdeq?

`python -m benchmarks.evaluations [--markdown] [--json FILE]` (about six minutes on one thread)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks import command
from benchmarks.cells import CELLS, Problem, expansive
from benchmarks.counting import TOLERANCES, Adjoint, Map, Record, count, count_gmres, forward_residual
from benchmarks.peers import power, torchdeq_solvers
from benchmarks.results import markdown
from poise.fixed_point.linear import as_linear
from poise.fixed_point.state import State

RULE = (
    "One rule for both libraries, and no solver is stopped by a test of its own. Forward: the whole batch is closed "
    "over, so nothing leaves it; every state at which the cell is evaluated is noted, and counted is the 1-based index "
    "of the first one whose residual |f(z) - z| / |f(z)|, evaluated anew in float64, is within the tolerance for all "
    "samples together. Backward: u - J^T u = g with float32 vector-Jacobian products at the fixed point and g from "
    "N(0, 1); counted are the products made until |g - u + J^T u| / |g|, evaluated in float64, is within the tolerance "
    "for all samples together: for fixed-point solvers the index of the first u that passes, which its own product "
    "tests; for GMRES, which knows its residual without one, the products behind u. `apart` is the same with every "
    "sample taken at its own first pass, as if samples could stop one by one in both libraries; the table gives it for "
    "the expansive cell, where a sample that has passed is moved away again."
)
COUNTED = (*CELLS, expansive)
BUDGET = {"hard": 400}  # evaluations at most; elsewhere
USUAL_BUDGET = 200


def poise_solvers(budget: int) -> dict[str, poise.Solver]:
    """Return the solvers of poise by name, the default first."""
    endless: dict[str, Any] = {"rtol": 0.0, "max_steps": budget}
    return {
        "Anderson()": poise.Anderson(**endless),
        "Anderson(period=1)": poise.Anderson(period=1, **endless),
        "Anderson(history=20)": poise.Anderson(history=20, **endless),
        "Anderson(history=20, period=1)": poise.Anderson(history=20, period=1, **endless),
        "Anderson(history=30, period=1)": poise.Anderson(history=30, period=1, **endless),
        "Anderson(form='type2', history=6)": poise.Anderson(form="type2", history=6, **endless),
        "Anderson(form='type2', period=1)": poise.Anderson(form="type2", period=1, **endless),
        "Anderson(form='type2', history=30, period=1)": poise.Anderson(form="type2", history=30, period=1, **endless),
        "Broyden()": poise.Broyden(**endless),
        "Broyden(history=60)": poise.Broyden(history=60, **endless),
        "NewtonKrylov()": poise.NewtonKrylov(**endless),
        "Picard()": poise.Picard(**endless),
    }


def _run_poise(solver: poise.Solver, f: Map, z0: State, budget: int) -> Any:
    return poise.fixed_point(f, z0, solver=solver, on_failure="ignore")


def _run_linear(solver: poise.Solver, product: Map, g: Tensor, budget: int) -> Any:
    return as_linear(solver).solve(product, g)


def forward(problem: Problem, budget: int) -> Iterator[dict[str, Any]]:
    """Yield the counts of every solver on the problem itself."""
    residual = forward_residual(problem.to(torch.float64))
    with torch.no_grad():
        for name, solver in poise_solvers(budget).items():
            record = count(partial(_run_poise, solver), problem.closed(), problem.z0, residual, budget)
            yield _entry("forward", problem, "poise", name, record)
        for name, run in torchdeq_solvers().items():
            record = count(run, problem.closed(), problem.z0, residual, budget)
            yield _entry("forward", problem, "torchdeq", name, record)


def backward(adjoint: Adjoint, problem: Problem, budget: int) -> Iterator[dict[str, Any]]:
    """Yield the counts of every solver on the linear system of the backward."""
    for name, gmres in (("GMRES()", poise.GMRES()), ("GMRES(restart=100)", poise.GMRES(restart=100))):
        yield _entry("backward", problem, "poise", name, count_gmres(gmres, adjoint, budget))
    for name, solver in poise_solvers(budget).items():
        if not solver.recordable:
            continue  # needs more of the cell than products
        record = count(partial(_run_linear, solver), adjoint.product, adjoint.g, adjoint.residual, budget)
        yield _entry("backward", problem, "poise", name, record)
    for name, run in torchdeq_solvers().items():
        # As its implicit gradient does: y = J^T y + g, from zero.
        record = count(
            run, lambda u: adjoint.product(u) + adjoint.g, torch.zeros_like(adjoint.g), adjoint.residual, budget
        )
        yield _entry("backward", problem, "torchdeq", name, record)


def _entry(direction: str, problem: Problem, library: str, solver: str, record: Record) -> dict[str, Any]:
    together, apart = record.together, record.apart
    return {
        "direction": direction,
        "cell": problem.name,
        "library": library,
        "solver": solver,
        "evaluations": {power(tolerance): together.get(tolerance) for tolerance in TOLERANCES},
        "apart": {power(tolerance): apart.get(tolerance) for tolerance in TOLERANCES},
        "lowest_residual": record.lowest,
        "evaluations_made": record.evaluations,
    }


def measure(names: Collection[str]) -> dict[str, Any]:
    """Count everything on these cells and return the result."""
    counts: list[dict[str, Any]] = []
    floors = {}
    for build in COUNTED:
        if build.__name__ not in names:
            continue
        problem = build()
        budget = BUDGET.get(problem.name, USUAL_BUDGET)
        counts.extend(forward(problem, budget))
        if build in CELLS:  # where nothing contracts, the solvers are compared on finding the point at all
            adjoint = Adjoint.of(problem)
            floors[problem.name] = adjoint.floor()
            counts.extend(backward(adjoint, problem, budget))
    return {"rule": RULE, "counts": counts, "backward_floors": floors}


@dataclass(frozen=True)
class Row:
    """One case: the least evaluations of each library and those of poise's default solver; None: not reached."""

    direction: str
    cell: str
    rtol: str
    default: int | None
    poise: int | None
    poise_solver: str
    torchdeq: int | None
    torchdeq_solver: str

    @property
    def needs_more(self) -> bool:
        """Whether poise's best needs more than torchdeq's best."""
        return self.torchdeq is not None and (self.poise is None or self.poise > self.torchdeq)


def rows(content: dict[str, Any], rule: str = "evaluations") -> list[Row]:
    """Return the cases of a result, forward first, by the rule `evaluations` or `apart`."""
    cases = dict.fromkeys((entry["direction"], entry["cell"]) for entry in content["counts"])
    found = []
    for direction, cell in sorted(cases, key=lambda case: case[0] != "forward"):
        here = [entry for entry in content["counts"] if (entry["direction"], entry["cell"]) == (direction, cell)]
        mine, theirs = ([entry for entry in here if entry["library"] == name] for name in ("poise", "torchdeq"))
        for rtol in here[0][rule]:
            best, peer = _best(mine, rtol, rule), _best(theirs, rtol, rule)
            found.append(Row(direction, cell, rtol, mine[0][rule][rtol], *best, *peer))
    return found


def _best(entries: list[dict[str, Any]], rtol: str, rule: str) -> tuple[int | None, str]:
    reached = [(entry[rule][rtol], entry["solver"]) for entry in entries if entry[rule][rtol]]
    return min(reached, key=lambda pair: pair[0]) if reached else (None, "")


def table(content: dict[str, Any]) -> str:
    """Return the cases as a Markdown table."""
    peer = content["environment"]["torchdeq"] is not None

    def line(row: Row) -> list[str]:
        best = [_shown(row.default), _shown(row.poise), row.poise_solver]
        theirs = [_shown(row.torchdeq), row.torchdeq_solver] if peer else []
        return [row.direction, row.cell, row.rtol, *best, *theirs]

    header = ["", "cell", "to", "poise, default", "poise, best", "by", *(["torchdeq, best", "by"] if peer else [])]
    return markdown(header, map(line, shown(content)), numbers=(3, 4, 6))


def shown(content: dict[str, Any]) -> list[Row]:
    """Return the cases as the table gives them: the expansive cell's by the rule `apart`."""
    by_rule = {rule: rows(content, rule) for rule in ("evaluations", "apart")}
    return [
        replace(apart, direction="apart") if apart.cell == expansive.__name__ else together
        for together, apart in zip(*by_rule.values(), strict=True)
    ]


def everything(content: dict[str, Any]) -> str:
    """Return every count as a Markdown table."""

    def line(entry: dict[str, Any]) -> list[str]:
        counts = [_shown(number) for rule in ("evaluations", "apart") for number in entry[rule].values()]
        return [entry["direction"], entry["cell"], entry["library"], entry["solver"], *counts]

    tolerances = [power(tolerance) for tolerance in TOLERANCES]
    header = ["", "cell", "library", "solver", *(f"to {t}" for t in tolerances), *(f"apart, {t}" for t in tolerances)]
    return markdown(header, map(line, content["counts"]), numbers=(4, 5, 6, 7))


def _shown(number: int | None) -> str:
    return "none" if number is None else str(number)


def verdict(content: dict[str, Any]) -> str:
    """Return in words where poise's best needs more than torchdeq's best, by either rule, and what nobody reaches."""
    if content["environment"]["torchdeq"] is None:
        return "torchdeq is not installed, so poise's counts stand alone."
    both = [(rule, row) for rule in ("evaluations", "apart") for row in rows(content, rule)]
    more = [
        f"{row.cell} {row.direction} to {row.rtol}{' (samples apart)' if rule == 'apart' else ''}: "
        f"{row.poise or 'none'} against {row.torchdeq}"
        for rule, row in both
        if row.needs_more
    ]
    sentences = ["Nowhere does poise's best solver need more evaluations than torchdeq's best at its best setting."]
    if more:
        sentences = [f"poise's best solver needs more evaluations than torchdeq's best here: {'; '.join(more)}."]
    for row in shown(content):
        if row.poise is None and row.torchdeq is None:
            floor = content["backward_floors"][row.cell] if row.direction == "backward" else None
            why = f": float32 products leave {floor:.1e} at the exact solution" if floor else ""
            sentences.append(f"Nobody reaches {row.rtol} on {row.cell} {row.direction}{why}.")
    return " ".join(sentences)


def main() -> None:
    options = command.parser(__doc__, "evaluations", cells=[build.__name__ for build in COUNTED]).parse_args()
    command.run(
        options,
        partial(measure, options.cells),
        table,
        lambda content: (RULE, everything(content), table(content), verdict(content)),
    )


if __name__ == "__main__":
    main()
