"""Puzzles of a run: what it trains on, what it is tested on, and the rules, by the settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from poise.configs.reason import PuzzleDataConfig
from poise.data.puzzles import Instances, Split, maze, prefix, sudoku
from poise.data.puzzles.instances import Grid

Batch = tuple[Tensor, Tensor]  # what is given and the answer, uint8, (batch, *positions)
TRAIN, TEST = range(2)  # streams of random numbers of one seed
HARD = 1  # the size of Sudoku puzzles that singles do not solve

RULES: dict[str, Callable[[Grid, Grid], Any]] = {
    "sudoku": sudoku.is_solution,
    "prefix": prefix.is_solution,
    "maze": maze.is_solution,
}
"""Which answers solve which puzzles, by the rules alone."""


def size_name(puzzle: str, size: int) -> str:
    """Return how a test size is called."""
    if puzzle == "sudoku":
        return {0: "minimal", 1: "hard"}.get(size, f"{size} clues")
    return f"{size} bits" if puzzle == "prefix" else f"{size}x{size}"


@dataclass(frozen=True)
class TestSet:
    """Fresh puzzles of one size."""

    __test__ = False  # no test of pytest's

    name: str
    instances: Instances

    @property
    def batch(self) -> Batch:
        """What is given and the answers."""
        return as_tensors(self.instances)


def as_tensors(instances: Instances) -> Batch:
    """Return what is given and the answers as tensors."""
    return torch.from_numpy(instances.given), torch.from_numpy(instances.answer)


def test_sets(data: PuzzleDataConfig, seed: int) -> list[TestSet]:
    """Return the test puzzles of every size, the same for a seed; Sudoku's sizes are the same grids."""
    generator = np.random.default_rng([seed, TEST])
    split: Split = "test"
    found = []
    grids = sudoku.generate(data.test_instances, generator, split) if data.puzzle == "sudoku" else None
    for size in data.test_sizes:
        if grids is not None and size == HARD:
            instances = sudoku.generate_hard(data.test_instances, generator, split)
        elif grids is not None:
            given = sudoku.with_clues(grids.given, grids.answer, size, generator) if size else grids.given
            instances = Instances(given, grids.answer, sudoku.forced(given)[1])
        elif data.puzzle == "prefix":
            instances = prefix.generate(data.test_instances, size, generator, split)
        else:
            instances = maze.generate(data.test_instances, size, generator, split)
        found.append(TestSet(size_name(data.puzzle, size), instances))
    return found


test_sets.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


class TrainingPuzzles:
    """Batches of fresh puzzles: that of a number depends on it and the seed alone."""

    def __init__(self, data: PuzzleDataConfig, seed: int) -> None:
        self.data, self.seed = data, seed
        self.pool: Instances | None = None
        if data.puzzle == "sudoku":
            generator = np.random.default_rng([seed, TRAIN])
            hard = round(data.hard * data.pool)
            easy = sudoku.generate(data.pool - hard, generator)
            self.pool = Instances.joined([easy, sudoku.generate_hard(hard, generator)])

    def batch(self, index: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a process's part of a batch; all puzzles of one batch have one size."""
        data = self.data
        generator = np.random.default_rng([self.seed, TRAIN, index])
        count = data.batch_size * world_size
        if self.pool is not None:
            chosen = self.pool.select(generator.integers(0, len(self.pool), count))
            clues = generator.integers(data.train_sizes[0], data.train_sizes[1] + 1, count)
            given = sudoku.with_clues(chosen.given, chosen.answer, clues, generator)
            drawn = Instances(given, chosen.answer, chosen.difficulty)
        elif data.puzzle == "prefix":
            length = int(generator.integers(data.train_sizes[0], data.train_sizes[1] + 1))
            drawn = prefix.generate(count, length, generator)
        else:
            drawn = maze.generate(count, int(generator.choice(data.train_sizes)), generator)
        return as_tensors(drawn.select(slice(rank * data.batch_size, (rank + 1) * data.batch_size)))
