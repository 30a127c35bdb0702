"""GMRES for all samples at once, each with its own residual and its own last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from poise.fixed_point.linear.base import LIVE_SHARE, Product
from poise.fixed_point.linear.progress import Progress, possible
from poise.fixed_point.loop import Iterate
from poise.fixed_point.options import check_options
from poise.fixed_point.solution import Status
from poise.fixed_point.tree import select_rows

# The basis begins with room for so many vectors and doubles: most solves need few, and each is memory of a state.
FIRST_ROOM = 8
# A vector is made orthogonal a second time when the first pass left less than this share of its norm.
CANCELLED = 0.5
TINY = 1e-150


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
        check_options(self)
        if self.restart < 1:
            raise ValueError(f"{self} keeps no basis; pass restart of at least 1.")

    def solve(
        self,
        product: Callable[[Tensor], Tensor],
        b: Tensor,
        start: Tensor | None = None,
        preconditioner: Callable[[Tensor], Tensor] | None = None,
        rtol: Tensor | None = None,
        residual: Tensor | None = None,
    ) -> Iterate:
        """Return the solution of u - J^T u = b, (batch, features), as `fz`.

        `product`: a `Product`, or any callable where every sample stays in the batch. `start`: a guess of u, used where
        its residual is below that of zero. `preconditioner`: a constant linear map P on (batch, features), a `Product`
        likewise; (I - J^T) P y = b is solved and u = P y, so the residual stays that of u (Saad 2003, section 9.3.2).
        `rtol`: (batch,), a tolerance for each sample instead of the solver's. `residual`: b - u + J^T u at the start,
        where it is known.
        """
        run = _Run(self, Product.of(product), None if preconditioner is None else Product.of(preconditioner), b)
        if rtol is not None:
            run.progress.rows.tolerance = rtol * run.progress.rows.size
        if start is not None:
            run.begin(start, residual)
        while run.unfinished():
            run.cycle()
        return run.progress.finish(run.product)


@dataclass
class _Basis:
    """An orthonormal Krylov basis, and what rotations make of its Hessenberg matrix, for every row.

    `rotation` is the product of all rotations, so that a new column costs one product instead of one a rotation; its
    first column, times the norm of the start, is the rotated right-hand side.
    """

    vectors: Tensor  # (rows, room, features), as many as were written; zero once a row has ended
    triangle: Tensor  # (rows, room, room) float64
    rotation: Tensor  # (rows, room + 1, room + 1) float64, orthogonal
    norm: Tensor  # (rows,) float64, of the start
    columns: Tensor  # (rows,) int64, used by each row
    broken: Tensor  # (rows,) bool: an image was not finite

    @staticmethod
    def of(start: Tensor, norm: Tensor, room: int) -> _Basis:
        """Begin with a residual of this norm; a row whose norm is zero does not take part."""
        rows, features = start.shape
        vectors = start.new_empty(rows, room, features)
        factor = torch.where(norm > 0, 1 / norm, 0.0)
        torch.mul(start, factor.unsqueeze(1), out=vectors[:, 0])
        triangle = torch.zeros(rows, room, room, dtype=torch.float64, device=start.device)
        rotation = F.pad(triangle, (0, 1, 0, 1))
        rotation[:, 0, 0] = 1
        columns = torch.zeros(rows, dtype=torch.int64, device=start.device)
        return _Basis(vectors, triangle, rotation, norm.double(), columns, torch.zeros_like(columns, dtype=torch.bool))

    def grow(self, length: int) -> None:
        """Make room for twice as many vectors, `length` at most."""
        rows, room, features = self.vectors.shape
        more = min(2 * room, length) - room
        vectors = self.vectors.new_empty(rows, room + more, features)
        vectors[:, :room] = self.vectors
        self.vectors = vectors
        self.triangle = F.pad(self.triangle, (0, more, 0, more))
        self.rotation = F.pad(self.rotation, (0, more, 0, more))

    def extend(self, j: int, moved: Tensor, going: Tensor, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Add the image of vector j, given as vector j - image, for the rows `going`.

        Return their residual norms, which of them have one, and of which there is a next vector. The difference is made
        orthogonal, not the image: most of that is vector j itself, and would cancel.
        """
        known = self.vectors[:, : j + 1]
        inner, vector = orthogonalised(known, moved)
        height = torch.linalg.vector_norm(vector, dim=1)
        whole = torch.hypot(height, torch.linalg.vector_norm(inner, dim=1))
        plain = (height >= CANCELLED * whole) & (whole < float("inf"))
        if possible(~plain):
            inner, vector, height = self._again(known, inner, vector, plain, whole)
            going = going & ~self.broken
        column = torch.where(going.unsqueeze(1), -inner, 0.0).double()
        column[:, j] += 1
        # Never quite zero: a column of zeros (a singular system) then takes nothing off the residual.
        below = torch.where(going, height, 0.0).double().clamp_min(TINY)
        following = going & (height > 0)
        if not last:
            factor = torch.where(following, -1 / height, 0.0)
            torch.mul(vector, factor.unsqueeze(1), out=self.vectors[:, j + 1])
        rotation = self.rotation
        turned = (rotation[:, : j + 1, : j + 1] * column.unsqueeze(1)).sum(dim=2)
        radius = torch.hypot(turned[:, j], below)
        cosine, sine = turned[:, j] / radius, below / radius
        turned[:, j] = radius
        self.triangle[:, : j + 1, j] = turned
        torch.mul(rotation[:, j, : j + 1], sine.unsqueeze(1), out=rotation[:, j + 1, : j + 1])
        rotation[:, j, : j + 1] *= cosine.unsqueeze(1)
        rotation[:, j, j + 1] = sine
        rotation[:, j + 1, j + 1] = -cosine
        self.columns += going
        return (self.norm * rotation[:, j + 1, 0]).abs().to(moved.dtype), going, following

    def _again(
        self, known: Tensor, inner: Tensor, vector: Tensor, plain: Tensor, whole: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Make the vectors that are not `plain` orthogonal a second time; those that are not finite end their rows.

        Twice is enough to stay orthogonal in float32 (Giraud, Langou and Rozloznik 2005), and needed only where the
        first pass cancelled (Daniel, Gragg, Kaufman and Stewart 1976).
        """
        finite = whole < float("inf")
        self.broken = self.broken | ~finite
        rest, again = orthogonalised(known, vector)
        cancelled, finite = ~plain.unsqueeze(1), finite.unsqueeze(1)
        inner = torch.where(finite, torch.where(cancelled, inner + rest, inner), 0.0)
        vector = torch.where(finite, torch.where(cancelled, again, vector), 0.0)
        return inner, vector, torch.linalg.vector_norm(vector, dim=1)

    def step(self, used: int) -> Tensor:
        """Return the combination of the first `used` vectors that minimises each row's residual."""
        unused = torch.arange(used, device=self.columns.device) >= self.columns.unsqueeze(1)
        triangle = self.triangle[:, :used, :used] + torch.diag_embed(unused.double())
        right = (self.norm.unsqueeze(1) * self.rotation[:, :used, 0]).masked_fill(unused, 0.0)
        weights = torch.linalg.solve_triangular(triangle, right.unsqueeze(2), upper=True)
        return (weights.transpose(1, 2).to(self.vectors.dtype) @ self.vectors[:, :used]).squeeze(1)


def orthogonalised(known: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inner products with the known vectors and what is left of a vector without them."""
    # A row times a matrix: ten times as fast on a CPU as the same matrix, transposed, times a column.
    inner = vector.unsqueeze(1) @ known.transpose(1, 2)
    return inner.squeeze(1), torch.baddbmm(vector.unsqueeze(1), inner, known, alpha=-1).squeeze(1)


class _Run:
    """The live rows of one solve."""

    def __init__(self, solver: GMRES, product: Product, preconditioner: Product | None, b: Tensor) -> None:
        self.solver, self.product, self.preconditioner = solver, product, preconditioner
        self.progress = Progress(solver.rtol, solver.max_steps, b)
        # Residuals of the answers at the start of a cycle; where `current`, of the present ones before it has ended.
        self.residual = self.progress.rows.b
        self.current = torch.zeros(len(b), dtype=torch.bool, device=b.device)
        self.products = 0
        self.selectable = product.selectable and (preconditioner is None or preconditioner.selectable)

    def unfinished(self) -> bool:
        """Whether another cycle is wanted; a fixed budget is spent without asking the rows."""
        if self.solver.rtol is None:
            return self.products < self.solver.max_steps
        return bool(self.progress.open().any())

    def begin(self, start: Tensor, residual: Tensor | None) -> None:
        """Start from a guess where it is better than zero."""
        rows = self.progress.rows
        start, going = start / self.progress.scale, self.progress.open()
        if residual is None:
            residual = rows.b - start + self.product(start)
            self.products += 1
            self.progress.stepped(going, rows.norm)
        else:
            residual = residual / self.progress.scale
        norm = torch.linalg.vector_norm(residual, dim=1)
        better = going & (norm < rows.norm)
        rows.u = torch.where(better.unsqueeze(1), start, 0.0)
        self.residual = torch.where(better.unsqueeze(1), residual, rows.b)
        rows.norm = torch.where(better, norm, rows.norm)
        self.progress.prove(rows.norm, better)

    def cycle(self) -> None:
        """Build one basis, take its step, and make anew the residuals of the rows that are not finished."""
        progress = self.progress
        going = progress.open()
        length = min(self.solver.restart, self.solver.max_steps - (self.products if self.solver.rtol is None else 0))
        start = torch.where(going.unsqueeze(1), self.residual, 0.0)
        basis = _Basis.of(start, torch.where(going, progress.rows.norm, 0.0), min(length, FIRST_ROOM))
        considered = len(going)
        used = 0
        while used < length:
            j, used = used, used + 1
            if used == basis.vectors.shape[1]:
                basis.grow(length)
            estimate, going, following = basis.extend(j, self._moved(basis.vectors[:, j]), going, last=used == length)
            progress.stepped(going, estimate)
            going = following
            if self.solver.rtol is None:
                continue
            going = going & (estimate > progress.rows.tolerance)
            if self.products >= progress.max_steps:
                going = going & (progress.rows.steps < progress.max_steps)
            live = int(going.sum())  # the host waits here to know whether to go on, and with how many
            if live == 0:
                break
            if self.selectable and live <= LIVE_SHARE * len(going) and live < considered:
                basis, going = self._leave_out(basis, used, going)
                considered = live
        progress.rows.u = self._answers(basis, used, torch.ones_like(going))
        if self.unfinished():
            self._renew(progress.open() & ~self.current)
        self.current = torch.zeros_like(self.current)

    def _renew(self, mask: Tensor) -> None:
        """Make anew the residuals of the rows of a mask: what rotations carry along drifts from them by rounding."""
        rows = self.progress.rows
        u = torch.where(mask.unsqueeze(1), rows.u, 0.0)
        self.residual = torch.where(mask.unsqueeze(1), rows.b - u + self.product(u), self.residual)
        self.products += 1
        norm = torch.linalg.vector_norm(self.residual, dim=1)
        self.progress.stepped(mask, norm)
        self.progress.prove(norm, mask)

    def _moved(self, vector: Tensor) -> Tensor:
        """Return v - (I - J^T) P v, which is J^T v without a preconditioner."""
        self.products += 1
        if self.preconditioner is None:
            return self.product(vector)
        ahead = self.preconditioner(vector)
        return vector - ahead + self.product(ahead)

    def _answers(self, basis: _Basis, used: int, ended: Tensor) -> Tensor:
        """Return the answers of this cycle, and finish those of the rows `ended` that are not in doubt."""
        progress, rows = self.progress, self.progress.rows
        step = basis.step(used)
        if self.preconditioner is not None:
            step = self.preconditioner(step)
        finite = step.isfinite().all(dim=1)
        progress.end(ended & (basis.broken | ~finite) & (rows.status == Status.BUDGET), Status.NONFINITE)
        u = torch.where(finite.unsqueeze(1), rows.u + step, rows.u)
        progress.believe(rows.norm, ended, torch.linalg.vector_norm(u, dim=1))
        return u

    def _leave_out(self, basis: _Basis, used: int, going: Tensor) -> tuple[_Basis, Tensor]:
        """Let the rows go that are finished; others that have ended wait for the end of the cycle."""
        progress = self.progress
        progress.rows.u = torch.where(going.unsqueeze(1), progress.rows.u, self._answers(basis, used, ~going))
        basis.columns = torch.where(going, basis.columns, 0)  # the steps of the others are taken
        doubtful = progress.open() & ~going & ~self.current
        if possible(doubtful):
            self._renew(doubtful)
            self.current = self.current | doubtful
        index = progress.leave_out(progress.open())
        self.product = self.product.select(index)
        if self.preconditioner is not None:
            self.preconditioner = self.preconditioner.select(index)
        self.residual, self.current = select_rows((self.residual, self.current), index)
        return select_rows(basis, index), going.index_select(0, index)
