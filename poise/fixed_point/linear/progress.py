"""What every Krylov method keeps of a solve: tolerances, answers and statuses by sample, and which rows are left."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from poise.fixed_point.linear.base import Product
from poise.fixed_point.live_rows import FLOOR
from poise.fixed_point.loop import Iterate
from poise.fixed_point.solution import Status, Trace
from poise.fixed_point.tree import select_rows

# A tolerance below this many units of rounding of u is not believed without a residual made anew.
DOUBT = 4.0


@dataclass
class Rows:
    """The rows still in the batch, each solved with a right-hand side of size one."""

    b: Tensor  # (rows, features)
    size: Tensor  # (rows,), |b|
    tolerance: Tensor  # of |b - u + J^T u|
    u: Tensor  # the answer so far
    norm: Tensor  # of its residual, as the method carries it along
    proven: Tensor  # of the last residual that was made from u itself
    status: Tensor
    steps: Tensor  # products that the row took part in


# What is stored of a row that leaves.
ANSWERS = ("u", "norm", "status", "steps")


class Progress:
    """One solve of u - J^T u = b by a Krylov method."""

    def __init__(self, rtol: float | None, max_steps: int, b: Tensor) -> None:
        self.rtol, self.max_steps = rtol, max_steps
        # Squares of very small and very large float32 numbers leave its range.
        scale = b.abs().amax(dim=1, keepdim=True) if b.numel() else b[:, :1].abs()
        self.scale = torch.where((scale > 0) & scale.isfinite(), scale, 1.0)
        b = b / self.scale
        size = torch.linalg.vector_norm(b, dim=1)
        status = torch.full(size.shape, Status.BUDGET, dtype=torch.int8, device=b.device)
        status = status.masked_fill(size == 0, Status.CONVERGED).masked_fill(~size.isfinite(), Status.NONFINITE)
        self.rows = Rows(
            b=b,
            size=size,
            tolerance=(rtol or 0.0) * size,
            u=torch.zeros_like(b),
            norm=size,
            proven=size,
            status=status,
            steps=torch.zeros(size.shape, dtype=torch.int64, device=b.device),
        )
        self.index: Tensor | None = None  # which samples the rows are; None while all are here
        self.found: Rows | None = None  # the samples that have left, by sample
        self.trace: list[tuple[Tensor | None, Tensor]] = []

    def open(self) -> Tensor:
        """Return which rows are neither finished nor out of budget."""
        return (self.rows.status == Status.BUDGET) & (self.rows.steps < self.max_steps)

    def end(self, mask: Tensor, status: Status) -> None:
        """Finish the rows of a mask."""
        self.rows.status = self.rows.status.masked_fill(mask, status)

    def stepped(self, mask: Tensor, norm: Tensor) -> None:
        """Count a product for the rows of a mask, and take note of the residual norms known after it."""
        rows = self.rows
        rows.steps = rows.steps + mask
        rows.norm = torch.where(mask, norm, rows.norm)
        self.trace.append((self.index, torch.where(mask, rows.norm / rows.size, float("nan"))))

    def believe(self, norm: Tensor, mask: Tensor, largest: Tensor) -> Tensor:
        """Finish the rows of a mask whose residual norm is within the tolerance; return those that are in doubt.

        `largest`: the size of the largest vectors that the norm was carried along with. Below their rounding it goes on
        falling where the residual does not: no more is claimed, and only a residual made anew decides.
        """
        rows = self.rows
        rounding = DOUBT * torch.finfo(largest.dtype).eps * largest
        mask = mask & (rows.status == Status.BUDGET)
        within = mask & (norm <= rows.tolerance)
        rows.norm = torch.where(mask, torch.maximum(norm, rounding), rows.norm)
        trusted = rows.norm <= rows.tolerance
        self.end(within & trusted, Status.CONVERGED)
        return within & ~trusted

    def prove(self, norm: Tensor, mask: Tensor) -> None:
        """Judge the rows of a mask by the norms of residuals that were made anew from u."""
        rows = self.rows
        self.end(mask & ~norm.isfinite(), Status.NONFINITE)
        self.end(mask & (norm <= rows.tolerance), Status.CONVERGED)
        # Products round by the size of u, which exceeds that of b where J is near 1.
        size = torch.maximum(rows.size, torch.linalg.vector_norm(rows.u, dim=1))
        floor = FLOOR * torch.finfo(norm.dtype).eps * size
        still = mask & (rows.status == Status.BUDGET)
        self.end(still & (norm > 0.5 * rows.proven) & (norm <= floor), Status.STALLED)
        rows.proven = torch.where(mask, norm, rows.proven)

    def leave_out(self, keep: Tensor) -> Tensor:
        """Store the answers of the rows outside `keep`; return the index of the rows that stay."""
        gone, kept = (~keep).nonzero().squeeze(1), keep.nonzero().squeeze(1)
        self._store(gone)
        self.index = kept if self.index is None else self.index.index_select(0, kept)
        self.rows = select_rows(self.rows, kept)
        return kept

    def _store(self, gone: Tensor) -> None:
        rows = self.rows
        if self.found is None or self.index is None:
            self.found = rows  # all samples are here: what stays is overwritten when it leaves
            return
        samples = self.index[gone]
        self.found = replace(
            self.found,
            **{name: getattr(self.found, name).index_copy(0, samples, getattr(rows, name)[gone]) for name in ANSWERS},
        )

    def finish(self, product: Product) -> Iterate:
        """Return the record of all samples."""
        if self.index is not None:
            self._store(torch.arange(len(self.index), device=self.index.device))
        rows = self.rows if self.found is None else self.found
        u = rows.u * self.scale
        return Iterate(
            z=u,
            fz=u,
            status=rows.status,
            steps=rows.steps,
            residual=torch.where(rows.size > 0, rows.norm / rows.size, 0.0),
            evaluations=product.count.evaluations,
            rows=product.count.rows,
            rtol=self.rtol,
            trace=Trace(len(rows.b), tuple(self.trace)),
        )


def possible(mask: Tensor) -> bool:
    """Return whether a mask holds anywhere, or may: on an accelerator, what is rare costs less than waiting to know."""
    return mask.device.type != "cpu" or bool(mask.any())
