"""How are evaluations counted? Every state that a solver evaluates is noted, with its true residual in float64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

import poise
from benchmarks.cells import Problem, flat, parts, solved
from poise.fixed_point.state import State
from poise.fixed_point.tree import tree_map

TOLERANCES = (1e-3, 1e-6)

Map = Callable[[Any], Any]
Run = Callable[[Map, Any, int], Any]
Residual = Callable[[Any], Tensor]


@dataclass
class Record:
    """The residuals of the points that a solver evaluates, as they come, each (batch,)."""

    residual: Residual
    evaluations: int = 0
    lowest: float = float("inf")  # of the worst sample
    together: dict[float, int] = field(default_factory=dict)  # when all samples passed at once
    first: dict[float, Tensor] = field(default_factory=dict)  # when each sample passed first; 0 before

    def add(self, z: State) -> None:
        """Note a point; end the solve when every tolerance has been met."""
        self.evaluations += 1
        residual = self.residual(z)
        self.lowest = min(self.lowest, residual.max().item())  # NaN leaves it
        for tolerance in TOLERANCES:
            passed = residual <= tolerance
            before = self.first.setdefault(tolerance, torch.zeros(len(residual), dtype=torch.int64))
            self.first[tolerance] = torch.where(passed & (before == 0), self.evaluations, before)
            if bool(passed.all()):
                self.together.setdefault(tolerance, self.evaluations)
        if len(self.together) == len(TOLERANCES):
            raise _AllPassed

    @property
    def apart(self) -> dict[float, int]:
        """Each tolerance that every sample met at some time, and when the last one did."""
        return {tolerance: int(first.max()) for tolerance, first in self.first.items() if bool((first > 0).all())}


class _AllPassed(Exception):
    """All that is asked of a solve is known."""


def forward_residual(exact: Problem) -> Residual:
    """Return z -> |f(z) - z| / |f(z)| of every sample (of all parts of its state joined), by a problem in float64."""

    def residual(z: State) -> Tensor:
        wide = tree_map(lambda part: part.detach().double(), z)
        image = flat(exact.f(wide, exact.context))
        return (image - flat(wide)).norm(dim=1) / image.norm(dim=1)

    return residual


def count(run: Run, f: Map, z0: State, residual: Residual, budget: int) -> Record:
    """Run a solver on f from z0 and return when each tolerance was met."""
    record = Record(residual)

    def noted(z: State) -> State:
        record.add(z)
        return f(z)

    # A singular system ends a solve of torchdeq's: what was not reached by then is not reached.
    with suppress(_AllPassed, torch.linalg.LinAlgError):
        run(noted, z0, budget)
    return record


@dataclass(frozen=True)
class Adjoint:
    """The linear system of a problem's backward, flat: its float32 products, and its residual in float64."""

    product: Map
    g: Tensor
    exact: Map

    @staticmethod
    def of(problem: Problem, seed: int = 2) -> Adjoint:
        """Linearise the problem at its fixed point; both precisions at the same point."""
        exact = solved(problem)
        at = tree_map(lambda part: part.float(), exact)
        generator = torch.Generator().manual_seed(seed)
        size = flat(exact).shape
        g = torch.randn(size, generator=generator).to(flat(exact).device)
        wide = tree_map(lambda part: part.double(), at)
        return Adjoint(_products(problem, at), g, _products(problem.to(torch.float64), wide))

    def residual(self, u: Tensor) -> Tensor:
        """Return |g - u + J^T u| / |g| of every sample."""
        wide, right = u.double(), self.g.double()
        return (right - wide + self.exact(wide)).norm(dim=1) / right.norm(dim=1)

    def floor(self) -> float:
        """Return the residual that a float32 product sees at the exact solution: no float32 solver gets far below."""
        right = self.g.double()
        found = poise.GMRES(rtol=1e-13, max_steps=1000, restart=200).solve(self.exact, right)
        u = found.fz
        return ((right - u + self.product(u.float()).double()).norm(dim=1) / right.norm(dim=1)).max().item()


def _products(problem: Problem, z: State) -> Map:
    with torch.enable_grad():
        start = tree_map(lambda part: part.clone().requires_grad_(), z)
        image = parts(problem.f(start, problem.context))
    widths = [part[0].numel() for part in image]

    def product(u: Tensor) -> Tensor:
        pieces = [piece.reshape(part.shape) for piece, part in zip(u.split(widths, dim=1), image, strict=True)]
        moved = torch.autograd.grad(image, parts(start), pieces, retain_graph=True)
        return flat(moved)

    return product


def count_gmres(solver: poise.GMRES, adjoint: Adjoint, budget: int) -> Record:
    """Return when GMRES first has an answer of each tolerance: its answer after k products, for the k that decide."""
    residuals: dict[int, Tensor] = {}

    def after(products: int) -> Tensor:
        if products not in residuals:
            found = replace(solver, rtol=None, max_steps=products).solve(adjoint.product, adjoint.g)
            residuals[products] = adjoint.residual(found.fz)
        return residuals[products]

    def passes(products: int, tolerance: float) -> bool:
        return bool((after(products) <= tolerance).all())

    record = Record(adjoint.residual)
    for tolerance in TOLERANCES:
        high = 1
        while high < budget and not passes(high, tolerance):
            high = min(2 * high, budget)
        if not passes(high, tolerance):
            continue
        low = high // 2  # a minimal residual falls with every product, so a bisection finds the first that passes
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if passes(middle, tolerance) else (middle, high)
        record.together[tolerance] = high
        record.first[tolerance] = torch.tensor([high])  # it falls for every sample: the last to pass decides both
    record.evaluations = max(residuals)
    record.lowest = min(residual.max().item() for residual in residuals.values())
    return record
