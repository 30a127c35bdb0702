"""The equilibrium reasoner: one small map, iterated until the answer stands still; and its feed-forward peer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from poise.fixed_point.adjoints import Adjoint, Phantom
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Picard, Solver
from poise.models.puzzles import Puzzle, PuzzleNetwork, ReasoningCell
from poise.nn.cells.reasoning import unit_rms
from poise.nn.equilibrium import Equilibrium

# Information moves a position or two an evaluation, so no solver can skip ahead: damped plain iteration it is.
SOLVER = Picard(rtol=1e-2, max_steps=200, damping=0.5, residual="position")
ADJOINT = Phantom(steps=8, damping=0.7, recorded_only=True)


class Reasoner(PuzzleNetwork):
    """A puzzle read, the equilibrium of a small cell at every position, and an answer read off it.

    The cell is the same at any size of puzzle, so that one trained on small instances solves larger ones with more
    evaluations, and harder ones with more than easy ones. `puzzle`, `width`, `hidden`: as in `PuzzleNetwork`. The
    tolerance is the residual of the slowest position; weights go with the damping they were trained with.

    Anil et al. (2022), "Path independent equilibrium models can better exploit test-time computation"; Huang, Geng and
    Kolter (2026).

    >>> model = Reasoner("sudoku")
    >>> model(torch.zeros(1, 81, dtype=torch.uint8)).shape
    torch.Size([1, 9, 81])
    """

    def __init__(
        self,
        puzzle: Puzzle,
        width: int | None = None,
        hidden: int | None = None,
        *,
        solver: Solver = SOLVER,
        adjoint: Adjoint = ADJOINT,
        eval_solver: Solver | None = None,
    ) -> None:
        super().__init__(puzzle, width, hidden)
        self.equilibrium = Equilibrium(self.make_cell(), solver, adjoint, eval_solver)

    def forward(self, given: Tensor, z0: Tensor | None = None) -> Tensor:
        """Return logits (batch, choices, *positions) of puzzles (batch, *positions)."""
        return self.head(self.solve(given, z0).state)

    def solve(self, given: Tensor, z0: Any = None, **options: Any) -> Solution:
        """Return the equilibrium of puzzles; options as in `Equilibrium.solve`.

        With `starts`, answers that agree are those that are equal.
        """
        if options.get("starts", 1) != 1:
            options.setdefault("read", self.read)
        return self.equilibrium.solve(self.encode(given), z0, **options)

    def random_start(self, given: Tensor, share: float) -> Tensor:
        """Return starts of puzzles: zeros, and for `share` of the samples N(0, 1), drawn with PyTorch's generator."""
        context = self.cell.inject(self.encode(given))
        zeros = self.cell.initial_state(context).detach()
        random = torch.rand(len(zeros), device=zeros.device) < share
        return torch.where(random.view(-1, *[1] * (zeros.dim() - 1)), torch.randn_like(zeros), zeros)

    @property
    def cell(self) -> ReasoningCell:
        """The cell."""
        return self.equilibrium.cell  # type: ignore[return-value]


class FeedForwardReasoner(PuzzleNetwork):
    """The conventional peer: a pre-norm residual network, `layers` of the same maps with weights of their own.

    Layer by layer, from zeros, z -> z + W2 relu(W1 RMS(z) + U x), and the answer is read off RMS(z).
    """

    def __init__(
        self, puzzle: Puzzle, width: int | None = None, hidden: int | None = None, *, layers: int = 16
    ) -> None:
        super().__init__(puzzle, width, hidden)
        if layers < 1:
            raise ValueError(f"layers={layers} computes nothing; pass at least 1.")
        self.layers = nn.ModuleList(self.make_cell() for _ in range(layers))

    def forward(self, given: Tensor) -> Tensor:
        """Return logits (batch, choices, *positions) of puzzles (batch, *positions)."""
        x = self.encode(given)
        state: Tensor | None = None
        for layer in self.layers:
            context = layer.inject(x)  # type: ignore[operator]
            if state is None:
                state = layer.initial_state(context)  # type: ignore[operator]
            normal = unit_rms(state, layer.feature_dim)  # type: ignore[arg-type]
            state = state + layer.update(normal, context)  # type: ignore[operator]
        assert state is not None
        return self.head(unit_rms(state, self.layers[0].feature_dim))  # type: ignore[arg-type]
