"""Puzzles from anywhere, solved by a run and checked by the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.data.puzzles import maze, prefix, sudoku
from poise.data.puzzles.instances import Grid
from poise.fixed_point import Solution, Status, Step
from poise.models import Reasoner
from poise.tasks.puzzles import RULES
from poise.tasks.reason import ReasonTask


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
