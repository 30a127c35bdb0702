"""Runs of the command line as benchmarks: trained once, gone on with where they were stopped, and evaluated."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from poise.cli.main import main as poise
from poise.cli.table import TASKS, load
from poise.configs.fields import from_dict
from poise.tasks.evaluation import measure
from poise.tasks.run_folder import RunFolder


def opened(run: Path, task: str = "language", **data: Any) -> Any:
    """Return the task of a run of that kind; `data`: settings of its data to take anew."""
    folder = RunFolder(run)
    name, values = folder.read_config()
    if name != task:
        raise SystemExit(f"{run} is a run of {name}; pass one of {task}.")
    config = from_dict(load(TASKS[task].config), values)
    return load(TASKS[task].task).open(replace(config, data=replace(config.data, **data)), folder)


def counted(run: str) -> tuple[Path, int | None]:
    """Return a run and a number, of RUN=N, or None of RUN."""
    path, _, count = run.rpartition("=")
    return (Path(path), int(count)) if path and count.isdigit() and not Path(run).is_dir() else (Path(run), None)


def evaluated(folder: RunFolder, split: str, memory: int) -> dict[str, Any]:
    """Return a language run's measures of a split at a memory, from a file of its folder where they are there."""
    file = folder.path / f"{split}-memory-{memory}.json"
    if not file.is_file():
        task = opened(folder.path, memory=memory)
        found = measure(task, split, task.config.trainer, folder)
        solves = task.cost.evaluation
        folder.write_json(
            file, {**found, "mean_evaluations": solves.mean_evaluations, "statuses": dict(solves.statuses)}
        )
    return folder.read_json(file)


def trained(task: str, recipe: str, folder: RunFolder, *flags: str) -> RunFolder:
    """Train a recipe on one thread in a folder, unless it is done, and return the folder."""
    if not folder.summary.is_file():
        out = str(folder.path)
        carry_out(["train", task, "--recipe", recipe, "--threads", "1", "--out", out, "--resume", *flags])
    return folder


def training_step(task: Any, optimizer: Optimizer, first: int = 0) -> Callable[[], None]:
    """Return the next training step of a task as a call, from a number on: batch, solve, gradient, and the optimizer's.

    What a run does beside, to schedule, to log and to save, is left out.
    """
    task.train()
    clip = task.config.trainer.gradient_clip_val
    numbers = itertools.count(first)

    def step() -> None:
        number = next(numbers)
        torch.manual_seed(number)
        loss, _ = task.step_loss(task.training_batch(number), number, torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(task.model.parameters(), clip)
        optimizer.step()

    return step


def carry_out(arguments: Sequence[str]) -> None:
    """Carry out a command of poise, and stop where it fails."""
    if code := poise(list(arguments)):
        raise SystemExit(code)
