"""An equilibrium layer: a cell, and how its fixed point is found and differentiated."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.options import check_kind, require
from poise.fixed_point.solution import OnFailure, Solution
from poise.fixed_point.solve import fixed_point
from poise.fixed_point.solvers import Anderson, Solver
from poise.fixed_point.starts import Choice, Read, check_choice, chosen, repeated, stacked
from poise.fixed_point.tally import Counters
from poise.fixed_point.trajectory import Callback
from poise.fixed_point.tree import tree_map
from poise.nn.parametrized import computed_weights, held, pinned


class Equilibrium(nn.Module):
    """The state z* = cell(z*, inject(x)), whose gradient reaches the cell's parameters, the input and the context.

    A cell is a module with `forward(z, context) -> z` and, where it helps, `inject(x) -> context` (all work that does
    not depend on z, once a solve), `initial_state(context) -> z0` (zeros shaped like the context otherwise) and an
    attribute `position_dim`, where its positions are, for the prefix scope and the residual by position. `eval_solver`
    replaces `solver` where the module is in `eval()` mode; gradients do not depend on the mode. `initializer`: a module
    that proposes the start from the context (detached); it is trained by `initialization_loss` alone and changes no
    answer, only the evaluations it takes. Parametrized weights of the cell (`normalize`) are computed once a solve. The
    layer holds no state but `counters`: how its solves ended and what they cost. `on_solution`, an attribute, is called
    with every Solution where it is not None: so a loss reaches the equilibria deep inside a model.

    Bai, Kolter and Koltun (2019), "Deep Equilibrium Models".

    >>> layer = Equilibrium(inject(nn.Sequential(nn.Linear(8, 8), nn.Tanh())))
    >>> layer(torch.zeros(2, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(
        self,
        cell: nn.Module,
        solver: Solver = Anderson(),
        adjoint: Adjoint = Implicit(),
        eval_solver: Solver | None = None,
        *,
        initializer: nn.Module | None = None,
        on_failure: OnFailure = "warn",
    ) -> None:
        super().__init__()
        require("cell", cell, nn.Module, "poise.nn.inject(block)")
        require("solver", solver, Solver, "Anderson(rtol=1e-4)")
        require("adjoint", adjoint, Adjoint, "Implicit()")
        if eval_solver is not None:
            require("eval_solver", eval_solver, Solver, "Anderson(rtol=1e-4)")
        if initializer is not None:
            require("initializer", initializer, nn.Module, "nn.Linear(8, 8)")
        self.cell = cell
        self.solver = solver
        self.adjoint = adjoint
        self.eval_solver = eval_solver
        self.initializer = initializer
        self.on_failure: OnFailure = on_failure
        self.counters = Counters()
        self.on_solution: Callable[[Solution], None] | None = None

    def forward(self, x: Any, z0: Any = None, valid: Any = None) -> Any:
        """Return the equilibrium state for the input `x`."""
        return self.solve(x, z0, valid=valid).state

    def solve(
        self,
        x: Any,
        z0: Any = None,
        *,
        valid: Any = None,
        record: bool | Collection[int] = False,
        callback: Callback | None = None,
        starts: int = 1,
        choose: Choice = "agreement",
        read: Read | None = None,
        generator: torch.Generator | None = None,
    ) -> Solution:
        """Return the whole Solution.

        `z0`: the start, or an earlier Solution to go on from (default: the initializer's proposal, else the cell's
        start). `valid`: a mask of entries that count. `record`, `callback`: what is seen of the way, as in
        `fixed_point`.

        `starts`: solve each sample from so many, in one batch: from `z0`, or each state of a list of them, and then
        from states drawn from N(0, 1) with `generator` (default: PyTorch's own), or by the cell's
        `random_state(context, generator)`. What all of them found is in `solution.starts`; the rest of the solution is
        that of one start a sample, chosen by `choose`: "agreement" (the answer that most starts give), "evaluations" or
        "residual" (the least). `read`: the answers (rows, ...) of states; without it two states are one answer where
        they differ by 2 % at most.
        """
        inject: Callable[[Any], Any] | None = getattr(self.cell, "inject", None)
        weights = computed_weights(self.cell)
        with held(weights):
            context = x if inject is None else inject(x)
            proposed = None
            if z0 is None and self.initializer is not None:
                proposed = self.initializer(tree_map(Tensor.detach, context))
                z0 = tree_map(Tensor.detach, proposed)
            elif z0 is None:
                z0 = self._initial_state(context)
            if starts != 1 or isinstance(z0, list):
                context, z0 = self._from_starts(context, z0, starts, choose, generator)
                valid = repeated(valid, starts)
        solution = fixed_point(
            pinned(self.cell, weights),
            z0,
            context,
            solver=self.solver_in_use,
            adjoint=self.adjoint,
            # Computed ones stand in for parameters under functional_call; what they were made from is not the cell's.
            parameters=[parameter for parameter in self.cell.parameters() if parameter.is_leaf],
            valid=valid,
            position_dim=getattr(self.cell, "position_dim", 1),
            on_failure=self.on_failure,
            counters=self.counters,
            record=record,
            callback=callback,
        )
        if solution.status.numel() and starts != 1:
            solution = chosen(solution, starts, choose, read)
        if proposed is not None:
            solution = replace(solution, start=proposed)
        if self.on_solution is not None:
            self.on_solution(solution)
        return solution

    @property
    def solver_in_use(self) -> Solver:
        """`eval_solver` in `eval()` mode where there is one, else `solver`."""
        return self.solver if self.training or self.eval_solver is None else self.eval_solver

    def _from_starts(
        self, context: Any, z0: Any, starts: int, choose: Choice, generator: torch.Generator | None
    ) -> tuple[Any, Any]:
        """Return the context and the starts, a row for every start of every sample."""
        check_kind("solve", "starts", starts, "int")
        given = [
            tree_map(Tensor.detach, one.state) if isinstance(one, Solution) else one
            for one in (z0 if isinstance(z0, list) else [z0])
        ]
        check_choice(starts, choose, len(given))
        draw: Callable[..., Any] | None = getattr(self.cell, "random_state", None)

        def drawn() -> Any:
            if draw is not None:
                return draw(context, generator)
            return tree_map(partial(_normal, generator), self._initial_state(context))

        return repeated(context, starts), stacked(given, drawn, starts)

    def _initial_state(self, context: Any) -> Any:
        initial_state: Callable[[Any], Any] | None = getattr(self.cell, "initial_state", None)
        if initial_state is not None:
            return initial_state(context)
        if isinstance(context, Tensor):
            return torch.zeros_like(context, memory_format=torch.contiguous_format)
        raise TypeError(
            f"the cell {type(self.cell).__name__} has no initial_state(context) and its context is a "
            f"{type(context).__name__}, not a tensor shaped like the state; add the method or pass z0."
        )

    def extra_repr(self) -> str:
        """Return the solver and the adjoint."""
        evaluation = "" if self.eval_solver is None else f", eval_solver={self.eval_solver}"
        return f"solver={self.solver}, adjoint={self.adjoint}{evaluation}"


def _normal(generator: torch.Generator | None, like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)
