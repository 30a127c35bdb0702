"""How many puzzles a second does a reasoner solve, what does freezing save, and what does a very long instance take?

`python -m benchmarks.puzzle_costs SUDOKU_RUN PREFIX_RUN [--instances 1000] [--bits 4096] [--markdown] [--json FILE]`
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
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
from poise.data.puzzles import prefix, sudoku
from poise.fixed_point import Status
from poise.tasks.puzzle_solving import solve_puzzles
from poise.tasks.regularization import solving

SEED = 2000
LONG = 8  # strings of the very long kind
RULE = (
    "Fresh minimal Sudoku puzzles, in batches of the run's own size, one thread, CPU time. Frozen: as `poise solve` "
    "does, each puzzle until it is done. Nothing frozen: the same batches, every row until the last of its batch is "
    "done. Rows: evaluations of one puzzle. Long strings: solved one by one; the peak is that of the whole process."
)


def measure(sudoku_run: Path, prefix_run: Path, instances: int, bits: int) -> dict[str, Any]:
    """Measure both runs."""
    return {
        "rule": RULE,
        "sudoku": _throughput(opened(sudoku_run, "reason"), instances),
        "long": _long(opened(prefix_run, "reason"), bits),
    }


@torch.no_grad()
def _throughput(task: Any, instances: int) -> dict[str, Any]:
    """Return what freezing saves on minimal puzzles."""
    task.eval()
    drawn = sudoku.generate(instances, np.random.default_rng(SEED), "test")
    layer, size = task.model.equilibrium, task.config.data.eval_batch_size
    solver = layer.solver_in_use
    batches = [torch.from_numpy(drawn.given[start : start + size]) for start in range(0, instances, size)]
    seconds, rows, spent = {"frozen": 0.0, "whole": 0.0}, {"frozen": 0, "whole": 0}, []
    for batch in batches:  # side by side, so that a slow moment of the machine meets both
        solution = _timed(partial(task.model.solve, batch), seconds, "frozen")
        spent.append(solution.steps)
        rows["frozen"] += solution.rows
        with solving(layer, replace(solver, rtol=None, max_steps=solution.evaluations)):
            rows["whole"] += _timed(partial(task.model.solve, batch), seconds, "whole").rows
    began = time.process_time()
    answers = list(solve_puzzles(task, list(drawn.given)))
    whole = time.process_time() - began
    return {
        "puzzles": instances,
        "valid": sum(answer.valid for answer in answers) / instances,
        "mean_evaluations": float(torch.cat(spent).double().mean()),
        "most_evaluations": int(torch.cat(spent).max()),
        "puzzles_a_second": round(instances / whole, 2),
        "times_faster": round(seconds["whole"] / seconds["frozen"], 3),
        "times_fewer_rows": round(rows["whole"] / rows["frozen"], 3),
        "milliseconds": {name: round(1e3 * value / instances, 3) for name, value in seconds.items()},
    }


def _timed(call: Callable[[], Any], seconds: dict[str, float], name: str) -> Any:
    began = time.process_time()
    found = call()
    seconds[name] += time.process_time() - began
    return found


@torch.no_grad()
def _long(task: Any, bits: int) -> dict[str, Any]:
    """Return what strings much longer than any that was trained on take."""
    task.eval()
    model = task.model
    drawn = prefix.generate(LONG, bits, np.random.default_rng(SEED), "test")
    layer = model.equilibrium
    solver = replace(layer.solver_in_use, max_steps=2 * bits)
    right: list[Tensor] = []
    steps, converged, began = [], 0, time.process_time()
    with solving(layer, solver):
        for given, answer in zip(drawn.given, drawn.answer, strict=True):
            solution = model.solve(torch.from_numpy(given[None]))
            right.append(model.read(solution.state)[0] == torch.from_numpy(answer))
            steps.append(int(solution.steps))
            converged += int(solution.status == Status.CONVERGED)
    return {
        "bits": bits,
        "strings": LONG,
        "solved": sum(bool(one.all()) for one in right) / LONG,
        "bits_right": float(torch.stack(right).double().mean()),
        "converged": converged / LONG,
        "mean_evaluations": sum(steps) / LONG,
        "seconds": round((time.process_time() - began) / LONG, 3),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def table(content: dict[str, Any]) -> str:
    """Return both as a Markdown table."""
    short, long = content["sudoku"], content["long"]
    rows = [
        ["minimal Sudoku, valid answers", f"{short['valid']:.1%} of {short['puzzles']:,}"],
        ["puzzles a second", f"{short['puzzles_a_second']:.1f}"],
        ["evaluations, mean and most", f"{short['mean_evaluations']:.1f} and {short['most_evaluations']}"],
        ["times faster than with nothing frozen", f"{short['times_faster']:.2f}"],
        ["times fewer rows", f"{short['times_fewer_rows']:.2f}"],
        [f"prefix sums of {long['bits']:,} bits, solved", f"{long['solved']:.0%} of {long['strings']}"],
        ["converged", f"{long['converged']:.0%}"],
        ["evaluations, mean", f"{long['mean_evaluations']:,.0f}"],
        ["seconds a string", f"{long['seconds']:.1f}"],
        ["peak memory of the process, MB", f"{long['peak_bytes'] / 1e6:,.0f}"],
    ]  # fmt: skip
    return markdown(["measure", "value"], rows, numbers=())


def report(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the rule and the table."""
    return RULE, table(content)


def main() -> None:
    parser = command.parser(__doc__, "puzzle_costs")
    parser.add_argument("sudoku", type=Path, metavar="SUDOKU_RUN")
    parser.add_argument("prefix", type=Path, metavar="PREFIX_RUN")
    parser.add_argument("--instances", type=int, default=1000, help="minimal puzzles (default 1000)")
    parser.add_argument("--bits", type=int, default=4096, help="length of the long strings (default 4096)")
    options = parser.parse_args()
    run = partial(measure, options.sudoku, options.prefix, options.instances, options.bits)
    command.run(options, run, table, report, peer=False)


if __name__ == "__main__":
    main()
