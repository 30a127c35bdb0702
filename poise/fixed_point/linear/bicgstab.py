"""BiCGSTAB for all samples at once, each with its own scalars, breakdowns and last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from poise.fixed_point.linear.base import LIVE_SHARE, Product
from poise.fixed_point.linear.progress import Progress, possible
from poise.fixed_point.loop import Iterate
from poise.fixed_point.options import check_options
from poise.fixed_point.solution import Status
from poise.fixed_point.tree import select_rows

# Vectors whose cosine is below this many units of rounding are orthogonal: dividing by their product is a breakdown.
ORTHOGONAL = 16.0
# The residual itself is the shadow unless its image is as orthogonal to it as this.
SKEW = 0.1
# The least cosine between s and A s with which the stabilising step is taken at its minimiser.
LEAST_COSINE = 0.7
TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class BiCGSTAB:
    """Biconjugate gradients, stabilised: the memory of a few vectors, two products an iteration (van der Vorst 1992).

    `rtol`: converged when |b - u + J^T u| <= rtol |b|; None spends the budget. `max_steps`: products with J^T at most.
    Where the recurrence breaks down, or its residual falls below what rounding lets it know, the residual is made anew
    from u and the recurrence begins again. The stabilising step never gets too short (Sleijpen and van der Vorst 1995).
    """

    rtol: float | None = 1e-5
    max_steps: int = 100

    def __post_init__(self) -> None:
        check_options(self)

    def solve(self, product: Callable[[Tensor], Tensor], b: Tensor) -> Iterate:
        """Return the solution of u - J^T u = b, (batch, features), as `fz`.

        `product`: a `Product`, or any callable where every sample stays in the batch.
        """
        run = _Run(self, Product.of(product), b)
        while run.wants_product():
            run.search()
            if run.wants_product(second=True):
                run.stabilise()
        return run.progress.finish(run.product)


@dataclass
class _Vectors:
    """What the recurrence keeps of every row, in the letters of the paper; A is I - J^T."""

    r: Tensor  # (rows, features), the residual, carried along
    shadow: Tensor  # (rows, features), about of size one
    p: Tensor  # (rows, features), the search direction
    v: Tensor  # (rows, features), A p
    rho: Tensor  # (rows,) float64, shadow . r
    alpha: Tensor  # (rows,) float64
    norm: Tensor  # (rows,), |r|
    largest: Tensor  # (rows,), of |u| and |r| since r was made from u
    fresh: Tensor  # (rows,) bool: r has just been made from u, and p is r
    lost: Tensor  # (rows,) bool: r must be made from u


class _Run:
    """The live rows of one solve.

    All rows make their first and second products together. A row whose residual must be made anew spends its first
    product on that and sits out the second, as does one whose recurrence broke down after the first.
    """

    def __init__(self, solver: BiCGSTAB, product: Product, b: Tensor) -> None:
        self.solver, self.product = solver, product
        self.progress = Progress(solver.rtol, solver.max_steps, b)
        rows = self.progress.rows
        r = torch.where(self.progress.open().unsqueeze(1), rows.b, 0.0)
        one = torch.ones_like(rows.size, dtype=torch.float64)
        begins = torch.ones_like(one, dtype=torch.bool)
        self.vectors = _Vectors(
            r=r, shadow=r, p=r, v=r, rho=one, alpha=one, norm=rows.size, largest=rows.size, fresh=begins, lost=~begins
        )
        self.products = 0
        self.orthogonal = ORTHOGONAL * torch.finfo(b.dtype).eps

    def _active(self, second: bool) -> Tensor:
        active = self.progress.open()
        return active & ~self.vectors.fresh & ~self.vectors.lost if second else active

    def wants_product(self, second: bool = False) -> bool:
        """Whether a row takes part in the next product; a fixed budget is spent without asking the rows."""
        if self.solver.rtol is None:
            return self.products < self.solver.max_steps
        going = self.progress.open()
        counts = torch.stack([going.sum(), self._active(second).sum()])
        live, active = counts.tolist()  # the host waits here to know whether to go on, and with how many
        if active and self.product.selectable and live <= LIVE_SHARE * len(going):
            index = self.progress.leave_out(going)
            self.product, self.vectors = self.product.select(index), select_rows(self.vectors, index)
        return active > 0

    def search(self) -> None:
        """Take the step along p; where the residual is lost, make it anew instead."""
        progress, k = self.progress, self.vectors
        rows = progress.rows
        image, size = self._image(torch.where(k.lost.unsqueeze(1), rows.u, k.p), progress.open())
        moving, renewed = progress.open() & ~k.lost, progress.open() & k.lost
        if possible(k.fresh):
            self._choose_shadow(image, size)
        sigma = dot(k.shadow, image)
        broken = sigma.abs() <= self.orthogonal * size
        k.v, k.alpha = image, torch.where(moving & ~broken, k.rho / sigma, 0.0)
        rows.u = rows.u + times(k.alpha, k.p)
        k.r = k.r - times(k.alpha, image)
        if possible(renewed):
            k.r = torch.where(renewed.unsqueeze(1), rows.b - image, k.r)
            k.p = torch.where(renewed.unsqueeze(1), k.r, k.p)
            k.largest = k.largest.masked_fill(renewed, 0.0)
        doubtful = self._measure(moving | renewed, renewed)
        k.fresh, k.lost = renewed, moving & (doubtful | broken)

    def stabilise(self) -> None:
        """Take the step along the residual, and turn p for the next search."""
        progress, k = self.progress, self.vectors
        rows = progress.rows
        image, size = self._image(k.r, self._active(second=True))
        active = self._active(second=True)
        cosine = dot(image, k.r) / (size * k.norm)
        cosine = torch.where(
            cosine.abs() < LEAST_COSINE, torch.copysign(torch.full_like(cosine, LEAST_COSINE), cosine), cosine
        )
        omega = torch.where(active & (size > 0), cosine * (k.norm / size), 0.0)
        rows.u = rows.u + times(omega, k.r)
        k.r = k.r - times(omega, image)
        doubtful = self._measure(active, torch.zeros_like(active))
        rho = dot(k.shadow, k.r)
        broken = (rho.abs() <= self.orthogonal * k.norm) | (size == 0)
        k.lost = torch.where(active, doubtful | broken, k.lost)
        beta = torch.where(active & ~k.lost, (rho / k.rho) * (k.alpha / omega), 0.0)
        k.p = torch.where(active.unsqueeze(1), k.r + times(beta, k.p - times(omega, k.v)), k.p)
        k.rho = torch.where(active, rho, k.rho)

    def _image(self, vector: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Return A times the vectors of the active rows, zero for the others, and its norm; end what is not finite."""
        vector = torch.where(active.unsqueeze(1), vector, 0.0)
        image = vector - self.product(vector)
        self.products += 1
        norm = torch.linalg.vector_norm(image, dim=1)
        finite = norm < float("inf")
        self.progress.end(active & ~finite, Status.NONFINITE)
        return torch.where(finite.unsqueeze(1), image, 0.0), torch.where(finite, norm, 0.0)

    def _choose_shadow(self, image: Tensor, size: Tensor) -> None:
        """Begin the recurrence of the fresh rows: shadow . A r must not vanish, nor shadow . r."""
        k = self.vectors
        unit, ahead = times(1 / k.norm.clamp_min(TINY), k.r), times(1 / size.clamp_min(TINY), image)
        skew = k.fresh & (dot(unit, ahead).abs() < SKEW)
        k.shadow = torch.where(k.fresh.unsqueeze(1), unit + times(skew, ahead), k.shadow)
        k.rho = torch.where(k.fresh, dot(k.shadow, k.r), k.rho)

    def _measure(self, stepped: Tensor, renewed: Tensor) -> Tensor:
        """Count a product and test the residuals after it; return the rows of which it must be made anew to know."""
        progress, k = self.progress, self.vectors
        k.norm = torch.linalg.vector_norm(k.r, dim=1)
        progress.stepped(stepped, k.norm)
        if possible(renewed):
            progress.prove(k.norm, renewed)
        k.largest = torch.maximum(k.largest, torch.maximum(k.norm, torch.linalg.vector_norm(progress.rows.u, dim=1)))
        return progress.believe(k.norm, stepped & ~renewed, k.largest)


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner product of every row, in float64."""
    return (x * y).sum(dim=1).double()


def times(scalar: Tensor, x: Tensor) -> Tensor:
    """Return every row times its scalar."""
    return scalar.to(x.dtype).unsqueeze(1) * x
