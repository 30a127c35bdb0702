"""How many evaluations of the cell does each solver need, forward and backward, in poise and in torchdeq?

`python -m benchmarks.evaluations [--markdown] [--json FILE]` (about two minutes on one thread)
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks.cells import CELLS, Problem, solved
from benchmarks.results import FOLDER, environment, markdown, torchdeq_version, write
from poise.fixed_point.linear import as_linear

RULE = (
    "One rule for both libraries, and no solver is stopped by a test of its own. Forward: the whole batch is closed "
    "over, so nothing leaves it; every state at which the cell is evaluated is noted, and counted is the 1-based index "
    "of the first one whose residual |f(z) - z| / |f(z)|, evaluated anew in float64, is within the tolerance for all "
    "samples together. Backward: u - J^T u = g with float32 vector-Jacobian products at the fixed point and g from "
    "N(0, 1); counted are the products made until |g - u + J^T u| / |g|, evaluated in float64, is within the tolerance "
    "for all samples together: for fixed-point solvers the index of the first u that passes, which its own product "
    "tests; for GMRES, which knows its residual without one, the products behind u. `apart` is the same with every "
    "sample taken at its own first pass, as if samples could stop one by one in both libraries."
)
TOLERANCES = (1e-3, 1e-6)
BUDGET = {"hard": 400}  # evaluations at most; elsewhere
USUAL_BUDGET = 200

Map = Callable[[Tensor], Tensor]
Run = Callable[[Map, Tensor, int], Any]


@dataclass
class Record:
    """The residuals of the points that a solver evaluates, as they come, each (batch,)."""

    residual: Callable[[Tensor], Tensor]
    evaluations: int = 0
    lowest: float = float("inf")  # of the worst sample
    together: dict[float, int] = field(default_factory=dict)  # when all samples passed at once
    first: dict[float, Tensor] = field(default_factory=dict)  # when each sample passed first; 0 before

    def add(self, z: Tensor) -> None:
        """Note a point; end the solve when every tolerance has been met."""
        self.evaluations += 1
        residual = self.residual(z)
        self.lowest = min(self.lowest, residual.max().item())  # NaN leaves it
        for tolerance in TOLERANCES:
            passed = residual <= tolerance
            before = self.first.setdefault(tolerance, torch.zeros(len(residual), dtype=torch.int64))
            self.first[tolerance] = torch.where(passed & (before == 0), self.evaluations, before)
            if bool(passed.all()):
                self.together.setdefault(tolerance, self.evaluations)
        if len(self.together) == len(TOLERANCES):
            raise _AllPassed

    @property
    def apart(self) -> dict[float, int]:
        """Each tolerance that every sample met at some time, and when the last one did."""
        return {tolerance: int(first.max()) for tolerance, first in self.first.items() if bool((first > 0).all())}


class _AllPassed(Exception):
    """All that is asked of a solve is known."""


def forward_residual(exact: Problem) -> Callable[[Tensor], Tensor]:
    """Return z -> |f(z) - z| / |f(z)| of every sample, by a problem in float64."""

    def residual(z: Tensor) -> Tensor:
        wide = z.detach().reshape(exact.z0.shape).double()
        fz = exact.f(wide, exact.context)
        return (fz - wide).flatten(1).norm(dim=1) / fz.flatten(1).norm(dim=1)

    return residual


def count(run: Run, f: Map, z0: Tensor, residual: Callable[[Tensor], Tensor], budget: int) -> Record:
    """Run a solver on f from z0 and return when each tolerance was met."""
    record = Record(residual)

    def noted(z: Tensor) -> Tensor:
        record.add(z)
        return f(z)

    # A singular system ends a solve of torchdeq's: what was not reached by then is not reached.
    with suppress(_AllPassed, torch.linalg.LinAlgError):
        run(noted, z0, budget)
    return record


def poise_solvers(budget: int) -> dict[str, poise.Solver]:
    """Return the solvers of poise by name, the default first."""
    endless: dict[str, Any] = {"rtol": 0.0, "max_steps": budget}
    return {
        "Anderson()": poise.Anderson(**endless),
        "Anderson(history=20)": poise.Anderson(history=20, **endless),
        "Anderson(history=30)": poise.Anderson(history=30, **endless),
        "Anderson(form='type2', history=5)": poise.Anderson(form="type2", history=5, **endless),
        "Anderson(form='type2')": poise.Anderson(form="type2", **endless),
        "Anderson(form='type2', history=30)": poise.Anderson(form="type2", history=30, **endless),
        "Broyden()": poise.Broyden(**endless),
        "Picard()": poise.Picard(**endless),
    }


def torchdeq_solvers(tol: float = 0.0) -> dict[str, Run]:
    """Return the solvers of torchdeq by name, Anderson at all settings; nothing where it is not installed.

    `tol`: of its relative stop test; 0 never stops.
    """
    if torchdeq_version() is None:
        return {}
    from torchdeq.solver import get_solver

    def runner(key: str, **options: Any) -> Run:
        return lambda f, z0, budget: get_solver(key)(f, z0, max_iter=budget, tol=tol, stop_mode="rel", **options)

    solvers = {
        f"anderson(m={m}, lam={power(lam)})": runner("anderson", m=m, lam=lam)
        for m in (6, 10)
        for lam in (1e-4, 1e-6, 1e-8, 0.0)
    }
    return {**solvers, "broyden": runner("broyden"), "fixed_point_iter": runner("fixed_point_iter")}


def _run_poise(solver: poise.Solver, f: Map, z0: Tensor, budget: int) -> Any:
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


@dataclass(frozen=True)
class Adjoint:
    """The linear system of a problem's backward, flat: its float32 products, and its residual in float64."""

    product: Map
    g: Tensor
    exact: Map

    @staticmethod
    def of(problem: Problem, seed: int = 2) -> Adjoint:
        """Linearise the problem at its fixed point; both precisions at the same point."""
        z = solved(problem).float()
        g = torch.randn(z.shape, generator=torch.Generator().manual_seed(seed)).flatten(1)
        return Adjoint(_products(problem, z), g, _products(problem.to(torch.float64), z.double()))

    def residual(self, u: Tensor) -> Tensor:
        """Return |g - u + J^T u| / |g| of every sample."""
        wide, right = u.double(), self.g.double()
        return (right - wide + self.exact(wide)).norm(dim=1) / right.norm(dim=1)

    def floor(self) -> float:
        """Return the residual that a float32 product sees at the exact solution: no float32 solver gets far below."""
        right = self.g.double()
        found = poise.GMRES(rtol=1e-13, max_steps=1000, restart=200).solve(self.exact, right)
        u = found.fz
        return ((right - u + self.product(u.float()).double()).norm(dim=1) / right.norm(dim=1)).max().item()


def _products(problem: Problem, z: Tensor) -> Map:
    with torch.enable_grad():
        start = z.clone().requires_grad_()
        image = problem.f(start, problem.context)

    def product(u: Tensor) -> Tensor:
        return torch.autograd.grad(image, start, u.reshape(z.shape), retain_graph=True)[0].flatten(1)

    return product


def backward(adjoint: Adjoint, problem: Problem, budget: int) -> Iterator[dict[str, Any]]:
    """Yield the counts of every solver on the linear system of the backward."""
    for name, gmres in (("GMRES()", poise.GMRES()), ("GMRES(restart=100)", poise.GMRES(restart=100))):
        yield _entry("backward", problem, "poise", name, count_gmres(gmres, adjoint, budget))
    for name, solver in poise_solvers(budget).items():
        record = count(partial(_run_linear, solver), adjoint.product, adjoint.g, adjoint.residual, budget)
        yield _entry("backward", problem, "poise", name, record)
    for name, run in torchdeq_solvers().items():
        # As its implicit gradient does: y = J^T y + g, from zero.
        record = count(
            run, lambda u: adjoint.product(u) + adjoint.g, torch.zeros_like(adjoint.g), adjoint.residual, budget
        )
        yield _entry("backward", problem, "torchdeq", name, record)


def count_gmres(solver: poise.GMRES, adjoint: Adjoint, budget: int) -> Record:
    """Return when GMRES first has an answer of each tolerance: its answer after k products, for the k that decide."""
    residuals: dict[int, Tensor] = {}

    def after(products: int) -> Tensor:
        if products not in residuals:
            found = replace(solver, rtol=None, max_steps=products).solve(adjoint.product, adjoint.g)
            residuals[products] = adjoint.residual(found.fz)
        return residuals[products]

    def passes(products: int, tolerance: float) -> bool:
        return bool((after(products) <= tolerance).all())

    record = Record(adjoint.residual)
    for tolerance in TOLERANCES:
        high = 1
        while high < budget and not passes(high, tolerance):
            high = min(2 * high, budget)
        if not passes(high, tolerance):
            continue
        low = high // 2  # a minimal residual falls with every product, so a bisection finds the first that passes
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle, tolerance) else (middle, high)
        record.together[tolerance] = high
        record.first[tolerance] = torch.tensor([high])  # it falls for every sample: the last to pass decides both
    record.evaluations = max(residuals)
    record.lowest = min(residual.max().item() for residual in residuals.values())
    return record


def power(tolerance: float) -> str:
    """Return a tolerance as text, such as 1e-3."""
    return f"{tolerance:.0e}".replace("e-0", "e-") if tolerance else "0"


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


def measure(names: Collection[str] | None = None) -> dict[str, Any]:
    """Count everything and return the result; `names`: these cells only."""
    counts, floors = [], {}
    for build in CELLS:
        problem = build()
        if names is not None and problem.name not in names:
            continue
        budget = BUDGET.get(problem.name, USUAL_BUDGET)
        adjoint = Adjoint.of(problem)
        floors[problem.name] = adjoint.floor()
        for entry in (*forward(problem, budget), *backward(adjoint, problem, budget)):
            counts.append(entry)
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
    return markdown(header, map(line, rows(content)), numbers=(3, 4, 6))


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
    for row in rows(content):
        if row.poise is None and row.torchdeq is None:
            floor = content["backward_floors"][row.cell] if row.direction == "backward" else None
            why = f": float32 products leave {floor:.1e} at the exact solution" if floor else ""
            sentences.append(f"Nobody reaches {row.rtol} on {row.cell} {row.direction}{why}.")
    return " ".join(sentences)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, default=FOLDER / "evaluations.json", help="where the result is written")
    parser.add_argument("--markdown", action="store_true", help="print the README's table and nothing else")
    parser.add_argument("--cells", nargs="+", choices=[build.__name__ for build in CELLS], help="these cells only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    content = {"environment": environment(), **measure(options.cells)}
    write(options.json, content)
    if options.markdown:
        print(table(content))
        return
    if torchdeq_version() is None:
        print("torchdeq is not installed (pip install --no-deps torchdeq==0.1.0); this is the poise half alone.")
    print(RULE, everything(content), table(content), verdict(content), sep="\n\n")


if __name__ == "__main__":
    main()
