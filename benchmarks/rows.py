"""What do easy samples pay for a hard neighbour? Sample evaluations of a mixed batch over those of its samples alone.

`python -m benchmarks.rows [--markdown] [--json FILE]` (about a minute on one thread)
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks.cells import MIXED, Problem
from benchmarks.evaluations import Run, torchdeq_solvers
from benchmarks.results import FOLDER, environment, markdown, torchdeq_version, write

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
    for number in range(problem.z0.shape[0]):
        yield problem.select(torch.tensor([number]))


def poise_rows(problem: Problem, solver: poise.Solver) -> tuple[int, int, bool]:
    """Return (rows, steps alone, whether all converged)."""

    def solve(part: Problem) -> poise.Solution:
        return poise.fixed_point(part.f, part.z0, part.context, solver=solver, on_failure="ignore")

    together, alone = solve(problem), [solve(sample) for sample in samples(problem)]
    steps = sum(int(solution.steps.sum()) for solution in alone)
    return together.rows, steps, together.ok and all(solution.ok for solution in alone)


def torchdeq_rows(problem: Problem, run: Run) -> tuple[int, int, bool]:
    """Return (rows, steps alone, whether all converged) of a solver that evaluates the whole batch every time."""

    def evaluations(part: Problem) -> tuple[int, bool]:
        made = 0

        def f(z: Tensor) -> Tensor:
            nonlocal made
            made += 1
            return part.f(z, part.context)

        info = run(f, part.z0, BUDGET)[2]
        return made, bool((info["rel_lowest"] < RTOL).all())

    together, alone = evaluations(problem), [evaluations(sample) for sample in samples(problem)]
    ok = together[1] and all(passed for _, passed in alone)
    return together[0] * problem.z0.shape[0], sum(made for made, _ in alone), ok


@torch.no_grad()
def measure() -> dict[str, Any]:
    """Count everything and return the result."""
    found = []
    for build in MIXED:
        problem = build()
        for name, solver in poise_solvers().items():
            found.append(_entry(problem, "poise", name, *poise_rows(problem, solver)))
        for name, run in torchdeq_solvers(tol=RTOL).items():
            if name in PEERS:
                found.append(_entry(problem, "torchdeq", name, *torchdeq_rows(problem, run)))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, default=FOLDER / "rows.json", help="where the result is written")
    parser.add_argument("--markdown", action="store_true", help="print the README's table and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    content = {"environment": environment(), **measure()}
    write(options.json, content)
    if options.markdown:
        print(table(content))
        return
    if torchdeq_version() is None:
        print("torchdeq is not installed (pip install --no-deps torchdeq==0.1.0); this is the poise half alone.")
    worst = max(entry["ratio"] for entry in content["rows"] if entry["library"] == "poise")
    print(RULE, table(content), f"poise's worst ratio: {worst:.2f}.", sep="\n\n")


if __name__ == "__main__":
    main()
