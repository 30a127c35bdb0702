"""Puzzles from anywhere, solved by a run and checked by the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.configs.base import SolverConfig
from poise.data.puzzles import maze, prefix, sudoku
from poise.data.puzzles.instances import Grid
from poise.fixed_point import Solution, Status, Step
from poise.models import Reasoner
from poise.tasks.puzzles import RULES
from poise.tasks.reason import ReasonTask
from poise.tasks.regularization import solving
from poise.tasks.solving import build_solver

PROBED = 50  # test puzzles on which a changed solver is compared with the trained one
NOTICED = 0.05  # part of them fewer that are solved, or converge, from which a change is said


@dataclass(frozen=True)
class Answer:
    """What a run answers to one puzzle."""

    given: Grid
    answer: Grid
    valid: bool  # by the rules of the puzzle, of the answer as it is written
    evaluations: int | None  # None of a network that solves nothing
    status: str | None
    agreement: float | None  # part of the pairs of starts that give one answer; None of a single start

    def written(self, puzzle: str) -> str:
        """Return the answer as one line; the rows of a maze are parted by slashes."""
        if puzzle == "maze":
            return maze.written(self.given, self.answer).replace("\n", "/")
        return sudoku.written(self.answer) if puzzle == "sudoku" else prefix.written(self.answer)


@torch.no_grad()
def solve_puzzles(
    task: ReasonTask,
    puzzles: Sequence[Grid],
    *,
    starts: int = 1,
    seed: int = 0,
    watch: Callable[[Grid, Grid, Step], None] | None = None,
) -> Iterator[Answer]:
    """Yield the answer to each puzzle, in order; puzzles of one size that follow each other share a batch.

    `starts`: solve from so many, the first of them zeros. `watch`: called with puzzle, answer and step at every
    evaluation; puzzles are then solved one by one.
    """
    task.eval()
    model = task.model
    generator = torch.Generator(task.device).manual_seed(seed)
    size = 1 if watch is not None else max(1, task.config.data.eval_batch_size // starts)
    for batch in _batches(puzzles, size):
        given = torch.from_numpy(np.stack(batch)).to(task.device)
        solution: Solution | None = None
        if isinstance(model, Reasoner):
            options: dict[str, Any] = {"starts": starts, "generator": generator}
            if watch is not None:
                options["callback"] = _shown(model, batch[0], watch)
            solution = model.solve(given, **options)
            answers = model.read(solution.state)
        else:
            answers = model.choose(model(given))
        yield from _answers(task.config.data.puzzle, given, answers, solution)


def _shown(model: Reasoner, given: Grid, watch: Callable[[Grid, Grid, Step], None]) -> Callable[[Step], None]:
    def see(step: Step) -> None:
        watch(given, model.read(step.state)[0].cpu().numpy(), step)

    return see


def _answers(puzzle: str, given: Tensor, answers: Tensor, solution: Solution | None) -> Iterator[Answer]:
    asked, found = given.cpu().numpy(), answers.cpu().numpy()
    valid = RULES[puzzle](asked, found)
    together = None if solution is None or solution.starts is None else solution.starts.agreement
    for row in range(len(found)):
        yield Answer(
            asked[row],
            found[row],
            bool(valid[row]),
            None if solution is None else int(solution.steps[row]),
            None if solution is None else Status(int(solution.status[row])).name,
            None if together is None else float(together[row]),
        )


def _batches(puzzles: Sequence[Grid], size: int) -> Iterator[list[Grid]]:
    batch: list[Grid] = []
    for puzzle in puzzles:
        if batch and (len(batch) == size or puzzle.shape != batch[0].shape):
            yield batch
            batch = []
        batch.append(puzzle)
    if batch:
        yield batch


@torch.no_grad()
def intolerance(task: ReasonTask, trained: SolverConfig) -> str | None:
    """Return a sentence if the network does not bear a solver other than the run's own, by its hardest test puzzles."""
    if not isinstance(task.model, Reasoner) or task.config.eval_solver == trained:
        return None
    task.eval()
    layer = task.model.equilibrium
    given, answer = (part[:PROBED].to(task.device) for part in task.test_sets[-1].batch)
    found = []
    for config in (trained, task.config.eval_solver):
        with solving(layer, build_solver(config)):
            solution = task.model.solve(given)
        solved = (task.model.read(solution.state) == answer).flatten(1).all(dim=1)
        found.append([float(x.double().mean()) for x in (solved, solution.status == Status.CONVERGED)])
    layer.counters.reset()
    (before, ended), (after, ends) = found
    if before - after <= NOTICED and ended - ends <= NOTICED:
        return None
    changed = ", ".join(
        f"{name} {value} in place of {getattr(trained, name)}"
        for name, value in vars(task.config.eval_solver).items()
        if value != getattr(trained, name)
    )
    return (
        f"the network does not bear {changed}: of {len(given)} hard test puzzles it solves {after:.0%} in place of "
        f"{before:.0%}, and {ends:.0%} converge in place of {ended:.0%}; leave the solver as it was trained."
    )
