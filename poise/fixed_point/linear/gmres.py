"""GMRES for all samples at once, each with its own residual and its own last step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from poise.fixed_point.linear.base import Product
from poise.fixed_point.loop import FLOOR, Iterate
from poise.fixed_point.solution import Status, Trace

# A tolerance below this many units of rounding of u is not believed without a residual made anew.
DOUBT = 4.0
# The basis begins with room for so many vectors and doubles: most solves need few, and each is memory of a state.
FIRST_ROOM = 8


@dataclass(frozen=True, kw_only=True)
class GMRES:
    """Minimal residual over the Krylov space of I - J^T, restarted (Saad and Schultz 1986).

    `rtol`: converged when |b - u + J^T u| <= rtol |b|; None spends the budget. `max_steps`: products with J^T at most.
    `restart`: basis vectors kept, which is the memory it takes in states.
    """

    rtol: float | None = 1e-5
    max_steps: int = 100
    restart: int = 40

    def __post_init__(self) -> None:
        if self.rtol is not None and not self.rtol >= 0:
            raise ValueError(f"GMRES(rtol={self.rtol}) is no tolerance; pass a number of at least 0, or None.")
        if self.max_steps < 1 or self.restart < 1:
            raise ValueError(f"{self} makes no step; pass max_steps and restart of at least 1.")

    def solve(self, product: Product, b: Tensor) -> Iterate:
        """Return the solution of u - J^T u = b, (batch, features), as `fz`."""
        # Rows are solved at size one, since squares of very small and very large float32 numbers leave its range.
        scale = b.abs().amax(dim=1, keepdim=True) if b.numel() else b[:, :1].abs()
        scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
        run = _Run(self, product, b / scale)
        while run.products < self.max_steps and run.unfinished():
            run.cycle(min(self.restart, self.max_steps - run.products))
        found = run.finish()
        return replace(found, z=found.z * scale, fz=found.fz * scale)


class _Basis:
    """An orthonormal Krylov basis and the triangle that rotations make of its Hessenberg matrix, for every sample."""

    def __init__(self, start: Tensor, norm: Tensor, length: int) -> None:
        batch, features = start.shape
        self.length = length
        self.vectors = start.new_zeros(batch, min(length, FIRST_ROOM), features)
        self.vectors[:, 0] = normalised(start, norm)
        zeros = partial(torch.zeros, dtype=torch.float64, device=start.device)
        # The product of all rotations is kept, so that a new column costs one product instead of one a rotation.
        self.rotation = torch.diag_embed(zeros(batch, length + 1) + 1)
        self.triangle = zeros(batch, length, length)
        self.right = zeros(batch, length + 1)
        self.right[:, 0] = norm
        self.columns = torch.zeros(batch, dtype=torch.int64, device=start.device)  # used by each sample

    def extend(self, j: int, vector: Tensor, going: Tensor) -> tuple[Tensor, Tensor]:
        """Add the image of vector j for the samples `going`; return their residual norms and which go on."""
        length = self.length
        known = self.vectors[:, : j + 1]
        column = torch.zeros(len(vector), length + 1, dtype=torch.float64, device=vector.device)
        # Twice is enough to stay orthogonal in float32 (Giraud, Langou and Rozloznik 2005); once is not.
        for _ in range(2):
            inner = (known @ vector.unsqueeze(2)).squeeze(2)
            vector = vector - (inner.unsqueeze(1) @ known).squeeze(1)
            column[:, : j + 1] += inner
        height = torch.linalg.vector_norm(vector, dim=1)
        column[:, j + 1] = height
        going = going & column.isfinite().all(dim=1)
        if j + 1 < length:
            if j + 1 == self.vectors.shape[1]:
                self.vectors = torch.cat([self.vectors, torch.zeros_like(self.vectors)], dim=1)[:, :length]
            self.vectors[:, j + 1] = torch.where(going.unsqueeze(1), normalised(vector, height), 0.0)
        turned = (self.rotation @ column.unsqueeze(2)).squeeze(2)
        radius = torch.hypot(turned[:, j], turned[:, j + 1])
        cosine = torch.where(radius > 0, turned[:, j] / radius, 1.0)
        sine = torch.where(radius > 0, turned[:, j + 1] / radius, 0.0)
        above, below = self.rotation[:, j].clone(), self.rotation[:, j + 1].clone()
        self.rotation[:, j] = cosine.unsqueeze(1) * above + sine.unsqueeze(1) * below
        self.rotation[:, j + 1] = cosine.unsqueeze(1) * below - sine.unsqueeze(1) * above
        turned[:, j] = radius
        self.triangle[:, :, j] = torch.where(going.unsqueeze(1), turned[:, :length], 0.0)
        self.right[:, j + 1] = torch.where(going, -sine * self.right[:, j], 0.0)
        self.right[:, j] = torch.where(going, cosine * self.right[:, j], self.right[:, j])
        self.columns = self.columns + going
        return self.right[:, j + 1].abs().to(vector.dtype), going

    def step(self) -> Tensor:
        """Return the combination of the basis that minimises each sample's residual."""
        length = self.triangle.shape[1]
        unused = torch.arange(length, device=self.columns.device) >= self.columns.unsqueeze(1)
        unused = unused | (self.triangle.diagonal(dim1=1, dim2=2) == 0)
        triangle = self.triangle + torch.diag_embed(unused.double())
        right = self.right[:, :length].masked_fill(unused, 0.0)
        weights = torch.linalg.solve_triangular(triangle, right.unsqueeze(2), upper=True)
        weights = weights[:, : self.vectors.shape[1]].transpose(1, 2).to(self.vectors.dtype)
        return (weights @ self.vectors).squeeze(1)


def normalised(vector: Tensor, norm: Tensor) -> Tensor:
    """Return vector / norm, and zero where the norm is zero."""
    return torch.where(norm > 0, 1 / norm, 0.0).unsqueeze(1) * vector


class _Run:
    """The progress of one solve."""

    def __init__(self, solver: GMRES, product: Product, b: Tensor) -> None:
        self.solver, self.product, self.b = solver, product, b
        self.size = torch.linalg.vector_norm(b, dim=1)
        self.tolerance = (solver.rtol or 0.0) * self.size
        self.u, self.r, self.norm = torch.zeros_like(b), b, self.size
        self.products = 0
        batch = b.shape[0]
        self.status = torch.full((batch,), Status.BUDGET, dtype=torch.int8, device=b.device)
        self.status = self.status.masked_fill(self.size == 0, Status.CONVERGED)
        self.status = self.status.masked_fill(~self.size.isfinite(), Status.NONFINITE)
        self.steps = torch.zeros(batch, dtype=torch.int64, device=b.device)
        self.trace: list[tuple[Tensor | None, Tensor]] = []

    def unfinished(self) -> bool:
        return self.solver.rtol is None or bool((self.status == Status.BUDGET).any())

    def cycle(self, length: int) -> None:
        """Build one basis of at most `length` vectors and take its step."""
        live = self.status == Status.BUDGET
        start = torch.where(live.unsqueeze(1), self.r, 0.0)
        basis = _Basis(start, torch.where(live, self.norm, 0.0), length)
        going = live
        for j in range(length):
            vector = basis.vectors[:, j]
            image = vector - self.product(vector)
            self.products += 1
            tried = going
            estimate, going = basis.extend(j, image, going)
            self.status = self.status.masked_fill(tried & ~going, Status.NONFINITE)
            self.norm = torch.where(going, estimate, self.norm)
            self.steps = torch.where(going, self.products, self.steps)
            self.trace.append((None, torch.where(going, self.norm / self.size, float("nan"))))
            if self.solver.rtol is not None:
                going = going & (estimate > self.tolerance)
                if not bool(going.any()):
                    break
        step = basis.step()
        taken = live & step.isfinite().all(dim=1)
        self.u = torch.where(taken.unsqueeze(1), self.u + step, self.u)
        if self.solver.rtol is not None:
            # Near the floor the rotations' estimate goes on falling where the residual does not: such samples are
            # tested on a residual made anew, the others without another product.
            rounding = torch.finfo(self.b.dtype).eps * torch.linalg.vector_norm(self.u, dim=1)
            trusted = self.tolerance >= DOUBT * rounding
            within = live & (self.norm <= self.tolerance) & (self.status == Status.BUDGET) & trusted
            self.status = self.status.masked_fill(within, Status.CONVERGED)
        if self.products < self.solver.max_steps and self.unfinished():
            self._restart()

    def _restart(self) -> None:
        """Make the residual anew: what the rotations carry along drifts from it by rounding."""
        again = self.status == Status.BUDGET
        before = torch.linalg.vector_norm(self.r, dim=1)
        self.r = torch.where(again.unsqueeze(1), self.b - self.u + self.product(self.u), self.r)
        self.products += 1
        self.norm = torch.where(again, torch.linalg.vector_norm(self.r, dim=1), self.norm)
        self.status = self.status.masked_fill(again & (self.norm <= self.tolerance), Status.CONVERGED)
        again = again & (self.norm > self.tolerance)
        # Products round by the size of u, which exceeds that of b where J is near 1.
        size = torch.maximum(self.size, torch.linalg.vector_norm(self.u, dim=1))
        floor = FLOOR * torch.finfo(self.b.dtype).eps * size
        stalled = again & (self.norm > 0.5 * before) & (self.norm <= floor)
        self.status = self.status.masked_fill(stalled, Status.STALLED)

    def finish(self) -> Iterate:
        """Return the record."""
        return Iterate(
            z=self.u,
            fz=self.u,
            status=self.status,
            steps=self.steps,
            residual=torch.where(self.size > 0, self.norm / self.size, 0.0),
            evaluations=self.products,
            rows=self.products * len(self.b),
            rtol=self.solver.rtol,
            trace=Trace(len(self.b), tuple(self.trace)),
        )
