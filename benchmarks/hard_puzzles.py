"""What does a reasoner do with Sudoku puzzles that forced steps alone do not solve, from one start and from many?

`python -m benchmarks.hard_puzzles RUN [RUN ...] [--instances 500] [--markdown] [--json FILE]` (runs of `poise train
reason` on Sudoku; the better part of an hour each)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import command
from benchmarks.results import markdown
from benchmarks.runs import opened
from poise.data.puzzles import Instances, sudoku
from poise.fixed_point import Status
from poise.objectives import auroc
from poise.tasks.reason_analysis import answers_within
from poise.tasks.regularization import solving
from poise.tasks.run_folder import RunFolder

SEED = 3000
BUDGETS = (16, 50, 200, 1000)
STARTS = 32
GUESSES = {"1 or 2 guesses": (1, 2), "3 to 9 guesses": (3, 9), "10 or more": (10, 10**9)}
RULE = (
    "Fresh minimal Sudoku puzzles with one solution, by exact search, that naked and hidden singles do not solve; "
    "exact match of all 81 cells. Guesses: digits that a search with singles tries. One start: zeros. 32: zeros and "
    "N(0, 1), up to 1,000 evaluations each, the answer that agrees with most. Training shares no solution with them."
)
PUBLISHED: tuple[tuple[str, str, str, str], ...] = (
    ("HRM", "27.3 million", "about an hour on one GPU", "55"),
    ("TRM", "5 to 7 million", "a day or so on GPUs", "87.4"),
    ("EqR", "2 blocks of width 512", "50,000 steps of 768 on GPUs", "99.8"),
)
"""Published on Sudoku-Extreme, whose puzzles take more guesses: system, parameters, cost, percent solved."""


def measure(runs: Sequence[Path], instances: int) -> dict[str, Any]:
    """Measure runs on the same puzzles."""
    drawn = sudoku.generate_hard(instances, np.random.default_rng(SEED), "test")
    guesses = np.array([sudoku.guesses(puzzle) for puzzle in drawn.given])
    return {
        "rule": RULE,
        "instances": instances,
        "mean_clues": float((drawn.given > 0).sum(axis=1).mean()),
        "mean_guesses": float(guesses.mean()),
        "most_guesses": int(guesses.max()),
        "kinds": {name: int(_between(guesses, *bounds).sum()) for name, bounds in GUESSES.items()},
        "runs": [_run(run, drawn, guesses) for run in runs],
    }


def _between(guesses: Any, least: int, most: int) -> Any:
    return (guesses >= least) & (guesses <= most)


def _run(run: Path, drawn: Instances, guesses: Any) -> dict[str, Any]:
    """Return what one run does, from a file of its folder where it was measured before."""
    folder = RunFolder(run)
    file = folder.path / f"hard-{len(drawn)}.json"
    if not file.is_file():
        folder.write_json(file, _solved(opened(run, "reason"), drawn, guesses))
    summary = folder.read_json(folder.summary)
    data = folder.read_config()[1]["data"]
    return {
        "part_hard": data["hard"],
        **{name: summary[name] for name in ("recipe", "seed", "parameters", "steps", "train_seconds")},
        "train_cpu_seconds": summary["train_cpu_seconds"],
        **folder.read_json(file),
    }


@torch.no_grad()
def _solved(task: Any, drawn: Instances, guesses: Any) -> dict[str, Any]:
    """Return what is solved within each budget, and from many starts."""
    task.eval()
    model, size = task.model, task.config.data.eval_batch_size
    layer = model.equilibrium
    given, answer = torch.from_numpy(drawn.given), torch.from_numpy(drawn.answer)
    generator = torch.Generator().manual_seed(SEED)
    found: dict[str, Any] = {}
    with solving(layer, replace(layer.solver_in_use, max_steps=max(BUDGETS))):
        began = time.process_time()
        parts = [answers_within(model, few, BUDGETS) for few in given.split(size)]
        found["seconds_a_puzzle"] = (time.process_time() - began) / len(given)
        alone = [solution for _, solution in parts]
        at = {budget: torch.cat([answers[budget] for answers, _ in parts]) for budget in BUDGETS}
        found["solved"] = {str(budget): _share(answers == answer) for budget, answers in at.items()}
        found["by_guesses"] = _by_guesses(at[max(BUDGETS)] == answer, guesses)
        found["evaluations"] = float(torch.cat([one.steps for one in alone]).double().mean())
        found["converged"] = float(torch.cat([one.status == Status.CONVERGED for one in alone]).double().mean())
        began = time.process_time()
        many = [model.solve(few, starts=STARTS, generator=generator) for few in given.split(max(1, size // STARTS))]
        found["seconds_a_puzzle_of_starts"] = (time.process_time() - began) / len(given)
    right = torch.cat([model.read(solution.state) for solution in many]) == answer
    agreement = torch.cat([solution.starts.agreement for solution in many])
    found["solved_from_starts"] = _share(right)
    found["from_starts_by_guesses"] = _by_guesses(right, guesses)
    found["agreement"] = float(agreement.mean())
    found["agreement_auroc"] = auroc(agreement.double(), right.all(dim=1))
    found["wrong"] = int((~right.all(dim=1)).sum())
    return found


def _share(right: Tensor) -> float:
    return float(right.flatten(1).all(dim=1).double().mean())


def _by_guesses(right: Tensor, guesses: Any) -> dict[str, float]:
    return {name: _share(right[torch.from_numpy(_between(guesses, *bounds))]) for name, bounds in GUESSES.items()}


def table(content: dict[str, Any]) -> str:
    """Return what each run solves as a Markdown table, the published figures below."""
    rows = []
    for run in content["runs"]:
        kinds = run["by_guesses"], run["from_starts_by_guesses"]
        cost = f"{run['train_cpu_seconds'] / 60:.0f} min of one core"
        solved = [f"{run['solved'][str(budget)]:.1%}" for budget in BUDGETS]
        hardest = list(GUESSES)[-1]
        few = [f"{kind[hardest]:.1%}" for kind in kinds]
        rows.append(
            [
                f"poise, {run['part_hard']:.0%} hard in training",
                f"{run['parameters']:,}",
                cost,
                *solved,
                f"{run['solved_from_starts']:.1%}",
                *few,
            ]
        )
    rows += [
        [f"{name}, Sudoku-Extreme", size, cost, "", "", "", part, "", "", ""] for name, size, cost, part in PUBLISHED
    ]
    budgets = [f"within {budget:,}" for budget in BUDGETS]
    header = ["system", "parameters", "training", *budgets, f"{STARTS} starts", "10 guesses or more", "from starts"]
    return markdown(header, rows, numbers=tuple(range(3, 10)))


def verdict(content: Mapping[str, Any]) -> str:
    """Return how hard the puzzles are, what solving them takes and whether agreement tells."""
    clues, guesses, hardest = content["mean_clues"], content["mean_guesses"], content["kinds"][list(GUESSES)[-1]]
    lines = [
        f"The {content['instances']} puzzles have {clues:.1f} clues and take {guesses:.1f} guesses on the mean, "
        f"{content['most_guesses']} at most; {hardest} take 10 or more."
    ]
    for run in content["runs"]:
        known = "undefined" if run["agreement_auroc"] is None else f"{run['agreement_auroc']:.3f}"
        lines.append(
            f"With {run['part_hard']:.0%} hard puzzles in training: {run['evaluations']:.0f} evaluations on the mean, "
            f"{run['converged']:.1%} converged, {run['seconds_a_puzzle']:.2f} s a puzzle and "
            f"{run['seconds_a_puzzle_of_starts']:.1f} s from {STARTS} starts; AUROC of their agreement {known}, "
            f"{run['wrong']} answers being wrong."
        )
    return " ".join(lines)


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and what else there is to say."""
    return RULE, table(content), verdict(content)


def main() -> None:
    parser = command.parser(__doc__, "hard_puzzles", rounds=1)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--instances", type=int, default=500, help="fresh puzzles (default 500)")
    options = parser.parse_args()
    command.run(options, partial(measure, options.runs, options.instances), table, report, peer=False)


if __name__ == "__main__":
    main()
