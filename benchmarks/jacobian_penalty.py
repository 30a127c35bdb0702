"""What does the Jacobian penalty buy in evaluations, and what does it cost? Two runs that differ in it alone.

`python -m benchmarks.jacobian_penalty RUNS [--markdown] [--json FILE]` trains them in a folder, goes on where a run was
stopped, and measures them (half an hour on one thread). POISE_DATA names the folder of the data.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import command
from benchmarks.language_costs import Timed, step_of
from benchmarks.results import markdown
from benchmarks.runs import opened, trained
from poise.fixed_point import Anderson
from poise.nn import spectral_radius
from poise.tasks.evaluation import measure as evaluate
from poise.tasks.run_folder import RunFolder

TRAINED = 12  # evaluations of training, those that the gradient records left out
WEIGHT = 1.0
BUDGETS = (12, 6, 4, 3, 2)
RADII = 16  # windows
LOSS_LIMIT, SHARE_LIMIT = 0.02, 0.1
SETTINGS = (
    "--pretraining.steps 0 --model.n_before 0 --model.n_after 0 --model.n_layers 2 --solver.name anderson "
    f"--solver.rtol null --solver.max_steps {TRAINED} --adjoint.name phantom --adjoint.steps 2 --max_steps 600 "
    "--trainer.val_check_interval 600 --eval_solver.rtol 1e-3 --sample_tokens 0"
).split()
RUNS = {"without": ["--regularization.jacobian_weight", "0"], "with": ["--regularization.jacobian_weight", str(WEIGHT)]}
RULE = (
    f"Recipe tinyshakespeare-deq without plain layers around the equilibrium, 600 steps of {TRAINED} evaluations by "
    "Anderson's rule and a phantom gradient of two more; one run with the penalty at its default frequency, one "
    "without. Perplexity of the whole validation split after so many evaluations of the solver and no more (the "
    "gradient's two come on top), and its growth from the first to half of it; the largest spectral radius of "
    f"{RADII} windows; evaluations to a residual of 1e-3. Share: CPU time of the penalty in the mean training step. "
    f"Limits: {LOSS_LIMIT:.0%} of perplexity at half the evaluations with the penalty, {SHARE_LIMIT:.0%} of a step."
)


def measure(runs: Path, rounds: int) -> dict[str, Any]:
    """Train both runs where they are not yet, and return the result."""
    return {"rule": RULE, "trained_evaluations": TRAINED, "runs": [_run(name, runs, rounds) for name in RUNS]}


def _run(name: str, runs: Path, rounds: int) -> dict[str, Any]:
    folder = trained("language", "tinyshakespeare-deq", RunFolder(runs / f"penalty-{name}"), *SETTINGS, *RUNS[name])
    task = opened(folder.path)
    model: Any = task.model
    layer = model.equilibrium
    perplexities = {}
    for budget in BUDGETS:
        layer.eval_solver = Anderson(rtol=None, max_steps=budget, scope="prefix")
        perplexities[budget] = evaluate(task, "valid", task.config.trainer, folder)["val_perplexity"]
    layer.eval_solver = Anderson(rtol=1e-3, max_steps=100, scope="prefix")
    task.eval()
    with torch.no_grad():
        inputs = task.evaluation_batches("valid")[0][0]
        needed = model.solve(inputs).steps.double()
        few = model.solve(inputs[:RADII])
    radius = spectral_radius(model.cell, few.state, few.context, generator=torch.Generator().manual_seed(0)).radius
    summary = folder.read_json(folder.summary)
    weight = task.config.regularization.jacobian_weight
    return {
        "penalty": name,
        "weight": weight,
        "frequency": task.config.regularization.jacobian_frequency,
        "train_cpu_seconds": summary["train_cpu_seconds"],
        "val_perplexity": summary["val_perplexity"],
        "perplexities": {str(budget): value for budget, value in perplexities.items()},
        "growth_at_half": round(perplexities[TRAINED // 2] / perplexities[TRAINED] - 1, 5),
        "spectral_radius": float(radius.max()),
        "mean_evaluations": float(needed.mean()),
        "most_evaluations": float(needed.max()),
        "penalty_share_of_step": round(step_of(Timed(folder.path), rounds).penalty_share, 4) if weight else 0.0,
    }


def table(content: dict[str, Any]) -> str:
    """Return both runs as a Markdown table."""
    rows = [
        [
            f"{run['penalty']}",
            *(f"{run['perplexities'][str(budget)]:.3f}" for budget in BUDGETS),
            f"{round(run['growth_at_half'], 3) + 0.0:+.1%}",
            f"{run['spectral_radius']:.2f}",
            f"{run['mean_evaluations']:.1f}",
            f"{run['penalty_share_of_step']:.1%}",
        ]
        for run in content["runs"]
    ]
    header = ["penalty", *(f"at {budget}" for budget in BUDGETS), "at half", "radius", "to 1e-3", "share"]
    return markdown(header, rows, numbers=range(1, len(header)))


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def main() -> None:
    parser = command.parser(__doc__, "jacobian_penalty", rounds=11)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="folder of the runs")
    options = parser.parse_args()
    command.run(options, partial(measure, options.runs, options.rounds), table, report, peer=False)


if __name__ == "__main__":
    main()
