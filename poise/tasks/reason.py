"""`reason`: puzzles learnt small and solved large, by an equilibrium or a feed-forward network."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from poise.configs.base import SolverConfig
from poise.configs.fields import from_dict
from poise.configs.reason import ReasonConfig
from poise.models import FeedForwardReasoner, Reasoner
from poise.report import Page
from poise.tasks.base import Measures, Task
from poise.tasks.puzzles import Batch, TestSet, TrainingPuzzles, size_name, test_sets
from poise.tasks.reason_analysis import analyse, shown
from poise.tasks.reason_report import build_page
from poise.tasks.run_folder import RunFolder
from poise.tasks.solving import build_adjoint, build_solver, equilibria
from poise.tasks.tolerance import intolerance
from poise.tasks.weights import load_weights

LabelledBatch = tuple[Tensor, Tensor, int]  # and the number of its test size


class ReasonTask(Task):
    """Minimises the cross-entropy of every position of a puzzle's answer; tests whole answers on fresh puzzles."""

    task_name = "reason"
    config_type = ReasonConfig

    config: ReasonConfig
    trained_solver: SolverConfig | None = None  # that of the run, where it was opened
    model: Reasoner | FeedForwardReasoner

    def __init__(self, config: ReasonConfig) -> None:
        super().__init__(config)
        self.model = build_model(config)
        for layer in equilibria(self.model):
            layer.on_failure = "ignore"  # budgets are drawn short on purpose; how solves ended is in every summary
        self.quality_names = {  # type: ignore[misc]  # the sizes are the run's own
            "val_solved": "solved, of all test puzzles",
            **{_key(name): f"  {name}" for name in names(config)},
            "val_loss": "test loss (nats a position)",
        }

    @classmethod
    def create(cls, config: ReasonConfig, folder: RunFolder | None = None) -> Self:
        """Draw the weights; puzzles are generated when they are first asked for."""
        torch.manual_seed(config.seed)
        return cls(config)

    @classmethod
    def open(cls, config: ReasonConfig, folder: RunFolder) -> Self:
        """Load the weights."""
        task = cls(config)
        load_weights(task.model, folder)
        task.trained_solver = from_dict(SolverConfig, folder.read_config()[1].get("eval_solver", {}))
        return task

    @cached_property
    def training_puzzles(self) -> TrainingPuzzles:
        """What training draws from."""
        return TrainingPuzzles(self.config.data, self.config.seed)

    @cached_property
    def test_sets(self) -> list[TestSet]:
        """The test puzzles of every size."""
        return test_sets(self.config.data, self.config.seed)

    def training_batch(self, index: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return what is given and the answers."""
        return self.training_puzzles.batch(index, rank, world_size)

    def training_loss(self, batch: Batch) -> tuple[Tensor, Measures]:
        """Return the mean cross-entropy of a position, solved from zeros and from random starts."""
        given, answer = batch
        if isinstance(self.model, Reasoner):
            logits = self.model(given, self.model.random_start(given, self.config.starts.random))
        else:
            logits = self.model(given)
        return self.model.loss(logits, answer), {}

    def evaluation_batches(self, split: str) -> Sequence[LabelledBatch] | None:
        """Return the test puzzles in batches, those of one size after those of another; there is one split."""
        if split != "valid":
            return None
        size = self.config.data.eval_batch_size
        return [
            (given, answer, number)
            for number, one in enumerate(self.test_sets)
            for given, answer in zip(*(part.split(size) for part in one.batch), strict=True)
        ]

    def evaluation_sums(self, batch: LabelledBatch) -> dict[str, Tensor]:
        """Return the summed loss, and for each size the answers that are right in every position, and all answers."""
        given, answer, number = batch
        logits = self.model(given)
        right = (self.model.choose(logits) == answer).flatten(1).all(dim=1)
        size = torch.tensor(int(number))
        solved, asked = torch.zeros(2, len(self.config.data.test_sizes), dtype=torch.float64)
        solved[size], asked[size] = right.sum().cpu().double(), len(right)
        loss = self.model.loss(logits, answer).cpu().double() * answer.numel()
        return {"loss": loss, "positions": torch.tensor(answer.numel()), "solved": solved, "asked": asked}

    def quality(self, sums: Mapping[str, Tensor], split: str) -> dict[str, float]:
        """Return the part of puzzles solved, of all and of each size, and the loss."""
        found = {"val_solved": float(sums["solved"].sum() / sums["asked"].sum())}
        for name, solved, asked in zip(names(self.config), sums["solved"], sums["asked"], strict=True):
            if asked:
                found[_key(name)] = float(solved / asked)
        return {**found, "val_loss": float(sums["loss"] / sums["positions"])}

    def save_inference(self, folder: RunFolder) -> None:
        """Settings and weights are all that inference needs: damping and tolerance are among the settings."""

    @cached_property
    def data_fingerprint(self) -> str:
        """A digest of the first training batch, which changes with what generates puzzles."""
        given, answer = self.training_batch(0)
        return hashlib.blake2b(np.concatenate([given, answer], axis=1).tobytes(), digest_size=16).hexdigest()

    def identity(self) -> dict[str, Any]:
        """Return which puzzle is solved by which network."""
        return {"model": self.config.model.kind, "puzzle": self.config.data.puzzle}

    def trunk(self, batch: Batch) -> Tensor | None:
        """Return the equilibrium of a batch."""
        return self.model.solve(batch[0]).state if isinstance(self.model, Reasoner) else None

    def assess(self) -> dict[str, float]:
        """Warn where the solver in use is one that the network does not bear."""
        self.warn_of_solver()
        return {}

    def warn_of_solver(self) -> None:
        """Warn if the solver in use is not the run's own, and the network solves less with it."""
        sentence = None if self.trained_solver is None else intolerance(self, self.trained_solver)
        if sentence:
            warnings.warn(sentence, stacklevel=2)

    def analyse(self) -> dict[str, Any]:
        """Return what the summary and the report show of solving."""
        return analyse(self)

    def show(self, analysis: Mapping[str, Any]) -> str:
        """Return the table of the summary: accuracy by budget, evaluations, convergence, agreement."""
        return shown(analysis)

    def build_page(self, folder: RunFolder) -> Page:
        """Return the report."""
        return build_page(folder)


def names(config: ReasonConfig) -> list[str]:
    """Return how the test sizes are called."""
    return [size_name(config.data.puzzle, size) for size in config.data.test_sizes]


def _key(name: str) -> str:
    return f"val_solved_{name.replace(' ', '_')}"


def build_model(config: ReasonConfig) -> Reasoner | FeedForwardReasoner:
    """Return the network that the settings describe, with fresh weights."""
    model, puzzle = config.model, config.data.puzzle
    if model.kind == "explicit":
        return FeedForwardReasoner(puzzle, model.width, model.hidden, layers=model.layers)
    return Reasoner(
        puzzle,
        model.width,
        model.hidden,
        solver=build_solver(config.solver),
        adjoint=build_adjoint(config.adjoint, config.solver),
        eval_solver=build_solver(config.eval_solver),
    )
