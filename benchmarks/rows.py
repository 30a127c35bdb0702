"""What do easy samples pay for a hard neighbour? Sample evaluations of a mixed batch over those of its samples alone.

`python -m benchmarks.rows [--markdown] [--json FILE]` (about a minute on one thread)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks import command
from benchmarks.cells import MIXED, Problem
from benchmarks.peers import Torchdeq, torchdeq_solvers
from benchmarks.results import markdown

RTOL = 1e-4
BUDGET = 500
# Anderson as torchdeq sets it, and as it needs the fewest evaluations on these cells.
PEERS = ("anderson(m=6, lam=1e-4)", "anderson(m=6, lam=0)", "broyden", "fixed_point_iter")
RULE = (
    "A batch of 64 samples that need very different numbers of steps, context declared, float32, relative tolerance "
    "1e-4. Rows: sample evaluations really made in one solve of the batch; alone: the evaluations of 64 solves of one "
    "sample each, summed, by the same solver. torchdeq, with the same relative tolerance, evaluates all samples until "
    "the last has passed."
)


def poise_solvers() -> dict[str, poise.Solver]:
    """Return every solver of poise by name."""
    options: dict[str, Any] = {"rtol": RTOL, "max_steps": BUDGET}
    return {
        "Picard()": poise.Picard(**options),
        "Anderson()": poise.Anderson(**options),
        "Anderson(form='type2')": poise.Anderson(form="type2", **options),
        "Broyden()": poise.Broyden(**options),
    }


def samples(problem: Problem) -> Iterator[Problem]:
    """Yield every sample as a problem of its own."""
    for number in range(problem.batch):
        yield problem.select(torch.tensor([number]))


def poise_rows(problem: Problem, solver: poise.Solver) -> tuple[int, int, bool]:
    """Return (rows, steps alone, whether all converged)."""

    def solve(part: Problem) -> poise.Solution:
        return poise.fixed_point(part.f, part.z0, part.context, solver=solver, on_failure="ignore")

    together, alone = solve(problem), [solve(sample) for sample in samples(problem)]
    steps = sum(int(solution.steps.sum()) for solution in alone)
    return together.rows, steps, together.ok and all(solution.ok for solution in alone)


def torchdeq_rows(problem: Problem, solver: Torchdeq) -> tuple[int, int, bool]:
    """Return (rows, steps alone, whether all converged) of a solver that evaluates the whole batch every time."""

    def evaluations(part: Problem) -> tuple[int, bool]:
        made = 0

        def f(z: Tensor) -> Tensor:
            nonlocal made
            made += 1
            return part.f(z, part.context)

        _, record = solver(f, part.z0, BUDGET, RTOL)
        return made, bool((record["rel_lowest"] < RTOL).all())

    together, alone = evaluations(problem), [evaluations(sample) for sample in samples(problem)]
    ok = together[1] and all(passed for _, passed in alone)
    return together[0] * problem.batch, sum(made for made, _ in alone), ok


@torch.no_grad()
def measure() -> dict[str, Any]:
    """Count everything and return the result."""
    found = []
    for build in MIXED:
        problem = build()
        for name, solver in poise_solvers().items():
            found.append(_entry(problem, "poise", name, *poise_rows(problem, solver)))
        for name, peer in torchdeq_solvers().items():
            if name in PEERS:
                found.append(_entry(problem, "torchdeq", name, *torchdeq_rows(problem, peer)))
    return {"rule": RULE, "rtol": RTOL, "rows": found}


def _entry(problem: Problem, library: str, solver: str, rows: int, alone: int, converged: bool) -> dict[str, Any]:
    return {
        "batch": problem.name,
        "library": library,
        "solver": solver,
        "rows": rows,
        "alone": alone,
        "ratio": round(rows / alone, 3),
        "converged": converged,
    }


def table(content: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""

    def line(entry: dict[str, Any]) -> list[str]:
        name = f"{entry['library']}, {entry['solver']}" + ("" if entry["converged"] else " (not converged)")
        return [entry["batch"], name, f"{entry['rows']:,}", f"{entry['alone']:,}", f"{entry['ratio']:.2f}"]

    header = ["batch", "solver", "rows together", "rows alone", "ratio"]
    return markdown(header, map(line, content["rows"]), numbers=(2, 3, 4))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and poise's worst ratio."""
    worst = max(entry["ratio"] for entry in content["rows"] if entry["library"] == "poise")
    return RULE, table(content), f"poise's worst ratio: {worst:.2f}."


def main() -> None:
    command.run(command.parser(__doc__, "rows").parse_args(), measure, table, report)


if __name__ == "__main__":
    main()
