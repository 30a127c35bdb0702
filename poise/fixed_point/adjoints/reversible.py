"""The gradient of a reversible solve: exact for the steps taken, at memory that does not grow with them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from poise.fixed_point.adjoints.base import (
    Adjoint,
    Attachment,
    derivatives_wanted,
    detached_state,
    on_usable_rows,
)
from poise.fixed_point.adjoints.graph import start_at, unnamed_leaves
from poise.fixed_point.adjoints.reversal import Journey, Path, Reversal
from poise.fixed_point.compiled import reusable_graphs
from poise.fixed_point.dual import carried, in_dual_level, tangent_of
from poise.fixed_point.live_rows import Observer
from poise.fixed_point.loop import Iterate, iterate
from poise.fixed_point.packed import PackedCell
from poise.fixed_point.solution import Status
from poise.fixed_point.solvers import Picard, Solver
from poise.fixed_point.transforms import in_transform
from poise.fixed_point.tree import tree_leaves


@dataclass(frozen=True)
class Reversible(Adjoint):
    """Solve by z_{k+1} = (1 - b) z_{k-1} + b f(z_k) and run it backwards for the gradient of exactly these steps.

    Two successive iterates are the pair (y, z) of McCallum et al. (2025), "Reversible Deep Equilibrium Models", so that
    each of their steps is two evaluations here. The solver is `Picard(damping=b)`, b in (0, 2) but not 1, with its
    tolerance or fixed budget. Two iterates are kept, in float64 whatever the cell computes in; the backward evaluates
    the cell once more at every iterate. Samples that are finished are frozen but stay in the batch: an iterate is
    recovered only if its evaluation is repeated to the bit, and kernels for another batch size round differently.

    Inversion lets rounding grow by up to |1 - b|^-1 an evaluation (of a contraction; on average by its root), while the
    gradient that arrives there shrinks. What comes of it is measured: the backward ends at the start, which is known,
    and its miss there, times the share of the gradient that reaches it, estimates the gradient's relative error.
    `rtol`: the largest that passes in silence; `solution.backward.residual` holds each sample's. By the bound alone
    |1 - b|^-evaluations <= rtol / 2.2e-16 is safe: 32 evaluations for b = 0.5, 13 for 0.8.
    """

    rtol: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rtol > 0:
            raise ValueError(f"Reversible(rtol={self.rtol}) lets no rounding pass; pass a number above 0.")

    def find(self, cell: PackedCell, z: Tensor, solver: Solver, **options: Any) -> Iterate:
        """Solve for the pair of successive iterates, all rows to the end."""
        if type(solver) is not Picard or solver.damping == 1.0 or solver.scope != "sample":
            raise ValueError(
                f"{self} runs backwards only what it can invert, not {solver}; pass solver=Picard(damping=0.5), or "
                "another damping than 1, with scope='sample'."
            )
        if options.pop("valid", None) is not None:
            raise ValueError(
                f"{self} cannot hold back entries outside valid; mask them in the cell, or use Unrolled()."
            )
        observer: Observer | None = options.pop("observer", None)
        if observer is not None:
            options["observer"] = _observed(observer, z.dtype)
        coupled = _Coupled(**{field.name: getattr(solver, field.name) for field in fields(solver)})
        pair = torch.cat([z, z], dim=2).double()
        with torch.no_grad(), carried(False):
            found = iterate(_PairedCell.of(cell), pair, coupled, compact=False, **options)
        last, before = (half.contiguous() for half in found.z.chunk(2, dim=2))
        found = replace(
            found,
            z=last.to(z.dtype),
            fz=found.fz.chunk(2, dim=2)[0].to(z.dtype, copy=True),  # no view of the pair
            residual=found.residual.to(z.dtype),
        )
        return _Traveled(**vars(found), path=Path(z, last, before, _evaluations(found)), damping=solver.damping)

    def attach(self, attachment: Attachment) -> Any:
        """Return the solve's own output, with the gradient of its steps."""
        found = attachment.found
        assert isinstance(found, _Traveled)
        if not derivatives_wanted():
            return detached_state(attachment)

        def attach(cell: PackedCell, path: Path, fz: Tensor) -> Tensor:
            context = [leaf for _, leaf in tree_leaves(cell.context) if leaf.requires_grad]
            last = path.last.detach().to(fz.dtype)
            if in_transform() or (in_dual_level() and tangent_of(cell(last)) is not None):
                raise RuntimeError(
                    f"{self} runs backwards only, it carries no tangents forward; use Implicit() or, at no more memory "
                    "in forward mode, Unrolled()."
                )
            with reusable_graphs():
                last = start_at(last)
                image = cell(last)
            # What the cell closes over. A leaf of the context may be closed over as well.
            closed = [*attachment.parameters, *(leaf for leaf in context if leaf.is_leaf)]
            if image.requires_grad:
                closed += unnamed_leaves(get_gradient_edge(image), [last, *context])
            closed = list({id(leaf): leaf for leaf in closed}.values())
            if not any(tensor.requires_grad for tensor in (path.start, *context, *closed)):
                return fz.detach()
            ends = (get_gradient_edge(image), get_gradient_edge(last)) if image.requires_grad else None
            budget = found.evaluations if found.rtol is None else None
            journey = Journey(self.rtol, attachment.ledger, cell, found.damping, budget, path, ends, len(context))
            return Reversal.apply(journey, image, fz.detach(), path.start, *context, *closed)

        return on_usable_rows(attachment, attach, found.path)


def _observed(observer: Observer, dtype: torch.dtype) -> Observer:
    """Return an observer of pairs that passes on the last iterate of each."""

    def observe(number: int, index: Tensor | None, z: Tensor, fz: Tensor, residual: Tensor) -> None:
        last, image = (pair.chunk(2, dim=2)[0].to(dtype) for pair in (z, fz))
        observer(number, index, last, image, residual.to(dtype))

    return observe


class _Coupled(Picard):
    """The coupled iteration on pairs (z_k, z_{k-1})."""

    def step(
        self, z: Tensor, fz: Tensor, memory: Any, f: PackedCell, valid: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        last, before = z.chunk(2, dim=2)
        image = fz.chunk(2, dim=2)[0]
        return torch.cat([torch.lerp(before, image, self.damping), last], dim=2), memory


@dataclass(frozen=True, kw_only=True)
class _PairedCell(PackedCell):
    """(z_k, z_{k-1}) -> (f(z_k), z_{k-1}): the residual of a pair is that of its last iterate."""

    inner: PackedCell

    @staticmethod
    def of(cell: PackedCell) -> _PairedCell:
        layout = replace(cell.layout, widths=cell.layout.widths * 2, positions=cell.layout.positions * 2)
        return _PairedCell(**{**vars(cell), "layout": layout}, inner=cell)

    def __call__(self, z: Tensor) -> Tensor:
        last, before = z.chunk(2, dim=2)
        return torch.cat([self.inner(last.to(self.layout.dtype)).to(z.dtype), before], dim=2)


@dataclass(frozen=True, kw_only=True)
class _Traveled(Iterate):
    """An Iterate with the way back."""

    path: Path
    damping: float


def _evaluations(found: Iterate) -> Tensor:
    """Return the evaluations up to the iterate returned: the last of a sample, or the best of one that failed."""
    if found.rtol is None or not len(found.steps):
        return found.steps
    residuals = found.trace.dense().nan_to_num(nan=float("inf"))
    best = (residuals == residuals.amin(dim=0)).int().argmax(dim=0) + 1
    return torch.where(found.status == Status.CONVERGED, found.steps, best)
