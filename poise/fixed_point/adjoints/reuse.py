"""The forward's quasi-Newton inverse in the backward."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.fixed_point.linear import Product
from poise.fixed_point.solvers.secant import SecantInverse
from poise.fixed_point.tree import select_rows


class LearntInverse(Product):
    """v -> B^-T v on (rows, features), where B approximates I - J, for the rows `trusted`; v itself for the others."""

    selectable = True

    def __init__(self, inverse: SecantInverse, trusted: Tensor | None = None) -> None:
        super().__init__()
        self.inverse, self.trusted = inverse, trusted

    def __call__(self, v: Tensor) -> Tensor:
        """Return the images of the rows of `v`."""
        groups = self.inverse.df.shape[1]
        moved = self.inverse.transposed(v.reshape(len(v), groups, -1)).flatten(1)
        return moved if self.trusted is None else torch.where(self.trusted.unsqueeze(1), moved, v)

    def select(self, index: Tensor) -> Product:
        """Return the map of the rows `index`."""
        part = copy.copy(self)
        part.inverse, part.trusted = select_rows((self.inverse, self.trusted), index)
        return part


@dataclass(frozen=True)
class Start:
    """Where the backward begins, the residual there, and what it is preconditioned with."""

    u: Tensor
    residual: Tensor
    preconditioner: LearntInverse


def reused(inverse: SecantInverse, product: Product, b: Tensor) -> Start:
    """Return the start of u - J^T u = b that the forward's inverse gives, where it is better than b itself.

    Two products decide, sample by sample: what was learnt on the way to the fixed point need not hold in the direction
    of this gradient, and where it does not the answer falls back to the Jacobian-free one, as in Ramzi et al. (2022).
    """
    learnt = LearntInverse(inverse)(b)
    residual, plain = b - learnt + product(learnt), product(b)
    trusted = torch.linalg.vector_norm(residual, dim=1) < torch.linalg.vector_norm(plain, dim=1)
    wide = trusted.unsqueeze(1)
    return Start(
        u=torch.where(wide, learnt, b),
        residual=torch.where(wide, residual, plain),
        preconditioner=LearntInverse(inverse, trusted),
    )
