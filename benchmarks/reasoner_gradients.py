"""Which gradient teaches a reasoner to find answers by iteration: one step, a few, the implicit one, or all of them?

`python -m benchmarks.reasoner_gradients RUN [RUN ...] [--instances 500] [--markdown] [--json FILE]` (runs of `poise
train reason` that differ in their adjoint and in how many steps they were trained, the recipe's first; minutes)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigs

from benchmarks import command
from benchmarks.reasoners import measure
from benchmarks.results import markdown
from benchmarks.runs import opened
from poise.data.puzzles import sudoku
from poise.tasks.regularization import solving

PUZZLES, SOLVED_ON, SEED = 3, 50, 4000
ON_THE_WAY = (1, 3, 6, 12, 25, 50, 200, 4000)  # evaluations at which the cell's Jacobian is looked at

RULE = (
    "Networks that differ in how the equilibrium is differentiated alone (and in the settings named), on fresh test "
    "puzzles of four sizes, solved from zeros within 200 evaluations; exact match. Evaluations, converged, starts "
    "agree: on minimal puzzles. CPU: seconds of the training steps, one thread beside another process. Seed 0."
)


def gradients(runs: Sequence[Path], instances: int, compared: int) -> dict[str, Any]:
    """Measure the runs, and of the first one where its cell expands."""
    return {**measure([(run, compared) for run in runs], instances), "rule": RULE, "spectrum": spectrum(runs[0])}


@torch.no_grad()
def spectrum(run: Path) -> dict[str, Any]:
    """Return the largest real part of an eigenvalue of the cell's Jacobian on the way to an equilibrium.

    The implicit gradient of a direction of eigenvalue a is 1 / (1 - a) times the direct one: beyond 1 it points the
    wrong way, and near 1 it is as large as it is hard to solve for. `{evaluations: largest over puzzles}`.
    """
    task = opened(run, "reason").eval()
    model, layer = task.model, task.model.equilibrium
    given = torch.from_numpy(sudoku.generate(SOLVED_ON, np.random.default_rng(SEED), "test").given)
    context = model.cell.inject(model.encode(given))
    solver = replace(layer.solver_in_use, rtol=1e-6, max_steps=ON_THE_WAY[-1])
    usual = model.read(model.solve(given).state)
    with solving(layer, solver):
        solution = model.solve(given, record=list(ON_THE_WAY))
    kept = (model.read(solution.state) == usual).all(dim=1)
    states = zip(ON_THE_WAY, solution.trajectory, strict=True)
    found = {
        str(evaluations): max(
            _rightmost(model.cell, state[row : row + 1], context[row : row + 1]) for row in range(PUZZLES)
        )
        for evaluations, state in states
    }
    return {
        "largest_real_part": found,
        "puzzles": PUZZLES,
        "evaluations_to_1e-6": solution.steps.tolist(),
        "answers_kept": int(kept.sum()),
        "damping": solver.damping,
    }


def _rightmost(cell: Any, state: torch.Tensor, context: torch.Tensor) -> float:
    """Return the largest real part of an eigenvalue of the Jacobian at a state, by Arnoldi iteration."""

    def product(vector: Any) -> Any:
        tangent = torch.from_numpy(vector.astype(np.float32)).view_as(state)
        moved: torch.Tensor = torch.func.jvp(lambda z: cell(z, context), (state,), (tangent,))[1]
        return moved.flatten().numpy().astype(np.float64)

    size = state.numel()
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(SEED).standard_normal(size)
    values = eigs(operator, k=6, which="LR", v0=start, return_eigenvectors=False, tol=1e-2, maxiter=300, ncv=24)
    return float(values.real.max())


def table(content: dict[str, Any]) -> str:
    """Return one line a run as a Markdown table, the dearest first."""
    rows = []
    for kind in sorted(content["kinds"].values(), key=lambda kind: -kind["train_cpu_seconds"]):
        hardest = kind["sizes"][-1]
        rows.append(
            [
                kind["network"],
                f"{kind['steps']:,}",
                f"{kind['train_cpu_seconds']:.0f}",
                *(f"{size['solved']:.1%}" for size in kind["sizes"]),
                f"{hardest['evaluations']:.0f}",
                f"{hardest['converged']:.1%}",
                f"{hardest['agreement']:.1%}",
            ]
        )
    sizes = [size["name"] for size in next(iter(content["kinds"].values()))["sizes"]]
    header = ["gradient", "steps", "CPU, s", *sizes, "evaluations", "converged", "starts agree"]
    return markdown(header, rows, numbers=range(1, len(header)))


def verdict(content: dict[str, Any]) -> str:
    """Return why the implicit gradient does not teach, in sentences."""
    found = content["spectrum"]
    way = ", ".join(f"{value:.2f} after {evaluations}" for evaluations, value in found["largest_real_part"].items())
    steps = sorted(found["evaluations_to_1e-6"])
    return (
        "Largest real part of an eigenvalue of the cell's Jacobian on the way to the equilibrium, of "
        f"{found['puzzles']} minimal puzzles, with phantom 8: {way} evaluations. Beyond 1 the implicit gradient points "
        f"the wrong way. Of {len(steps)} puzzles solved on to 1e-6, which takes {steps[len(steps) // 2]:,} evaluations "
        f"in the median, {found['answers_kept']} keep their answer."
    )


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and why."""
    return RULE, table(content), verdict(content)


def main() -> None:
    parser = command.parser(__doc__, "reasoner_gradients")
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--instances", type=int, default=500, help="fresh puzzles of each size (default 500)")
    parser.add_argument("--compared", type=int, default=100, help="of them solved from several starts (default 100)")
    options = parser.parse_args()
    command.run(
        options, partial(gradients, options.runs, options.instances, options.compared), table, report, peer=False
    )


if __name__ == "__main__":
    main()
