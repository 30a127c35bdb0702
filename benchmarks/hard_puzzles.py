"""What does a reasoner do with Sudoku puzzles that forced steps alone do not solve, from one start and from many?

`python -m benchmarks.hard_puzzles RUN[=N] [...] [--instances 500] [--markdown] [--json FILE]` (runs of `poise train
reason` on Sudoku, each with how many of the puzzles it solves from many starts too, all by default; half an hour each)
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
from benchmarks.runs import counted, opened
from poise.data.puzzles import Instances, sudoku
from poise.fixed_point import Status
from poise.models import Reasoner
from poise.objectives import auroc
from poise.tasks.reason_analysis import answers_within
from poise.tasks.regularization import solving
from poise.tasks.run_folder import RunFolder

SEED = 3000
BUDGETS = (16, 50, 200, 1000)
STARTS, SHORT = 32, 100  # and the evaluations each has at first
GUESSES = {"1 or 2 guesses": (1, 2), "3 to 9 guesses": (3, 9), "10 or more": (10, 10**9)}
RULE = (
    "Fresh minimal Sudoku puzzles with one solution, by exact search, that naked and hidden singles do not solve; "
    "exact match of all 81 cells. Guesses: digits that a search with singles tries. One start: zeros. 32: zeros and "
    "N(0, 1), 100 evaluations each, the answer of most; where no answer has more than half of them, 32 starts again "
    "with up to 1,000; of N, the first N puzzles. Training shares no solution with the test."
)
PUBLISHED: tuple[tuple[str, str, str, str], ...] = (
    ("HRM", "27.3 million", "1.0 to 1.4 h on one GPU", "55%"),
    ("TRM", "5 to 7 million", "not known to us", "87.4%"),
    ("FPRM", "not known to us", "not known to us", "94.2%"),
    ("EqR", "2 blocks of width 512", "50,000 steps of 768", "99.8%"),
)
"""Published on Sudoku-Extreme, whose puzzles take more guesses: system, parameters, cost, percent solved."""


def measure(runs: Sequence[tuple[Path, int | None]], instances: int) -> dict[str, Any]:
    """Measure runs on the same puzzles, the first so many of them from many starts too; None is all."""
    drawn = sudoku.generate_hard(instances, np.random.default_rng(SEED), "test")
    guesses = np.array([sudoku.guesses(puzzle) for puzzle in drawn.given])
    return {
        "rule": RULE,
        "instances": instances,
        "mean_clues": float((drawn.given > 0).sum(axis=1).mean()),
        "mean_guesses": float(guesses.mean()),
        "most_guesses": int(guesses.max()),
        "kinds": {name: int(_between(guesses, *bounds).sum()) for name, bounds in GUESSES.items()},
        "runs": [
            _run(run, drawn, guesses, instances if started is None else min(started, instances))
            for run, started in runs
        ],
    }


def _between(guesses: Any, least: int, most: int) -> Any:
    return (guesses >= least) & (guesses <= most)


def _run(run: Path, drawn: Instances, guesses: Any, started: int) -> dict[str, Any]:
    """Return what one run does, from a file of its folder where it was measured before."""
    folder = RunFolder(run)
    found: dict[str, Any] = {}
    for solve, few in ((_alone, len(drawn)), (_together, started)):
        file = folder.path / f"hard{solve.__name__}-{few}.json"
        if few and not file.is_file():
            folder.write_json(file, solve(opened(run, "reason").eval(), drawn.select(slice(few)), guesses[:few]))
        found |= folder.read_json(file)
    found |= {"from_starts": started}
    summary = folder.read_json(folder.summary)
    config = opened(run, "reason").config
    return {
        "part_hard": config.data.hard,
        "train_clues": list(config.data.train_sizes),
        "most_evaluations": config.solver.max_steps + config.regularization.jitter,
        **{name: summary[name] for name in ("recipe", "seed", "parameters", "steps", "train_seconds")},
        "train_cpu_seconds": summary["train_cpu_seconds"],
        **found,
    }


@torch.no_grad()
def _alone(task: Any, drawn: Instances, guesses: Any) -> dict[str, Any]:
    """Return what is solved within each budget, from zeros."""
    model, size = task.model, task.config.data.eval_batch_size
    layer = model.equilibrium
    given, answer = torch.from_numpy(drawn.given), torch.from_numpy(drawn.answer)
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
    return found


@torch.no_grad()
def _together(task: Any, drawn: Instances, guesses: Any) -> dict[str, Any]:
    """Return what is solved from many starts."""
    model, size = task.model, task.config.data.eval_batch_size
    given, answer = torch.from_numpy(drawn.given), torch.from_numpy(drawn.answer)
    generator = torch.Generator().manual_seed(SEED)
    found: dict[str, Any] = {}
    began = time.process_time()
    answers, agreement, votes = _from_starts(model, given, SHORT, size, generator)
    undecided = (votes <= STARTS // 2).nonzero()[:, 0]
    found["undecided"] = len(undecided) / len(given)
    if len(undecided):
        again = _from_starts(model, given[undecided], max(BUDGETS), size, generator)
        answers[undecided], agreement[undecided], votes[undecided] = again
    found["seconds_a_puzzle_of_starts"] = (time.process_time() - began) / len(given)
    right = answers == answer
    found["solved_from_starts"] = _share(right)
    found["from_starts_by_guesses"] = _by_guesses(right, guesses)
    found["agreement"] = float(agreement.mean())
    found["agreement_auroc"] = auroc(agreement.double(), right.all(dim=1))
    found["wrong"] = int((~right.all(dim=1)).sum())
    return found


def _from_starts(
    model: Reasoner, given: Tensor, budget: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the answers that most starts give, how far starts agree, and the votes of the answer."""
    layer = model.equilibrium
    with solving(layer, replace(layer.solver_in_use, max_steps=budget)):
        solutions = [
            model.solve(few, starts=STARTS, generator=generator) for few in given.split(max(1, size // STARTS))
        ]
    starts = [solution.starts for solution in solutions]
    return (
        torch.cat([model.read(solution.state) for solution in solutions]),
        torch.cat([one.agreement for one in starts if one is not None]),
        torch.cat([one.votes.amax(dim=1) for one in starts if one is not None]),
    )


def _share(right: Tensor) -> float:
    return float(right.flatten(1).all(dim=1).double().mean())


def _by_guesses(right: Tensor, guesses: Any) -> dict[str, float]:
    return {name: _share(right[torch.from_numpy(_between(guesses, *bounds))]) for name, bounds in GUESSES.items()}


def table(content: dict[str, Any]) -> str:
    """Return what each run solves as a Markdown table, the published figures below."""
    hardest = list(GUESSES)[-1]
    rows = []
    for run in content["runs"]:
        low, high = run["train_clues"]
        rows.append(
            [
                f"{run['part_hard']:.0%} hard, {low} to {high} clues, up to {run['most_evaluations']} evaluations",
                f"{run['parameters']:,}",
                f"{run['steps']:,}",
                f"{run['train_cpu_seconds'] / 60:.0f} min of a core",
                *(f"{run['solved'][str(budget)]:.1%}" for budget in BUDGETS),
                f"{run['by_guesses'][hardest]:.1%}",
                f"{run['solved_from_starts']:.1%} of {run['from_starts']}" if run["from_starts"] else "",
                "",
            ]
        )
    rows += [
        [f"{name}, Sudoku-Extreme", size, "", cost, *[""] * (len(BUDGETS) + 2), part]
        for name, size, cost, part in PUBLISHED
    ]
    budgets = [f"within {budget:,}" for budget in BUDGETS]
    header = [
        "trained on",
        "parameters",
        "steps",
        "training",
        *budgets,
        f"{hardest} guesses",
        f"{STARTS} starts",
        "published",
    ]
    return markdown(header, rows, numbers=(2, *range(4, len(header))))


def verdict(content: Mapping[str, Any]) -> str:
    """Return how hard the puzzles are, what solving them takes and whether agreement tells."""
    clues, guesses, hardest = content["mean_clues"], content["mean_guesses"], content["kinds"][list(GUESSES)[-1]]
    lines = [
        f"The {content['instances']} puzzles have {clues:.1f} clues and take {guesses:.1f} guesses on the mean, "
        f"{content['most_guesses']} at most; {hardest} take 10 or more."
    ]
    for run in content["runs"]:
        if not run["from_starts"]:
            continue
        known = "undefined" if run["agreement_auroc"] is None else f"{run['agreement_auroc']:.3f}"
        converged, seconds = run["converged"], run["seconds_a_puzzle_of_starts"]
        lines.append(
            f"After {run['steps']:,} steps on {run['part_hard']:.0%} hard puzzles: from zeros "
            f"{run['evaluations']:.0f} evaluations on the mean, {converged:.1%} converged, "
            f"{run['seconds_a_puzzle']:.2f} s a puzzle; from {STARTS} starts {seconds:.1f} s, "
            f"{run['undecided']:.1%} undecided at first, AUROC of their agreement {known}, "
            f"{run['wrong']} answers being wrong."
        )
    return " ".join(lines)


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule, the table and what else there is to say."""
    return RULE, table(content), verdict(content)


def main() -> None:
    parser = command.parser(__doc__, "hard_puzzles", rounds=1)
    parser.add_argument("runs", type=counted, nargs="+", metavar="RUN[=N]")
    parser.add_argument("--instances", type=int, default=500, help="fresh puzzles (default 500)")
    options = parser.parse_args()
    run = partial(measure, options.runs, options.instances)
    command.run(options, run, table, report, peer=False)


if __name__ == "__main__":
    main()
