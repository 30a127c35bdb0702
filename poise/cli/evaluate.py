"""`poise evaluate RUN`: quality on the whole validation split, and the test split where there is one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from poise.cli.errors import DONE
from poise.cli.opening import ENGINE, MEMORY, SOLVER, open_run, run_arguments
from poise.tasks.process import rank, say

OVERRIDES = {**SOLVER, **ENGINE, **MEMORY}


def run(argv: list[str]) -> int:
    """Evaluate a run, print the measures and write evaluation.json."""
    parser = run_arguments("evaluate", "Measure a run on all of its validation split, and its test split.", OVERRIDES)
    arguments = parser.parse(argv)
    folder, task = open_run(arguments, OVERRIDES)

    from poise.tasks.evaluation import measure

    began = time.perf_counter()
    found: dict[str, float] = {}
    for split in ("valid", "test"):
        if task.evaluation_batches(split) is not None:
            found |= measure(task, split, task.config.trainer, folder)
    found |= task.assess()
    dial = task.dial()
    seconds = time.perf_counter() - began
    solves = task.cost.evaluation
    result = {
        "task": task.task_name,
        **found,
        "mean_evaluations": solves.mean_evaluations,
        "evaluation_seconds": round(seconds, 3),
        "statuses": solves.statuses,
        "solver": asdict(task.config.eval_solver) if solves.solves else None,
        "dial": dial,
    }
    if rank() == 0:
        folder.write_json(folder.evaluation, result)
    lines = [(task.quality_names.get(name, name.replace("_", " ")), f"{value:.4f}") for name, value in found.items()]
    if solves.solves:
        statuses = ", ".join(f"{number:,} {status}" for status, number in solves.statuses.items())
        lines.append(("evaluations a solve", f"{solves.mean_evaluations:.1f}, for the slowest sample of each batch"))
        lines.append(("statuses", statuses))
    width = max(len(label) for label, _ in lines) + 2
    for label, text in lines:
        say(f"  {label:{width}}{text}")
    if dial:
        say(f"\n{_dial_table(dial)}")
    return DONE


def _dial_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return quality against evaluations, a line for each way to stop."""
    lines = [f"  {'a part of validation, stopped':32}{'evaluations':>12}{'the most':>10}{'loss':>9}{'perplexity':>12}"]
    for row in rows:
        stop = f"by a budget of {row['max_steps']}" if row["rtol"] is None else f"by a residual of {row['rtol']:g}"
        cells = f"{row['evaluations']:12.1f}{row['most_evaluations']:10.0f}{row['loss']:9.4f}{row['perplexity']:12.4g}"
        lines.append(f"  {stop:32}{cells}")
    return "\n".join(lines)
