"""Newton's method without a matrix: each step solves its linear system by GMRES."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.solvers.line_search import LineSearch, residual_norm

# How a step's tolerance follows from the last decrease of |g| (Eisenstat and Walker 1996, choice 2).
GAMMA = 0.9
SAFEGUARD = 0.1


@dataclass(frozen=True)
class NewtonMemory:
    """The line search, the tolerance of the last step, and what has been evaluated for each sample."""

    search: LineSearch
    forcing: Tensor  # (batch, 1)
    spent: Tensor  # (batch,) int64, products and what else they took
    forward: bool | None = None  # whether the cell has forward mode; None: not known yet


@dataclass(frozen=True, kw_only=True)
class NewtonKrylov(Solver):
    """z' = z + t p with (I - J) p = g solved by GMRES, t found by halving (Knoll and Keyes 2004).

    For cells that hardly contract, or expand, near a good start. A Jacobian-vector product costs an evaluation with its
    tangent and counts as one: `steps` and `max_steps` count both. A budget with a tolerance is overdrawn by one inner
    solve at most, a fixed one never. `inner`: products a step at most. `forcing`: the largest tolerance of an inner
    solve, relative to |g|; it tightens as |g| falls (Eisenstat and Walker 1996). Products use forward mode where the
    cell has it, and two backwards through one graph elsewhere.
    """

    inner: int = 20
    forcing: float = 0.3

    recordable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner < 1:
            raise ValueError(f"NewtonKrylov(inner={self.inner}) makes no product; pass at least 1, or use Picard.")
        if not 0 < self.forcing < 1:
            raise ValueError(f"NewtonKrylov(forcing={self.forcing}) is no tolerance; pass a number in (0, 1).")
        if self.scope != "sample":
            raise ValueError(
                "NewtonKrylov(scope='prefix') would let later positions move earlier ones, since GMRES mixes whole "
                "samples; use Anderson or Broyden there."
            )

    def init(self, z: Tensor) -> NewtonMemory:
        """Return a memory without a step."""
        forcing = torch.full(z.shape[:2], self.forcing, dtype=z.dtype, device=z.device)
        spent = torch.zeros(z.shape[0], dtype=torch.int64, device=z.device)
        return NewtonMemory(LineSearch.begin(z), forcing, spent)

    def spent(self, memory: Any) -> Tensor:
        """Return the products taken for each sample."""
        return memory.spent

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Return Newton's iterate, or a shorter step from the same base where the search goes on."""
        # Imported here: linear solvers are built on the loop, which is built on rules.
        from poise.fixed_point.linear import GMRES
        from poise.fixed_point.linear.jacobian_vector import JacobianVector

        g = fz - z
        norm = residual_norm(g, valid, self.scope)
        search: LineSearch = memory.search
        refused = search.refused(norm)
        forcing = GAMMA * (norm / search.norm).square()  # zero at the first step, where the norm before is infinite
        floor = GAMMA * memory.forcing.square()
        forcing = torch.where(floor > SAFEGUARD, torch.maximum(forcing, floor), forcing)
        forcing = torch.where(search.norm.isfinite(), forcing, self.forcing).clamp(1e-4, self.forcing)
        right = torch.where(refused.unsqueeze(-1), 0.0, g if valid is None else torch.where(valid > 0, g, 0.0)).squeeze(
            1
        )
        budget, direction, spent, forward = self.inner, g, memory.spent, memory.forward
        if self.rtol is None:
            # Without forward mode one evaluation is recorded for the products of a step, and trying it took another.
            besides = {None: 2, False: 1, True: 0}[forward]
            budget = min(budget, self.max_steps - f.count.evaluations - 1 - besides)
        if budget > 0:
            gmres = GMRES(rtol=None if self.rtol is None else self.forcing, max_steps=budget, restart=budget)
            product = JacobianVector(f, z, valid, forward)
            found = gmres.solve(product, right, rtol=forcing.squeeze(1))
            direction, forward = found.fz.unsqueeze(1), product.effort.forward
            spent = spent + found.steps + product.effort.extra
        following, search = search.follow(refused, z, direction, norm)
        return following, replace(memory, search=search, forcing=forcing, spent=spent, forward=forward)
