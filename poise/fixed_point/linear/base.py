"""What a linear solver of the backward is given and returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

from torch import Tensor

from poise.fixed_point.loop import Iterate, iterate
from poise.fixed_point.packed import Count, PackedCell
from poise.fixed_point.solvers.base import Solver
from poise.fixed_point.state import Layout

# Finished samples leave the batch when at most this share of its rows is at work: then the copies that it takes, and an
# evaluation of the cell on the rows that stay, are made up for by the next two products. Of shares from 0.5 to 0.9 it
# gave the fewest rows on the batches of benchmarks/mixed.py.
LIVE_SHARE = 0.7


class Product(ABC):
    """A linear map of every row's vector, (rows, features) in and out; what it costs is counted.

    Where it is `selectable`, it can be had on some of the rows, so that samples which are finished leave the batch.
    """

    selectable: bool = False

    def __init__(self) -> None:
        self.count = Count()

    @staticmethod
    def of(apply: Callable[[Tensor], Tensor]) -> Product:
        """Return the product itself, or one of whole batches made from a callable."""
        return apply if isinstance(apply, Product) else _WholeBatch(apply)

    @abstractmethod
    def __call__(self, u: Tensor) -> Tensor:
        """Return the images of the rows of `u`."""

    def select(self, index: Tensor) -> Product:
        """Return the map of the rows `index` (int64, ascending) of this one; its calls count with this one's."""
        raise NotImplementedError(f"{type(self).__name__} is not selectable; keep all of its rows.")


class _WholeBatch(Product):
    def __init__(self, apply: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.apply = apply

    def __call__(self, u: Tensor) -> Tensor:
        self.count.evaluations += 1
        self.count.rows += u.shape[0]
        return self.apply(u)


@runtime_checkable
class LinearSolver(Protocol):
    """Solves u - J^T u = b for every sample, given u -> J^T u on (batch, features)."""

    def solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Iterate:
        """Return the solution as `fz`, with statuses; the residual is |b - u + J^T u| / |b|.

        `product`: a `Product`, or any callable where every sample stays in the batch.
        """
        ...


@dataclass(frozen=True)
class FixedPointLinear:
    """Any fixed-point solver as a linear solver: u = J^T u + b, from u = b."""

    solver: Solver

    def solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Iterate:
        """Run the solver's loop on the affine map."""
        start = b.unsqueeze(1)
        product = Product.of(product)
        cell = _AffineCell(product, Layout.of(start), context=start, selectable=product.selectable, count=product.count)
        found = iterate(cell, start, self.solver)
        return replace(found, z=found.z.flatten(1), fz=found.fz.flatten(1))


@dataclass(frozen=True)
class _AffineCell(PackedCell):
    """u -> J^T u + b as a cell on packed states: `f` is the product, which counts its calls itself; b the context."""

    def __call__(self, z: Tensor) -> Tensor:
        return self.f(z.squeeze(1)).unsqueeze(1) + self.context

    def select(self, index: Tensor) -> PackedCell:
        return replace(self, f=cast(Product, self.f).select(index), context=self.context.index_select(0, index))


def as_linear(solver: Solver | LinearSolver) -> LinearSolver:
    """Return a linear solver; a fixed-point solver becomes one on the affine map."""
    if not isinstance(solver, Solver):
        return solver
    if not solver.recordable:
        raise TypeError(f"{type(solver).__name__} cannot solve the backward, which is products alone; pass GMRES().")
    if solver.scope != "sample":
        raise ValueError(
            f"the backward mixes whole samples, but {solver} has scope={solver.scope!r}; pass one with scope='sample'."
        )
    if solver.residual != "sample":
        raise ValueError(
            f"the backward has one residual a sample, but {solver} has residual={solver.residual!r}; pass one with "
            "residual='sample'."
        )
    return FixedPointLinear(solver)
