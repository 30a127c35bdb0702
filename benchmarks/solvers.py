"""Which library reaches the same accuracy sooner? poise and torchdeq, forward, backward and whole training steps.

`make bench-solvers`, or `python -m benchmarks.solvers [--cells ...] [--rounds N] [--device cuda] [--markdown]
[--json FILE]` (about 15 minutes on one thread). The figure is drawn by `python -m benchmarks.chart`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection
from functools import partial
from typing import Any

import torch

from benchmarks import command, mixed, overhead
from benchmarks.cells import CELLS, MIXED, Problem
from benchmarks.contest import race
from benchmarks.counting import TOLERANCES, Adjoint
from benchmarks.solver_tables import best, report, table
from benchmarks.solves import backward_case, backward_contestants, forward_case, forward_contestants
from benchmarks.steps import PHANTOM_STEPS, Trained, poise_step, step_case, torchdeq_step

RULE = (
    "Both libraries in one process on one thread, the same cells, weights and starts, float32. Every solver stops by "
    "its own test, at the loosest tolerance of its own with which its answer passes in float64 for the worst sample, "
    "and has a budget of just the evaluations that takes; this is found by counting, and exactly that call is then "
    "timed. Timed calls alternate; given is the median of processor time. torchdeq at its best: "
    "Anderson with m = 6 and 10 and a ridge from 1e-4 to 0 (for each m the ridge of the fewest evaluations: the "
    "ridge costs nothing), Broyden, plain iteration. poise is told what belongs to a sample, so finished samples leave "
    "the batch. Forward: |f(z) - z| / |f(z)| of the state returned. Backward: |g - u + J^T u| / |g| with float32 "
    "products at the fixed point. Step: forward and backward with one tolerance, until the gradients of the input and "
    "of every weight differ by at most 1e-4 from float64, relative to the norm of each; the solvers are those that won "
    "forward and backward at either tolerance, poise's default, and torchdeq's phantom gradients; torchdeq's implicit "
    "gradient runs both as a function and as a hook. poise also takes part with fixed budgets (rtol=None, the smallest "
    "that passes), as a training run would have them; torchdeq stops all samples together, so that its tolerances "
    "choose the same numbers of evaluations, but it pays its tests, and its iteration without one does not take part."
)


def measure(names: Collection[str], rounds: int, device: str) -> dict[str, Any]:
    """Measure everything on these cells and return the result."""
    solves: list[dict[str, Any]] = []
    steps: list[dict[str, Any]] = []
    for build in (*CELLS, *MIXED):
        if build.__name__ not in names:
            continue
        started = time.perf_counter()
        problem = build().on(device)
        found = _solves(problem, rounds, device)
        solves.extend(found)
        steps.extend(_steps(problem, found, rounds, device))
        print(f"{problem.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return {
        "rule": RULE,
        "rounds": rounds,
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "solves": solves,
        "steps": steps,
        "overhead": overhead.measure(names, rounds, device),
        "mixed": mixed.measure(names, rounds, device),
    }


def _solves(problem: Problem, rounds: int, device: str) -> list[dict[str, Any]]:
    entries = []
    with torch.no_grad():
        for tolerance in TOLERANCES:
            case = forward_case(problem, tolerance, device)
            entries.extend(race(case, forward_contestants(problem), rounds))
    adjoint = Adjoint.of(problem)
    for tolerance in TOLERANCES:
        case = backward_case(problem, adjoint, tolerance, device)
        entries.extend(race(case, backward_contestants(adjoint), rounds))
    return entries


def _steps(problem: Problem, solves: list[dict[str, Any]], rounds: int, device: str) -> list[dict[str, Any]]:
    trained = Trained.of(problem)

    def winners(library: str, direction: str) -> list[str]:
        cases = [[e for e in solves if (e["direction"], e["tolerance"]) == (direction, t)] for t in TOLERANCES]
        found = [best(case, library) for case in cases]
        return list(dict.fromkeys(entry["solver"] for entry in found if entry))

    ours = [(forward, backward) for forward in winners("poise", "forward") for backward in winners("poise", "backward")]
    ours = list(dict.fromkeys([("Anderson()", "GMRES()"), *ours]))
    contestants = [poise_step(trained, *pair) for pair in ours]
    contestants.append(poise_step(trained, "Picard()", "Picard()", fixed=True))
    contestants.append(poise_step(trained, "Anderson()", "Anderson(form='type2', history=6)", fixed=True))
    theirs = winners("torchdeq", "forward")
    for forward in theirs:
        for backward in winners("torchdeq", "backward"):
            contestants.extend(torchdeq_step(trained, forward, backward, hook) for hook in (False, True))
    contestants.extend(torchdeq_step(trained, theirs[0], phantom) for phantom in PHANTOM_STEPS if theirs)
    return race(step_case(trained, device), contestants, rounds)


def main() -> None:
    names = [build.__name__ for build in (*CELLS, *MIXED)]
    parser = command.parser(__doc__, "solvers", cells=names, rounds=7)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    options = parser.parse_args()
    command.run(options, partial(measure, options.cells, options.rounds, options.device), table, report)


if __name__ == "__main__":
    main()
